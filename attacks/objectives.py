"""What a gradient attack climbs: one value per image, higher is worse for the classifier."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustloss.attacks.ball import distance, dual_norm, scale_by_largest
from robustloss.attacks.base import AttackError, Norm
from robustloss.attacks.sealing import call_or_replay

Objective = Callable[..., Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B,) −log p(y), nats.

    In float32 its gradient is exactly 0 once the true logit leads by more than about 104, and its
    true-class part from about 17: an attack then stands still and the model looks robust.
    """
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B,) max over j≠y of z_j − z_y: positive means fooled, and it never saturates."""
    true = labels.unsqueeze(1)
    others = logits.scatter(1, true, float("-inf"))
    return others.amax(dim=1) - logits.gather(1, true).squeeze(1)


def logit_ratio(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B,) difference-of-logits ratio, (max over j≠y of z_j − z_y) / (z_π1 − z_π3).

    π sorts the logits downwards; the value ignores shift and scale of the logits. The published
    loss, with its sign: higher is worse for the classifier.

    Raises:
        ValueError: fewer than three classes.

    Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of
        diverse parameter-free attacks" (ICML 2020), equation 6.
    """
    if logits.shape[1] < 3:
        raise ValueError(
            f"objective (='dlr') needs at least 3 classes, the model has {logits.shape[1]}; "
            "use 'margin' (fgsm, pgd) or apgd_ce."
        )
    top = logits.topk(3, dim=1).values
    # The three best may tie; the floor keeps 0 / 0 out and is far below any real difference.
    spread = (top[:, 0] - top[:, 2]).clamp(min=torch.finfo(logits.dtype).tiny)
    return margin(logits, labels) / spread


