"""What a gradient attack climbs: one value per image, higher is worse for the classifier."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustloss.attacks.base import AttackError, Needs
from robustloss.attacks.sealing import asked

Objective = Callable[[Tensor, Tensor], Tensor]


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

LIKELIHOOD_OBJECTIVES: dict[str, Objective] = {"nll": negative_log_likelihood}
"""Functions of class log-likelihoods (B,K) and labels (B,): the model must have `joint`."""


class NaNWatch:
    """Counts on the device the images for which something was NaN; `check` asks for the counts.

    Reading a number waits until a GPU has done all it was given: asked at every step, it runs dry.
    """

    def __init__(self) -> None:
        self._most: dict[str, tuple[Tensor, int]] = {}

    def see(self, what: str, values: Tensor) -> None:
        """Remember how many of the images of values (B,...) have a NaN, if none had more before.

        Args:
            what: "gradient" or "margin".
        """
        found = values.isnan()
        count = (found.flatten(1).any(dim=1) if found.dim() > 1 else found).sum()
        if what in self._most:
            count = torch.maximum(count, self._most[what][0])
        self._most[what] = (count, max(len(values), self._most.get(what, (count, 0))[1]))

    def check(self) -> None:
        """Refuse what was seen.

        Raises:
            AttackError: a gradient or a margin was NaN.
        """
        for what, (count, images) in self._most.items():
            if broken := int(count):
                raise AttackError(_NAN[what].format(broken=broken, images=images))


_NAN = {
    "margin": "the logits are NaN or infinite for {broken} of {images} attacked images; look for "
    "an overflow in the model.",
    "gradient": "the gradient is NaN for {broken} of {images} images; look for NaN in the model's "
    "weights, or for a square root, logarithm or division at 0.",
}


def checked_margin(logits: Tensor, labels: Tensor, watch: NaNWatch | None = None) -> Tensor:
    """Return the margin (B,), known for every image.

    Args:
        watch: raises later, when it is asked.

    Raises:
        AttackError: a margin is NaN, which would compare as "not fooled".
    """
    margins = margin(logits, labels)
    refuse_nan("margin", margins, watch)
    return margins


def refuse_nan(what: str, values: Tensor, watch: NaNWatch | None) -> None:
    """Tell the watch of NaN in values (B,...), or refuse it at once.

    Args:
        what: "gradient" or "margin".
        watch: raises later, when it is asked.

    Raises:
        AttackError: there is NaN, and no watch.
    """
    now = watch or NaNWatch()
    now.see(what, values)
    if watch is None:
        now.check()


def wrong_classes(scores: Tensor, labels: Tensor, count: int) -> list[Tensor]:
    """Return up to `count` wrong classes (B,) per image, the highest of the scores (B,K) first."""
    others = scores.detach().scatter(1, labels.unsqueeze(1), float("-inf"))
    count = min(count, scores.shape[1] - 1)
    return list(others.topk(count, dim=1).indices.unbind(dim=1))


def check_objective(name: str, known: Iterable[str]) -> None:
    """Refuse an unknown objective.

    Raises:
        ValueError: the name is not among the known.
    """
    if name not in known:
        raise ValueError(f"objective (={name!r}) must be one of {', '.join(map(repr, known))}.")


def objective_needs(name: str) -> Needs:
    """What an objective asks of the model."""
    return "likelihood" if name in LIKELIHOOD_OBJECTIVES else "logits"


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


def slope(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    objective: str,
    watch: NaNWatch | None = None,
) -> Slope:
    """Differentiate an objective, given by name, at the inputs (B,C,H,W).

    The objective is summed: a mean would divide by the batch size, and small gradients would
    underflow in large batches.

    Args:
        watch: told of NaN, in place of an error at once.

    Raises:
        AttackError: as `image_gradients`.
    """
    measure = partial(_measure, model, objective)
    found = Slope(*asked(model, ("slope", objective), measure, inputs.detach(), labels))
    refuse_nan("gradient", found.gradient, watch)
    return found


def _measure(model: nn.Module, objective: str, inputs: Tensor, labels: Tensor) -> Slope:
    point = inputs.detach().requires_grad_()
    if objective in LIKELIHOOD_OBJECTIVES:
        joint: Callable[[Tensor], tuple[Tensor, Tensor]] = model.joint  # type: ignore[assignment]
        logits, log_likelihood = joint(point)
        values = LIKELIHOOD_OBJECTIVES[objective](log_likelihood, labels)
    else:
        logits = model(point)
        values = OBJECTIVES[objective](logits, labels)
    return Slope(unchecked_gradients(values, point), values.detach(), logits.detach())


def image_gradients(
    values: Tensor, point: Tensor, *, keep_graph: bool = False, watch: NaNWatch | None = None
) -> Tensor:
    """Differentiate each image's value (B,) at its own point (B,C,H,W).

    Args:
        keep_graph: another gradient will be asked of the same pass.
        watch: told of NaN, in place of an error at once.

    Raises:
        AttackError: as `check_connected` and `check_gradient`.
    """
    gradient = unchecked_gradients(values, point, keep_graph=keep_graph)
    refuse_nan("gradient", gradient, watch)
    return gradient


def unchecked_gradients(values: Tensor, point: Tensor, *, keep_graph: bool = False) -> Tensor:
    """As `image_gradients`, but a NaN is let through, so that nothing waits for the device.

    Raises:
        AttackError: as `check_connected`.
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


def check_gradient(gradient: Tensor) -> None:
    """Refuse NaN in gradients (B,C,H,W): sign(NaN) is 0, the image would stand still.

    Raises:
        AttackError: a gradient is NaN.
    """
    refuse_nan("gradient", gradient, None)
