"""Three ways to follow the gradients of classifier and detector at once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from robustloss.attacks.adaptive.base import Adaptive, Rule, View
from robustloss.attacks.arguments import check_choice
from robustloss.attacks.ball import ascent_direction, choose, column, distance
from robustloss.attacks.base import Queries

Project = Literal["classifier", "detector", "both"]

_NOTHING_LEFT = 1e-4  # of a unit vector: what cancels in float32 leaves less, and no direction


@dataclass(frozen=True, kw_only=True)
class AdaptiveJoint(Adaptive):
    """J = lead of the wrong class + weight · log-likelihood ℓ of the wrong class, weights swept.

    With another `score`, ℓ is what makes an image look typical of the wrong class to that score.

    Climbed as ∇lead / ‖∇lead‖₂ + weight · ∇ℓ / ‖∇ℓ‖₂: the weight compares directions, whatever
    the units of logits and likelihood.

    Args:
        weights: each at least 0, tried on paths of its own. Below 1 the classifier decides where
            the two pull apart, above 1 the detector does.

    Raises:
        ValueError: no weight, or one that is out of range.

    Source: Carlini and Wagner, "Adversarial examples are not easily detected" (AISec 2017), against
        the kernel density detector; here with the log-likelihood, a sweep and unit gradients.
    """

    weights: Sequence[float] = (0.3, 1.0, 3.0)

    name: ClassVar[str] = "adaptive_joint"
    passes_each: ClassVar[Queries] = Queries(1, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.weights, str) or not hasattr(self.weights, "__iter__"):
            raise ValueError(f"weights (={self.weights!r}) must be numbers, such as [0.3, 1, 3].")
        object.__setattr__(self, "weights", tuple(self.weights))
        if not self.weights:
            raise ValueError("weights (=()) must hold at least one number, such as [0.3, 1, 3].")
        for weight in self.weights:
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not number or not 0 <= weight < math.inf:
                raise ValueError(f"weights (={weight!r}) must be numbers of at least 0.")

    def list_rules(self) -> Sequence[Rule]:
        """Return one rule for each weight."""
        return [partial(joint_direction, weight=weight) for weight in self.weights]


@dataclass(frozen=True, kw_only=True)
class AdaptiveSelective(Adaptive):
    """Selective PGD: the lead's gradient until the wrong class is predicted, then that of ℓ.

    Per image and step, so that no weight has to be chosen.

    Source: Bryniarski et al., "Evading adversarial example detection defenses with orthogonal
        projected gradient descent" (ICLR 2022).
    """

    name: ClassVar[str] = "adaptive_selective"

    def list_rules(self) -> Sequence[Rule]:
        """Return the one rule."""
        return [selective_direction]


@dataclass(frozen=True, kw_only=True)
class AdaptiveOrthogonal(Adaptive):
    """Orthogonal PGD: selective PGD, each gradient without its component along the other.

    To first order a step then fools the classifier without alarming the detector, or the other
    way round.

    Args:
        project: the gradient from which the component is removed: "classifier", "detector", or
            "both", each while it is the one followed.

    Raises:
        ValueError: an argument is out of range.

    Source: Bryniarski et al. (ICLR 2022), as in their text and code; equation 6 as printed
        projects onto the wrong vector. Where the two are parallel their code follows rounding
        noise; here the gradient itself is followed.
    """

    project: Project = "detector"

    name: ClassVar[str] = "adaptive_orthogonal"
    passes_each: ClassVar[Queries] = Queries(1, 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("project", self.project, get_args(Project))

    def list_rules(self) -> Sequence[Rule]:
        """Return the one rule."""
        return [partial(orthogonal_direction, project=self.project)]


def joint_direction(view: View, weight: float) -> Tensor:
    """Return ∇lead / ‖∇lead‖₂ + weight · ∇ℓ / ‖∇ℓ‖₂; 0 where the two cancel.

    Args:
        view: what is seen at the point.
        weight: at least 0.
    """
    classifier, detector = _unit_gradients(view)
    total = classifier + weight * detector
    return choose(distance(total, "l2") > _NOTHING_LEFT, total, torch.zeros_like(total))


def selective_direction(view: View) -> Tensor:
    """Return ∇ℓ where the class aimed at is predicted, ∇lead elsewhere: one pass back."""
    return view.gradient(torch.where(view.reached, view.goal, view.lead))


def orthogonal_direction(view: View, project: Project) -> Tensor:
    """Return the selective direction without its component along the other gradient.

    Args:
        view: what is seen at the point.
        project: which of the two directions loses the component; see AdaptiveOrthogonal.
    """
    classifier, detector = _unit_gradients(view)
    return choose(
        view.reached,
        detector if project == "classifier" else _across(detector, classifier),
        classifier if project == "detector" else _across(classifier, detector),
    )


def _across(followed: Tensor, other: Tensor) -> Tensor:
    """Return what a unit vector has across another one, or 0; itself where that is nothing."""
    along = (followed * other).flatten(1).sum(dim=1)
    rest = followed - column(along, other) * other
    return choose(distance(rest, "l2") > _NOTHING_LEFT, rest, followed)


def _unit_gradients(view: View) -> tuple[Tensor, Tensor]:
    """Return the classifier's and the detector's gradient, of Euclidean length 1 in either norm."""
    return (
        ascent_direction(view.gradient(view.lead), "l2"),
        ascent_direction(view.gradient(view.goal), "l2"),
    )
