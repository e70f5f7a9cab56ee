"""Table summary: a column of another table over the training seeds."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robustloss.metrics.intervals import t_interval
from robustloss.results.columns import Column
from robustloss.results.schema import BEST_ADAPTIVE, TABLES, WORST_CASE, Row

BEST = BEST_ADAPTIVE["attack"]
_NOT_NEGATIVE = ("median_radius", "eps_at_50_error", "mean_excess", "brier")  # and no shares
# how the interval over images is made, by the first word of the metric
_INTERVALS = {
    "error": "Wilson over images",
    "auroc": "clustered DeLong over images",
    "undetected": "Wilson over images",
    "augrc": "jackknife over images",
    "aurc": "jackknife over images",
    "ece": "bootstrap over images",
    "brier": "t over images",
    "median": "order statistics over images",
    "top1": "Wilson over images",
    "top5": "Wilson over images",
}
# what the names of the columns begin with that hold one seed's own interval; else the metric
_ENDS = {"ece_equal_width": "ece", "top1_error": "top1", "top5_error": "top5"}
_PLACE = ("loss", "label", "attack", "attack_label", "norm", "eps")


def summarise(tables: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[Row]:
    """Return the mean of every summarised column over the seeds, with a t-interval cut to [0, 1].

    Seeds where the metric is null are left out; `n_seeds` counts those used. One seed has no
    t-interval, and seeds that agree to the image have one of no width, which would differ from
    anything. Both keep the interval over images that their rows hold, if they hold one.

    Args:
        tables: the tables of a run by name, as in results.json. A column that an older row lacks
            counts as null. The worst case is summarised as attack "worst_case"; the eps of numbers
            about a whole error curve, which have none, is null.

    Returns:
        One row for each metric and each group of rows that differ by their seed alone.
    """
    summary = []
    for name, table in TABLES.items():
        metrics = [column for column in table.columns if column.summarised]
        group_by = [column for column in table.sorted_by if column != "seed"]
        groups: dict[tuple, list[Row]] = {}
        for row in tables.get(name, ()) if metrics else ():
            if name == "adaptive" and not (row.get("kind") == BEST and row["adapted"]):
                continue  # the attacks by themselves have these numbers in `rows`
            row = {**WORST_CASE, **row} if name == "worst_case" else dict(row)
            groups.setdefault(tuple(row[column] for column in group_by), []).append(row)
        for group in groups.values():
            group.sort(key=lambda row: row["seed"])
            place = {column: group[0].get(column) for column in (*_PLACE, *group_by)}
            summary += [
                place | {"metric": metric.name} | over_seeds(group, metric) for metric in metrics
            ]
    return TABLES["summary"].arrange(summary)


def name_ends(metric: str) -> tuple[str, str]:
    """Return the names of the columns that hold one seed's own interval of a metric."""
    return f"{_ENDS.get(metric, metric)}_low", f"{_ENDS.get(metric, metric)}_high"


def over_seeds(group: Sequence[Mapping[str, Any]], column: Column) -> Row:
    """Return a column over some seeds, as the table `summary` has it.

    Args:
        group: one row for each seed, in their order; those without a value are left out.
        column: of the table of the rows.

    Returns:
        n_seeds, seeds, values, mean, sd, low, high and interval; see `summarise`.
    """
    metric = column.name
    ends = name_ends(metric)
    used = [row for row in group if row.get(metric) is not None]
    values = [row[metric] for row in used]
    mean = sd = low = high = interval = None
    of_images = all(row.get(ends[0]) is not None for row in used)
    if len(set(values)) == 1 and (len(values) == 1 or of_images):
        mean, sd = values[0], None if len(values) == 1 else 0.0
        if of_images:
            low = min(row[ends[0]] for row in used)
            highs = [row[ends[1]] for row in used]
            high = None if None in highs else max(highs)  # null: beyond what was found
            interval = _INTERVALS.get(metric.split("_")[0], "over images")
    elif values:
        mean, sd, low, high = t_interval(values)
        # What the interval says below 0, and for a share beyond 1, cannot be true.
        if column.scale or metric in _NOT_NEGATIVE:
            low = max(0.0, low)
        if column.scale:
            high = min(1.0, high)
        interval = "t over seeds"
    return {
        "n_seeds": len(used),
        "seeds": [row["seed"] for row in used],
        "values": values,
        "mean": mean,
        "sd": sd,
        "low": low,
        "high": high,
        "interval": interval,
    }
