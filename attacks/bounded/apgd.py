"""Auto-PGD: gradient ascent with momentum that halves each image's step when it stops paying."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from robustloss.attacks.arguments import check_integer, check_norm
from robustloss.attacks.ball import (
    ascent_direction,
    choose,
    choose_all,
    column,
    project,
    surface_start,
    vanishes,
)
from robustloss.attacks.base import AttackOutput, Budgets, Needs, Norm, Queries
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import (
    NaNWatch,
    checked_gradients,
    checked_margin,
    cross_entropy,
    image_gradients,
    logit_ratio,
    refuse_nan,
    targeted_logit_ratio,
    wrong_classes,
)
from robustloss.attacks.sealing import call_or_replay

_WEIGHT = 0.75  # of the new step against the last one; alpha in the publication
_CHECKPOINTS = (0.22, 0.06, 0.03)  # shares of the steps: first gap, least gap, by how much it falls


class _Candidate(NamedTuple):
    """Images (B,C,H,W) with, each (B,): objective, max over j≠y of z_j − z_y, and fooled or not."""

    images: Tensor
    values: Tensor
    margins: Tensor
    fooled: Tensor

    def take(self, other: "_Candidate") -> "_Candidate":
        """Return, image by image, what fools; of two, the more wrong; else the higher objective."""
        better = torch.where(
            self.fooled == other.fooled,
            torch.where(self.fooled, other.margins > self.margins, other.values > self.values),
            other.fooled,
        )
        return choose_all(better, other, self)


class _Summit(NamedTuple):
    """Where the objective (B,) was highest, with its gradient there."""

    images: Tensor
    values: Tensor
    gradient: Tensor


@dataclass(frozen=True, kw_only=True)
class APGDCE:
    """x ← project(x + 0.75 (z − x) + 0.25 (x − x_before)), z = project(x + a · u), u unit ascent.

    The objective is the cross-entropy. The step length a starts at 2 eps; see StepLength. An image
    that fools, at the start or after a run, drops out of the runs to come. What comes back is the
    image of all runs on which the true logit trails most, else the one of highest objective.

    Args:
        norm: "linf" or "l2".
        steps: gradients per run, at least 1.
        restarts: runs from random points of the ball's surface, at least 1.
        rho: share of rising steps up to which the step is halved, in (0, 1).

    Raises:
        ValueError: an argument is out of range.

    Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of
        diverse parameter-free attacks" (ICML 2020), algorithm 1. In L2 the box comes before the
        ball here, which spends the whole budget; in the authors' code the ball comes first.
    """

    norm: Norm = "linf"
    steps: int = 100
    restarts: int = 1
    rho: float = 0.75

    name: ClassVar[str] = "apgd_ce"
    needs: ClassVar[Needs] = "logits"

    def __post_init__(self) -> None:
        check_norm(self.norm)
        check_integer("steps", self.steps, least=1)
        check_integer("restarts", self.restarts, least=1)
        if not 0 < self.rho < 1:
            raise ValueError(f"rho (={self.rho}) must lie in (0, 1): a share of the steps.")

    def passes(self, budgets: int) -> Queries:
        """The gradient at the image, and every run's start, steps and last point."""
        runs = budgets * self.restarts * self._runs_each()
        return Queries(1 + runs * (self.steps + 1), 1 + runs * self.steps)

    def _runs_each(self) -> int:
        """Runs of one restart."""
        return 1

    def _aims(self, logits: Tensor, labels: Tensor) -> Iterable[Tensor | None]:
        """The class (B,) towards which each run goes; None: away from the label, wherever."""
        return [None]

    def _objective(self, logits: Tensor, labels: Tensor, aim: Tensor | None) -> Tensor:
        return cross_entropy(logits, labels)

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: Budgets, noise: ImageNoise
    ) -> AttackOutput:
        """Climb inside the ball of every eps; see Attack.

        `zero_gradient` speaks of the first run's objective at the image itself, where that is not
        fooled already: there the ratio is flat if the label comes third, and nobody climbs it.
        """
        point = inputs.detach().requires_grad_()
        logits = model(point)
        aims = [aim for aim in self._aims(logits.detach(), labels) for _ in range(self.restarts)]
        values = self._objective(logits, labels, aims[0])
        flat = vanishes(checked_gradients(values, point))
        clean = _judge(inputs, torch.full_like(values, -torch.inf), logits.detach(), labels)
        adv_inputs = []
        for budget in eps:
            best, draws = _Candidate(*(each.clone() for each in clean)), noise.restart()
            for aim in aims if budget > 0 else ():
                # An image that is fooled drops out of the runs to come.
                going = ~best.fooled
                if not going.any():
                    break
                towards = None if aim is None else aim[going]
                part = inputs[going], labels[going], towards
                found = self._climb(model, *part, budget, draws.select(going))
                found = _Candidate(*(each[going] for each in best)).take(found)
                for whole, improved in zip(best, found, strict=True):
                    whole[going] = improved
            adv_inputs.append(best.images)
        return AttackOutput(torch.stack(adv_inputs), zero_gradient=flat & ~clean.fooled)

    def _climb(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        aim: Tensor | None,
        eps: float,
        noise: ImageNoise,
    ) -> _Candidate:
        """Return the best images of one run: a random start and its steps."""
        watch = NaNWatch()
        before = point = surface_start(inputs, eps, self.norm, noise)
        best, gradient = self._look(model, point, labels, aim, watch, differentiate=True)
        summit = _Summit(point, best.values, gradient)
        length = StepLength(eps, self.steps, self.rho, best.values)
        for step in range(1, self.steps + 1):
            ahead = point + column(length.now, point) * ascent_direction(gradient, self.norm)
            ahead = project(ahead, inputs, eps, self.norm)
            if step > 1:  # x + α (z − x) + (1 − α)(x − x_before), line 7 of the algorithm
                ahead = point + _WEIGHT * (ahead - point) + (1 - _WEIGHT) * (point - before)
                ahead = project(ahead, inputs, eps, self.norm)
            before, point = point, ahead
            # Nothing follows the last point: its gradient is not asked for.
            more = step < self.steps
            here, gradient = self._look(model, point, labels, aim, watch, differentiate=more)
            best = best.take(here)
            higher = here.values > summit.values
            summit = choose_all(higher, _Summit(point, here.values, gradient), summit)
            halved = length.observe(here.values)
            # A shorter step goes on from the highest point so far.
            point = choose(halved, summit.images, point)
            gradient = choose(halved, summit.gradient, gradient)
        watch.check()
        return best

    def _look(
        self,
        model: nn.Module,
        point: Tensor,
        labels: Tensor,
        aim: Tensor | None,
        watch: NaNWatch,
        *,
        differentiate: bool,
    ) -> tuple[_Candidate, Tensor]:
        """Return what the model makes of the images, and the objective's gradient, or 0."""

        def measure(point: Tensor, labels: Tensor, *aims: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            point = point.detach().requires_grad_(differentiate)
            logits = model(point)
            values = self._objective(logits, labels, aims[0] if aims else None)
            flat = torch.zeros_like(point)
            gradient = image_gradients(values, point) if differentiate else flat
            return values.detach(), gradient, logits.detach()

        given = (labels,) if aim is None else (labels, aim)
        kind = (self, differentiate)
        values, gradient, logits = call_or_replay(model, kind, measure, point.detach(), *given)
        refuse_nan("gradient", gradient, watch)
        return _judge(point, values, logits, labels, watch), gradient


@dataclass(frozen=True, kw_only=True)
class APGDDLR(APGDCE):
    """Auto-PGD on the difference-of-logits ratio, which ignores shift and scale of the logits.

    Arguments as for APGDCE, and

    Args:
        targets: 0, away from the label; otherwise the targeted ratio, `restarts` runs towards each
            of that many wrong classes, the most likely at the image itself first. A model with
            fewer wrong classes has them all tried.

    Raises:
        ValueError: an argument is out of range; when called: fewer than 3 classes, or 4 with
            targets.

    Source: Croce and Hein (ICML 2020), equations 6 and 7; AutoAttack runs targets=9.
    """

    targets: int = 0

    name: ClassVar[str] = "apgd_dlr"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("targets", self.targets, least=0)

    def _runs_each(self) -> int:
        return max(1, self.targets)

    def _aims(self, logits: Tensor, labels: Tensor) -> Iterable[Tensor | None]:
        if not self.targets:
            return [None]
        return wrong_classes(logits, labels, self.targets).unbind(dim=1)

    def _objective(self, logits: Tensor, labels: Tensor, aim: Tensor | None) -> Tensor:
        if aim is None:
            return logit_ratio(logits, labels)
        return targeted_logit_ratio(logits, labels, aim)


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

    Attributes:
        now: (B,) float32 step lengths, in pixel units.

    Source: Croce and Hein (ICML 2020), section 3.2, with ≤ rho as in the authors' code. Their
        first comparison is with an objective of 0; here, as published, with the start.
    """

    def __init__(self, eps: float, steps: int, rho: float, values: Tensor) -> None:
        self.now = torch.full_like(values, 2.0 * eps, dtype=torch.float32)
        self._rho = rho
        self._gap, self._least, self._shrink = (max(int(p * steps), 1) for p in _CHECKPOINTS)
        self._taken = 0
        self._rises = torch.zeros_like(values)
        self._last = self._highest = self._highest_then = values
        self._halved = torch.ones_like(values, dtype=torch.bool)

    def observe(self, values: Tensor) -> Tensor:
        """Take in the objective (B,) after a step; (B,) bool: halved, so back to the best."""
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


def _judge(
    images: Tensor, values: Tensor, logits: Tensor, labels: Tensor, watch: NaNWatch | None = None
) -> _Candidate:
    fooled = logits.argmax(dim=1) != labels  # not by the margin: a tie goes to the first class
    margins = checked_margin(logits, labels, watch)
    return _Candidate(images.detach(), values.detach(), margins, fooled)
