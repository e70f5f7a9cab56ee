"""What a cell is judged by: every number of the check, and what each image adds to it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from robustloss.metrics import rates
from robustloss.metrics.auroc_interval import influence as auroc_influence
from robustloss.metrics.auroc_interval import placements
from robustloss.metrics.bootstrap import Resamples, bootstrap_auroc, bootstrap_mean
from robustloss.results.compact.content import CellOutcomes, PassOutcome
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


@dataclass(frozen=True, eq=False)
class Measured:
    """One number of one cell.

    Attributes:
        value: the number.
        influence: (N,) what each image adds to it, to first order; the mean is 0.
        resample: gives the number on every resample, (R,).
        wrong: (N,) bool of an error, else None.
        beyond: half the images have no radius, and `value` is the largest that was found.
    """

    value: float
    influence: np.ndarray
    resample: Callable[[Resamples], np.ndarray]
    wrong: np.ndarray | None = None
    beyond: bool = False


def measure_cell(
    cell: CellOutcomes,
    passes: Collection[tuple[str, float]],
    metrics: Collection[str],
    cap: Mapping[str, float],
) -> dict[Place, Measured]:
    """Return every number of a cell that exists.

    Args:
        cell: the outcomes.
        passes: attack label and eps of those that all cells have.
        metrics: of `METRICS`.
        cap: by label of each minimum-norm attack, the radius that stands for "none found".
    """
    found: dict[Place, Measured] = {}
    kept = [one for one in cell.passes[1:] if (one.attack_label, one.eps) in passes]
    for one in (cell.clean, *kept):
        if one.scores is None:
            continue
        if "error" in metrics:
            found[Place("error", **one.place)] = measure_error(one.wrong)
        if one is cell.clean:
            continue
        if "auroc" in metrics:
            found[Place("auroc", **one.place)] = _measure_auroc(cell.clean, one)
        if "undetected_success" in metrics and not cell.clean.wrong.all():
            found[Place("undetected_success", **one.place)] = _measure_undetected(cell.clean, one)
    if "worst_case_error" in metrics:
        for norm, eps in dict.fromkeys((one.norm, one.eps) for one in kept):
            own = [one.wrong for one in kept if (one.norm, one.eps) == (norm, eps)]
            if len(own) > 1:  # of one attack alone it is that attack's error
                place = Place("worst_case_error", **WORST_CASE, norm=norm, eps=eps)
                found[place] = measure_error(np.any([cell.clean.wrong, *own], axis=0))
    if "median_radius" in metrics:
        of = {one.attack_label: one for one in kept}
        for label, radius in cell.radii.items():
            if label in of and label in cap:
                place = Place("median_radius", of[label].attack, label, of[label].norm, None)
                found[place] = measure_median(
                    np.where(cell.clean.wrong, 0.0, radius.astype(np.float64)), cap[label]
                )
    return found


def measure_error(wrong: np.ndarray) -> Measured:
    """Measure the share of images (N,) that are wrong."""
    value = float(wrong.mean())
    return Measured(value, wrong - value, lambda drawn: bootstrap_mean(drawn, wrong), wrong)


def _measure_auroc(clean: PassOutcome, attacked: PassOutcome) -> Measured:
    assert clean.scores is not None
    assert attacked.scores is not None
    before, after = clean.scores, attacked.scores
    placed = placements(before, after)
    return Measured(
        placed.auroc, auroc_influence(placed), lambda drawn: bootstrap_auroc(drawn, before, after)
    )


def _measure_undetected(clean: PassOutcome, attacked: PassOutcome) -> Measured:
    assert attacked.accepted is not None
    correct = ~clean.wrong
    passed = correct & attacked.wrong & attacked.accepted
    value = rates.undetected_success(
        correct, attacked.wrong, attacked.accepted.astype(float), threshold=1.0
    )
    excess = np.where(correct, passed - value, 0.0) / correct.mean()
    return Measured(value, excess, lambda drawn: bootstrap_mean(drawn, passed, correct))


def measure_median(radius: np.ndarray, cap: float) -> Measured:
    """Measure the median of radii.

    Args:
        radius: (N,), inf where none was found.
        cap: the radius that stands for inf, so that a loss of radii shows.

    Source: influence of a quantile, Koenker 2005, "Quantile regression", section 3.4, its
        sparsity by a difference quotient of quantiles over n^(-1/3).
    """
    beyond = bool(np.isinf(np.median(radius)))
    radius = np.minimum(radius, cap)
    value, width = float(np.median(radius)), min(0.4, radius.size ** (-1 / 3))
    low, high = np.quantile(radius, (0.5 - width, 0.5 + width))
    influence = np.sign(radius - value) / 2 * float(high - low) / (2 * width)
    order = np.argsort(radius)
    ordered = radius[order]

    def resample(drawn: Resamples) -> np.ndarray:
        below = np.cumsum(drawn.counts[:, order], axis=1, dtype=np.int64)
        return ordered[(2 * below >= drawn.n).argmax(axis=1)]

    return Measured(value, influence - influence.mean(), resample, beyond=beyond)
