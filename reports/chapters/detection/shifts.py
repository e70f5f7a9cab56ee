"""Images that are changed but keep their label: errors, and what a detector makes of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from robustloss.reports.drawing.table import Column, Table, lay_out
from robustloss.reports.reading.facts import rows
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import Estimate, over_seeds
from robustloss.results.columns import Row
from robustloss.results.numbers import group_rows

_NUMBERS = [
    Column("error", "error", 100.0, 1),
    Column("calibration error", "ece", 1.0),
    Column("AUROC", "auroc", 1.0),
    Column("rejected", "rejected_at_5fpr", 100.0, 1),
    Column("rejected though right", "rejected_correct_at_5fpr", 100.0, 1),
    Column("wrong and accepted", "undetected_error_at_5fpr", 100.0, 1),
]
_WORDS = (
    "The label stays, so a classifier should keep its answer, and a detector of attacks should let "
    "the image pass. AUROC: shifted against clean images, by the likelihood; near 0.5 the detector "
    "ignores the shift. Rejected: at the threshold that rejects 5 % of clean validation "
    "images; those though right count against the detector."
)


def shift_table(numbers: Numbers) -> Table | None:
    """Return a row for each loss, with means over all shifts and severities."""
    shown = []
    for label in numbers.labels:
        own = rows(numbers, "shifts", label)
        if own:
            shown.append({"label": label, "mce": _mce(numbers, label), **_means(own)})
    if not shown:
        return None
    found = numbers.run.results.get("corruption") or []
    first = found[0]["baseline"] if found else numbers.labels[0]
    columns = [Column("loss", "label"), _NUMBERS[0], Column("mCE", "mce", 1.0, 2), *_NUMBERS[1:]]
    return Table(
        "shifts",
        "Images that are changed but keep their label",
        f"Means over {_describe_sets(numbers)}. mCE, the mean corruption error: the error of each "
        f"shift over that of {first}, averaged (Hendrycks and Dietterich 2019). {_WORDS}",
        *lay_out(columns, shown),
    )


def severity_table(numbers: Numbers) -> Table | None:
    """Return a row for each loss, shift and severity."""
    shown = []
    for label in numbers.labels:
        groups = group_rows(
            rows(numbers, "shifts", label), lambda row: (row["shift"], row["severity"])
        )
        for (shift, severity), own in groups.items():
            place = {"label": label, "shift": shift, "severity": severity}
            shown.append({**place, **_means(own)})
    if not shown:
        return None
    places = [Column("loss", "label"), Column("shift", "shift"), Column("severity", "severity")]
    return Table(
        "shifts-by-severity",
        "Every shift and severity",
        _WORDS,
        *lay_out([*places, *_NUMBERS], shown),
        left=2,
    )


def _means(own: Sequence[Row]) -> dict[str, Any]:
    """Return every number over seeds, each seed's the mean of its rows."""
    seeds = group_rows(own, lambda row: row["seed"])
    found = {}
    for key in (column.key for column in _NUMBERS):
        known = [[row[key] for row in each if row[key] is not None] for each in seeds.values()]
        found[key] = over_seeds([float(np.mean(each)) for each in known if each])
    return found


def _mce(numbers: Numbers, label: str) -> Estimate | None:
    for row in rows(numbers, "corruption", label):
        if row["mce"] is not None:
            ends = row["mce_low"], row["mce_high"]
            return Estimate(row["mce"], *ends, row["n_seeds"], (), "t over seeds")
    return None


def _describe_sets(numbers: Numbers) -> str:
    every = numbers.run.results.get("shifts") or []
    names = list(dict.fromkeys(row["shift"] for row in every))
    severities = sorted({row["severity"] for row in every})
    which = "severity" if len(severities) == 1 else "severities"
    return f"{', '.join(names)}, {which} {', '.join(map(str, severities))}"
