"""Attacks on the confidence: the predicted class stays, and how sure the model is of it changes."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from robustloss.attacks import ball, objectives
from robustloss.attacks.arguments import check_choice, check_integer, check_norm
from robustloss.attacks.base import AttackOutput, Budgets, Needs, Norm, Queries
from robustloss.attacks.bounded.pgd import STEP_SCHEDULES
from robustloss.attacks.noise import ImageNoise

Direction = Literal["under", "over", "worst"]

_SLACK = 1e-5  # of the largest logit: in another batch rounding must not change the class


class _Seen(NamedTuple):
    """What is seen at some images.

    Attributes:
        images: (B,C,H,W).
        odds: (B,) logarithm of p / (1 − p), p the posterior of the class to keep.
        gradient: (B,C,H,W) of the odds.
        kept: (B,) bool, the class is predicted, by more than rounding changes.
    """

    images: Tensor
    odds: Tensor
    gradient: Tensor
    kept: Tensor


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """x ← project(x ± a · u), u the unit ascent direction of log(p / (1 − p)).

    p is the posterior of the class predicted for the image itself. That class stays the predicted
    one, right or wrong: a step that would change it is not taken, and later steps of that image are
    half as long. So no error changes, only the confidence. What comes back is the point of the path
    with the lowest p (towards doubt) or the highest (towards certainty).

    Args:
        direction: "under", towards doubt; "over", towards certainty; "worst", towards doubt where
            the prediction is right and towards certainty where it is wrong, which harms the
            calibration most.
        norm: "linf", "l2" or "l1".
        steps: gradients per image, at least 1.
        step_size: first a over eps, positive; a falls to 0 along a cosine. None stands for
            5 / steps in L-inf and 10 / steps in L2 and L1 (at most 1).

    Raises:
        ValueError: an argument is out of range.

    Source: Obadinma et al., "Calibration attacks" (TMLR 2024), who call "worst" the maximum
        miscalibration attack, and Galil and El-Yaniv, "Disrupting deep uncertainty estimation
        without harming accuracy" (NeurIPS 2021), whose ACE is "worst" too. The log-odds are
        followed here because they do not saturate; halving the step is ours, too.
    """

    direction: Direction = "worst"
    norm: Norm = "linf"
    steps: int = 40
    step_size: float | None = None

    name: ClassVar[str] = "confidence"
    needs: ClassVar[Needs] = "logits"

    def __post_init__(self) -> None:
        check_choice("direction", self.direction, get_args(Direction))
        check_norm(self.norm)
        check_integer("steps", self.steps, least=1)
        if self.step_size is not None and not 0 < self.step_size < math.inf:
            raise ValueError(f"step_size (={self.step_size}) must be positive: a share of eps.")

    def passes(self, budgets: int) -> Queries:
        """Return the most: the gradient at the image, and at each point but the last."""
        return Queries(1 + budgets * self.steps, 1 + budgets * (self.steps - 1))

    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: Budgets, noise: ImageNoise
    ) -> AttackOutput:
        """Move inside the ball of every eps; see Attack. There is nothing random in it."""
        point = inputs.detach().requires_grad_()
        logits = model(point)
        classes = logits.argmax(dim=1)
        clean = _look(point, logits, classes)
        right = (
            (classes == labels)
            if self.direction == "worst"
            else torch.tensor(self.direction == "under", device=inputs.device).expand(len(inputs))
        )
        sign = torch.where(right, -1.0, 1.0)
        size = self.step_size or min(1.0, (5.0 if self.norm == "linf" else 10.0) / self.steps)
        adv_inputs = []
        for budget in eps:
            here = best = clean
            length = torch.full_like(clean.odds, budget * size)
            for step in range(self.steps if budget > 0 else 0):
                direction = ball.ascent_direction(here.gradient, self.norm)
                reach = sign * length * STEP_SCHEDULES["cosine"](step / self.steps)
                ahead = here.images + ball.column(reach, inputs) * direction
                ahead = ball.project(ahead, inputs, budget, self.norm)
                more = step + 1 < self.steps  # nothing follows the last point
                point = ahead.detach().requires_grad_(more)
                seen = _look(point, model(point), classes, backward=more)
                length = torch.where(seen.kept, length, length / 2)
                here = ball.choose_all(seen.kept, seen, here)
                best = ball.choose_all(
                    seen.kept & (sign * seen.odds > sign * best.odds), seen, best
                )
            adv_inputs.append(best.images)
        return AttackOutput(torch.stack(adv_inputs), zero_gradient=ball.vanishes(clean.gradient))


def _look(point: Tensor, logits: Tensor, classes: Tensor, *, backward: bool = True) -> _Seen:
    """Return what is seen at a point whose logits (B,K) keep their graph.

    Raises:
        AttackError: a logit or a gradient is NaN, or there is no gradient.
    """
    kept = classes.unsqueeze(1)
    others = logits.scatter(1, kept, float("-inf"))
    own = logits.gather(1, kept).squeeze(1)
    odds = own - others.logsumexp(dim=1)
    objectives.refuse_nan("logits", logits)
    gradient = objectives.checked_gradients(odds, point) if backward else torch.zeros_like(point)
    slack = _SLACK * logits.detach().abs().amax(dim=1)
    lead = (own - others.amax(dim=1)).detach()
    return _Seen(point.detach(), odds.detach(), gradient, lead > slack)