def targeted_logit_ratio(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return (B,) (z_t − z_y) / (z_π1 − (z_π3 + z_π4) / 2): how near class t is to overtaking.

    π sorts the logits downwards; as in `logit_ratio`, shift and scale of the logits do not matter.

    Raises:
        ValueError: fewer than four classes.

    Source: Croce and Hein (ICML 2020), equation 7, the published loss with its sign.
    """
    if logits.shape[1] < 4:
        raise ValueError(
            f"targeted dlr needs at least 4 classes, the model has {logits.shape[1]}; use "
            "targets=0 (from 3 classes on) or apgd_ce."
        )
    top = logits.topk(4, dim=1).values
    spread = top[:, 0] - 0.5 * (top[:, 2] + top[:, 3])
    pair = logits.gather(1, torch.stack((targets, labels), dim=1))
    return (pair[:, 0] - pair[:, 1]) / spread.clamp(min=torch.finfo(logits.dtype).tiny)


def negative_log_likelihood(class_log_likelihood: Tensor, labels: Tensor) -> Tensor:
    """Return (B,) −log p(x | y), nats: the head's own regulariser where it is a density."""
    return -class_log_likelihood.gather(1, labels.unsqueeze(1)).squeeze(1)


OBJECTIVES: dict[str, Objective] = {"ce": cross_entropy, "margin": margin, "dlr": logit_ratio}
"""Functions of logits (B,K) and labels (B,)."""

LEAST_CLASSES = {"dlr": 3}
"""The fewest classes of the objectives that need more than two; 4 for the targeted ratio."""

TARGETED_OBJECTIVES: dict[str, Objective] = {"dlr": targeted_logit_ratio}
"""Functions of logits (B,K), labels (B,) and the wrong classes (B,) to be taken for."""

LIKELIHOOD_OBJECTIVES: dict[str, Objective] = {"nll": negative_log_likelihood}
"""Functions of class log-likelihoods (B,K) and labels (B,): the model must have `joint`."""


def evaluate_objective(
    name: str, logits: Tensor, labels: Tensor, targets: Tensor | None = None
) -> Tensor:
    """Return (B,) the values of an objective of the logits.

    Args:
        name: a key of OBJECTIVES, or with targets of TARGETED_OBJECTIVES.
        logits: (B,K).
        labels: (B,) the true classes.
        targets: (B,) the wrong classes to be taken for; None: any other than the label.
    """
    if targets is None:
        return OBJECTIVES[name](logits, labels)
    return TARGETED_OBJECTIVES[name](logits, labels, targets)


def mispredicts(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B,) bool: another class than the label is predicted.

    Not the same as a margin above 0: where two logits tie, the first one is predicted.

    Args:
        logits: (B,K).
        labels: (B,) the true classes.
    """
    return logits.argmax(dim=1) != labels


def wrong_classes(scores: Tensor, labels: Tensor, count: int | None) -> Tensor:
    """Return (B,k) wrong classes per image, the highest score first.

    Args:
        scores: (B,K), such as logits.
        labels: (B,) the true classes, which are left out.
        count: k, at most; None stands for all K - 1 wrong classes.
    """
    others = scores.detach().scatter(1, labels.unsqueeze(1), float("-inf"))
    every = scores.shape[1] - 1
    return others.topk(every if count is None else min(count, every), dim=1).indices


TARGET_ORDERS = ("logit", "distance")
MOST_CANDIDATES = 100  # wrong classes whose distance is looked at

_NAN = {
    "logits": "the logits are NaN for {broken} of {images} attacked images; look for an overflow "
    "in the model.",
    "margin": "the logits are NaN or infinite for {broken} of {images} attacked images; look for "
    "an overflow in the model.",
    "gradient": "the gradient is NaN for {broken} of {images} images; look for NaN in the model's "
    "weights, or for a square root, logarithm or division at 0.",
}


class NaNWatch:
    """Counts on the device the images with NaN, so that the counts can be read later, at once.

    Reading a number waits until a GPU has done all that it was given. An attack that read one at
    every step would let the GPU run dry.
    """

    def __init__(self) -> None:
        self._most: dict[str, tuple[Tensor, int]] = {}

    def see(self, what: str, values: Tensor) -> None:
        """Note how many images have NaN in the values, if no earlier values had more.

        Args:
            what: a key of the messages: "logits", "margin" or "gradient".
            values: (B,...).
        """
        broken = values.isnan()
        count = (broken.flatten(1).any(dim=1) if broken.dim() > 1 else broken).sum()
        most, images = self._most.get(what, (count, 0))
        self._most[what] = torch.maximum(count, most), max(len(values), images)

    def check(self) -> None:
        """Refuse NaN in anything that was seen.

        Raises:
            AttackError: there was some; the message says in what, and for how many images.
        """
        for what, (count, images) in self._most.items():
            if broken := int(count):
                raise AttackError(_NAN[what].format(broken=broken, images=images))


def refuse_nan(what: str, values: Tensor, watch: NaNWatch | None = None) -> None:
    """Refuse NaN, at once or later.

    sign(NaN) is 0 and NaN > 0 is false: an image with NaN would stand still and look robust.

    Args:
        what: "logits", "margin" or "gradient".
        values: (B,...).
        watch: notes the NaN, to be refused later; None refuses it at once.

    Raises:
        AttackError: there is NaN, and no watch.
    """
    if watch is not None:
        watch.see(what, values)
    elif values.isnan().any():
        now = NaNWatch()
        now.see(what, values)
        now.check()


def checked_margin(logits: Tensor, labels: Tensor, watch: NaNWatch | None = None) -> Tensor:
    """Return `margin` (B,), and refuse NaN as `refuse_nan` does.

    Args:
        logits: (B,K).
        labels: (B,) the true classes.
        watch: notes the NaN, to be refused later; None refuses it at once.

    Raises:
        AttackError: a margin is NaN, and there is no watch.
    """
    margins = margin(logits, labels)
    refuse_nan("margin", margins, watch)
    return margins


def choose_targets(
    logits: Tensor, point: Tensor, labels: Tensor, count: int, norm: Norm, order: str
) -> Tensor:
    """Return (B,k) the wrong classes to aim at, the most promising first.

    With many classes those of the highest logits need not be the nearest ones: a class far away may
    be reached along a steeper slope.

    Args:
        logits: (B,K) of the point, with their graph.
        point: (B,C,H,W), requires gradients.
        labels: (B,) the true classes.
        count: k, at most.
        norm: in which distances are measured.
        order: "logit", the highest logit first, which is also the largest margin z_t − z_y;
            "distance", of the `MOST_CANDIDATES` first of these the one whose boundary is nearest in
            the linearised model: (z_y − z_t) over the dual norm of its gradient.

    Raises:
        AttackError: no gradient towards the point, or a NaN gradient.

    Source: Melamed et al., "MALT powers up adversarial attacks" (NeurIPS 2024), which orders the
        100 likeliest classes by the margin over the L2 norm of its gradient, in L-inf too; the
        distance in L-inf takes the L1 norm.
    """
    if order == "logit" or count >= logits.shape[1] - 1:  # all are tried anyway
        return wrong_classes(logits, labels, count)
    classes = wrong_classes(logits, labels, max(count, MOST_CANDIDATES))
    lead = logits.gather(1, labels.unsqueeze(1)) - logits.gather(1, classes)
    distances = []
    for each in lead.unbind(dim=1):
        gradient = checked_gradients(each, point, keep_graph=True)
        slope = distance(gradient, "linf") * dual_norm(scale_by_largest(gradient), norm)
        distances.append(torch.where(slope > 0, each.detach() / slope, torch.inf))
    nearest = torch.stack(distances, dim=1).argsort(dim=1, stable=True)
    return classes.gather(1, nearest[:, :count])


class Slope(NamedTuple):
    """One pass forward and back.

    Attributes:
        gradient: (B,C,H,W), each image's gradient of its own objective.
        values: (B,) the objective.
        logits: (B,K).
    """

    gradient: Tensor
    values: Tensor
    logits: Tensor


def differentiate(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    objective: str,
    watch: NaNWatch | None = None,
    *,
    targets: Tensor | None = None,
    backward: bool = True,
) -> Slope:
    """Differentiate an objective at the inputs, in one pass forward and back.

    Args:
        model: maps images to logits; it must have `joint` for an objective of the likelihood.
        inputs: (B,C,H,W), the point.
        labels: (B,) the true classes.
        objective: a key of OBJECTIVES or LIKELIHOOD_OBJECTIVES, or with targets of
            TARGETED_OBJECTIVES.
        watch: notes a NaN gradient, to be refused later; None refuses it at once.
        targets: (B,) the wrong classes to be taken for; None: any other than the label.
        backward: whether the gradient is asked for; without it there is no pass back, and it is 0.

    Raises:
        AttackError: no gradient towards the inputs, or a NaN gradient and no watch.
    """

    def measure(inputs: Tensor, labels: Tensor, targets: Tensor | None = None) -> Slope:
        point = inputs.detach().requires_grad_(backward)
        if objective in LIKELIHOOD_OBJECTIVES:
            joint: Callable[[Tensor], tuple[Tensor, Tensor]] = model.joint  # type: ignore[assignment]
            logits, log_likelihood = joint(point)
            values = LIKELIHOOD_OBJECTIVES[objective](log_likelihood, labels)
        else:
            logits = model(point)
            values = evaluate_objective(objective, logits, labels, targets)
        gradient = image_gradients(values, point) if backward else torch.zeros_like(point)
        return Slope(gradient, values.detach(), logits.detach())

    tensors = (inputs.detach(), labels) if targets is None else (inputs.detach(), labels, targets)
    kind = ("slope", objective, targets is None, backward)
    slope = Slope(*call_or_replay(model, kind, measure, *tensors))
    refuse_nan("gradient", slope.gradient, watch)
    return slope


def checked_gradients(values: Tensor, point: Tensor, *, keep_graph: bool = False) -> Tensor:
    """Differentiate as `image_gradients` does, and refuse NaN.

    Raises:
        AttackError: as for `check_connected`, or a gradient is NaN.
    """
    gradient = image_gradients(values, point, keep_graph=keep_graph)
    refuse_nan("gradient", gradient)
    return gradient


def image_gradients(values: Tensor, point: Tensor, *, keep_graph: bool = False) -> Tensor:
    """Return (B,C,H,W) each image's gradient of its own value; a NaN is let through.

    The values are summed: a mean would divide by the batch size, and small gradients would
    underflow in large batches.

    Args:
        values: (B,), one value per image.
        point: (B,C,H,W), the images that the values were computed from.
        keep_graph: another gradient will be asked of the same pass.

    Raises:
        AttackError: as for `check_connected`.
    """
    total = values.sum()
    check_connected(total)
    (gradient,) = torch.autograd.grad(total, point, retain_graph=keep_graph, materialize_grads=True)
    return gradient


def check_connected(output: Tensor) -> None:
    """Refuse an output of the model that does not depend on the images, as far as autograd sees.

    Raises:
        AttackError: it carries no gradient.
    """
    if not output.requires_grad:
        raise AttackError(
            "the model's output carries no gradient towards the images (a detach, no_grad or numpy "
            "inside the model?); use an attack that needs no gradient."
        )
