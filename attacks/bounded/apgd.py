"""Auto-PGD: gradient ascent with momentum that halves each image's step when it stops paying."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from robustloss.attacks.arguments import check_integer, check_norm
from robustloss.attacks.ball import ascent_direction, distance, project
from robustloss.attacks.base import AttackOutput, Needs, Norm, Queries
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import (
    NaNWatch,
    checked_margin,
    cross_entropy,
    image_gradients,
    logit_ratio,
    refuse_nan,
    targeted_logit_ratio,
    unchecked_gradients,
    wrong_classes,
)
from robustloss.attacks.sealing import asked

_WEIGHT = 0.75  # of the new step against the last one; alpha in the publication
_CHECKPOINTS = (0.22, 0.06, 0.03)  # shares of the steps: first gap, least gap, by how much it falls


class _Found(NamedTuple):
    """Images (B,C,H,W) with, each (B,): objective, max over j≠y of z_j − z_y, and fooled or not."""

    images: Tensor
    values: Tensor
    margins: Tensor
    fooled: Tensor

    def better(self, other: "_Found") -> "_Found":
        """Image by image: what fools; of two that do, the more wrong; else the higher objective."""
        better = torch.where(
            self.fooled == other.fooled,
            torch.where(self.fooled, other.margins > self.margins, other.values > self.values),
            other.fooled,
        )
        return _Found(*(_chosen(better, *pair) for pair in zip(other, self, strict=True)))


class _Summit(NamedTuple):
    """Where the objective (B,) was highest, with its gradient there."""

    images: Tensor
    values: Tensor
    gradient: Tensor

    def higher(self, other: "_Summit") -> "_Summit":
        """Image by image, the one of higher objective; this one when it is a tie."""
        better = other.values > self.values
        return _Summit(*(_chosen(better, *pair) for pair in zip(other, self, strict=True)))


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

        `zero_gradient` speaks of the first run's objective at the image itself, where that is not
        fooled already: there the ratio is flat if the label comes third, and nobody climbs it.
        """
        point = inputs.detach().requires_grad_()
        logits = model(point)
        aims = self._aims(logits.detach(), labels)
        values = self._objective(logits, labels, aims[0])
        flat = (image_gradients(values, point) == 0).flatten(1).all(dim=1)
        clean = _found(inputs, torch.full_like(values, -torch.inf), logits, labels)
        runs = [aim for aim in aims for _ in range(self.restarts)]
        adv_inputs = [
            self._climb(model, clean, labels, runs, budget, noise.restart()) if budget else inputs
            for budget in eps
        ]
        return AttackOutput(torch.stack(adv_inputs), zero_gradient=flat & ~clean.fooled)

    def _aims(self, logits: Tensor, labels: Tensor) -> Sequence[Tensor | None]:
        """The class (B,) towards which each run goes; None: away from the label, wherever."""
        return [None]

    def _objective(self, logits: Tensor, labels: Tensor, aim: Tensor | None) -> Tensor:
        return cross_entropy(logits, labels)

    def _climb(
        self,
        model: nn.Module,
        clean: _Found,
        labels: Tensor,
        runs: Sequence[Tensor | None],
        eps: float,
        noise: ImageNoise,
    ) -> Tensor:
        """Run after run for the images that are not fooled yet: (B,C,H,W)."""
        best = _Found(*(each.clone() for each in clean))
        for aim in runs:
            going = ~best.fooled
            if not going.any():
                break
            found = self._run(
                model,
                clean.images[going],
                labels[going],
                None if aim is None else aim[going],
                eps,
                noise.select(going),
            )
            found = _Found(*(each[going] for each in best)).better(found)
            for whole, part in zip(best, found, strict=True):
                whole[going] = part
        return best.images

    def _run(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        aim: Tensor | None,
        eps: float,
        noise: ImageNoise,
    ) -> _Found:
        """One random start and its steps."""
        before = point = _start(inputs, eps, self.norm, noise)
        watch = NaNWatch()
        best, gradient = self._look(model, point, labels, aim, watch, differentiate=True)
        summit = _Summit(point, best.values, gradient)
        length = StepLength(eps, self.steps, self.rho, best.values)
        for step in range(1, self.steps + 1):
            ahead = point + _column(length.now) * ascent_direction(gradient, self.norm)
            ahead = project(ahead, inputs, eps, self.norm)
            if step > 1:
                ahead = point + _WEIGHT * (ahead - point) + (1 - _WEIGHT) * (point - before)
                ahead = project(ahead, inputs, eps, self.norm)
            before, point = point, ahead
            # Nothing follows the last point: its gradient is not asked for.
            more = step < self.steps
            here, gradient = self._look(model, point, labels, aim, watch, differentiate=more)
            best = best.better(here)
            summit = summit.higher(_Summit(point, here.values, gradient))
            back = length.observe(here.values)
            point = _chosen(back, summit.images, point)
            gradient = _chosen(back, summit.gradient, gradient)
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
    ) -> tuple[_Found, Tensor]:
        """What the model makes of the images, and the objective's gradient, or 0 if not asked."""

        def measure(point: Tensor, labels: Tensor, *aims: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            point = point.detach().requires_grad_(differentiate)
            logits = model(point)
            values = self._objective(logits, labels, aims[0] if aims else None)
            flat = torch.zeros_like(point)
            gradient = unchecked_gradients(values, point) if differentiate else flat
            return values.detach(), gradient, logits.detach()

        given = (labels,) if aim is None else (labels, aim)
        kind = (self, differentiate)
        values, gradient, logits = asked(model, kind, measure, point.detach(), *given)
        refuse_nan("gradient", gradient, watch)
        return _found(point, values, logits, labels, watch), gradient


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

    def _aims(self, logits: Tensor, labels: Tensor) -> Sequence[Tensor | None]:
        return wrong_classes(logits, labels, self.targets) if self.targets else [None]

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


def _start(inputs: Tensor, eps: float, norm: Norm, noise: ImageNoise) -> Tensor:
    """A random point of the ball's surface, as in the authors' code, brought into the box."""
    shape = tuple(inputs.shape[1:])
    delta = 2 * noise.uniform(shape) - 1 if norm == "linf" else noise.normal(shape)
    length = distance(delta, norm).clamp(min=torch.finfo(delta.dtype).tiny)
    return project(inputs + eps * delta / _column(length), inputs, eps, norm)


def _found(
    images: Tensor, values: Tensor, logits: Tensor, labels: Tensor, watch: NaNWatch | None = None
) -> _Found:
    logits = logits.detach()
    fooled = logits.argmax(dim=1) != labels  # not by the margin: a tie goes to the first class
    return _Found(images.detach(), values.detach(), checked_margin(logits, labels, watch), fooled)


def _chosen(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Image by image: (B,...)."""
    return torch.where(mask.view(-1, *[1] * (yes.dim() - 1)), yes, no)


def _column(each: Tensor) -> Tensor:
    """(B,) as (B,1,1,1), to meet images."""
    return each.view(-1, 1, 1, 1)
