"""FAB: fast adaptive boundary attack, along the boundary towards the image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from robustloss.attacks.arguments import check_integer, check_norm
from robustloss.attacks.ball import distance
from robustloss.attacks.base import AttackError, AttackOutput, Needs, Norm, Queries
from robustloss.attacks.nearest.boundaries import (
    Boundary,
    Nearest,
    dual_norm,
    likeliest_wrong,
    nearest_boundary,
    step_to_plane,
)
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import margin

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
        check_norm(self.norm)
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
        """Two forward passes a step, one back for each candidate (10 for None), the last search."""
        steps = self.restarts * self.steps
        return Queries(2 + 2 * steps + _FINAL_STEPS, steps * (self.candidates or 10))

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
        clean = _ask(model, inputs, labels)
        adv_inputs = inputs.clone()
        radius = torch.zeros(len(inputs), device=inputs.device)
        zero_gradient = torch.zeros_like(clean.fooled)
        going = ~clean.fooled
        if going.any():
            part = inputs[going], labels[going]
            best, still = self._search(model, *part, clean.logits[going], noise.select(going))
            adv_inputs[going], radius[going] = best.images, best.radius
            zero_gradient[going] = still
        return AttackOutput(adv_inputs.unsqueeze(0), zero_gradient, radius)

    def _search(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, logits: Tensor, noise: ImageNoise
    ) -> tuple[Nearest, Tensor]:
        """All paths of correctly classified images; (B,) bool, without gradient at the image."""
        classes = likeliest_wrong(logits, labels, self.candidates)
        best = Nearest(inputs)
        still = self._path(model, inputs, inputs, labels, classes, best)
        for _ in range(self.restarts - 1):
            start = self._start(inputs, best.radius, noise)
            self._path(model, start, inputs, labels, classes, best)
        self._shorten(model, inputs, labels, margin(logits, labels), best)
        return best, still

    def _path(
        self,
        model: nn.Module,
        start: Tensor,
        inputs: Tensor,
        labels: Tensor,
        classes: Tensor,
        best: Nearest,
    ) -> Tensor:
        """One start and its steps; (B,) bool, without gradient at the start."""
        column = (-1, *[1] * (inputs.dim() - 1))
        point, still = start, torch.zeros(0)
        for step in range(self.steps):
            leaf = point.detach().requires_grad_()
            boundary = nearest_boundary(_logits(model, leaf), leaf, labels, classes, self.norm)
            if step == 0:
                still = (boundary.normal == 0).flatten(1).all(dim=1)
            moved = self._step(boundary, point, inputs)
            if torch.equal(moved, point):
                break
            fooled = _ask(model, moved, labels).fooled
            best.update(moved, distance(moved - inputs, self.norm), fooled)
            back = inputs + self.beta * (moved - inputs)
            point = torch.where(fooled.view(column), back, moved)
        return still

    def _step(self, boundary: Boundary, point: Tensor, inputs: Tensor) -> Tensor:
        """Onto the boundary and a little beyond, drawn to the image; (B,C,H,W) in the box."""
        column = (-1, *[1] * (inputs.dim() - 1))
        # On the boundary, a hair's breadth across it, or nothing would move.
        hair = 1e-6 * dual_norm(boundary.normal, self.norm)
        gap = torch.where(boundary.gap >= 0, boundary.gap.maximum(hair), boundary.gap)
        here = step_to_plane(point, boundary.normal, gap, self.norm)
        behind = (boundary.normal * (inputs - point)).flatten(1).sum(dim=1)
        there = step_to_plane(inputs, boundary.normal, gap - behind, self.norm)
        near, far = (distance(each, self.norm).clamp(min=1e-8) for each in (here, there))
        share = (near / (near + far)).clamp(max=self.alpha_max).view(column)
        onward = (1 - share) * (point + self.eta * here) + share * (inputs + self.eta * there)
        return onward.clamp(0.0, 1.0)

    def _start(self, inputs: Tensor, radius: Tensor, noise: ImageNoise) -> Tensor:
        """A random point on the sphere of half the radius found so far, brought into the box."""
        column = (-1, *[1] * (inputs.dim() - 1))
        shape = tuple(inputs.shape[1:])
        away = 2 * noise.uniform(shape) - 1 if self.norm == "linf" else noise.normal(shape)
        half = 0.5 * torch.where(radius.isfinite(), radius, _FAR[self.norm])
        size = distance(away, self.norm).clamp(min=torch.finfo(away.dtype).tiny)
        return (inputs + (half / size).view(column) * away).clamp(0.0, 1.0)

    def _shorten(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, below: Tensor, best: Nearest
    ) -> None:
        """Search the segment to each nearest adversarial image for where the margin is 0.

        `below` (B,), the margins at the images, is negative. Equation 10 of the publication, with
        the margin over all wrong classes where it has the adversarial one's.
        """
        column = (-1, *[1] * (inputs.dim() - 1))
        whole = best.images - inputs
        above = _ask(model, best.images, labels).margins
        low, high = torch.zeros_like(below), torch.ones_like(below)
        for _ in range(_FINAL_STEPS):
            rise = (above - below).clamp(min=torch.finfo(below.dtype).tiny)
            share = low + (high - low) * (-below / rise).clamp(0.0, 1.0)
            # Beyond the zero itself, where rounding would decide who is fooled.
            share = torch.minimum(share * (1.0 + _BEYOND), high)
            trial = (inputs + share.to(inputs.dtype).view(column) * whole).clamp(0.0, 1.0)
            tried = _ask(model, trial, labels)
            best.update(trial, distance(trial - inputs, self.norm), tried.fooled)
            high, above = (
                torch.where(tried.fooled, new, old)
                for new, old in ((share, high), (tried.margins, above))
            )
            low, below = (
                torch.where(tried.fooled, old, new)
                for new, old in ((share, low), (tried.margins, below))
            )


class _Answer(NamedTuple):
    """Logits (B,K), their margins (B,), positive when fooled, and the prediction's verdict (B,)."""

    logits: Tensor
    margins: Tensor
    fooled: Tensor


def _ask(model: nn.Module, images: Tensor, labels: Tensor) -> _Answer:
    with torch.no_grad():
        logits = _logits(model, images)
        # The prediction decides: where two logits tie, the first one is predicted.
        return _Answer(logits, margin(logits, labels), logits.argmax(dim=1) != labels)


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    logits = model(images)
    if logits.isnan().any():
        raise AttackError("the logits are NaN; look for an overflow in the model.")
    return logits
