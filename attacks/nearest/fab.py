"""FAB: fast adaptive boundary attack, along the boundary towards the image."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from robustloss.attacks.arguments import check_integer, check_norm
from robustloss.attacks.ball import (
    choose,
    column,
    distance,
    draw_direction,
    dual_norm,
    vanishes,
)
from robustloss.attacks.base import AttackOutput, Budgets, Needs, Norm, Queries
from robustloss.attacks.nearest.boundaries import Nearest, nearest_boundary, step_to_plane
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import margin, mispredicts, refuse_nan, wrong_classes

_FAR: dict[Norm, float] = {"linf": 0.3, "l2": 1.0}  # stands in for a radius not found yet
_FINAL_STEPS = 3
_BEYOND = 1e-3  # share by which a final step passes the zero that it estimates


@dataclass(frozen=True, kw_only=True)
class FAB:
    """Minimum-norm: x ← (1 − α)(x + η d(x)) + α (x₀ + η d(x₀)), x₀ the image.

    d(·) is the smallest step, inside the box, onto the nearest boundary of the model linearised
    at x. α = min(‖d(x)‖ / (‖d(x)‖ + ‖d(x₀)‖), alpha_max) draws the point to the image. Where x is
    adversarial, the path goes on from x₀ + β (x − x₀). At the end the segment between the image
    and its nearest adversarial one is searched by the published false-position steps, which here
    pass the zero that they estimate by 0.1 %.

    Args:
        norm: "linf" or "l2".
        steps: linearisations per image and restart, at least 1.
        restarts: paths per image, at least 1. The first starts at the image, each other one at
            random, half as far as the nearest adversarial image found before; where there is none,
            half of 0.3 (linf) or 1 (l2) away, the authors' budgets.
        alpha_max: largest share of the image, in [0, 1].
        eta: by how much a step passes its boundary, at least 1.
        beta: share of the way from the image that an adversarial point keeps, in (0, 1).
        candidates: classes whose boundary is tried, the most likely wrong ones at the image itself;
            one backward pass each and step. None tries all.

    Raises:
        ValueError: an argument is out of range.

    Source: Croce and Hein, "Minimally distorted adversarial examples with a fast adaptive boundary
        attack" (ICML 2020), algorithm 1. Steps are scaled by the gradient's largest entry, so that
        the scale of the logits changes nothing.
    """

    norm: Norm = "linf"
    steps: int = 100
    restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    candidates: int | None = 10

    name: ClassVar[str] = "fab"
    needs: ClassVar[Needs] = "logits"

    def __post_init__(self) -> None:
        check_norm(self.norm, ("linf", "l2"))
        check_integer("steps", self.steps, least=1)
        check_integer("restarts", self.restarts, least=1)
        if self.candidates is not None:
            check_integer("candidates", self.candidates, least=1)
        if not 0 <= self.alpha_max <= 1:
            raise ValueError(f"alpha_max (={self.alpha_max}) must lie in [0, 1].")
        if not 1 <= self.eta < math.inf:
            raise ValueError(f"eta (={self.eta}) must be at least 1.")
        if not 0 < self.beta < 1:
            raise ValueError(f"beta (={self.beta}) must lie between 0 and 1.")

    def passes(self, budgets: int) -> Queries:
        """Return the most: two passes forward a step, one back for each candidate (10 for None)."""
        steps = self.restarts * self.steps
        return Queries(2 + 2 * steps + _FINAL_STEPS, steps * (self.candidates or 10))

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: Budgets, noise: ImageNoise
    ) -> AttackOutput:
        """Look for each image's nearest adversarial image, whatever eps; see Attack."""
        clean = _ask(model, inputs, labels)
        adv_inputs = inputs.clone()
        radius = torch.zeros(len(inputs), device=inputs.device)
        zero_gradient = torch.zeros_like(clean.fooled)
        going = ~clean.fooled  # the others are their own nearest adversarial image
        if going.any():
            inputs, labels, draws = inputs[going], labels[going], noise.select(going)
            classes = wrong_classes(clean.logits[going], labels, self.candidates)
            best = Nearest(inputs)
            zero_gradient[going] = self._walk(model, inputs, inputs, labels, classes, best)
            for _ in range(self.restarts - 1):
                # From a random point, half as far away as the nearest adversarial image so far.
                away = draw_direction(inputs, self.norm, draws)
                half = 0.5 * torch.where(best.radius.isfinite(), best.radius, _FAR[self.norm])
                size = distance(away, self.norm).clamp(min=torch.finfo(away.dtype).tiny)
                start = (inputs + column(half / size, away) * away).clamp(0.0, 1.0)
                self._walk(model, start, inputs, labels, classes, best)
            self._shorten(model, inputs, labels, clean.margins[going], best)
            adv_inputs[going], radius[going] = best.images, best.radius
        return AttackOutput(adv_inputs.unsqueeze(0), zero_gradient, radius)

    def _walk(
        self,
        model: nn.Module,
        start: Tensor,
        inputs: Tensor,
        labels: Tensor,
        classes: Tensor,
        best: Nearest,
    ) -> Tensor:
        """Take the steps from one start; return (B,) bool: no gradient at the start itself."""
        point, zero_gradient = start, torch.zeros(0)
        for step in range(self.steps):
            leaf = point.detach().requires_grad_()
            logits = model(leaf)
            refuse_nan("logits", logits)
            normal, gap, _ = nearest_boundary(logits, leaf, labels, classes, self.norm)
            if step == 0:
                zero_gradient = vanishes(normal)
            # On the boundary, a hair's breadth across it, or nothing would move.
            hair = 1e-6 * dual_norm(normal, self.norm)
            gap = torch.where(gap >= 0, gap.maximum(hair), gap)
            # d(x) and d(x₀), both onto the boundary of the model linearised at x.
            here = step_to_plane(point, normal, gap, self.norm)
            behind = (normal * (inputs - point)).flatten(1).sum(dim=1)
            there = step_to_plane(inputs, normal, gap - behind, self.norm)
            near, far = (distance(each, self.norm).clamp(min=1e-8) for each in (here, there))
            share = column((near / (near + far)).clamp(max=self.alpha_max), inputs)
            moved = (1 - share) * (point + self.eta * here) + share * (inputs + self.eta * there)
            moved = moved.clamp(0.0, 1.0)
            if torch.equal(moved, point):
                break
            fooled = _ask(model, moved, labels).fooled
            best.take(moved, distance(moved - inputs, self.norm), fooled)
            # An adversarial point is drawn back to the image, to look for a nearer one.
            point = choose(fooled, inputs + self.beta * (moved - inputs), moved)
        return zero_gradient

    def _shorten(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, below: Tensor, best: Nearest
    ) -> None:
        """Search the segment to each nearest adversarial image for where the margin is 0.

        Equation 10 of the publication, with the margin over all wrong classes where it has the
        adversarial one's.

        Args: `below` (B,) holds the margins at the images, which are negative.
        """
        whole = best.images - inputs
        above = _ask(model, best.images, labels).margins
        low, high = torch.zeros_like(below), torch.ones_like(below)
        for _ in range(_FINAL_STEPS):
            rise = (above - below).clamp(min=torch.finfo(below.dtype).tiny)
            share = low + (high - low) * (-below / rise).clamp(0.0, 1.0)
            # Beyond the zero itself, where rounding would decide who is fooled.
            share = torch.minimum(share * (1.0 + _BEYOND), high)
            trial = (inputs + column(share.to(inputs.dtype), whole) * whole).clamp(0.0, 1.0)
            _, margins, fooled = _ask(model, trial, labels)
            best.take(trial, distance(trial - inputs, self.norm), fooled)
            high, above = torch.where(fooled, share, high), torch.where(fooled, margins, above)
            low, below = torch.where(fooled, low, share), torch.where(fooled, below, margins)


class _Answer(NamedTuple):
    """Logits (B,K), their margins (B,), positive when fooled, and the prediction's verdict (B,)."""

    logits: Tensor
    margins: Tensor
    fooled: Tensor


@torch.no_grad()
def _ask(model: nn.Module, images: Tensor, labels: Tensor) -> _Answer:
    logits = model(images)
    refuse_nan("logits", logits)
    return _Answer(logits, margin(logits, labels), mispredicts(logits, labels))
