"""A finished run, reduced to what a baseline holds."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from robustloss.analysis.detection.scores import class_log_likelihood
from robustloss.analysis.outcomes import find_radius, find_wrong, list_budgets, reduce_record
from robustloss.metrics.rates import threshold_at_fpr
from robustloss.results.compact.content import TABLES_KEPT, Baseline, CellOutcomes, PassOutcome
from robustloss.results.finished_cell import Cell
from robustloss.results.provenance import find_searches
from robustloss.results.records import validation_record
from robustloss.results.run import Run
from robustloss.results.schema import Row
from robustloss.spec.detection import LIKELIHOOD

_MOST_FLOAT16 = float(np.finfo(np.float16).max)
# What of the provenance is kept: all that decides the numbers, and nothing that says when.
_KEPT = (
    *("robustloss", "torch", "torchvision", "numpy", "python", "platform", "device", "precision"),
    *("threads", "seeds", "data", "spec", "merged"),
)


def reduce_run(run: Run) -> Baseline:
    """Return what a baseline holds of a run.

    Args:
        run: with its folder.

    Raises:
        ValueError: it has no cell, or its numbers may not be those that it came to.
    """
    if run.doubts:
        raise ValueError(f"{run.path} cannot be compared: {run.doubts[0]}")
    if not run.cells:
        raise ValueError(
            f"run (={run.path}) has no finished cell. Name a run folder with finished cells; "
            "`robustloss.evaluate` keeps one where out= names it."
        )
    cells, first = [], run.cells[0].record().index
    for cell in sorted(run.cells, key=lambda cell: (cell.label, cell.seed)):
        if not np.array_equal(cell.record().index, first):
            raise ValueError(f"{cell.label} saw other test images than {run.cells[0].label}.")
        cells.append(reduce_cell(cell))
    kept = {(cell.label, cell.seed) for cell in cells}
    tables = {
        name: [
            _without_times(row)
            for row in run.table(name)
            if (row["label"], row["seed"]) in kept
            and (name != "detection" or row["score"] == LIKELIHOOD)
        ]
        for name in TABLES_KEPT
    }
    provenance = {key: run.provenance[key] for key in _KEPT if key in run.provenance}
    if searches := find_searches(run.provenance):
        own = {cell.label for cell in cells}
        provenance["searches"] = {k: tried for k, tried in searches.items() if k in own}
    return Baseline(run.path, run.name, provenance, first, tuple(cells), tables)


def _without_times(row: Row) -> Row:
    """Return a row without seconds, which differ between equal runs; a curve has them too."""
    kept = {key: value for key, value in row.items() if key != "seconds"}
    if "curve" in kept:
        kept["curve"] = [_without_times(line) for line in kept["curve"]]
    return kept


def reduce_cell(cell: Cell) -> CellOutcomes:
    """Return what a baseline holds of one cell; one record is in memory at a time.

    Attacks at eps 0 leave the clean images as they are and are left out. A minimum-norm attack also
    has an outcome at every budget of its norm that only other attacks were run at: it counts for
    the worst case.

    Args:
        cell: finished.
    """
    validation = class_log_likelihood(validation_record(cell.reference()))
    threshold = threshold_at_fpr(validation, 0.05)
    entries = cell.files["records"]
    clean_entry: Mapping[str, Any] = next(e for e in entries if e["attack"] == "none")
    record = cell.record()
    likelihood = class_log_likelihood(record)
    clean, outcomes, passes = reduce_record(clean_entry, record, {}), [], []
    shift, scale = _locate(likelihood)
    attacked = [e for e in entries if e["attack"] != "none" and e["eps"] > 0]
    for entry in [clean_entry, *attacked]:
        if entry is not clean_entry:
            record = cell.record(entry["attack_label"], entry["eps"])
            likelihood = class_log_likelihood(record)
            outcomes.append(reduce_record(entry, record, {}))
        passes.append(
            PassOutcome(
                **{name: entry[name] for name in ("attack", "attack_label", "norm")},
                eps=float(entry["eps"]),
                wrong=~record.correct,
                accepted=likelihood >= threshold,
                scores=_halve((likelihood - shift) / scale),
            )
        )
    radii = {}
    for label in dict.fromkeys(one.attack_label for one in outcomes):
        own = [one for one in outcomes if one.attack_label == label]
        if (radius := find_radius(own)) is not None:
            radii[label] = _shorten(radius)
    recorded = {(one.attack_label, one.eps) for one in outcomes}
    names = {one.attack_label: one.attack for one in outcomes}
    for norm, budgets in list_budgets(outcomes).items():
        for eps in budgets:
            for label, wrong in find_wrong(clean, outcomes, norm, eps).items():
                if (label, eps) not in recorded:
                    passes.append(PassOutcome(names[label], label, norm, eps, wrong))
    return CellOutcomes(
        loss=cell.loss,
        label=cell.label,
        seed=cell.seed,
        weights=cell.weights or None,
        threshold=threshold,
        shift=shift,
        scale=scale,
        passes=tuple(passes),
        radii=radii,
    )


def _locate(scores: np.ndarray) -> tuple[float, float]:
    """Return the median of the finite clean scores, and half the distance of their quartiles or 1.

    The digits of a float16 then lie where the clean scores do, whatever their level.
    """
    finite = scores[np.isfinite(scores)]
    if finite.size == 0:
        return 0.0, 1.0
    low, middle, high = np.quantile(finite, (0.25, 0.5, 0.75))
    return float(middle), float(high - low) / 2 or 1.0


def _halve(values: np.ndarray) -> np.ndarray:
    """Return float16 values; finite ones stay finite."""
    held = np.clip(values, -_MOST_FLOAT16, _MOST_FLOAT16)
    return np.where(np.isinf(values), values, held).astype(np.float16)


def _shorten(radius: np.ndarray) -> np.ndarray:
    """Return radii as float16, or as float32 where one is too large for that."""
    largest = radius[np.isfinite(radius)].max(initial=0.0)
    return radius.astype(np.float16 if largest <= _MOST_FLOAT16 else np.float32)
