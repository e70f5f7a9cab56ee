"""Carlini and Wagner's minimum-L2 attack."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustloss.attacks.arguments import check_integer
from robustloss.attacks.ball import distance
from robustloss.attacks.base import AttackError, AttackOutput, Needs, Norm, Queries
from robustloss.attacks.nearest.boundaries import Nearest
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import margin, slope

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
        """Every step of every search, and the points where they end."""
        steps = self.search_steps * self.steps
        return Queries(1 + steps + self.search_steps, 1 + steps)

    def __call__(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        *,
        eps: Sequence[float],
        noise: ImageNoise,
    ) -> AttackOutput:
        """Look for each image's nearest adversarial image, whatever eps; see Attack."""
        first = slope(model, inputs, labels, "margin")
        zero_gradient = (first.gradient == 0).flatten(1).all(dim=1)
        weight = _linear_weight(first.values.float(), first.gradient)
        low, high = torch.zeros_like(weight), torch.full_like(weight, math.inf)
        best = Nearest(inputs)
        for _ in range(self.search_steps):
            found = self._descend(model, inputs, labels, weight, best)
            high = torch.where(found, weight, high)
            low = torch.where(found, low, weight)
            weight = torch.where(
                high.isinf(),
                low * _FACTOR,
                torch.where(low == 0, high / _FACTOR, (low * high).sqrt()),
            )
        return AttackOutput(best.images.unsqueeze(0), zero_gradient, best.radius)

    def _descend(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, weight: Tensor, best: Nearest
    ) -> Tensor:
        """One value of c per image, from the image itself: (B,) bool, fooled at some step."""
        point = inputs.clone().requires_grad_()
        adam = torch.optim.Adam([point], lr=self.learning_rate)
        found = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
        for step in range(self.steps):
            logits = model(point)
            found |= self._judge(logits.detach(), point.detach(), inputs, labels, best)
            size = (point - inputs).flatten(1).square().sum(dim=1)
            lead = (self.confidence - margin(logits, labels)).clamp(min=0.0)
            (point.grad,) = torch.autograd.grad((size + weight * lead).sum(), point)
            adam.param_groups[0]["lr"] = (
                self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * step / self.steps))
            )
            adam.step()
            with torch.no_grad():
                point.clamp_(0.0, 1.0)
        with torch.no_grad():
            found |= self._judge(model(point), point.detach(), inputs, labels, best)
        return found

    def _judge(
        self, logits: Tensor, point: Tensor, inputs: Tensor, labels: Tensor, best: Nearest
    ) -> Tensor:
        if logits.isnan().any():
            raise AttackError("the logits are NaN; look for an overflow in the model.")
        # The prediction too: where two logits tie, the first one is predicted.
        fooled = logits.argmax(dim=1) != labels
        fooled &= margin(logits, labels) >= self.confidence
        best.update(point, distance(point - inputs, "l2"), fooled)
        return fooled


def _linear_weight(margins: Tensor, gradient: Tensor) -> Tensor:
    """(B,) c at which a linear model's minimum lies on its boundary; 1 where there is no slope.

    There 2 ‖δ‖ = c ‖∇m‖ and ‖δ‖ = |m| / ‖∇m‖. Kept inside what float32 can search around.
    """
    largest = distance(gradient, "linf")
    column = (-1, *[1] * (gradient.dim() - 1))
    tiny = torch.finfo(torch.float32).tiny
    size = distance(gradient / largest.clamp(min=tiny).view(column), "l2").clamp(min=1.0)
    weight = 2.0 * (margins.abs() / largest / size) / largest / size
    known = (largest > 0) & weight.isfinite() & (weight > 0)
    return torch.where(known, weight, torch.ones_like(weight)).clamp(1e-20, 1e20)
