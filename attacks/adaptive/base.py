"""Attacks on classifier and detector together: what they see, climb and return."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from robustloss.attacks.arguments import check_choice, check_integer, check_norm, check_paths
from robustloss.attacks.ball import ascend, choose_all, project, uniform_start, vanishes
from robustloss.attacks.base import AttackError, AttackOutput, Budgets, Needs, Norm, Queries
from robustloss.attacks.bounded.pgd import STEP_SCHEDULES
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import (
    MOST_CANDIDATES,
    TARGET_ORDERS,
    checked_gradients,
    choose_targets,
    margin,
    wrong_classes,
)

LIKELIHOOD = "class_log_likelihood"  # the score that needs no more of a model than `joint`


@dataclass(frozen=True, eq=False)
class View:
    """One pass of images through classifier and detector, in one graph.

    Attributes:
        model: has `joint`, or `scored`; feature matching asks it for more.
        point: (B,C,H,W), where gradients are taken.
        logits: (B,K).
        goals: (B,K), what makes the detector take an image for one of each class; of the
            likelihood, the log-likelihoods themselves, nats.
        score: (B,), what the detector judges by; of the likelihood, that of the predicted class.
        labels: (B,) the true classes.
        aim: (B,) the wrong class that each image is to be taken for.
    """

    model: nn.Module
    point: Tensor
    logits: Tensor
    goals: Tensor
    score: Tensor
    labels: Tensor
    aim: Tensor

    @property
    def lead(self) -> Tensor:
        """(B,) z_aim − max over j≠aim of z_j: the classifier's objective, which never saturates."""
        return -margin(self.logits, self.aim)

    @property
    def goal(self) -> Tensor:
        """(B,) the goal of the class aimed at: the detector's objective."""
        return self.goals.gather(1, self.aim.unsqueeze(1)).squeeze(1)

    @property
    def reached(self) -> Tensor:
        """(B,) bool: the class aimed at is predicted."""
        return self.logits.argmax(dim=1) == self.aim

    def gradient(self, values: Tensor) -> Tensor:
        """Return (B,C,H,W), each image's gradient of its own value."""
        return checked_gradients(values, self.point, keep_graph=True)

    def judge(self) -> "Candidate":
        """Return these images as candidates for the result.

        Raises:
            AttackError: a logit or a score is NaN.
        """
        broken = int((self.score.isnan() | self.lead.isnan()).sum())
        if broken:
            raise AttackError(
                f"logits or scores are NaN or infinite for {broken} of {len(self.score)} "
                "attacked images; look for an overflow in the model."
            )
        fooled = self.logits.argmax(dim=1) != self.labels
        return Candidate(self.point.detach(), fooled, self.score.detach())


class Candidate(NamedTuple):
    """Images (B,C,H,W), whether each fools the classifier (B,), and its score (B,).

    The score is what the detector ranks on.
    """

    images: Tensor
    fooled: Tensor
    score: Tensor

    def take(self, other: "Candidate") -> "Candidate":
        """Return, image by image, what fools, then what has the higher score; this one in a tie.

        A fooling image with the highest score passes every threshold that any fooling image
        passes: undetected successes come first whatever the rate of false alarms.
        """
        better = (other.score > self.score) & (other.fooled == self.fooled)
        return choose_all(better | other.fooled & ~self.fooled, other, self)


Rule = Callable[[View], Tensor]
"""Maps what is seen at a point to the (B,C,H,W) direction in which to go on; any length."""


def look(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    aim: Tensor | None,
    needs: Needs = "likelihood",
) -> View:
    """Pass images (B,C,H,W) through the model.

    Args:
        model: has `joint(images)`, or `scored(images)` where that is needed.
        images: (B,C,H,W).
        labels: (B,) the true classes.
        aim: (B,) wrong classes; None aims at the one with the highest logit.
        needs: "likelihood" or "score": which detector is looked at.
    """
    point = images.detach().requires_grad_()
    if needs == "score":
        scored: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]] = model.scored  # type: ignore[assignment]
        logits, goals, score = scored(point)
    else:
        joint: Callable[[Tensor], tuple[Tensor, Tensor]] = model.joint  # type: ignore[assignment]
        logits, goals = joint(point)
        score = goals.gather(1, logits.argmax(dim=1).unsqueeze(1)).squeeze(1)
    if aim is None:
        aim = wrong_classes(logits, labels, 1)[:, 0]
    return View(model, point, logits, goals, score, labels, aim)


