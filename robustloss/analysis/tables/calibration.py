"""Tables calibration and reliability."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robustloss.metrics.bootstrap import Resamples, draw_resamples
from robustloss.metrics.calibration import (
    RESAMPLES,
    Binned,
    brier_score,
    equal_mass,
    equal_width,
    error_floor,
    error_interval,
    log_posteriors,
    negative_log_likelihood,
)
from robustloss.results.records import Record
from robustloss.results.schema import Row


def calibration_rows(
    place: Mapping[str, Any],
    record: Record,
    *,
    resamples: Resamples | None = None,
    temperature: float | None = None,
) -> tuple[Row, list[Row]]:
    """How well one record's confidences are calibrated.

    Args:
        place: columns that say which record this is.
        record: clean or attacked.
        resamples: of its images; drawn here when not given.
        temperature: fitted on validation; None to leave it out.

    Returns:
        A row of the table `calibration`, and the bins with images for `reliability`.
    """
    log_posterior = log_posteriors(record.logits)
    confidence, correct = np.exp(log_posterior.max(1)), record.correct
    resamples = resamples or draw_resamples(record.n, RESAMPLES)
    width, mass = equal_width(confidence, correct), equal_mass(confidence, correct)
    low, high = error_interval(width, confidence, correct, resamples)
    floor, floor_high = error_floor(width, confidence)
    row = dict(place) | {
        "n": record.n,
        "accuracy": float(correct.mean()),
        "mean_confidence": float(confidence.mean()),
        "ece_equal_width": width.error,
        "ece_low": low,
        "ece_high": high,
        "ece_floor": floor,
        "ece_floor_high": floor_high,
        "ece_equal_mass": mass.error,
        "brier": brier_score(record.logits, record.labels),
        "nll": negative_log_likelihood(record.logits, record.labels),
        "temperature": temperature,
        "ece_after": None,
        "nll_after": None,
    }
    if temperature is not None:
        cooled = np.exp(log_posteriors(np.asarray(record.logits, np.float64) / temperature).max(1))
        row["ece_after"] = equal_width(cooled, correct).error
        row["nll_after"] = negative_log_likelihood(record.logits, record.labels, temperature)
    bins = _bin_rows(place, "equal_width", width) + _bin_rows(place, "equal_mass", mass)
    return row, bins


def _bin_rows(place: Mapping[str, Any], binning: str, binned: Binned) -> list[Row]:
    return [
        dict(place)
        | {
            "binning": binning,
            "bin": int(j),
            "low": float(binned.edges[j]),
            "high": float(binned.edges[j + 1]),
            "count": int(binned.count[j]),
            "mean_confidence": float(binned.confidence[j]),
            "accuracy": float(binned.accuracy[j]),
        }
        for j in np.flatnonzero(binned.count)
    ]


def pooled(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Bins of several seeds put together, for equal edges: counts added, means weighted by them."""
    found: dict[int, Row] = {}
    for row in rows:
        own = found.setdefault(
            row["bin"], {**row, "count": 0, "mean_confidence": 0.0, "accuracy": 0.0}
        )
        own["count"] += row["count"]
        own["mean_confidence"] += row["count"] * row["mean_confidence"]
        own["accuracy"] += row["count"] * row["accuracy"]
    for own in found.values():
        own["mean_confidence"] /= own["count"]
        own["accuracy"] /= own["count"]
    return [found[j] for j in sorted(found)]
