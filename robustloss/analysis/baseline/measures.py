"""What a cell is judged by: every number of the check, and what each image adds to it."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from robustloss.analysis.measures import combine, measure
from robustloss.analysis.outcomes import Outcome
from robustloss.analysis.subjects import as_outcome
from robustloss.metrics.estimates import Estimate, estimate_median
from robustloss.results.compact.content import CellOutcomes
from robustloss.results.schema import WORST_CASE

# Names as gates have them; +1 where more is worse, -1 where less is.
METRICS: Mapping[str, int] = {
    "error": 1,
    "worst_case_error": 1,
    "auroc": -1,
    "undetected_success": 1,
    "median_radius": -1,
}


class Place(NamedTuple):
    """What is measured: one metric, of one attack or the worst case, at one eps or over all."""

    metric: str
    attack: str
    attack_label: str
    norm: str | None
    eps: float | None


# and the number of `analysis.measures` that each of those of a pass is
_OF_PASS = {
    "error": "error",
    "auroc": "auroc_all",
    "undetected_success": "undetected_success_at_5fpr",
}
_OF_WORST = {"worst_case_error": "error"}


def measure_cell(
    cell: CellOutcomes,
    passes: Collection[tuple[str, float]],
    metrics: Collection[str],
    cap: Mapping[str, float],
) -> dict[Place, Estimate]:
    """Return every number of a cell that exists.

    Args:
        cell: the outcomes.
        passes: attack label and eps of those that all cells have.
        metrics: of `METRICS`.
        cap: by label of each minimum-norm attack, the radius that stands for "none found".
    """
    found: dict[Place, Estimate] = {}
    kept = [one for one in cell.passes[1:] if (one.attack_label, one.eps) in passes]
    clean, *attacked = (as_outcome(one) for one in (cell.clean, *kept))
    scored = [one for one in (clean, *attacked) if one.scores]  # the others are of radii alone
    combined = [
        one
        for one in combine(clean, attacked)
        if sum(_takes_part(each, one) for each in attacked) > 1  # of one attack it is that attack
    ]
    for one in (*scored, *combined):
        worst = one.attack == WORST_CASE["attack"]
        metric_of = {
            name: metric
            for metric, name in (_OF_WORST if worst else _OF_PASS).items()
            if metric in metrics
        }
        for name, number in measure(clean, one, metric_of).items():
            found[Place(metric_of[name], **one.place)] = number
    if "median_radius" in metrics:
        of = {one.attack_label: one for one in kept}
        for label, radius in cell.radii.items():
            if label in of and label in cap:
                place = Place("median_radius", of[label].attack, label, of[label].norm, None)
                own = np.where(cell.clean.wrong, 0.0, radius.astype(np.float64))
                found[place] = estimate_median(own, cap[label])
    return found


def _takes_part(one: Outcome, combined: Outcome) -> bool:
    """Return whether an attack is one of those that are taken together image by image."""
    knows = combined.attack == WORST_CASE["attack"] or one.kind == "adaptive"
    return knows and (one.norm, one.eps) == (combined.norm, combined.eps)
