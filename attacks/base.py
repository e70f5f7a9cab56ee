"""What an attack is: one call for every way to perturb images."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, get_args

from torch import Tensor, nn

from robustloss.attacks.noise import ImageNoise

Norm = Literal["linf", "l2", "l1"]
Needs = Literal["logits", "likelihood", "score"]
NORMS: tuple[str, ...] = get_args(Norm)
NEEDS: tuple[str, ...] = get_args(Needs)

Budgets = Sequence[float]
"""Values of eps, in pixel units of the attack's norm."""


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

    The harness gives an attack a model in eval mode, with frozen parameters, that counts its
    queries; its own copies of `inputs` and `labels` on the model's device; enabled gradients; and
    eps that are all positive (0 alone when nothing else was asked for). The attack need not clip
    exactly: the harness enforces box and ball.

    Where `needs` is "likelihood" the model also has `joint(images) -> (logits,
    class_log_likelihood)` and `threshold`, and may have `features(images) -> (B,D)` and
    `class_means` (K,D), the means of the features over training images.

    Where `needs` is "score" the attack also has `score`, the name of the detection score that it
    deceives, and the model in addition `scored(images) -> (logits, goals, scores)`: the scores (B,)
    are those that the detector judges by, and goals (B,K) are what to raise to make an image look
    typical of each class. `threshold` is then that of the score.

    An attack may also have `passes(budgets) -> Queries`, the most passes per image that it takes
    for so many eps above 0. Its cost is then known before it runs. It may have `least_classes`, the
    fewest classes that a model must have: a run with fewer is refused before anything is trained.
    One of ours may have `eot`: it is then given the mean of that many calls of the model.
    """

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def norm(self) -> Norm:
        """The norm in which eps and radius are measured."""

    @property
    def needs(self) -> Needs:
        """What the attack asks of the model."""

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: Budgets, noise: ImageNoise
    ) -> AttackOutput:
        """Perturb inputs (B,C,H,W) in [0,1] away from labels (B,) for every eps."""
