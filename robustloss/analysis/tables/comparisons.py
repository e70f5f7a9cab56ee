"""Loss against loss: which differences of a run are more than chance.

Two questions, two units. Within a seed the images are the unit: would these two networks differ on
other images? Over seeds the training is the unit: would the losses differ if both were trained
again? Only the second is about the losses, and it needs several seeds.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robustloss.analysis.detection.scores import class_log_likelihood
from robustloss.metrics import rates
from robustloss.metrics.auroc_interval import influence as auroc_influence
from robustloss.metrics.auroc_interval import placements
from robustloss.metrics.bootstrap import (
    Resamples,
    bootstrap_auroc,
    bootstrap_mean,
    degrees_of_freedom,
    draw_resamples,
    p_value,
    percentile_interval,
    student_quantile,
)
from robustloss.metrics.intervals import t_interval
from robustloss.metrics.paired_tests import (
    benjamini_hochberg,
    detectable_by_images,
    detectable_by_seeds,
    mcnemar_test,
    paired_difference,
    paired_t,
)
from robustloss.results.finished_cell import Cell
from robustloss.results.records import Record, validation_record
from robustloss.results.schema import TABLES, Row, finite_or_null

LEVEL = 0.05
RESAMPLED = ("auroc_all", "auroc_successful", "undetected_success_at_5fpr")
_PLACE = ("attack", "attack_label", "norm", "eps")


@dataclass(frozen=True, eq=False)
class _Measured:
    """What one cell did under one attack at one eps.

    By metric: its value, (R,) resampled values, and (N,) what each image adds to it.
    """

    wrong: np.ndarray
    values: Mapping[str, float]
    resampled: Mapping[str, np.ndarray]
    influence: Mapping[str, np.ndarray]


def comparison_rows(cells: Sequence[Cell], resamples: int = 1000) -> list[Row]:
    """Return a row for every pair of losses, on the clean images and under every attack.

    Metrics: the error, and of the likelihood detector the AUROC over all and over successful
    attacks and the undetected success at 5 % FPR. On the images of one seed errors are compared by
    McNemar's test, the other numbers by resampling the images, the same for both losses; where few
    images carry a difference, by Student's law with as few degrees of freedom. Over seeds the
    differences of equal seeds, which share initial weights and the order of the data, are compared
    by a paired t-test. P-values are adjusted over all rows of one unit.

    Args:
        cells: of a run, all of the same test images.
        resamples: of the image bootstrap.

    Returns:
        Rows of the table `comparisons`; difference is A − B; `shown` is p_adjusted <= 0.05.
        `minimum_detectable` is the difference that would be shown with power 0.8, before
        adjustment. A number that one side does not have (no attack succeeded) gives no row.

    Raises:
        ValueError: cells of different test images.
    """
    labels = list(dict.fromkeys(cell.label for cell in cells))
    on_images: list[Row] = []
    for seed in sorted({cell.seed for cell in cells}):
        here = {cell.label: cell for cell in cells if cell.seed == seed}
        if len(here) < 2:
            continue
        for place, measured in _measure_places(here, resamples):
            present = [label for label in labels if label in measured]
            for a, b in itertools.combinations(present, 2):
                names = {"unit": "images", "seed": seed, "label_a": a, "label_b": b} | place
                compared = _compare_on_images(measured[a], measured[b])
                on_images += [names | row for row in compared]
    same = ("label_a", "label_b", *_PLACE, "metric")
    groups: dict[tuple, list[Row]] = {}
    for row in on_images:
        groups.setdefault(tuple(row[name] for name in same), []).append(row)
    on_seeds: list[Row] = []
    for key, rows in groups.items():
        if len(rows) < 2:
            continue
        first, second = (np.array([row[name] for row in rows]) for name in ("value_a", "value_b"))
        mean, sd, low, high = t_interval(first - second)
        numbers = {
            "unit": "seeds",
            "seed": None,
            "n": None,
            "n_seeds": len(rows),
            "value_a": float(first.mean()),
            "value_b": float(second.mean()),
            "difference": mean,
            "low": low,
            "high": high,
            "test": "paired t",
            "p_value": finite_or_null(paired_t(first - second)),
            "minimum_detectable": finite_or_null(detectable_by_seeds(sd, len(rows))),
        }
        on_seeds.append(dict(zip(same, key, strict=True)) | numbers)
    return TABLES["comparisons"].arrange(_adjust(on_images) + _adjust(on_seeds))


def _measure_places(
    cells: Mapping[str, Cell], resamples: int
) -> Iterator[tuple[Row, dict[str, _Measured]]]:
    """Give the clean pass, then one attack at one eps after the other, each for all losses.

    The losses are those of one seed. Only the clean records and one attacked are in memory.
    """
    clean = {label: cell.record() for label, cell in cells.items()}
    first_label, first = next(iter(clean.items()))
    for label, record in clean.items():
        if not np.array_equal(record.index, first.index):
            raise ValueError(f"{label} saw other test images than {first_label}.")
    drawn = draw_resamples(first.n, resamples)
    thresholds = {}
    for label, cell in cells.items():
        validation = validation_record(cell.reference())
        thresholds[label] = rates.threshold_at_fpr(class_log_likelihood(validation), 0.05)
    unattacked = {}
    for label, record in clean.items():
        wrong = ~record.correct
        unattacked[label] = _Measured(wrong, {"error": float(wrong.mean())}, {}, {})
    yield dict(zip(_PLACE, ("none", "none", None, 0.0), strict=True)), unattacked
    places = dict.fromkeys(
        (e["attack"], e["attack_label"], e["norm"], float(e["eps"]))
        for cell in cells.values()
        for e in cell.files["records"]
        if e["attack"] != "none" and e["eps"] > 0
    )
    for place in places:
        _, attack_label, _, eps = place
        measured = {
            label: _measure(
                clean[label], cell.record(attack_label, eps), thresholds[label], drawn
            )
            for label, cell in cells.items()
            if any((e["attack_label"], e["eps"]) == (attack_label, eps)
                   for e in cell.files["records"])
        }  # fmt: skip
        yield dict(zip(_PLACE, place, strict=True)), measured


def _measure(clean: Record, attacked: Record, threshold: float, drawn: Resamples) -> _Measured:
    """Measure one attack on one loss; scores below the threshold are rejected."""
    wrong, correct = ~attacked.correct, clean.correct
    successful = correct & wrong
    before, after = class_log_likelihood(clean), class_log_likelihood(attacked)
    passed = successful & (after >= threshold)
    values = {
        "error": float(wrong.mean()),
        "auroc_all": rates.auroc(before, after),
        "auroc_successful": rates.auroc(before[correct], after[successful]),
        "undetected_success_at_5fpr": float(passed[correct].mean()) if correct.any() else math.nan,
    }
    resampled = {
        "auroc_all": bootstrap_auroc(drawn, before, after),
        "auroc_successful": bootstrap_auroc(drawn, before, after, correct, successful),
        "undetected_success_at_5fpr": bootstrap_mean(drawn, passed, correct),
    }
    excess = np.where(correct, passed - values["undetected_success_at_5fpr"], 0.0)
    influence = {
        "auroc_all": auroc_influence(placements(before, after)),
        "undetected_success_at_5fpr": excess * len(correct) / max(1, correct.sum()),
    }
    if successful.any():
        placed = placements(before[correct], after[successful])
        influence["auroc_successful"] = auroc_influence(placed, correct, successful)
    return _Measured(wrong, values, resampled, influence)


def _compare_on_images(a: _Measured, b: _Measured) -> Iterator[Row]:
    """Give a row for each metric that both sides have; the unit is the image."""
    n = len(a.wrong)
    only_a, only_b = int((a.wrong & ~b.wrong).sum()), int((b.wrong & ~a.wrong).sum())
    test, p = mcnemar_test(only_a, only_b)
    gap, low, high = paired_difference(only_a, only_b, n)
    detectable = detectable_by_images(n, (only_a + only_b) / n)
    found = {"error": (gap, low, high, test, p, detectable)}
    for metric in RESAMPLED:
        if metric not in a.values or math.isnan(a.values[metric] + b.values[metric]):
            continue
        differences = a.resampled[metric] - b.resampled[metric]
        gap = a.values[metric] - b.values[metric]
        freedom = degrees_of_freedom(a.influence[metric] - b.influence[metric])
        low, high = percentile_interval(differences, observed=gap, freedom=freedom)
        p = p_value(differences, gap, freedom=freedom)
        spread = float(np.nanstd(differences)) if np.isfinite(differences).any() else math.nan
        width = student_quantile(LEVEL / 2, freedom) + student_quantile(0.2, freedom)
        detectable = width * spread  # with power 0.8
        found[metric] = (gap, low, high, "paired image bootstrap", p, detectable)
    for metric, (gap, low, high, test, p, detectable) in found.items():
        yield {
            "metric": metric,
            "n": n,
            "n_seeds": 1,
            "value_a": a.values[metric],
            "value_b": b.values[metric],
            "difference": gap,
            "low": finite_or_null(low),
            "high": finite_or_null(high),
            "test": test,
            "p_value": finite_or_null(p),
            "minimum_detectable": finite_or_null(detectable),
        }


def _adjust(rows: list[Row]) -> list[Row]:
    """Return the rows with their p-values adjusted for the number of them."""
    raw = [math.nan if row["p_value"] is None else row["p_value"] for row in rows]
    return [
        row | {"p_adjusted": finite_or_null(p), "shown": bool(p <= LEVEL)}
        for row, p in zip(rows, benjamini_hochberg(raw).tolist(), strict=True)
    ]
