"""Fast gradient sign method, and its L2 and L1 forms."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from robustloss.attacks.arguments import check_choice, check_integer, check_norm
from robustloss.attacks.ball import ascend, vanishes
from robustloss.attacks.base import AttackOutput, Budgets, Needs, Norm, Queries
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import LEAST_CLASSES, OBJECTIVES, differentiate


@dataclass(frozen=True, kw_only=True)
class FGSM:
    """clip(x + eps · u) with u = sign ∇ₓ J, sign(0) = 0: one gradient serves every eps.

    In L2, the fast gradient method: u = ∇ₓ J / ‖∇ₓ J‖₂. In L1, one pixel after the other
    goes to 0 or 1, that of the largest gradient first, until eps is spent.

    Args:
        objective: "ce", the cross-entropy of the logits, as published; "margin",
            max over j≠y of z_j − z_y, which does not saturate; "dlr", that over the spread of
            the three largest logits.
        norm: "linf", as published, "l2" or "l1".
        eot: calls of the model whose mean posterior is attacked, at least 1. More than 1 is for a
            model that draws at random; all images of the run are then judged by such a mean.

    Raises:
        ValueError: an argument is out of range.

    Source: Goodfellow et al., "Explaining and harnessing adversarial examples" (ICLR 2015).
    """

    objective: str = "ce"
    norm: Norm = "linf"
    eot: int = 1

    name: ClassVar[str] = "fgsm"
    needs: ClassVar[Needs] = "logits"

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, OBJECTIVES)
        check_norm(self.norm)
        check_integer("eot", self.eot, least=1)

    @property
    def least_classes(self) -> int:
        """The fewest classes of a model that the objective can tell apart."""
        return LEAST_CLASSES.get(self.objective, 2)

    def passes(self, budgets: int) -> Queries:
        """Return one gradient, however many eps there are."""
        return Queries(self.eot, self.eot)

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: Budgets, noise: ImageNoise
    ) -> AttackOutput:
        """Step once along the gradient; see Attack."""
        gradient = differentiate(model, inputs, labels, self.objective).gradient
        adv_inputs = inputs.new_empty((len(eps), *inputs.shape))
        for row, budget in zip(adv_inputs, eps, strict=True):  # no second copy of all of them
            row.copy_(ascend(inputs, gradient, budget, self.norm).clamp_(0.0, 1.0))
        return AttackOutput(adv_inputs, zero_gradient=vanishes(gradient))
