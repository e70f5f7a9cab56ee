"""Auto-PGD: gradient ascent that shortens each image's step when it stops paying."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from robustloss.attacks import ball, objectives
from robustloss.attacks.arguments import check_choice, check_integer, check_norm
from robustloss.attacks.base import AttackOutput, Budgets, Needs, Norm, Queries
from robustloss.attacks.bounded.apgd_steps import Pace, SparseStep, StepLength
from robustloss.attacks.noise import ImageNoise

Keep = Literal["best", "first"]

_LARGER = ((3.0, 0.3), (2.0, 0.3))  # in L1, first: radii over eps, with their shares of the steps


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
        return ball.choose_all(better, other, self)

    def select(self, mask: Tensor) -> "_Candidate":
        """Return the images at which the mask (B,) is true."""
        return _Candidate(*(each[mask] for each in self))

    def put(self, places: Tensor, other: "_Candidate") -> None:
        """Write other images (b,...) over those at the places: indices (b,) or a mask (B,)."""
        for mine, theirs in zip(self, other, strict=True):
            mine[places] = theirs


class _Peak(NamedTuple):
    """Where the objective (B,) is highest, with its gradient there."""

    images: Tensor
    values: Tensor
    gradient: Tensor


@dataclass(frozen=True, kw_only=True)
class APGDCE:
    """x ← project(x + 0.75 (z − x) + 0.25 (x − x_before)), z = project(x + a · u), u unit ascent.

    The objective is the cross-entropy. The step length a starts at 2 eps and is halved where the
    objective stops rising. An image that fools, at the start or after a run, drops out of the runs
    to come. What comes back is the image of all runs on which the true logit trails most, else the
    one of highest objective.

    In L1 there is no momentum. A step moves only some pixels, all equally far: those of the largest
    gradients that can still move. Their number falls as the best point so far changes fewer pixels.
    The first 30 % of the steps are taken in the ball of radius 3 eps, the next 30 % in that of
    2 eps.

    Args:
        norm: "linf", "l2" or "l1".
        steps: gradients per run, at least 1.
        restarts: runs from random points of the ball's surface, at least 1.
        rho: share of rising steps up to which the step is halved, in (0, 1); not used in L1.
        keep: "best", as above; "first" stops at an image as soon as it is fooled. The errors are
            the same and take fewer passes, but the attacked images lie near the boundary, where a
            detector judges them differently.
        eot: calls of the model whose mean posterior is attacked, at least 1. More than 1 is for a
            model that draws at random; all images of the run are then judged by such a mean.

    Raises:
        ValueError: an argument is out of range.

    Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of
        diverse parameter-free attacks" (ICML 2020), algorithm 1. In L2 the box comes before the
        ball here, which spends the whole budget; in the authors' code the ball comes first. L1:
        "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers" (ICML 2021),
        algorithm 1.
    """

    norm: Norm = "linf"
    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    keep: Keep = "best"
    eot: int = 1

    name: ClassVar[str] = "apgd_ce"
    needs: ClassVar[Needs] = "logits"
    objective: ClassVar[str] = "ce"
    targets, order = 0, "logit"  # no parameters of this one

    def __post_init__(self) -> None:
        check_norm(self.norm)
        check_integer("steps", self.steps, least=1)
        check_integer("restarts", self.restarts, least=1)
        if not 0 < self.rho < 1:
            raise ValueError(f"rho (={self.rho}) must lie in (0, 1): a share of the steps.")
        check_choice("keep", self.keep, get_args(Keep))
        check_integer("eot", self.eot, least=1)

    @property
    def least_classes(self) -> int:
        """The fewest classes of a model that the objective can tell apart."""
        return 4 if self.targets else objectives.LEAST_CLASSES.get(self.objective, 2)

    def passes(self, budgets: int) -> Queries:
        """Return the most: the gradient at the image, every run's start, steps and last point."""
        runs, eot = budgets * self.restarts * max(1, self.targets), self.eot
        looked = objectives.MOST_CANDIDATES if self.order == "distance" else 0
        ends = len(self._list_stages(1.0))
        most = 1 + runs * (self.steps + ends), 1 + looked + runs * self.steps
        return Queries(*(eot * each for each in most))

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: Budgets, noise: ImageNoise
    ) -> AttackOutput:
        """Climb inside the ball of every eps; see Attack.

        `zero_gradient` speaks of the first run's objective at the image itself, where that is not
        fooled already: there the ratio is flat if the label comes third, and nobody climbs it.
        """
        point = inputs.detach().requires_grad_()
        logits = model(point)
        aims: Sequence[Tensor | None] = [
            None
        ]  # the classes (B,) to be taken for; None: any wrong one
        if self.targets:
            aims = objectives.choose_targets(
                logits, point, labels, self.targets, self.norm, self.order
            ).unbind(dim=1)
        values = objectives.evaluate_objective(self.objective, logits, labels, aims[0])
        flat = ball.vanishes(objectives.checked_gradients(values, point))
        clean = _judge(inputs, torch.full_like(values, -torch.inf), logits.detach(), labels)
        adv_inputs = []
        for budget in eps:
            best, draws = _Candidate(*(each.clone() for each in clean)), noise.restart()
            runs = [aim for aim in aims for _ in range(self.restarts if budget > 0 else 0)]
            for aim in runs:
                # An image that is fooled drops out of the runs to come.
                going = ~best.fooled
                if not going.any():
                    break
                towards = None if aim is None else aim[going]
                part = inputs[going], labels[going], towards
                tried = self._run(model, *part, budget, draws.select(going))
                best.put(going, best.select(going).take(tried))
            adv_inputs.append(best.images)
        return AttackOutput(torch.stack(adv_inputs), zero_gradient=flat & ~clean.fooled)

    def _list_stages(self, eps: float) -> list[tuple[float, int]]:
        """Return the radii of the balls in which a run climbs, eps last, with the steps in each."""
        counts = [math.ceil(share * self.steps) for _, share in _LARGER]
        left = self.steps - sum(counts)
        if self.norm != "l1" or left < 1:
            return [(eps, self.steps)]
        larger = [(factor * eps, n) for (factor, _), n in zip(_LARGER, counts, strict=True)]
        return [*larger, (eps, left)]

    def _run(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        aim: Tensor | None,
        eps: float,
        noise: ImageNoise,
    ) -> _Candidate:
        """Return the best images of one run: a random start, and the steps from there."""
        stages = self._list_stages(eps)
        point = ball.surface_start(inputs, stages[0][0], self.norm, noise)
        for (larger, steps), (radius, _) in pairwise(stages):
            _, point = self._climb(model, inputs, labels, aim, point, larger, steps, "best")
            point = ball.project(point, inputs, radius, self.norm)
        return self._climb(model, inputs, labels, aim, point, *stages[-1], self.keep)[0]

    def _climb(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        aim: Tensor | None,
        start: Tensor,
        eps: float,
        steps: int,
        keep: Keep,
    ) -> tuple[_Candidate, Tensor]:
        """Take the steps from a start, in the ball of radius eps.

        Returns:
            The best images, and the points of the highest objective where keep is "best".
        """
        watch = objectives.NaNWatch()
        rows = torch.arange(len(inputs), device=inputs.device)  # the images that are still climbing
        before = point = start
        for step in range(steps + 1):
            more = step < steps  # nothing follows the last point: its gradient is not asked for
            gradient, values, logits = objectives.differentiate(
                model, point, labels, self.objective, watch, targets=aim, backward=more
            )
            here = _judge(point, values, logits, labels, watch)
            peak = _Peak(point, values, gradient)
            if step == 0:
                best, highest = here, peak
                found = _Candidate(*(each.clone() for each in here))
                pace: Pace = StepLength(eps, steps, self.rho, values, self.norm)
                if self.norm == "l1":
                    pace = SparseStep(eps, steps, point, inputs)
            else:
                best = best.take(here)
                highest = ball.choose_all(values > highest.values, peak, highest)
                changed = pace.observe(values, highest.images)
                # With another step the path goes on from the highest point so far.
                point = ball.choose(changed, highest.images, point)
                gradient = ball.choose(changed, highest.gradient, gradient)
            if keep == "first" and here.fooled.any():
                found.put(rows, best)
                going = ~here.fooled
                best, highest = best.select(going), _Peak(*(each[going] for each in highest))
                pace.select(going)
                rows, inputs, labels, before, point, gradient = (
                    each[going] for each in (rows, inputs, labels, before, point, gradient)
                )
                aim = None if aim is None else aim[going]
            if not more or len(rows) == 0:
                break
            ahead = ball.project(pace.move(point, gradient), inputs, eps, self.norm)
            if step > 0 and pace.weight < 1:
                ahead = point + pace.weight * (ahead - point) + (1 - pace.weight) * (point - before)
                ahead = ball.project(ahead, inputs, eps, self.norm)
            before, point = point, ahead
        watch.check()
        found.put(rows, best)
        return found, highest.images


