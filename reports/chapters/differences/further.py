"""More numbers that compare losses: worst case, best adaptive attack, radii, calibration."""

from robustloss.reports.chapters.differences.comparison import Row, turn, write_difference
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NORM_NAMES, eps_name
from robustloss.results.numbers import BEST
from robustloss.results.schema import WORST_CASE

# metric: name, unit and decimals
_METRICS = {
    "error": ("error", 100.0, 2),
    "auroc_all": ("AUROC", 1.0, 3),
    "undetected_success_at_5fpr": ("fooled and unnoticed", 100.0, 2),
    "median_radius": ("median radius", 1.0, 4),
    "eps_at_50_error": ("eps at 50 % error", 1.0, 4),
    "augrc": ("AUGRC", 100.0, 2),
    "ece_equal_width": ("ECE", 100.0, 2),
    "brier": ("Brier score", 1.0, 3),
}


def further_table(numbers: Numbers) -> Table | None:
    """Return each loss minus the baseline in the numbers that no other table compares, if any."""
    baseline = numbers.baseline
    every = [row for row in numbers.compared if _is_further(row)]
    rows = [
        turn(row) if row["label_a"] == baseline else row
        for row in every
        if baseline in (row["label_a"], row["label_b"])
    ]
    if not rows:
        return None
    order = {label: place for place, label in enumerate(numbers.labels)}
    names = [*_METRICS]
    rows.sort(
        key=lambda row: (
            row["attack_label"] == "none",
            names.index(row["metric"]),
            row["attack_label"],
            row["norm"] or "",
            row["eps"] or 0.0,
            order[row["label_a"]],
        )
    )
    several = len({row["norm"] for row in rows if row["norm"]}) > 1
    body = []
    for row in rows:
        name, unit, digits = _METRICS[row["metric"]]
        place = "clean" if row["attack"] == "none" else row["attack_label"]
        place += f", {eps_name(row['eps'])}" if row["eps"] else ""
        place += f", {NORM_NAMES.get(row['norm'], row['norm'])}" if several and row["norm"] else ""
        kind = "top" if row["shown"] else "grey"
        body.append([
            Entry(f"{name}, {place}"),
            Entry(row["label_a"]),
            Entry(write_difference(row, unit, digits), kind=kind),
        ])  # fmt: skip
    return Table(
        "differences-further",
        "Do the losses differ in other numbers?",
        f"Each loss minus {baseline}, with 95 % intervals: shares in percentage points, radii in "
        "the unit of eps. Bold: shown; grey: not shown, which does not mean equal. The worst case "
        "and the best adaptive attack are taken image by image. “Larger”: half of the images have "
        "no radius, so the median is beyond what was found. The CSV has every tested pair.",
        ["number", "loss", f"minus {baseline}"],
        body,
        every,
        left=2,
    )


def _is_further(row: Row) -> bool:
    """Return whether no table of an attack holds the number."""
    over = (WORST_CASE["attack"], BEST["attack"])
    return row["metric"] in _METRICS and (
        row["attack"] in over
        or row["eps"] is None
        or (row["attack"] == "none" and row["metric"] != "error")
    )
