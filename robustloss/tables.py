"""The tables of results.json: rows, detection, flags of a cell, and the summary over seeds.

A table is a list of flat dicts with the columns below, in this order; None is null.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from robustloss import metrics
from robustloss.detection import POPULATIONS, SCORES, detect, number
from robustloss.records import Record, clean_pass
from robustloss.statistics import t_interval, wilson

Row = dict[str, Any]

ROW_SCORE = "class_log_likelihood"  # the score of the detection columns of `rows`: the paper's
ROW_COLUMNS = (
    *("loss", "label", "seed", "attack", "attack_label", "norm", "eps", "n"),
    *("error", "error_low", "error_high", "attack_success_rate", "mean_max_posterior"),
    *("zero_gradient_fraction", "score", "auroc_all", "auroc_successful", "n_successful"),
    *("tpr_at_1fpr", "tpr_at_1fpr_successful", "tpr_at_5fpr", "tpr_at_5fpr_successful"),
    "undetected_success_at_5fpr",
)
DETECTION_COLUMNS = (
    *("loss", "label", "seed", "attack", "attack_label", "norm", "eps", "score", "population"),
    *("n_clean", "n_attacked", "auroc", "average_precision", "tpr_at_1fpr", "tpr_at_5fpr"),
    *("clean_rejected_at_95tpr", "undetected_success_at_5fpr", "threshold_5fpr"),
    "clean_rejected_fraction",
)
FLAG_COLUMNS = (
    *("check", "loss", "label", "seed", "attack_label", "eps", "value", "threshold", "message"),
)
SUMMARY_COLUMNS = (
    *("loss", "label", "attack", "attack_label", "norm", "eps", "metric", "n_seeds", "seeds"),
    *("values", "mean", "sd", "low", "high", "interval"),
)
SUMMARY_METRICS = (
    *("error", "attack_success_rate", "mean_max_posterior", "zero_gradient_fraction"),
    *("auroc_all", "auroc_successful", "tpr_at_1fpr", "tpr_at_5fpr", "tpr_at_5fpr_successful"),
    "undetected_success_at_5fpr",
)
CLEAN = ("none", 0.0)  # attack_label and eps of the clean pass
ZERO_GRADIENT_LIMIT = 0.01


def cell_numbers(
    records: Mapping[tuple[str, float], Record],
    reference: Mapping[str, np.ndarray],
    cell: Mapping[str, Any],
    scores: Sequence[str] = tuple(SCORES),
) -> dict[str, list[Row]]:
    """Every number of one cell, from its records alone.

    Args:
        records: by (attack_label, eps); ("none", 0.0) is the clean pass. Each is looked up
            once, so the mapping may load them lazily.
        reference: the arrays of scores-KEY.npz; the clean validation pass sets the thresholds.
        cell: as cell.json: "loss", "label", "seed" and "files" with the list "records".
        scores: keys of `SCORES` for the detection table; the first row score is always there.

    Returns:
        "rows", "detection" and "flags", sorted.

    Raises:
        ValueError: an unknown score, a record with NaN, or records of different images.
    """
    for score in scores:
        if score not in SCORES:
            raise ValueError(f"score (={score!r}) must be one of {', '.join(SCORES)}.")
    names = (ROW_SCORE, *(score for score in scores if score != ROW_SCORE))
    validation = clean_pass(reference)
    validation.check_numbers(f"{cell['label']} seed {cell['seed']}, validation")
    validation_scores = {name: SCORES[name](validation) for name in names}
    clean = records[CLEAN]
    clean.check_numbers(_name(cell, *CLEAN))
    rows, detection, flags = [_row(cell, _CLEAN_ENTRY, clean)], [], []
    for entry in cell["files"]["records"]:
        key = entry["attack_label"], float(entry["eps"])
        if key == CLEAN:
            continue
        record = records[key]
        record.check_numbers(_name(cell, *key))
        found = {n: detect(clean, record, validation_scores[n], SCORES[n]) for n in names}
        rows.append(_row(cell, entry, record, clean, found[ROW_SCORE]))
        detection += _detection_rows(cell, entry, {name: found[name] for name in scores})
        flags += _flags(rows[-1])
    return {
        "rows": sort(rows, ROW_COLUMNS),
        "detection": sort(detection, DETECTION_COLUMNS),
        "flags": sort(flags, FLAG_COLUMNS),
    }


def summarise(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Each metric over the seeds: mean with a t-interval cut to [0, 1], and every seed's value.

    Seeds where the metric is null are left out; `n_seeds` counts those used. One seed has no
    t-interval: its error keeps the Wilson interval over images, anything else has none.

    Args:
        rows: as in results.json.

    Returns:
        One entry per (label, attack_label, eps, metric), sorted.
    """
    groups: dict[tuple[str, str, float], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["label"], row["attack_label"], row["eps"]), []).append(row)
    summary = [
        _summary_row(sorted(group, key=lambda row: row["seed"]), metric)
        for group in groups.values()
        for metric in SUMMARY_METRICS
    ]
    return sort(summary, SUMMARY_COLUMNS)


