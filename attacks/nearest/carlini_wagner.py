"""Carlini and Wagner's minimum-L2 attack."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustloss.attacks.arguments import check_integer
from robustloss.attacks.ball import column, distance, vanishes
from robustloss.attacks.base import AttackOutput, Budgets, Needs, Norm, Queries
from robustloss.attacks.nearest.boundaries import Nearest
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import differentiate, margin, mispredicts, refuse_nan

_FACTOR = 10.0  # by which c moves while success, or failure, is all that was seen


@dataclass(frozen=True, kw_only=True)
class CarliniWagner:
    """Minimum-norm: least ‖δ‖² + c · max(κ − m(x + δ), 0) with a binary search for c per image.

    m is the largest wrong logit minus the true one. Three departures from the publication:
    pixels are clipped after each step, where the published change of variables (tanh) holds those
    that start at 0 or 1 in place; the search starts at the c that a linear model would need,
    2 |m| / ‖∇m‖², so that the scale of the logits changes nothing; and the learning rate falls to
    0 along a cosine.

    Args:
        confidence: kappa, by how much a wrong logit must lead, in units of the logits; at least 0.
        steps: gradients per value of c, at least 1.
        search_steps: values of c per image, at least 1.
        learning_rate: of Adam, in pixel units, positive.

    Raises:
        ValueError: an argument is out of range.

    Source: Carlini and Wagner, "Towards evaluating the robustness of neural networks" (IEEE S&P
        2017), section VI.A.
    """

    confidence: float = 0.0
    steps: int = 1000
    search_steps: int = 9
    learning_rate: float = 0.01

    name: ClassVar[str] = "cw"
    norm: ClassVar[Norm] = "l2"
    needs: ClassVar[Needs] = "logits"

    def __post_init__(self) -> None:
        check_integer("steps", self.steps, least=1)
        check_integer("search_steps", self.search_steps, least=1)
        if not 0 <= self.confidence < math.inf:
            raise ValueError(f"confidence (={self.confidence}) must be at least 0.")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate (={self.learning_rate}) must be positive.")

    def passes(self, budgets: int) -> Queries:
        """Return the first gradient, every step of every search, and the points where they end."""
        steps = self.search_steps * self.steps
        return Queries(1 + steps + self.search_steps, 1 + steps)

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: Budgets, noise: ImageNoise
    ) -> AttackOutput:
        """Look for each image's nearest adversarial image, whatever eps; see Attack."""
        gradient, margins, _ = differentiate(model, inputs, labels, "margin")
        weight = _linear_weight(margins.float(), gradient)
        low, high = torch.zeros_like(weight), torch.full_like(weight, math.inf)
        best = Nearest(inputs)
        for _ in range(self.search_steps):
            # One value of c per image, from the image itself.
            point = inputs.clone().requires_grad_()
            adam = torch.optim.Adam([point], lr=self.learning_rate)
            success = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
            for step in range(self.steps + 1):
                # Nothing follows the last point: its gradient is not asked for.
                with torch.set_grad_enabled(step < self.steps):
                    logits = model(point)
                refuse_nan("logits", logits)
                lead = margin(logits, labels)
                fooled = mispredicts(logits, labels) & (lead.detach() >= self.confidence)
                best.take(point.detach(), distance((point - inputs).detach(), "l2"), fooled)
                success |= fooled
                if step == self.steps:
                    break
                size = (point - inputs).flatten(1).square().sum(dim=1)
                penalty = (self.confidence - lead).clamp(min=0.0)
                (point.grad,) = torch.autograd.grad((size + weight * penalty).sum(), point)
                cosine = 0.5 * (1.0 + math.cos(math.pi * step / self.steps))
                adam.param_groups[0]["lr"] = self.learning_rate * cosine
                adam.step()
                with torch.no_grad():
                    point.clamp_(0.0, 1.0)
            # Binary search for c between the largest that failed and the smallest that fooled.
            high, low = torch.where(success, weight, high), torch.where(success, low, weight)
            down = torch.where(low == 0, high / _FACTOR, (low * high).sqrt())
            weight = torch.where(high.isinf(), low * _FACTOR, down)
        return AttackOutput(best.images.unsqueeze(0), vanishes(gradient), best.radius)


def _linear_weight(margins: Tensor, gradient: Tensor) -> Tensor:
    """Return (B,) c at which a linear model's minimum lies on its boundary; 1 without any slope.

    There 2 ‖δ‖ = c ‖∇m‖ and ‖δ‖ = |m| / ‖∇m‖. Kept inside what float32 can search around.
    """
    largest = distance(gradient, "linf")
    tiny = torch.finfo(torch.float32).tiny
    size = distance(gradient / column(largest.clamp(min=tiny), gradient), "l2").clamp(min=1.0)
    weight = 2.0 * (margins.abs() / largest / size) / largest / size
    known = (largest > 0) & weight.isfinite() & (weight > 0)
    return torch.where(known, weight, torch.ones_like(weight)).clamp(1e-20, 1e20)
