"""What others published of the losses of a run, as its spec names it, beside what was measured."""

from collections.abc import Mapping
from typing import Any

from robustloss.notation import eps_text, interval_text
from robustloss.results.numbers import ResultNumbers

_METRICS = {"error": "error", "auroc": "auroc_all"}  # of a published row, and of results.json
MOST_LINES = 20  # of one table; the report has them all
MOST_ABSENT = 6  # rows of others that are named where they match nothing of the run


def describe_published(results: Mapping[str, Any]) -> list[str]:
    """Return a line for each published number beside ours, under a line for each source.

    Args:
        results: The content of results.json.
    """
    numbers, lines = ResultNumbers(results), []
    for table in results["provenance"].get("published") or ():
        lines.append(f"Published, {table['source']}; what was measured here in brackets:")
        own = []
        for row in table["rows"]:
            parts = []
            if row["error"] is not None and (ours := find_measured(numbers, row, "error")):
                theirs = quote_percent(row["error"], row["low"], row["high"])
                parts.append(f"error {theirs} % ({_interval(ours, 100.0, 2)})")
            if row["auroc"] is not None and (ours := find_measured(numbers, row, "auroc_all")):
                parts.append(f"AUROC {row['auroc']:.3f} ({_interval(ours, 1.0, 3)})")
            if parts:
                own.append(f"  {name_row(row)}: {'; '.join(parts)}")
        if len(own) > MOST_LINES:
            own[MOST_LINES:] = [f"  and {len(own) - MOST_LINES} more in the report"]
        lines += own
        if absent := describe_absent(numbers, table):
            lines.append(f"  {absent}")
    return lines


def describe_absent(numbers: ResultNumbers, table: Mapping[str, Any]) -> str:
    """Return a sentence that names the rows of a table that match nothing of the run, or "".

    Args:
        numbers: Of the run.
        table: As provenance has it under `published`.
    """
    absent = [
        name_row(row)
        for row in table["rows"]
        if not any(
            row[key] is not None and find_measured(numbers, row, metric)
            for key, metric in _METRICS.items()
        )
    ]
    more = f" and {len(absent) - MOST_ABSENT} more" if len(absent) > MOST_ABSENT else ""
    return f"Not in this run: {'; '.join(absent[:MOST_ABSENT])}{more}." if absent else ""


def quote_percent(value: float, low: float | None = None, high: float | None = None) -> str:
    """Return a published error as it was printed: "23.63", "23.63 [22.80, 24.40]".

    Args:
        value: A fraction.
        low, high: Ends of its interval; None where the source gives none.
    """
    ends = "" if low is None or high is None else f" [{100 * low:.2f}, {100 * high:.2f}]"
    return f"{100 * value:.2f}{ends}"


def _interval(found: Mapping[str, Any], unit: float, digits: int) -> str:
    ends = found.get("low"), found.get("high")
    return interval_text(found["mean"], *ends, unit=unit, digits=digits)


def find_measured(numbers: ResultNumbers, row: Mapping[str, Any], metric: str) -> Any:
    """Return the row of `summary` that a published number stands beside; None for none.

    Args:
        numbers: Of the run.
        row: Of a published table.
        metric: Column of results.json.
    """
    return numbers.find(row["label"], row["attack_label"], row["eps"], metric)


def name_row(row: Mapping[str, Any]) -> str:
    """Return what a published row is about: "L-GM, FGSM eps 0.1", "L-GM, clean".

    Args:
        row: Of a published table.
    """
    if row["attack_label"] == "none":
        return f"{row['label']}, clean"
    return f"{row['label']}, {row['attack_label']} eps {eps_text(row['eps'])}"
