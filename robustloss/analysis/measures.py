"""The numbers by which losses are told apart, each defined once.

A measure is computed from what happened to each image: under one attack at one eps, in the worst
case over attacks, under the best adaptive attack, or along a curve of error against eps. A new one
is a line in `MEASURES`; `tables.comparisons`, `tables.ranks` and `baseline` then
have it. Its name is that of its column in results.json.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robustloss.analysis.detection.adaptive import find_best
from robustloss.analysis.outcomes import Curve, Outcome, find_wrong, group_by_attack, list_budgets
from robustloss.metrics.estimates import (
    Estimate,
    estimate_augrc,
    estimate_auroc,
    estimate_calibration_error,
    estimate_crossing,
    estimate_error,
    estimate_mean,
    estimate_median,
)
from robustloss.results.schema import BEST_ADAPTIVE, WORST_CASE
from robustloss.spec.detection import LIKELIHOOD


@dataclass(frozen=True)
class Measure:
    """A number by which losses are told apart.

    Attributes:
        higher_is_better: for a defender.
        of_outcome: computes it from the clean pass and an outcome, which may be the clean pass.
        of_curve: computes it from a curve. Either gives None where the number does not exist.
    """

    higher_is_better: bool
    of_outcome: Callable[[Outcome, Outcome], Estimate | None] | None = None
    of_curve: Callable[[Curve], Estimate | None] | None = None


def _auroc_all(clean: Outcome, one: Outcome) -> Estimate | None:
    if one is clean or LIKELIHOOD not in one.scores:
        return None
    return estimate_auroc(clean.scores[LIKELIHOOD], one.scores[LIKELIHOOD])


def _auroc_successful(clean: Outcome, one: Outcome) -> Estimate | None:
    if one is clean or LIKELIHOOD not in one.scores:
        return None
    before, after = (each.scores[LIKELIHOOD] for each in (clean, one))
    return estimate_auroc(before, after, ~clean.wrong, ~clean.wrong & one.wrong)


def _undetected_success(clean: Outcome, one: Outcome) -> Estimate | None:
    if one is clean or one.accepted is None:
        return None
    return estimate_mean(one.wrong & one.accepted, ~clean.wrong)


def _augrc(clean: Outcome, one: Outcome) -> Estimate | None:
    if not clean.scores.keys() & one.scores.keys() & {LIKELIHOOD}:
        return None
    both = [one] if one is clean else [clean, one]
    return estimate_augrc(
        np.concatenate([each.scores[LIKELIHOOD] for each in both]),
        np.concatenate([each.wrong for each in both]),
        np.tile(np.arange(one.wrong.size), len(both)),
    )


MEASURES: Mapping[str, Measure] = {
    "error": Measure(False, lambda clean, one: estimate_error(one.wrong)),
    "auroc_all": Measure(True, _auroc_all),
    "auroc_successful": Measure(True, _auroc_successful),
    "undetected_success_at_5fpr": Measure(False, _undetected_success),
    "augrc": Measure(False, _augrc),
    "ece_equal_width": Measure(
        False,
        lambda clean, one: (
            None
            if one.confidence is None
            else estimate_calibration_error(one.confidence, ~one.wrong)
        ),
    ),
    "brier": Measure(
        False, lambda clean, one: None if one.brier is None else estimate_mean(one.brier)
    ),
    "median_radius": Measure(
        True,
        of_curve=lambda curve: None if curve.radius is None else estimate_median(curve.radius),
    ),
    "eps_at_50_error": Measure(
        True,
        of_curve=lambda curve: (
            estimate_crossing(curve.eps, curve.wrong)
            if curve.radius is None  # else it is the median radius
            else None
        ),
    ),
}


def measure(
    clean: Outcome, seen: Outcome | Curve, names: Iterable[str] = tuple(MEASURES)
) -> dict[str, Estimate]:
    """Return the numbers that exist of an outcome or of a curve, by name.

    Args:
        clean: the clean pass of the same network.
        seen: of the same images in the same order.
        names: of `MEASURES`, those that are asked for.
    """
    found = {}
    for name in names:
        each = MEASURES[name]
        if isinstance(seen, Curve):
            one = each.of_curve(seen) if each.of_curve else None
        else:
            one = each.of_outcome(clean, seen) if each.of_outcome else None
        if one is not None:
            found[name] = one
    return found


def combine(clean: Outcome, outcomes: Sequence[Outcome]) -> Iterator[Outcome]:
    """Give the worst case of each norm with several attacks, then the best adaptive attack.

    In the worst case an image is accepted if some attack's copy of it is wrong and accepted. Both
    are chosen for each image by itself. The choice is thus part of the number, and would be made in
    the same way on other images.

    Args:
        clean: the clean pass.
        outcomes: every attack at every eps, of the same images in the same order.
    """
    for norm, all_eps in list_budgets(outcomes).items():
        if len(group_by_attack(outcomes, norm)) == 1:
            continue  # the worst case of one attack is that attack
        for eps in all_eps:
            wrong = find_wrong(clean, outcomes, norm, eps)
            here = [one for one in outcomes if (one.norm, one.eps) == (norm, eps)]
            passed = [one.wrong & one.accepted for one in here if one.accepted is not None]
            yield Outcome(
                attack=WORST_CASE["attack"],
                attack_label=WORST_CASE["attack_label"],
                norm=norm,
                eps=eps,
                wrong=np.any([clean.wrong, *wrong.values()], axis=0),
                radius=None,
                scores={},
                accepted=np.any(passed, axis=0) if len(passed) == len(here) else None,
            )
    knowing = [
        one
        for one in outcomes
        if one.kind == "adaptive" and one.eps > 0 and LIKELIHOOD in one.scores
    ]
    for budget in dict.fromkeys((one.norm, one.eps) for one in knowing):
        own = [one for one in knowing if (one.norm, one.eps) == budget]
        yield find_best(own, LIKELIHOOD, BEST_ADAPTIVE)
