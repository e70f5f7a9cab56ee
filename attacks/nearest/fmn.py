"""FMN: fast minimum norm, gradient steps inside a ball that closes in on the boundary."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from robustloss.attacks.arguments import check_integer, check_norm
from robustloss.attacks.ball import (
    ascent_direction,
    column,
    distance,
    dual_norm,
    project,
    scale_by_largest,
    vanishes,
)
from robustloss.attacks.base import AttackOutput, Budgets, Needs, Norm, Queries
from robustloss.attacks.nearest.boundaries import Nearest
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import NaNWatch, Slope, differentiate, mispredicts, refuse_nan

_STEP_SIZE: dict[Norm, float] = {"linf": 10.0, "l2": 1.0, "l1": 1.0}
_LAST_STEP = 0.01  # over the first
_LAST_GAMMA = 0.001
_BEYOND = 1e-3  # share by which the radius passes the boundary that it estimates


@dataclass(frozen=True, kw_only=True)
class FMN:
    """Minimum-norm: x ← project(x + a ∇m / ‖∇m‖₂), in a ball whose radius ε adapts.

    m is the largest wrong logit minus the true one. Where x fools, ε shrinks to (1 − γ) ε, or to
    the smallest distance found if that is less; elsewhere it grows to (1 + γ) ε. Until an image is
    first fooled, ε also reaches at least to the boundary of the model linearised at x. Along a
    cosine, the step a falls to a hundredth of the first, and γ to 0.001.

    Args:
        norm: "linf", "l2" or "l1".
        steps: gradients per image, at least 1.
        step_size: first a, a Euclidean length in pixel units, positive. None stands for 10 in L-inf
            and 1 in L2 and L1.
        gamma: first γ, in (0, 1).

    Raises:
        ValueError: an argument is out of range.

    Source: Pintor et al., "Fast minimum-norm adversarial attacks through adaptive norm constraints"
        (NeurIPS 2021), algorithm 1 from the image itself, with the step sizes of the authors. Until
        an image is fooled, their ε is the distance to the linearised boundary, which falls short
        where the box stops pixels. Here ε passes that boundary by 0.1 % and grows by at least γ.
    """

    norm: Norm = "linf"
    steps: int = 100
    step_size: float | None = None
    gamma: float = 0.05

    name: ClassVar[str] = "fmn"
    needs: ClassVar[Needs] = "logits"

    def __post_init__(self) -> None:
        check_norm(self.norm)
        check_integer("steps", self.steps, least=1)
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise ValueError(f"step_size (={self.step_size}) must be positive.")
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma (={self.gamma}) must lie between 0 and 1.")

    def passes(self, budgets: int) -> Queries:
        """Return the most: the gradient at the image, and every step's point."""
        return Queries(1 + self.steps, self.steps)

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: Budgets, noise: ImageNoise
    ) -> AttackOutput:
        """Look for each image's nearest adversarial image, whatever eps; see Attack."""
        clean = differentiate(model, inputs, labels, "margin")
        refuse_nan("margin", clean.values)
        fooled, flat = mispredicts(clean.logits, labels), vanishes(clean.gradient)
        best = Nearest(inputs)
        best.take(inputs, torch.zeros_like(best.radius), fooled)
        going = ~(fooled | flat)
        if going.any():
            start = Slope(*(each[going] for each in clean))
            found = self._close_in(model, inputs[going], labels[going], start)
            best.images[going], best.radius[going] = found.images, found.radius
        return AttackOutput(best.images.unsqueeze(0), flat & ~fooled, best.radius)

    def _close_in(self, model: nn.Module, inputs: Tensor, labels: Tensor, here: Slope) -> Nearest:
        """Take the steps from the images, all of them right; `here` is the slope there."""
        watch, best = NaNWatch(), Nearest(inputs)
        first = self.step_size or _STEP_SIZE[self.norm]
        point, eps = inputs, torch.zeros_like(best.radius)
        for step in range(self.steps):
            cosine = 0.5 * (1.0 + math.cos(math.pi * step / self.steps))
            length = first * (_LAST_STEP + (1.0 - _LAST_STEP) * cosine)
            gamma = _LAST_GAMMA + (self.gamma - _LAST_GAMMA) * cosine
            fooled = mispredicts(here.logits, labels)
            # Scaled by the largest entry, since the squares of a small gradient underflow.
            largest = distance(here.gradient, "linf")
            dual = dual_norm(scale_by_largest(here.gradient), self.norm)
            ahead = torch.where(largest > 0, -here.values / largest / dual, 0.0).to(eps.dtype)
            reach = distance(point - inputs, self.norm) + (1.0 + _BEYOND) * ahead
            grown = (1.0 + gamma) * eps
            grown = torch.where(best.radius.isinf(), torch.maximum(grown, reach), grown)
            eps = torch.where(fooled, torch.minimum((1.0 - gamma) * eps, best.radius), grown)
            point = point + length * ascent_direction(here.gradient, "l2")
            point = project(point, inputs, column(eps, inputs), self.norm)
            here = differentiate(
                model, point, labels, "margin", watch, backward=step + 1 < self.steps
            )
            refuse_nan("margin", here.values, watch)
            fooled = mispredicts(here.logits, labels)
            best.take(point, distance(point - inputs, self.norm), fooled)
        watch.check()
        return best
