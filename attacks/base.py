"""What an attack is: one call for every way to perturb images."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, get_args

from torch import Tensor, nn

from robustloss.attacks.noise import ImageNoise

__all__ = [
    "NEEDS",
    "NORMS",
    "Attack",
    "AttackError",
    "AttackOutput",
    "ImageNoise",
    "Needs",
    "Norm",
    "Queries",
]

Norm = Literal["linf", "l2"]
Needs = Literal["logits", "likelihood"]
NORMS: tuple[str, ...] = get_args(Norm)
NEEDS: tuple[str, ...] = get_args(Needs)


class AttackError(ValueError):
    """An attack broke its contract: wrong shape, NaN, a changed model, no gradient to follow."""


class AttackOutput(NamedTuple):
    """What an attack returns for a batch.

    Attributes:
        adv_inputs: (E,B,C,H,W) float32, in the order of eps. A minimum-norm attack returns its
            nearest adversarial image whatever its distance, once, (1,B,C,H,W), or for every eps.
        zero_gradient: (B,) bool, the objective's first input gradient is exactly 0; or None.
        radius: (B,) float, the distance to that nearest image, inf where none was found;
            None unless the attack is a minimum-norm one.
    """

    adv_inputs: Tensor
    zero_gradient: Tensor | None = None
    radius: Tensor | None = None


class Queries(NamedTuple):
    """Images sent forward through a model, and gradients taken back."""

    forward: int
    backward: int


class Attack(Protocol):
    """A way to perturb images. Own state is fixed at construction; randomness comes in as `noise`.

    An attack may assume that the model is in eval mode with frozen parameters and counts its
    queries, that gradients are enabled, that `inputs` and `labels` are its own copies on the
    model's device, and that every eps is positive (0 alone when nothing else was asked for). It
    need not clip exactly: the harness enforces box and ball. Where `needs` is "likelihood" the
    model also has `joint(images) -> (logits, class_log_likelihood)` and `threshold`, and may have
    `features(images) -> (B,D)` and `class_means` (K,D), their means over training images.

    An attack may also have `passes(budgets) -> Queries`, the passes per image that so many eps
    above 0 take at most: what it costs is then known without running it.
    """

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def norm(self) -> Norm:
        """In which eps and radius are measured."""

    @property
    def needs(self) -> Needs:
        """What the attack asks of the model."""

    def __call__(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        *,
        eps: Sequence[float],
        noise: ImageNoise,
    ) -> AttackOutput:
        """Perturb inputs (B,C,H,W) in [0,1] away from labels (B,) for every eps."""
