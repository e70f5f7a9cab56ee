"""The inner maximisation of adversarial training: the images of a step as an attack leaves them.

The attack runs in eval mode: batch normalisation then uses its running statistics and does not
change them, dropout is off, and no image depends on its neighbours. Only what the step learns from
moves those statistics: the attacked images, or with TRADES the clean ones and then the attacked.
So do the later releases of TRADES' code, and Pang et al., "Bag of tricks for adversarial training"
(ICLR 2021), recommend it. The code of Madry et al. and of Rice et al. attacks in train mode, where
the statistics are the batch's own and every step of the attack moves the running ones. Gradients
are those with respect to the images alone; no parameter's `.grad` is touched.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from robustloss.attacks.ball import ascent_direction, distance, project
from robustloss.attacks.base import Norm
from robustloss.attacks.objectives import OBJECTIVES
from robustloss.losses.base import LossHead, check_logits, check_terms
from robustloss.models.classifier import Classifier
from robustloss.seeding import derive_seed
from robustloss.spec.training import AdversarialSpec
from robustloss.training.precision import autocast
from robustloss.training.processes import Group

TRADES_START = 1e-3  # pixel units, standard deviation: the divergence has no slope at the image


class Adversary:
    """Attacks the images of a training step.

    `prepare` draws the random start and sets eps, outside of the step, so that the step itself
    reads tensors only and can be captured and replayed on a GPU.

    Args:
        spec: Table train.adversarial.
        model: What is trained, and attacked.
        seed: Of the cell; with the number of the step it decides the random start.
        device: Where.
        precision: Arithmetic of the backbone, as in the training.
        group: The processes that share a batch; none by default.

    Raises:
        ValueError: A pair loss, which has no logits while it trains, under an objective or a
            choice of weights that needs some.
    """

    def __init__(
        self,
        spec: AdversarialSpec,
        model: Classifier,
        *,
        seed: int,
        device: torch.device,
        precision: str,
        group: Group | None = None,
    ) -> None:
        check_logits_needed(spec, model.head)
        self.spec, self.model, self.seed, self.precision = spec, model, seed, precision
        self.group = group or Group()
        self.random = torch.Generator(device)  # the device's own: a copied draw makes a GPU wait
        self.eps = torch.zeros((), device=device)
        self.offset = torch.empty(0, device=device)  # (B,C,H,W), the start in units of its reach
        self.own = slice(None)  # of the batch, the images attacked here
        self.still = torch.zeros((), device=device)  # images without a first direction, last step

    @property
    def learns_both(self) -> bool:
        """Whether the step learns the clean images and holds the attacked ones to them."""
        return self.spec.attack == "trades"

    def active(self, progress: float) -> bool:
        """Return whether the step at this share of training, in [0,1), learns attacked images."""
        return progress >= self.spec.start

    def phase(self, progress: float) -> tuple[float, ...]:
        """Return what decides in Python: steps of one phase can replay each other."""
        return (float(self.active(progress)),)

    def eps_at(self, progress: float) -> float:
        """Return the budget at a share of training; it rises linearly over `ramp`, from `start`."""
        if self.spec.ramp == 0:
            return self.spec.eps
        return self.spec.eps * min(1.0, max(0.0, progress - self.spec.start) / self.spec.ramp)

    def prepare(
        self, shape: tuple[int, ...], step: int, progress: float, own: slice = slice(None)
    ) -> None:
        """Draw where the attack on a batch starts, and set its budget.

        Args:
            shape: (B,C,H,W) of the whole batch.
            step: Number of the step; with the cell's seed it decides the draw.
            progress: In [0,1).
            own: Which of the batch's images will be attacked here.
        """
        if not self.active(progress):
            return
        self.own = own
        self.random.manual_seed(derive_seed("adversarial", self.seed, step))
        if tuple(self.offset.shape) != tuple(shape):
            self.offset = torch.empty(shape, device=self.offset.device)
        if self.spec.attack == "trades":
            self.offset.normal_(generator=self.random)
        elif self.spec.norm == "linf":
            self.offset.uniform_(-1.0, 1.0, generator=self.random)
        else:  # uniform in the ball: a direction, and a radius whose power D is uniform
            self.offset.normal_(generator=self.random)
            column = torch.empty((len(self.offset), 1, 1, 1), device=self.offset.device)
            radius = column.uniform_(generator=self.random) ** (1 / self.offset[0].numel())
            self.offset.mul_(radius / distance(self.offset, "l2").view(-1, 1, 1, 1))
        self.eps.fill_(self.eps_at(progress))

    def __call__(self, images: Tensor, labels: Tensor, progress: float) -> Tensor:
        """Attack this process's images; `prepare` came before.

        Args:
            images: (b,C,H,W) in [0,1], those of the batch that `prepare` named as attacked here.
            labels: (B,) of the whole batch.
            progress: In [0,1).

        Returns:
            (b,C,H,W), inside box and ball, detached; the model is in train mode.
        """
        self.model.eval()
        reach = TRADES_START if self.spec.attack == "trades" else self.eps
        attacked, first = climb(
            self._objective(images, labels, progress),
            images,
            (images + reach * self.offset[self.own]).contiguous(memory_format=torch.channels_last),
            eps=self.eps,
            steps=self.spec.steps or 1,
            step_size=self.spec.step_size or 1.0,
            norm=self.spec.norm,
        )
        self.still = (first == 0).flatten(1).all(1).sum()
        self.model.train()
        return attacked

    def divergence(self, clean: Tensor, attacked: Tensor) -> Tensor:
        """Return TRADES' term of the loss, beta included.

        Args:
            clean: (B,D) features of the clean images.
            attacked: (B,D) features of the attacked images.

        Returns:
            (B,) nats.
        """
        log_clean, log_attacked = (
            F.log_softmax(self._logits(features), 1) for features in (clean, attacked)
        )
        return (self.spec.beta or 0.0) * kl_divergence(log_clean, log_attacked)

    def _features(self, images: Tensor) -> Tensor:
        with autocast(images.device, self.precision):
            return self.model.features(images)

    def _logits(self, features: Tensor) -> Tensor:
        head = self.model.head
        return check_logits(head.logits(features), features, head.num_classes)

    def _objective(
        self, images: Tensor, labels: Tensor, progress: float
    ) -> Callable[[Tensor], Tensor]:
        """Return what is climbed: a function of points (b,C,H,W) with values (b,).

        A loss may compare the images of a batch, so it gets those of the other processes too and
        gives (B,) values. Their gradient at the points here is the same as in one process.
        """
        if self.spec.attack == "trades":
            with torch.no_grad():
                log_clean = F.log_softmax(self._logits(self._features(images)), 1)

            def divergence(points: Tensor) -> Tensor:
                log_posterior = F.log_softmax(self._logits(self._features(points)), 1)
                return kl_divergence(log_clean, log_posterior)

            return divergence
        if self.spec.objective == "loss":

            def loss(points: Tensor) -> Tensor:
                features = self.group.gather(self._features(points), len(labels))
                terms = self.model.head.loss(features, labels, progress=progress)
                return sum(check_terms(terms, features))  # type: ignore[return-value]

            return loss
        values = OBJECTIVES[self.spec.objective or "ce"]
        own = labels[self.own]
        return lambda points: values(self._logits(self._features(points)), own)


def climb(
    objective: Callable[[Tensor], Tensor],
    images: Tensor,
    start: Tensor,
    *,
    eps: Tensor | float,
    steps: int,
    step_size: float,
    norm: Norm,
) -> tuple[Tensor, Tensor]:
    """Climb an objective from a start, x ← project(x + step_size · eps · u), steps times.

    Args:
        objective: Points (B,C,H,W) to values (B,), whose sum is differentiated.
        images: (B,C,H,W) in [0,1], the middle of box and ball.
        start: (B,C,H,W), first brought into box and ball.
        eps: Radius of the ball, a number or a tensor ().
        steps: Gradients.
        step_size: Length of a step in units of eps.
        norm: "linf", where u is the gradient's sign, or "l2", where it is the unit gradient.

    Returns:
        The last points, detached, and the gradient at the start, both (B,C,H,W).

    Source: Madry et al., "Towards deep learning models resistant to adversarial attacks" (ICLR
        2018); with one step, Wong et al., "Fast is better than free" (ICLR 2020).
    """
    point, first = project(start, images, eps, norm), None
    for _ in range(steps):
        point = point.detach().requires_grad_()
        # Autograd follows only what leads to the point: no parameter's gradient is computed.
        (gradient,) = torch.autograd.grad(objective(point).sum(), point)
        first = gradient if first is None else first
        point = point.detach() + step_size * eps * ascent_direction(gradient, norm)
        point = project(point, images, eps, norm)
    assert first is not None
    return point.detach(), first


def kl_divergence(log_clean: Tensor, log_attacked: Tensor) -> Tensor:
    """Return KL(clean ‖ attacked) in nats, (B,).

    Args:
        log_clean: (B,K) log-posteriors of the clean images.
        log_attacked: (B,K) log-posteriors of the attacked images.

    Source: Zhang et al., "Theoretically principled trade-off between robustness and accuracy"
        (ICML 2019), as in their code: posteriors of the images and of the attacked images.
    """
    return F.kl_div(log_attacked, log_clean, reduction="none", log_target=True).sum(1)


def check_logits_needed(spec: AdversarialSpec, head: LossHead) -> None:
    """Refuse an adversarial training that needs logits of a loss that has none while it trains.

    Args:
        spec: Table train.adversarial.
        head: The loss.

    Raises:
        ValueError: The message names the key that needs logits, and what to write instead.
    """
    if head.logits_while_training:
        return
    needs = {  # by key: whether it needs logits, what for, and what to write instead
        "attack": (
            spec.attack == "trades",
            "compares posteriors, which a pair loss does not have",
            'attack = "pgd", objective = "loss"',
        ),
        "objective": (
            spec.objective != "loss",
            "climbs logits, which a pair loss does not have",
            'objective = "loss"',
        ),
        "select": (
            spec.select == "robust",
            "counts errors while training, which a pair loss does not make",
            'select = "last"',
        ),
    }
    for key, (needed, purpose, remedy) in needs.items():
        if needed:
            raise ValueError(
                f'train.adversarial.{key} (="{getattr(spec, key)}") {purpose} before its training '
                f"is over. Write {remedy}."
            )