@dataclass(frozen=True, kw_only=True)
class APGDDLR(APGDCE):
    """Auto-PGD on the difference-of-logits ratio, which ignores shift and scale of the logits.

    Args:
        targets: 0, away from the label; otherwise the targeted ratio, `restarts` runs towards each
            of that many wrong classes. A model with fewer wrong classes has them all tried.
        order: which classes come first: "logit", those of the highest logits at the image itself;
            "distance", those whose boundary is nearest there in the linearised model, among the
            100 of the highest logits. It is for models of many classes, and costs a backward pass
            for each of the 100.

    Raises:
        ValueError: an argument is out of range; when called: fewer than 3 classes, or 4 with
            targets.

    Source: Croce and Hein (ICML 2020), equations 6 and 7; AutoAttack runs targets=9.
    """

    targets: int = 0
    order: str = "logit"

    name: ClassVar[str] = "apgd_dlr"
    objective: ClassVar[str] = "dlr"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("targets", self.targets, least=0)
        check_choice("order", self.order, objectives.TARGET_ORDERS)


def _judge(
    images: Tensor,
    values: Tensor,
    logits: Tensor,
    labels: Tensor,
    watch: objectives.NaNWatch | None = None,
) -> _Candidate:
    fooled = objectives.mispredicts(logits, labels)
    margins = objectives.checked_margin(logits, labels, watch)
    return _Candidate(images.detach(), values.detach(), margins, fooled)
