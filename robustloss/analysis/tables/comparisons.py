"""Loss against loss: which differences of a run are more than chance.

Two questions, two units. Within a seed the images are the unit: would these two networks differ on
other images? Over seeds the training is the unit: would the losses differ if both were trained
again? Only the second is about the losses, and it needs several seeds.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
Place = tuple[str, str, str | None, float]  # attack, attack_label, norm, eps


@dataclass(frozen=True, eq=False)
class _Seen:
    """What one cell did under one attack at one eps.

    By metric: its value, (R,) resampled values, and (N,) what each image adds to it.
    """

    wrong: np.ndarray
    values: Mapping[str, float]
    resampled: Mapping[str, np.ndarray]
    influence: Mapping[str, np.ndarray]


def comparison_rows(cells: Sequence[Cell], resamples: int = 1000) -> list[Row]:
    """Every pair of losses, under every attack at every eps and on the clean images.

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
    order = list(dict.fromkeys(cell.label for cell in cells))
    rows: list[Row] = []
    over_seeds: dict[tuple, dict[int, tuple[float, float]]] = {}
    for seed in sorted({cell.seed for cell in cells}):
        here = {cell.label: cell for cell in cells if cell.seed == seed}
        if len(here) < 2:
            continue
        for place, seen in _by_place(here, resamples):
            for a, b in itertools.combinations([k for k in order if k in seen], 2):
                for row in _on_images(seen[a], seen[b]):
                    rows.append(_named(place, a, b) | row | {"seed": seed})
                    key = (*place, a, b, row["metric"])
                    over_seeds.setdefault(key, {})[seed] = row["value_a"], row["value_b"]
    rows = _adjusted(rows)
    several = [
        _named(key[:4], key[4], key[5]) | {"metric": key[6]} | _on_seeds(values)
        for key, values in over_seeds.items()
        if len(values) > 1
    ]
    return TABLES["comparisons"].arrange(rows + _adjusted(several))


def _by_place(
    cells: Mapping[str, Cell], resamples: int
) -> Iterator[tuple[Place, dict[str, _Seen]]]:
    """One attack at one eps after the other, with all losses of a seed side by side."""
    clean = {label: cell.record() for label, cell in cells.items()}
    first = next(iter(clean.values()))
    for label, record in clean.items():
        if not np.array_equal(record.index, first.index):
            raise ValueError(f"{label} saw other test images than {next(iter(clean))}.")
    drawn = draw_resamples(first.n, resamples)
    thresholds = {
        label: rates.threshold_at_fpr(
            class_log_likelihood(validation_record(cell.reference())), 0.05
        )
        for label, cell in cells.items()
    }
    none: Place = ("none", "none", None, 0.0)
    yield none, {label: _clean_seen(record) for label, record in clean.items()}
    places = dict.fromkeys(
        (e["attack"], e["attack_label"], e["norm"], float(e["eps"]))
        for cell in cells.values()
        for e in cell.files["records"]
        if e["attack"] != "none" and e["eps"] > 0
    )
    for place in places:
        seen = {}
        for label, cell in cells.items():
            if any((e["attack_label"], e["eps"]) == place[1::2] for e in cell.files["records"]):
                attacked = cell.record(place[1], place[3])
                seen[label] = _seen(clean[label], attacked, thresholds[label], drawn)
        yield place, seen


def _clean_seen(record: Record) -> _Seen:
    wrong = ~record.correct
    return _Seen(wrong, {"error": float(wrong.mean())}, {}, {})


def _seen(clean: Record, attacked: Record, threshold: float, drawn: Resamples) -> _Seen:
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
    return _Seen(wrong, values, resampled, influence)


def _on_images(a: _Seen, b: _Seen) -> Iterator[Row]:
    n = len(a.wrong)
    only_a, only_b = int((a.wrong & ~b.wrong).sum()), int((b.wrong & ~a.wrong).sum())
    test, p = mcnemar_test(only_a, only_b)
    difference, low, high = paired_difference(only_a, only_b, n)
    yield _row("images", "error", a, b, n, difference, low, high, test, p) | {
        "minimum_detectable": finite_or_null(detectable_by_images(n, (only_a + only_b) / n))
    }
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
        yield _row("images", metric, a, b, n, gap, low, high, "paired image bootstrap", p) | {
            "minimum_detectable": finite_or_null(width * spread)  # with power 0.8
        }


def _row(
    unit: str,
    metric: str,
    a: _Seen,
    b: _Seen,
    n: int,
    difference: float,
    low: float,
    high: float,
    test: str,
    p: float,
) -> Row:
    return {
        **{"metric": metric, "unit": unit, "n": n, "n_seeds": 1},
        **{"value_a": a.values[metric], "value_b": b.values[metric], "difference": difference},
        **{
            "low": finite_or_null(low),
            "high": finite_or_null(high),
            "test": test,
            "p_value": finite_or_null(p),
        },
    }


def _on_seeds(values: Mapping[int, tuple[float, float]]) -> Row:
    pairs = np.array(list(values.values()))
    differences = pairs[:, 0] - pairs[:, 1]
    mean, sd, low, high = t_interval(differences)
    return {
        **{"unit": "seeds", "n_seeds": len(values), "seed": None, "n": None},
        **{"value_a": float(pairs[:, 0].mean()), "value_b": float(pairs[:, 1].mean())},
        **{"difference": mean, "low": low, "high": high, "test": "paired t"},
        "p_value": finite_or_null(paired_t(differences)),
        "minimum_detectable": finite_or_null(detectable_by_seeds(sd, len(values))),
    }


def _adjusted(rows: list[Row]) -> list[Row]:
    raw = [math.nan if row["p_value"] is None else row["p_value"] for row in rows]
    adjusted = benjamini_hochberg(raw)
    return [
        row | {"p_adjusted": finite_or_null(p), "shown": bool(p <= LEVEL)}
        for row, p in zip(rows, adjusted.tolist(), strict=True)
    ]


def _named(place: Sequence[Any], a: str, b: str) -> Row:
    attack, attack_label, kind, eps = place
    return {
        **{"label_a": a, "label_b": b, "attack": attack, "attack_label": attack_label},
        **{"norm": kind, "eps": eps},
    }
