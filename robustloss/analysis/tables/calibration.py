"""Tables calibration and reliability."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robustloss.analysis.tables.measured import MeasuredPass
from robustloss.metrics.bootstrap import Resamples
from robustloss.metrics.calibration import (
    brier_scores,
    confidence_of,
    equal_mass,
    equal_width,
    error_floor,
    error_interval,
    negative_log_likelihood,
)
from robustloss.metrics.intervals import t_interval
from robustloss.results.schema import Row, finite_or_null


def calibration_rows(
    one: MeasuredPass, resamples: Resamples, temperature: float | None = None
) -> list[Row]:
    """Return the row that says how well the confidences of one pass are calibrated.

    Args:
        one: clean or attacked; there is no row for an attack at eps 0, which is the clean pass.
        resamples: of its images.
        temperature: fitted on validation; None to leave its columns null.
    """
    if one.repeats_clean:
        return []
    record = one.record
    confidence, correct = confidence_of(record.logits), record.correct
    width, mass = equal_width(confidence, correct), equal_mass(confidence, correct)
    low, high = error_interval(width, confidence, correct, resamples)
    floor, floor_high = error_floor(width, confidence)
    brier, _, brier_low, brier_high = t_interval(brier_scores(record.logits, record.labels))
    row = one.place | {
        "n": record.n,
        "accuracy": float(correct.mean()),
        "mean_confidence": float(confidence.mean()),
        "ece_equal_width": width.error,
        "ece_low": low,
        "ece_high": high,
        "ece_floor": floor,
        "ece_floor_high": floor_high,
        "ece_equal_mass": mass.error,
        "brier": brier,
        "brier_low": finite_or_null(float(np.maximum(0.0, brier_low))),
        "brier_high": finite_or_null(brier_high),
        "nll": negative_log_likelihood(record.logits, record.labels),
        "temperature": temperature,
        "ece_after": None,
        "nll_after": None,
    }
    if temperature is not None:
        cooled = np.asarray(record.logits, np.float64) / temperature
        row["ece_after"] = equal_width(confidence_of(cooled), correct).error
        row["nll_after"] = negative_log_likelihood(record.logits, record.labels, temperature)
    return [row]


def reliability_rows(one: MeasuredPass) -> list[Row]:
    """Return a row for each bin of confidence that has images.

    Args:
        one: clean or attacked; there are no rows for an attack at eps 0, which is the clean pass.
    """
    if one.repeats_clean:
        return []
    confidence, correct = confidence_of(one.record.logits), one.record.correct
    return [
        one.place
        | {
            "binning": name,
            "bin": int(j),
            "low": float(bins.edges[j]),
            "high": float(bins.edges[j + 1]),
            "count": int(bins.count[j]),
            "mean_confidence": float(bins.confidence[j]),
            "accuracy": float(bins.accuracy[j]),
        }
        for name, binned in (("equal_width", equal_width), ("equal_mass", equal_mass))
        for bins in [binned(confidence, correct)]
        for j in np.flatnonzero(bins.count)
    ]


def pool_bins(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the bins of several seeds put together: counts added, means weighted by them.

    Args:
        rows: of the table `reliability`, of bins with the same edges.
    """
    bins: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        bins.setdefault(row["bin"], []).append(row)
    pooled = []
    for number in sorted(bins):
        counts = [row["count"] for row in bins[number]]
        pooled.append({**bins[number][0], "count": sum(counts)})
        for name in ("mean_confidence", "accuracy"):
            values = [row[name] for row in bins[number]]
            pooled[-1][name] = float(np.average(values, weights=counts))
    return pooled
