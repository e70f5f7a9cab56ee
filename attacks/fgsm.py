"""Fast gradient sign method."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from attacks.base import AttackOutput, ImageNoise, Needs, Norm
from attacks.objectives import OBJECTIVES, input_gradient


@dataclass(frozen=True, kw_only=True)
class FGSM:
    """clip(x + eps · sign ∇ₓ J) with sign(0) = 0: one gradient serves every eps.

    Args:
        objective: "ce", the cross-entropy of the logits, as published; "margin",
            max over j≠y of z_j − z_y, which does not saturate.

    Raises:
        ValueError: unknown objective.

    Source: Goodfellow et al., "Explaining and harnessing adversarial examples" (ICLR 2015).
    """

    objective: str = "ce"

    name: ClassVar[str] = "fgsm"
    norm: ClassVar[Norm] = "linf"
    needs: ClassVar[Needs] = "logits"

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            known = ", ".join(map(repr, OBJECTIVES))
            raise ValueError(f"objective (={self.objective!r}) must be one of {known}.")

    def __call__(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        *,
        eps: Sequence[float],
        noise: ImageNoise,
    ) -> AttackOutput:
        """Step once along the gradient's sign; see Attack."""
        gradient = input_gradient(model, inputs, labels, OBJECTIVES[self.objective])
        direction = gradient.sign()
        steps = [(inputs + budget * direction).clamp(0.0, 1.0) for budget in eps]
        return AttackOutput(
            adv_inputs=torch.stack(steps),
            zero_gradient=(gradient == 0).flatten(1).all(dim=1),
        )
