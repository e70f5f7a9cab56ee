"""Every loss that two runs share, number by number: is it shown worse than it was?"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from robustloss.analysis.baseline.changes import Change, compare_images, compare_seeds
from robustloss.analysis.baseline.measures import METRICS, Place, measure_cell
from robustloss.metrics.bootstrap import RESAMPLES, draw_resamples
from robustloss.metrics.estimates import Estimate
from robustloss.metrics.paired_tests import holm
from robustloss.results.compact.content import CellOutcomes

LEVEL = 0.05
Design = Literal["same networks", "one network each", "same seeds", "one seed against several",
                 "other seeds"]  # fmt: skip

_AUROC_RESOLUTION = 0.001  # a baseline holds AUROC and radii no more exactly
_RADIUS_RESOLUTION = 0.001  # of the radius itself


@dataclass(frozen=True)
class Finding:
    """One number of one loss against the baseline.

    Attributes:
        label: the loss.
        place: metric, attack and eps.
        design: which networks stand against which.
        seeds: of the run, and of the baseline.
        n: test images.
        value: of the run, the mean over its seeds; null where half the images have no radius.
        baseline: likewise.
        worse_by: their difference, positive where the run is worse.
        tolerance: by how much it may be worse.
        test: name of the test.
        p_value: of "worse by no more than the tolerance", one-sided.
        p_adjusted: the same, adjusted for all tests of the check (Holm).
        worse: p_adjusted <= 0.05: shown worse.
        detectable: the smallest worsening that would have been shown with power 0.8, at the level
            that is left for each test if all are counted (Bonferroni); null where the images say
            nothing about it.
    """

    label: str
    place: Place
    design: Design
    seeds: tuple[int, int]
    n: int
    value: float | None
    baseline: float | None
    worse_by: float
    tolerance: float
    test: str
    p_value: float
    p_adjusted: float
    worse: bool
    detectable: float | None


def judge(
    run: Mapping[str, Sequence[CellOutcomes]],
    baseline: Mapping[str, Sequence[CellOutcomes]],
    tolerance: Mapping[str, float],
    metrics: Collection[str] = tuple(METRICS),
    resamples: int = RESAMPLES,
) -> list[Finding]:
    """Test every number of every loss that both sides have; all tests are one family.

    Args:
        run: the cells by label, of the same test images.
        baseline: likewise, with the labels of the run's attacks.
        tolerance: by metric, in the unit of results.json; 0 where it is missing. Of AUROC and
            median radius it is at least what a baseline file can hold, 0.001 and 0.1 %.
        metrics: of `METRICS`; the fewer, the more each test can show.
        resamples: of the image bootstrap.

    Returns:
        Findings in the order of the run's losses and passes.
    """
    found: list[tuple[Finding, Change]] = []
    drawn = None
    for label in (label for label in run if label in baseline):
        new, old, design = _match(run[label], baseline[label])
        n = new[0].clean.wrong.size
        sides = _measure(new, old, metrics)
        for place in (
            place for place in sides[0][0] if all(place in m for m in sides[0] + sides[1])
        ):
            sign = METRICS[place.metric]
            of_run, of_baseline = ([m[place] for m in side] for side in sides)
            values = [float(np.mean([m.value for m in side])) for side in (of_run, of_baseline)]
            limit = max(tolerance.get(place.metric, 0.0), _resolution(place.metric, values[1]))
            if design in ("same networks", "one network each"):
                drawn = drawn or draw_resamples(n, resamples)
                change = compare_images(of_run, of_baseline, sign, limit, drawn)
            else:
                paired = design == "same seeds"
                change = compare_seeds(of_run, of_baseline, sign, limit, paired=paired)
            one = Finding(
                label=label,
                place=place,
                design=design,
                seeds=(len(new), len(old)),
                n=n,
                value=None if any(m.beyond for m in of_run) else values[0],
                baseline=None if any(m.beyond for m in of_baseline) else values[1],
                worse_by=change.worse_by,
                tolerance=limit,
                test=change.test,
                p_value=change.p_value,
                p_adjusted=math.nan,
                worse=False,
                detectable=None,
            )
            found.append((one, change))
    level = LEVEL / max(1, len(found))
    adjusted = holm([one.p_value for one, _ in found]).tolist()
    return [
        replace(
            one,
            p_adjusted=p,
            worse=p <= LEVEL,
            detectable=change.detectable(level, one.tolerance) if change.spread > 0 else None,
        )
        for (one, change), p in zip(found, adjusted, strict=True)
    ]


def _match(
    run: Sequence[CellOutcomes], baseline: Sequence[CellOutcomes]
) -> tuple[list[CellOutcomes], list[CellOutcomes], Design]:
    """Return the cells of one loss that are compared, in one order, and how."""
    new, old = ({cell.seed: cell for cell in side} for side in (run, baseline))
    same = [
        seed
        for seed, cell in new.items()
        if seed in old and cell.weights is not None and cell.weights == old[seed].weights
    ]
    if len(same) == len(new):
        return [new[seed] for seed in same], [old[seed] for seed in same], "same networks"
    if len(new) == len(old) == 1:
        return list(run), list(baseline), "one network each"
    if new.keys() == old.keys():
        return list(new.values()), [old[seed] for seed in new], "same seeds"
    if 1 in (len(new), len(old)):
        return list(run), list(baseline), "one seed against several"
    return list(run), list(baseline), "other seeds"


def _measure(
    run: Sequence[CellOutcomes], baseline: Sequence[CellOutcomes], metrics: Collection[str]
) -> tuple[list[dict[Place, Estimate]], list[dict[Place, Estimate]]]:
    """Return the numbers of the cells of both sides, over the passes that all of them have."""
    cells = [*run, *baseline]
    passes = set.intersection(
        *({(one.attack_label, one.eps) for one in cell.passes[1:]} for cell in cells)
    )
    radii: dict[str, list[np.ndarray]] = {}
    for cell in cells:
        for label, radius in cell.radii.items():
            radii.setdefault(label, []).append(radius[np.isfinite(radius)])
    # Where an attack found nothing, its largest radius of all stands for more than it.
    cap = {
        label: float(np.concatenate(own).max())
        for label, own in radii.items()
        if len(own) == len(cells) and any(each.size for each in own)
    }
    first, second = (
        [measure_cell(cell, passes, metrics, cap) for cell in side] for side in (run, baseline)
    )
    return first, second


def _resolution(metric: str, value: float) -> float:
    """Return the difference below which a baseline file says nothing about a metric."""
    if metric == "auroc":
        return _AUROC_RESOLUTION
    return _RADIUS_RESOLUTION * abs(value) if metric == "median_radius" else 0.0
