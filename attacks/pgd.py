"""Projected gradient descent and its momentum form: many small steps inside the ball."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from attacks.base import AttackOutput, ImageNoise, Needs, Norm, Queries
from attacks.geometry import ascent_direction, distance, project, uniform_start
from attacks.objectives import (
    LIKELIHOOD_OBJECTIVES,
    OBJECTIVES,
    check_objective,
    checked_margin,
    objective_needs,
    slope,
)
from attacks.validation import check_integer, check_norm

Keep = Literal["best", "last"]

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

    def worse(self, other: "_Found") -> "_Found":
        """Image by image, the one on which the model is more wrong; this one when it is a tie."""
        better = other.margins > self.margins
        column = better.view(-1, *[1] * (self.images.dim() - 1))
        return _Found(
            torch.where(column, other.images, self.images),
            torch.where(better, other.margins, self.margins),
        )


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
            step cannot undo a success; "last", the last of each path, as other libraries return.

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
            raise ValueError(f"keep (={self.keep!r}) must be 'best' or 'last'.")
        if self.restarts > 1 and not self.random_start:
            raise ValueError(
                f"restarts (={self.restarts}) would all be the same path: use random_start=True."
            )

    @property
    def needs(self) -> Needs:
        """Logits, or the likelihood for objective "nll"."""
        return objective_needs(self.objective)

    def passes(self, budgets: int) -> Queries:
        """The gradient at the image, and every path's steps and last point."""
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
            paths = (
                self._path(model, inputs, labels, budget, draws, first)
                for _ in range(self.restarts)
            )
            best = next(paths)
            for path in paths:
                best = best.worse(path)
            found.append(best.images)
        return AttackOutput(
            adv_inputs=torch.stack(found),
            zero_gradient=(first == 0).flatten(1).all(dim=1),
        )

    def _path(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        eps: float,
        noise: ImageNoise,
        first: Tensor,
    ) -> _Found:
        """One start and its steps."""
        point = uniform_start(inputs, eps, self.norm, noise) if self.random_start else inputs
        size = self.step_size
        if size is None:
            size = min(1.0, (2.5 if self.norm == "linf" else 5.0) / self.steps)
        velocity = torch.zeros_like(inputs)
        best: _Found | None = None
        for step in range(self.steps):
            if step == 0 and not self.random_start:
                gradient = first
            else:
                gradient, _, logits = slope(model, point, labels, self.objective)
                if self.keep == "best":
                    here = _Found(point, checked_margin(logits, labels))
                    best = here if best is None else best.worse(here)
            if self.momentum:
                velocity = self.momentum * velocity + _by_mean_size(gradient)
                gradient = velocity
            length = eps * size * STEP_SCHEDULES[self.schedule](step / self.steps)
            point = point + length * ascent_direction(gradient, self.norm)
            point = project(point, inputs, eps, self.norm)
        with torch.no_grad():
            last = _Found(point, checked_margin(model(point), labels))
        return last if best is None else best.worse(last)


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
