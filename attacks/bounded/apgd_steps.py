"""How far Auto-PGD steps, and when a step stops paying: halved lengths, and sparser steps in L1."""

from typing import Protocol

import torch
from torch import Tensor

from robustloss.attacks.ball import ascent_direction, column
from robustloss.attacks.base import Norm

_CHECKPOINTS = (0.22, 0.06, 0.03)  # shares of the steps: first gap, least gap, by how much it falls
# In L1:
_GAP = 0.04  # share of the steps between two checkpoints
_FIRST = 0.2  # most of the pixels over which the first step is spread
_FEWER = 1.5  # factor of the pixels that the best change has, and of a length that is shortened
_LEAST = 0.1  # over the radius, of the length
_SETTLED = 0.95  # share of the last checkpoint's pixels from which on a change counts as no sparser


class Pace(Protocol):
    """The steps of one path of each image."""

    weight: float
    """Of the new step against the last one; 1 without momentum."""

    def observe(self, values: Tensor, best: Tensor) -> Tensor:
        """Take in a step; return (B,) bool, where the next one begins at the highest point.

        Args:
            values: (B,) the objective after the step.
            best: (B,C,H,W) the points of the highest objective so far.
        """

    def move(self, point: Tensor, gradient: Tensor) -> Tensor:
        """Return (B,C,H,W) the points after a step, which may leave box and ball.

        Args:
            point: (B,C,H,W) in [0,1].
            gradient: (B,C,H,W) there.
        """

    def select(self, mask: Tensor) -> None:
        """Go on with the images at which the mask (B,) is true."""


class StepLength:
    """Each image's step length: 2 eps, halved where the objective has stopped rising.

    Checkpoints are common to all images: after 22 % of the steps, then at gaps that shrink by 3 %
    of the steps down to 6 %. A step is halved there if, since the last checkpoint, (1) at most the
    share rho of the steps raised the objective, or (2) the highest objective stayed the same and
    the step had not been halved.

    Args:
        eps: radius of the ball, in pixel units.
        steps: steps of the run.
        rho: share of rising steps up to which the step is halved.
        values: (B,) the objective at the start.
        norm: "linf" or "l2".

    Attributes:
        now: (B,) float32 step lengths, in pixel units.

    Source: Croce and Hein (ICML 2020), section 3.2, with ≤ rho as in the authors' code. Their
        first comparison is with an objective of 0; here, as published, with the start.
    """

    weight = 0.75  # alpha in the publication

    def __init__(self, eps: float, steps: int, rho: float, values: Tensor, norm: Norm) -> None:
        self.now = torch.full_like(values, 2.0 * eps, dtype=torch.float32)
        self._norm = norm
        self._rho = rho
        self._gap, self._least, self._shrink = (max(int(p * steps), 1) for p in _CHECKPOINTS)
        self._taken = 0
        self._rises = torch.zeros_like(values)
        self._last = self._highest = self._highest_then = values
        self._halved = torch.ones_like(values, dtype=torch.bool)

    def observe(self, values: Tensor, best: Tensor) -> Tensor:
        """Take in the objective after a step; return (B,) bool, whose step was halved."""
        self._rises = self._rises + (values > self._last)
        self._last = values
        self._highest = torch.maximum(self._highest, values)
        self._taken += 1
        if self._taken < self._gap:
            return torch.zeros_like(self._halved)
        idle = ~self._halved & (self._highest <= self._highest_then)
        self._halved = idle | (self._rises <= self._rho * self._taken)
        self.now = torch.where(self._halved, self.now / 2, self.now)
        self._highest_then = self._highest
        self._rises = torch.zeros_like(values)
        self._taken = 0
        self._gap = max(self._gap - self._shrink, self._least)
        return self._halved

    def move(self, point: Tensor, gradient: Tensor) -> Tensor:
        """Return the points after a step along the unit ascent direction."""
        return point + column(self.now, point) * ascent_direction(gradient, self._norm)

    def select(self, mask: Tensor) -> None:
        """Go on with the images at which the mask (B,) is true."""
        for name in ("now", "_rises", "_last", "_highest", "_highest_then", "_halved"):
            setattr(self, name, getattr(self, name)[mask])


class SparseStep:
    """Each image's step: the same length along the pixels of the largest gradients with room.

    A checkpoint comes after every 4 % of the steps. There the number of pixels becomes that of the
    best change, over 1.5. Where that has become sparser, the length is the radius again. Elsewhere
    it is divided by 1.5, down to a tenth of the radius.

    Args:
        eps: radius of the ball, in pixel units.
        steps: steps in this ball.
        start: (B,C,H,W) where they begin.
        inputs: (B,C,H,W) the images.

    Attributes:
        length: (B,) float32 L1 norms of the steps, in pixel units.
        pixels: (B,) float32, over how many pixels each is spread, rounded down, at least 1.

    Source: Croce and Hein (ICML 2021), section 3, with the numbers of the authors' code. There a
        step also pushes at pixels without room, and their number is rounded up, so that two pixels
        always stay two.
    """

    weight = 1.0

    def __init__(self, eps: float, steps: int, start: Tensor, inputs: Tensor) -> None:
        self._eps = eps
        self._inputs = inputs
        self._last = _count(start - inputs)
        self.length = torch.full_like(self._last, eps)
        self.pixels = (self._last / _FEWER).clamp(max=_FIRST * inputs[0].numel())
        self._gap = max(int(_GAP * steps), 1)
        self._taken = 0

    def observe(self, values: Tensor, best: Tensor) -> Tensor:
        """Count a step; return (B,) bool, where the change of the best point has become sparser."""
        self._taken += 1
        if self._taken % self._gap:
            return torch.zeros_like(self._last, dtype=torch.bool)
        count = _count(best - self._inputs)
        sparser = count < _SETTLED * self._last
        shorter = (self.length / _FEWER).clamp(min=_LEAST * self._eps)
        self.length = torch.where(sparser, self._eps, shorter)
        self.pixels, self._last = count / _FEWER, count
        return sparser

    def move(self, point: Tensor, gradient: Tensor) -> Tensor:
        """Return the points after a step, as far in each of the pixels."""
        room = torch.where(gradient > 0, point < 1.0, point > 0.0)
        size = torch.where(room, gradient.abs(), 0.0).flatten(1)
        count = self.pixels.long().clamp(min=1)
        least = size.sort(dim=1, descending=True).values.gather(1, count.unsqueeze(1) - 1)
        chosen = ((size >= least) & (size > 0.0)).view_as(point)
        share = self.length / _count(chosen).clamp(min=1.0)
        return point + column(share, point) * chosen * gradient.sign()

    def select(self, mask: Tensor) -> None:
        """Go on with the images at which the mask (B,) is true."""
        for name in ("length", "pixels", "_last", "_inputs"):
            setattr(self, name, getattr(self, name)[mask])


def _count(change: Tensor) -> Tensor:
    """Return (B,) float32, how many entries of each change (B,C,H,W) are not 0."""
    return (change != 0).flatten(1).sum(dim=1).to(torch.float32)
