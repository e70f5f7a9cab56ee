"""Tables shifts and corruption: images that are changed but keep their label."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robustloss.analysis.detection.compute import ROW_SCORE
from robustloss.analysis.outcomes import error_columns
from robustloss.metrics.auroc_interval import auroc_interval
from robustloss.metrics.calibration import confidence_of, equal_width
from robustloss.metrics.intervals import t_interval
from robustloss.metrics.rates import rejected_fraction, threshold_at_fpr
from robustloss.results.records import Record
from robustloss.results.schema import Row, cell_place, finite_or_null
from robustloss.results.scores import CLEAN, VALIDATION, Pass, StoredScores


def shift_rows(
    cell: Mapping[str, Any], records: Mapping[tuple[str, float], Record], stored: StoredScores
) -> list[Row]:
    """Return a row for each shift and severity.

    An image that keeps its label and is classified rightly should pass the detector: what it
    rejects of them counts against it.

    Args:
        cell: As cell.json.
        records: By shift and severity.
        stored: The scores of the cell.
    """
    clean = stored.get(ROW_SCORE, CLEAN)
    threshold = threshold_at_fpr(stored.get(ROW_SCORE, VALIDATION), 0.05)
    rows = []
    for (shift, severity), record in records.items():
        scores, wrong = stored.get(ROW_SCORE, Pass("shifted", shift, severity)), ~record.correct
        area = auroc_interval(clean, scores, stored.index, record.index)
        row = cell_place(cell) | {"shift": shift, "severity": int(severity)}
        row |= error_columns(wrong) | {
            "ece": equal_width(confidence_of(record.logits), record.correct).error,
            "score": ROW_SCORE,
            "auroc": area.auroc,
            "auroc_low": area.low,
            "auroc_high": area.high,
            "rejected_at_5fpr": rejected_fraction(scores, threshold),
            "rejected_correct_at_5fpr": rejected_fraction(scores[~wrong], threshold),
            "undetected_error_at_5fpr": float(np.mean(wrong & (scores >= threshold))),
        }
        floats = {key: value for key, value in row.items() if isinstance(value, float)}
        rows.append(row | {key: finite_or_null(value) for key, value in floats.items()})
    return rows


def corruption_rows(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[Row]:
    """Return the mean corruption error of every loss.

    The errors of a shift are summed over its severities and divided by those of the first loss
    with the same seed; their mean over the shifts is the mean corruption error. Below 1 a loss errs
    less than the first. A shift that one of the two lacks, or in which the first never errs, is
    left out.

    Args:
        rows: Of the table `shifts`.
        labels: The losses in their order; the first is compared with.

    Returns:
        One row for each loss that has shifts, with t-intervals over the seeds; null ends with one.

    Source: Hendrycks and Dietterich 2019, with the first loss in place of AlexNet.
    """
    errors: dict[tuple[str, int], dict[str, dict[int, float]]] = {}
    loss_of: dict[str, str] = {}
    for row in rows:
        own = errors.setdefault((row["label"], row["seed"]), {}).setdefault(row["shift"], {})
        own[row["severity"]] = row["error"]
        loss_of[row["label"]] = row["loss"]
    known = [label for label in labels if label in loss_of]
    found = []
    for label in known:
        seeds = [seed for name, seed in errors if name == label]
        means = [
            float(np.mean([e for shift in errors[label, seed].values() for e in shift.values()]))
            for seed in seeds
        ]
        pairs = [(errors[label, seed], errors.get((known[0], seed), {})) for seed in seeds]
        ratios = [ratio for pair in pairs if (ratio := _relative(*pair)) is not None]
        found.append(
            {"loss": loss_of[label], "label": label, "baseline": known[0], "n_seeds": len(means)}
            | _over_seeds("error", means)
            | _over_seeds("mce", ratios)
        )
    return found


def _relative(
    own: Mapping[str, Mapping[int, float]], first: Mapping[str, Mapping[int, float]]
) -> float | None:
    """Return the mean over shifts of the error relative to the first loss's; None without any."""
    ratios = []
    for shift, errors in own.items():
        common = errors.keys() & first.get(shift, {}).keys()
        total = sum(first[shift][severity] for severity in common)
        if total > 0:
            ratios.append(sum(errors[severity] for severity in common) / total)
    return float(np.mean(ratios)) if ratios else None


def _over_seeds(name: str, values: Sequence[float]) -> Row:
    mean, _, low, high = t_interval(values) if values else (math.nan,) * 4
    columns = {name: mean, f"{name}_low": low, f"{name}_high": high}
    return {key: finite_or_null(value) for key, value in columns.items()}
