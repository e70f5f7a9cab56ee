"""DeepFool: the nearest class boundary of the linearised model, step after step."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustloss.attacks.arguments import check_integer, check_norm
from robustloss.attacks.ball import ascent_direction, column, distance, vanishes
from robustloss.attacks.base import AttackOutput, Budgets, Needs, Norm, Queries
from robustloss.attacks.nearest.boundaries import nearest_boundary
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import mispredicts, refuse_nan, wrong_classes


@dataclass(frozen=True, kw_only=True)
class DeepFool:
    """Minimum-norm: x ← x + r to the nearest boundary of the model linearised at x, until fooled.

    Args:
        norm: "l2" or "linf".
        steps: linearisations per image, at least 1.
        overshoot: share by which the summed steps are lengthened to cross the boundary, at least 0.
        candidates: classes whose boundary is tried, the most likely wrong ones at the image itself;
            one backward pass each and step. None tries all.

    Raises:
        ValueError: an argument is out of range.

    Source: Moosavi-Dezfooli et al., "DeepFool: a simple and accurate method to fool deep neural
        networks" (CVPR 2016), algorithm 2.
    """

    norm: Norm = "l2"
    steps: int = 50
    overshoot: float = 0.02
    candidates: int | None = 10

    name: ClassVar[str] = "deepfool"
    needs: ClassVar[Needs] = "logits"

    def __post_init__(self) -> None:
        check_norm(self.norm, ("linf", "l2"))
        check_integer("steps", self.steps, least=1)
        if self.candidates is not None:
            check_integer("candidates", self.candidates, least=1)
        if not 0 <= self.overshoot < math.inf:
            raise ValueError(f"overshoot (={self.overshoot}) must be at least 0.")

    def passes(self, budgets: int) -> Queries:
        """Return the most: one pass forward a step, one back for each candidate (10 for None)."""
        return Queries(self.steps + 1, self.steps * (self.candidates or 10))

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: Budgets, noise: ImageNoise
    ) -> AttackOutput:
        """Look for each image's nearest adversarial image, whatever eps; see Attack."""
        adv_inputs = inputs.clone()
        success = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
        zero_gradient = success.clone()
        # The images still under way: their places, summed steps and the classes tried for them.
        rows = torch.arange(len(inputs), device=inputs.device)
        total = torch.zeros_like(inputs)
        classes: Tensor | None = None
        for step in range(self.steps + 1):
            point = (inputs[rows] + (1 + self.overshoot) * total).clamp(0.0, 1.0)
            point.requires_grad_()
            logits = model(point)
            refuse_nan("logits", logits)
            fooled = mispredicts(logits, labels[rows])
            adv_inputs[rows[fooled]] = point.detach()[fooled]
            success[rows[fooled]] = True
            if step == self.steps or fooled.all():
                break
            if classes is None:
                classes = wrong_classes(logits, labels, self.candidates)
            # The shortest step to a boundary: |gap| / ‖n‖_dual along the normal n.
            boundary = nearest_boundary(logits, point, labels[rows], classes, self.norm)
            # A lead of 0 is a boundary: a hair's breadth across it, or nothing would move.
            length = boundary.distance.clamp(min=1e-6).masked_fill(boundary.distance.isinf(), 0.0)
            move = column(length, point) * ascent_direction(boundary.normal, self.norm)
            still = vanishes(move)
            if step == 0:
                zero_gradient = still & ~fooled
            going = ~fooled & ~still
            if not going.any():
                break
            rows, classes, total = rows[going], classes[going], (total + move)[going]
        radius = distance(adv_inputs - inputs, self.norm).masked_fill(~success, math.inf)
        return AttackOutput(adv_inputs.unsqueeze(0), zero_gradient, radius)
