"""What theory makes of a detector that holds: a classifier, and how robust it would be."""

from itertools import product
from statistics import fmean

from robustloss.analysis.outcomes import find_half
from robustloss.notation import eps_text
from robustloss.reports.drawing.table import Column, Entry, Table, fields_of
from robustloss.reports.reading.guarded import TOO_GOOD, doubts
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NORM_NAMES, NOTHING, Estimate
from robustloss.results.columns import Row
from robustloss.results.numbers import combined_label, group_rows
from robustloss.results.schema import WORST_CASE
from robustloss.spec.text import slug

IMPLIED = "robust_error_with_detection_at_5fpr"
_COLUMNS = [
    *(Column("", key) for key in ("label", "norm", "eps")),
    Column("", IMPLIED, 100.0, 2),
    Column("", "half"),
    Column("", "found_at_half", 100.0, 2),
]


def implied_tables(numbers: Numbers) -> list[Table]:
    """Return a table for each norm: robust error with detection beside errors at half the eps."""
    by_norm = group_rows(numbers.run.worst_case, lambda row: row["norm"])
    found = [_implied_table(numbers, norm, rows) for norm, rows in by_norm.items()]
    return [table for table in found if table]


def _implied_table(numbers: Numbers, norm: str, worst_cases: list[Row]) -> Table | None:
    """Return the table of one norm; None for a run of an older version."""
    budgets = sorted({float(row["eps"]) for row in worst_cases})
    case = combined_label(WORST_CASE["attack_label"], norm)
    rows: list[Row] = []
    for label, eps in product(numbers.labels, budgets):
        half = find_half(eps, budgets)
        rows.append(
            {"label": label, "norm": norm, "eps": eps, "half": half,
             IMPLIED: numbers.get(label, case, eps, IMPLIED),
             "found_at_half": numbers.get(label, case, half, "error") if half else None,
             "flags": doubts(numbers, label, norm, eps)}
        )  # fmt: skip
    known = [row for row in rows if row[IMPLIED]]
    if not known:
        return None
    eps = _most_telling(known) or max(row["eps"] for row in known)
    half_text, marks = eps_text(eps / 2), Marks()
    lines = []
    for row in (row for row in rows if row["eps"] == eps):
        implied, found = row[IMPLIED], row["found_at_half"]
        entry = _COLUMNS[3].entry(implied, marks.of(row["flags"]))
        lines.append([Entry(row["label"]), entry, _COLUMNS[5].entry(found), Entry(_read(row))])
    return Table(
        f"implied-{slug(norm)}",
        f"What the detector would imply, {NORM_NAMES.get(norm, norm)}",
        "A detector that holds at an eps implies a classifier that holds at half of it without "
        "rejecting anything, if only by unlimited search (Tramèr, ICML 2022). Its robust error is "
        "at most the robust error with detection: the images that are wrong or rejected as they "
        "are, or that some attack within the eps makes wrong and accepted, at 5 % FPR. The attacks "
        "found both numbers, so the true ones are at least as high. If the implied classifier is "
        "far more robust than the network itself (†), the attacks on the detector are probably too "
        "weak. In percent; the CSV has every eps.",
        ["loss", f"with detection, eps {eps_text(eps)}", f"network alone, eps {half_text}",
         f"implied classifier, eps {half_text}"],
        lines,
        [fields_of(_COLUMNS, row) for row in rows],
        marks.notes(),
    )  # fmt: skip


def is_doubted(numbers: Numbers) -> bool:
    """Return whether a detector of the run implies more than is likely."""
    return any(flag.get("check") == TOO_GOOD for flag in numbers.run.flags)


def _most_telling(rows: list[Row]) -> float | None:
    """Return the eps where the implied classifier gains most on the network, over the losses."""
    gains: dict[float, list[float]] = {}
    for row in rows:
        if row["found_at_half"]:
            gain = row["found_at_half"].mean - row[IMPLIED].mean
            gains.setdefault(row["eps"], []).append(gain)
    return max(gains, key=lambda eps: fmean(gains[eps]), default=None)


def _read(row: Row) -> str:
    """Return in words how the two numbers of a loss compare."""
    implied: Estimate | None = row[IMPLIED]
    found: Estimate | None = row["found_at_half"]
    if implied is None:
        return NOTHING
    if found is None:
        return f"not known: attack at eps {eps_text(row['eps'] / 2)} too"
    if row["flags"]:
        return "far more robust than the network: too good to be true"
    than = "than the network"
    return f"more robust {than}" if implied.mean < found.mean else f"no more robust {than}"