@dataclass(frozen=True, kw_only=True)
class Adaptive(ABC):
    """x ← project(x + a · u), u the unit step along a member's rule; the best of all x is kept.

    Best is, per image, over the whole of every path and the image itself: what is wrong with the
    highest score, else what has the highest; see Candidate. Every gradient is brought to unit
    length before it meets another, and scores are compared with each other only: their scale and a
    constant in the logits change nothing.

    Args:
        norm: "linf", "l2" or "l1".
        steps: gradients per path, at least 1.
        step_size: first a over eps, positive; a falls to 0 along a cosine. None stands for
            5 / steps in L-inf and 10 / steps in L2 and L1 (at most 1): enough to cross the ball and
            turn.
        random_start: begin at a uniformly drawn point of the ball; otherwise at the image.
        restarts: starts per image, at least 1; more than 1 needs the random start.
        targets: wrong classes aimed at, each on paths of its own; 0 aims at every step at the one
            that then has the highest logit.
        order: which classes come first: "logit", those of the highest logits at the image itself;
            "distance", those whose boundary is nearest there in the linearised model, among the
            100 of the highest logits. It is for models of many classes, and costs a backward pass
            for each of the 100.
        score: the detection score to deceive, by its name; by default the log-likelihood of the
            predicted class.
        eot: calls of the model whose mean posterior and score are attacked, at least 1. More than 1
            is for a model that draws at random; all images of the run are then judged by such a
            mean.

    Raises:
        ValueError: an argument is out of range.
    """

    norm: Norm = "linf"
    steps: int = 100
    step_size: float | None = None
    random_start: bool = True
    restarts: int = 1
    targets: int = 0
    order: str = "logit"
    score: str = LIKELIHOOD
    eot: int = 1

    name: ClassVar[str]
    passes_each: ClassVar[Queries] = Queries(1, 1)  # of one step
    orders: ClassVar[tuple[str, ...]] = TARGET_ORDERS

    def __post_init__(self) -> None:
        check_norm(self.norm)
        check_paths(self.steps, self.step_size, self.restarts, random_start=self.random_start)
        check_integer("targets", self.targets, least=0)
        check_choice("order", self.order, self.orders)
        check_integer("eot", self.eot, least=1)
        if not isinstance(self.score, str) or not self.score:
            raise ValueError(f'score (={self.score!r}) must be the name of a score, as "energy".')

    @property
    def needs(self) -> Needs:
        """What the score asks of the model."""
        return "likelihood" if self.score == LIKELIHOOD else "score"

    @abstractmethod
    def list_rules(self) -> Sequence[Rule]:
        """Return the ways to go on, each tried on paths of its own."""

    def passes(self, budgets: int) -> Queries:
        """Return the most: the image itself, then every path's steps and last point."""
        paths = budgets * self.restarts * len(self.list_rules()) * max(1, self.targets)
        forward, backward = self.passes_each
        looked = MOST_CANDIDATES if self.order == "distance" else 0
        most = 2 + paths * (forward * self.steps + 1), 1 + looked + paths * backward * self.steps
        return Queries(*(self.eot * each for each in most))

    def choose_aims(self, clean: View) -> Iterable[Tensor | None]:
        """Return the classes (B,) to aim at, each tried on paths of its own; None as for `look`."""
        if not self.targets:
            return [None]
        return choose_targets(
            clean.logits, clean.point, clean.labels, self.targets, self.norm, self.order
        ).unbind(dim=1)

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: Budgets, noise: ImageNoise
    ) -> AttackOutput:
        """Climb inside the ball of every eps; see Attack.

        `zero_gradient` speaks of the classifier's objective at the image itself, towards the wrong
        class of the highest logit.
        """
        clean = look(model, inputs, labels, None, self.needs)
        zero_gradient = vanishes(clean.gradient(clean.lead))
        goals, itself = [*product(self.choose_aims(clean), self.list_rules())], clean.judge()
        del clean  # and its graph
        size = self.step_size or min(1.0, (5.0 if self.norm == "linf" else 10.0) / self.steps)
        adv_inputs = []
        for budget in eps:
            best, draws = itself, noise.restart()
            for _ in range(self.restarts if budget > 0 else 0):
                start = inputs
                if self.random_start:
                    start = uniform_start(inputs, budget, self.norm, draws)
                for aim, rule in goals:
                    point = start
                    for step in range(self.steps + 1):
                        # Nothing follows the last point: its gradient is not asked for.
                        more = step < self.steps
                        with torch.set_grad_enabled(more):
                            view = look(model, point, labels, aim, self.needs)
                        best = best.take(view.judge())
                        if not more:
                            break
                        length = budget * size * STEP_SCHEDULES["cosine"](step / self.steps)
                        point = ascend(point, rule(view), length, self.norm)
                        point = project(point, inputs, budget, self.norm)
            adv_inputs.append(best.images)
        return AttackOutput(torch.stack(adv_inputs), zero_gradient)
