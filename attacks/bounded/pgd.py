"""Projected gradient descent and its momentum form: many small steps inside the ball."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from robustloss.attacks.arguments import check_integer, check_norm
from robustloss.attacks.ball import ascent_direction, distance, project, uniform_start
from robustloss.attacks.base import AttackOutput, Needs, Norm, Queries
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import (
    LIKELIHOOD_OBJECTIVES,
    OBJECTIVES,
    NaNWatch,
    check_objective,
    checked_margin,
    objective_needs,
    slope,
)

Keep = Literal["best", "first", "last"]

STEP_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}
"""Factor of the step size after the share `done` of the steps, in [0,1)."""


class _Found(NamedTuple):
    """Images (B,C,H,W) and how wrong the model is about each: (B,) max over j≠y of z_j − z_y."""

    images: Tensor
    margins: Tensor

    def worse(self, rows: Tensor, other: "_Found") -> "_Found":
        """Image by image, the one on which the model is more wrong; this one when it is a tie.

        Args:
            rows: (b,) which of these images the others are of.
        """
        whole = len(rows) == len(self.margins)
        mine = self if whole else _Found(self.images[rows], self.margins[rows])
        better = other.margins > mine.margins
        column = better.view(-1, *[1] * (mine.images.dim() - 1))
        found = _Found(
            torch.where(column, other.images, mine.images),
            torch.where(better, other.margins, mine.margins),
        )
        if whole:
            return found
        return _Found(
            self.images.index_copy(0, rows, found.images),
            self.margins.index_copy(0, rows, found.margins),
        )


class _Path(NamedTuple):
    """The images that still climb: (b,C,H,W) each but labels and rows (b,), their place."""

    point: Tensor
    inputs: Tensor
    labels: Tensor
    velocity: Tensor
    rows: Tensor

    def of(self, which: Tensor | slice) -> "_Path":
        """Those that a mask (b,) or a slice picks."""
        return _Path(*(each[which] for each in self))


@dataclass(frozen=True, kw_only=True)
class PGD:
    """x ← project(x + a · u) along the unit ascent direction u of the objective, steps times.

    Args:
        objective: "ce", "margin", "dlr" (difference-of-logits ratio), or "nll", the negative
            log-likelihood of the true class, for models with `joint`.
        norm: "linf" or "l2".
        steps: gradients per restart, at least 1.
        step_size: a over eps, positive; None stands for 2.5 / steps in L-inf and 5 / steps in L2
            (at most 1): enough to cross the ball and turn, and in L2, where a path from a random
            start bends towards its goal along the sphere, to arrive.
        schedule: how the step shrinks, a key of STEP_SCHEDULES.
        momentum: mu in g ← mu · g + ∇ₓ J / ‖∇ₓ J‖₁, at least 0; 0 follows the gradient itself.
        random_start: begin at a uniformly drawn point of the ball; otherwise at the image.
        restarts: paths per image, at least 1; more than 1 needs the random start.
        keep: "best", the image of all paths on which the true logit trails most, so that a later
            step cannot undo a success; "first", the same, but an image is done as soon as the model
            is wrong about it: the same errors as "best" for a part of the passes, and attacked
            images that lie near the boundary, which a detector sees otherwise; "last", the last of
            each path, as other libraries return.

    Raises:
        ValueError: an argument is out of range.

    Source: Madry et al., "Towards deep learning models resistant to adversarial attacks"
        (ICLR 2018).
    """

    objective: str = "ce"
    norm: Norm = "linf"
    steps: int = 40
    step_size: float | None = None
    schedule: str = "constant"
    momentum: float = 0.0
    random_start: bool = True
    restarts: int = 1
    keep: Keep = "best"

    name: ClassVar[str] = "pgd"

    def __post_init__(self) -> None:
        check_objective(self.objective, (*OBJECTIVES, *LIKELIHOOD_OBJECTIVES))
        check_norm(self.norm)
        check_integer("steps", self.steps, least=1)
        check_integer("restarts", self.restarts, least=1)
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise ValueError(f"step_size (={self.step_size}) must be positive: a share of eps.")
        if not 0 <= self.momentum < math.inf:
            raise ValueError(f"momentum (={self.momentum}) must be at least 0.")
        if self.schedule not in STEP_SCHEDULES:
            known = ", ".join(map(repr, STEP_SCHEDULES))
            raise ValueError(f"schedule (={self.schedule!r}) must be one of {known}.")
        if self.keep not in get_args(Keep):
            raise ValueError(f"keep (={self.keep!r}) must be 'best', 'first' or 'last'.")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(
                f"restarts (={self.restarts}) would all be the same path: use random_start=True."
            )

    @property
    def needs(self) -> Needs:
        """Logits, or the likelihood for objective "nll"."""
        return objective_needs(self.objective)

    def passes(self, budgets: int) -> Queries:
        """The gradient at the image, and every path's steps and last point, if none ends early."""
        paths = budgets * self.restarts
        return Queries(1 + paths * (self.steps + 1), 1 + paths * self.steps)

    def __call__(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        *,
        eps: Sequence[float],
        noise: ImageNoise,
    ) -> AttackOutput:
        """Climb inside the ball of every eps; see Attack.

        `zero_gradient` speaks of the gradient at the image itself, whatever the start: it is then
        the same for every choice of eps.
        """
        first = slope(model, inputs, labels, self.objective).gradient
        found = []
        for budget in eps:
            if budget == 0:
                found.append(inputs)
                continue
            draws = noise.restart()
            best = _Found(inputs, torch.full((len(inputs),), -math.inf, device=inputs.device))
            for _ in range(self.restarts):
                start = (
                    uniform_start(inputs, budget, self.norm, draws) if self.random_start else inputs
                )
                watch = NaNWatch()
                best = self._climb(model, inputs, labels, budget, start, first, best, watch)
                watch.check()
            found.append(best.images)
        return AttackOutput(
            adv_inputs=torch.stack(found),
            zero_gradient=(first == 0).flatten(1).all(dim=1),
        )

    def _climb(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        eps: float,
        start: Tensor,
        first: Tensor,
        best: _Found,
        watch: NaNWatch,
    ) -> _Found:
        """The worse of best, which earlier starts found, and of what the path from start finds.

        Args:
            start: (B,C,H,W), inside the ball.
            first: (B,C,H,W), the gradient at the inputs, so that a path from there need not ask.
        """
        size = self.step_size
        if size is None:
            size = min(1.0, (2.5 if self.norm == "linf" else 5.0) / self.steps)
        path = _Path(
            start,
            inputs,
            labels,
            torch.zeros_like(inputs),
            torch.arange(len(inputs), device=inputs.device),
        )
        path = path.of(self._open(best.margins))
        for step in range(self.steps):
            if not len(path.rows):
                return best
            if step == 0 and not self.random_start:
                gradient = first[path.rows]
            else:
                gradient, _, logits = slope(model, path.point, path.labels, self.objective, watch)
                if self.keep != "last":
                    margins = checked_margin(logits, path.labels, watch)
                    best = best.worse(path.rows, _Found(path.point, margins))
                    open_ = self._open(margins)
                    path, gradient = path.of(open_), gradient[open_]
            velocity = path.velocity
            if self.momentum:
                velocity = self.momentum * velocity + _by_mean_size(gradient)
                gradient = velocity
            length = eps * size * STEP_SCHEDULES[self.schedule](step / self.steps)
            point = path.point + length * ascent_direction(gradient, self.norm)
            point = project(point, path.inputs, eps, self.norm)
            path = path._replace(point=point, velocity=velocity)
        with torch.no_grad():
            last = _Found(path.point, checked_margin(model(path.point), path.labels, watch))
        return best.worse(path.rows, last)

    def _open(self, margins: Tensor) -> Tensor | slice:
        """Which images go on; all of them as a slice, which copies nothing."""
        done = margins > 0
        return ~done if self.keep == "first" and bool(done.any()) else slice(None)


@dataclass(frozen=True, kw_only=True)
class MIFGSM(PGD):
    """Momentum iterative FGSM: PGD from the image with momentum 1 and steps of eps / steps.

    Arguments as for PGD, with the published values as defaults.

    Source: Dong et al., "Boosting adversarial attacks with momentum" (CVPR 2018).
    """

    steps: int = 10
    momentum: float = 1.0
    random_start: bool = False
    keep: Keep = "last"

    name: ClassVar[str] = "mifgsm"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size is None:
            object.__setattr__(self, "step_size", 1.0 / self.steps)


def _by_mean_size(gradient: Tensor) -> Tensor:
    """∇ / ‖∇‖₁ up to the number of pixels, which changes no direction; 0 where it is 0.

    Divided by the largest entry first: the sum of a huge gradient overflows.
    """
    column = (-1, *[1] * (gradient.dim() - 1))
    largest = distance(gradient, "linf").view(column)
    scaled = torch.where(largest > 0, gradient / largest, torch.zeros_like(gradient))
    mean = scaled.abs().flatten(1).mean(dim=1).view(column)
    return torch.where(mean > 0, scaled / mean, scaled)
