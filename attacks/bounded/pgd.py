"""Projected gradient descent and its momentum form: many small steps inside the ball."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from robustloss.attacks import ball, objectives
from robustloss.attacks.arguments import check_choice, check_integer, check_norm, check_paths
from robustloss.attacks.base import AttackOutput, Budgets, Needs, Norm, Queries
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import LEAST_CLASSES, LIKELIHOOD_OBJECTIVES, OBJECTIVES

Keep = Literal["best", "first", "last"]

STEP_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}
"""Factor of the step size after the share `done` of the steps, in [0,1)."""


class _Worst(NamedTuple):
    """Images (B,C,H,W) and how wrong the model is about each: (B,) max over j≠y of z_j − z_y."""

    images: Tensor
    margins: Tensor

    def take(self, rows: Tensor, tried: "_Worst") -> "_Worst":
        """Return these with every tried image on which the model is more wrong; a tie changes none.

        Args:
            rows: (b,) the places of the tried images among these.
            tried: (b,...) each.
        """
        if len(rows) == len(self.margins):  # all of them, in order: nothing need be copied
            return ball.choose_all(tried.margins > self.margins, tried, self)
        mine = _Worst(*(each[rows] for each in self))
        images, margins = ball.choose_all(tried.margins > mine.margins, tried, mine)
        return _Worst(
            self.images.index_copy(0, rows, images), self.margins.index_copy(0, rows, margins)
        )


@dataclass(frozen=True, kw_only=True)
class PGD:
    """x ← project(x + a · u) along the unit ascent direction u of the objective, steps times.

    Args:
        objective: "ce", "margin", "dlr" (difference-of-logits ratio), or "nll", the negative
            log-likelihood of the true class, for models with `joint`.
        norm: "linf", "l2" or "l1".
        steps: gradients per restart, at least 1.
        step_size: a over eps, positive; None stands for 2.5 / steps in L-inf and 5 / steps in L2
            and L1 (at most 1): enough to cross the ball and turn, and in L2, where a path from a
            random start bends towards its goal along the sphere, to arrive.
        schedule: how the step shrinks: "constant", "linear" or "cosine" (both to 0).
        momentum: mu in g ← mu · g + ∇ₓ J / ‖∇ₓ J‖₁, at least 0; 0 follows the gradient itself.
        random_start: begin at a uniformly drawn point of the ball; otherwise at the image.
        restarts: paths per image, at least 1; more than 1 needs the random start.
        keep: "best", the image of all paths on which the true logit trails most, so that a later
            step cannot undo a success; "first", the same, but an image is done as soon as the model
            is wrong about it: the same errors as "best" for a part of the passes, and attacked
            images that lie near the boundary, which a detector sees otherwise; "last", the last of
            each path, as other libraries return.
        eot: calls of the model whose mean posterior is attacked, at least 1. More than 1 is for a
            model that draws at random; all images of the run are then judged by such a mean.

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
    eot: int = 1

    name: ClassVar[str] = "pgd"

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, (*OBJECTIVES, *LIKELIHOOD_OBJECTIVES))
        check_norm(self.norm)
        check_paths(self.steps, self.step_size, self.restarts, random_start=self.random_start)
        if not 0 <= self.momentum < math.inf:
            raise ValueError(f"momentum (={self.momentum}) must be at least 0.")
        check_choice("schedule", self.schedule, STEP_SCHEDULES)
        check_choice("keep", self.keep, get_args(Keep))
        check_integer("eot", self.eot, least=1)

    @property
    def needs(self) -> Needs:
        """What the objective asks of the model: the likelihood for "nll"."""
        return "likelihood" if self.objective in LIKELIHOOD_OBJECTIVES else "logits"

    @property
    def least_classes(self) -> int:
        """The fewest classes of a model that the objective can tell apart."""
        return LEAST_CLASSES.get(self.objective, 2)

    def passes(self, budgets: int) -> Queries:
        """Return the most: the gradient at the image, every path's steps and last point."""
        paths, eot = budgets * self.restarts, self.eot
        return Queries(eot * (1 + paths * (self.steps + 1)), eot * (1 + paths * self.steps))

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: Budgets, noise: ImageNoise
    ) -> AttackOutput:
        """Climb inside the ball of every eps; see Attack.

        `zero_gradient` speaks of the gradient at the image itself, whatever the start: it is then
        the same for every choice of eps.
        """
        first = objectives.differentiate(model, inputs, labels, self.objective).gradient
        unknown = torch.full((len(inputs),), -math.inf, device=inputs.device)
        adv_inputs = []
        for budget in eps:
            worst, draws = _Worst(inputs, unknown), noise.restart()
            for _ in range(self.restarts if budget > 0 else 0):
                worst = self._climb(model, inputs, labels, budget, draws, first, worst)
            adv_inputs.append(worst.images)
        return AttackOutput(torch.stack(adv_inputs), zero_gradient=ball.vanishes(first))

    def _climb(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        eps: float,
        noise: ImageNoise,
        first: Tensor,
        worst: _Worst,
    ) -> _Worst:
        """Return, image by image, the worse of what earlier paths found and of one more path.

        Args: `first` is the gradient at the inputs, so that a path from there need not ask for it.
        """
        size = self.step_size or min(1.0, (2.5 if self.norm == "linf" else 5.0) / self.steps)
        watch = objectives.NaNWatch()
        point = ball.uniform_start(inputs, eps, self.norm, noise) if self.random_start else inputs
        velocity, margins = torch.zeros_like(inputs), worst.margins
        rows = torch.arange(len(inputs), device=inputs.device)
        for step in range(self.steps + 1):
            if self.keep == "first" and (margins > 0).any():
                # From here on all is about the images that are not fooled yet: `rows` of `worst`.
                going = ~(margins > 0)
                rows, point, inputs, labels, velocity, margins = (
                    each[going] for each in (rows, point, inputs, labels, velocity, margins)
                )
            if step == self.steps or len(rows) == 0:
                break
            if step == 0 and not self.random_start:
                gradient = first[rows]
            else:
                gradient, _, logits = objectives.differentiate(
                    model, point, labels, self.objective, watch
                )
                if self.keep != "last":
                    margins = objectives.checked_margin(logits, labels, watch)
                    worst = worst.take(rows, _Worst(point, margins))
            if self.momentum:
                gradient = velocity = self.momentum * velocity + _scale_to_mean(gradient)
            length = eps * size * STEP_SCHEDULES[self.schedule](step / self.steps)
            point = ball.ascend(point, gradient, length, self.norm)
            point = ball.project(point, inputs, eps, self.norm)
        if len(rows) > 0:
            with torch.no_grad():  # nothing follows the last point: its gradient is not asked for
                margins = objectives.checked_margin(model(point), labels, watch)
            worst = worst.take(rows, _Worst(point, margins))
        watch.check()
        return worst


@dataclass(frozen=True, kw_only=True)
class MIFGSM(PGD):
    """Momentum iterative FGSM: PGD from the image with momentum 1 and steps of eps / steps.

    The defaults are the published values.

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


def _scale_to_mean(gradient: Tensor) -> Tensor:
    """Return ∇ / ‖∇‖₁ times the number of pixels, which changes no direction; 0 where ∇ is 0."""
    scaled = ball.scale_by_largest(gradient)
    mean = ball.column(scaled.abs().flatten(1).mean(dim=1), scaled)
    return torch.where(mean > 0, scaled / mean, scaled)