def sort(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> list[Row]:
    """Rows of any table in their one order: label, seed, attack_label, eps, then the rest.

    Args:
        rows: flat dicts; a row read back from a checked file has its columns by alphabet.
        columns: that come first, in this order; further ones follow by alphabet.
    """
    rest = ("score", "population", "metric", "check", "stage", "reason")

    def key(row: Mapping[str, Any]) -> tuple:
        texts = (str(row.get(name) or "") for name in rest)
        seed, eps = row.get("seed", 0), row.get("eps") or 0.0
        return row["label"], seed, row.get("attack_label") or "", eps, *texts

    def ordered(row: Mapping[str, Any]) -> Row:
        first = [name for name in columns if name in row]
        return {name: row[name] for name in (*first, *sorted(row.keys() - set(first)))}

    return [ordered(row) for row in sorted(rows, key=key)]


_CLEAN_ENTRY = {"attack": "none", "attack_label": "none", "norm": None, "eps": 0.0}


def _row(
    cell: Mapping[str, Any],
    entry: Mapping[str, Any],
    record: Record,
    clean: Record | None = None,
    found: Mapping[str, Mapping[str, Any]] | None = None,
) -> Row:
    wrong = int((~record.correct).sum())
    low, high = wilson(wrong, record.n)
    row = _place(cell, entry) | {
        "n": record.n,
        "error": wrong / record.n,
        "error_low": low,
        "error_high": high,
        "mean_max_posterior": float(np.exp(metrics.max_log_posterior(record.logits)).mean()),
    }
    if clean is not None and found is not None:
        row |= _attack_columns(record, clean, found["all"], found["successful"])
    return dict.fromkeys(ROW_COLUMNS) | row


def _attack_columns(
    record: Record, clean: Record, all_: Mapping[str, Any], successful: Mapping[str, Any]
) -> Row:
    rate = metrics.attack_success_rate(clean.predictions, record.predictions, clean.labels)
    zero = record.zero_gradient
    return {
        "attack_success_rate": number(rate),
        "zero_gradient_fraction": None if zero is None else float(zero.mean()),
        "score": ROW_SCORE,
        "auroc_all": all_["auroc"],
        "auroc_successful": successful["auroc"],
        "n_successful": successful["n_attacked"],
        "tpr_at_1fpr": all_["tpr_at_1fpr"],
        "tpr_at_1fpr_successful": successful["tpr_at_1fpr"],
        "tpr_at_5fpr": all_["tpr_at_5fpr"],
        "tpr_at_5fpr_successful": successful["tpr_at_5fpr"],
        "undetected_success_at_5fpr": all_["undetected_success_at_5fpr"],
    }


def _detection_rows(
    cell: Mapping[str, Any], entry: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]
) -> list[Row]:
    return [
        _place(cell, entry) | {"score": score, "population": population} | numbers[population]
        for score, numbers in found.items()
        for population in POPULATIONS
    ]


def _flags(row: Row) -> list[Row]:
    value = row["zero_gradient_fraction"]
    if value is None or value <= ZERO_GRADIENT_LIMIT or row["eps"] == 0:
        return []
    message = (
        f"The input gradient is exactly 0 for {100 * value:.1f} % of the images: "
        f"{row['attack_label']} had no direction there, and the error may be too low. Add an "
        'attack with params = { objective = "margin" }, which does not saturate.'
    )
    flag = row | {
        "check": "zero_gradient",
        "value": value,
        "threshold": ZERO_GRADIENT_LIMIT,
        "message": message,
    }
    return [{name: flag[name] for name in FLAG_COLUMNS}]


def _summary_row(group: Sequence[Mapping[str, Any]], metric: str) -> Row:
    used = [row for row in group if row[metric] is not None]
    values = [row[metric] for row in used]
    mean = sd = low = high = interval = None
    if len(values) == 1:
        mean = values[0]
        if metric == "error":
            low, high = used[0]["error_low"], used[0]["error_high"]
            interval = "Wilson over images"
    elif values:
        mean, sd, low, high = t_interval(values)
        # Every metric is a share: what the interval says beyond [0, 1] cannot be true.
        low, high = max(0.0, low), min(1.0, high)
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


def _place(cell: Mapping[str, Any], entry: Mapping[str, Any]) -> Row:
    return {
        "loss": cell["loss"],
        "label": cell["label"],
        "seed": cell["seed"],
        "attack": entry["attack"],
        "attack_label": entry["attack_label"],
        "norm": entry["norm"],
        "eps": float(entry["eps"]),
    }


def _name(cell: Mapping[str, Any], attack_label: str, eps: float) -> str:
    return f"{cell['label']} seed {cell['seed']}, {attack_label} at eps {eps:g}"
