"""The summary of results.json: each metric over the training seeds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robustloss.metrics.intervals import t_interval
from robustloss.results.schema import SUMMARY_COLUMNS, WORST_CASE, Row, sort

SUMMARY_METRICS = (
    *("error", "attack_success_rate", "mean_max_posterior", "zero_gradient_fraction"),
    *("auroc_all", "auroc_successful", "tpr_at_1fpr", "tpr_at_5fpr", "tpr_at_5fpr_successful"),
    *("undetected_success_at_5fpr", "outside_fraction", "error_8bit", "balanced_error"),
)
WORST_CASE_METRICS = ("error",)
LENGTHS = ("median_radius", "eps_at_50_error")  # in the unit of eps, every other metric is a share
RADII_METRICS = (*LENGTHS, "area_under_error_curve")


def summarise(
    rows: Iterable[Mapping[str, Any]],
    worst_case: Iterable[Mapping[str, Any]] = (),
    radii: Iterable[Mapping[str, Any]] = (),
) -> list[Row]:
    """Each metric over the seeds: mean with a t-interval cut to [0, 1], and every seed's value.

    Seeds where the metric is null are left out; `n_seeds` counts those used. One seed has no
    t-interval, and seeds that agree to the image have one of no width, which would differ from
    anything: their error keeps the Wilson interval over images. One seed's AUROC keeps its
    clustered interval over images; one seed's other metrics have none.

    Args:
        rows: as in results.json; a metric that an older row lacks is null.
        worst_case: likewise; summarised as attack "worst_case".
        radii: likewise; their eps is null, because they are about the whole error curve.

    Returns:
        One entry per (label, attack_label, norm, eps, metric), sorted.
    """
    summary = _summarised(rows, SUMMARY_METRICS)
    summary += _summarised((WORST_CASE | dict(row) for row in worst_case), WORST_CASE_METRICS)
    summary += _summarised(({"eps": None} | dict(row) for row in radii), RADII_METRICS)
    return sort(summary, SUMMARY_COLUMNS)


def _summarised(rows: Iterable[Mapping[str, Any]], metrics: Sequence[str]) -> list[Row]:
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for row in rows:
        key = row["label"], row["attack_label"], row["norm"], row["eps"]
        groups.setdefault(key, []).append(row)
    return [
        _summary_row(sorted(group, key=lambda row: row["seed"]), metric)
        for group in groups.values()
        for metric in metrics
    ]


def _summary_row(group: Sequence[Mapping[str, Any]], metric: str) -> Row:
    used = [row for row in group if row.get(metric) is not None]
    values = [row[metric] for row in used]
    mean = sd = low = high = interval = None
    if len(set(values)) == 1 and (len(values) == 1 or metric == "error"):
        mean, sd = values[0], None if len(values) == 1 else 0.0
        if metric == "error":
            low = min(row["error_low"] for row in used)
            high = max(row["error_high"] for row in used)
            interval = "Wilson over images"
        elif used[0].get(f"{metric}_low") is not None:  # AUROC of one seed
            low, high = used[0][f"{metric}_low"], used[0][f"{metric}_high"]
            interval = "clustered DeLong over images"
    elif values:
        mean, sd, low, high = t_interval(values)
        # What the interval says below 0, and for a share beyond 1, cannot be true.
        low = max(0.0, low)
        high = high if metric in LENGTHS else min(1.0, high)
        interval = "t over seeds"
    row = dict(group[0]) | {
        "metric": metric,
        "n_seeds": len(used),
        "seeds": [row["seed"] for row in used],
        "values": values,
        "mean": mean,
        "sd": sd,
        "low": low,
        "high": high,
        "interval": interval,
    }
    return {name: row[name] for name in SUMMARY_COLUMNS}
