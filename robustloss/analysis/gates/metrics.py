"""The numbers of results.json by the names that a gate asks for them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from robustloss.notation import interval_text
from robustloss.results.columns import Column, Table
from robustloss.results.schema import TABLES
from robustloss.spec.errors import did_you_mean

PLAIN = {
    "error": "rows.error",
    "clean_error": "rows.error",
    "worst_case_error": "worst_case.error",
    "attack_success": "rows.attack_success_rate",
    "auroc": "detection.auroc",
    "detected": "detection.tpr_at_5fpr",
    "undetected_success": "detection.undetected_success_at_5fpr",
    "augrc": "rows.augrc",
    "ece": "calibration.ece_equal_width",
    "brier": "calibration.brier",
    "median_radius": "radii.median_radius",
    "eps_at_50_error": "radii.eps_at_50_error",
}
"""Plain names, and the column of results.json that each stands for."""

_MEANINGS = {
    "error": "Share of the images that are wrong under an attack.",
    "clean_error": "Share of the clean images that are wrong.",
    "worst_case_error": "Share of the images that are wrong under at least one attack.",
    "attack_success": "Share of the initially correct images that an attack makes wrong.",
    "auroc": "Area under the ROC curve of clean against attacked images.",
    "detected": "Share of the attacked images rejected where 5 % of the clean ones are.",
    "undetected_success": "Share of the initially correct images that an attack makes wrong and a "
    "score accepts, at the threshold that rejects 5 % of clean validation images.",
    "augrc": "Share of the images that are wrong and accepted, averaged over all thresholds: of "
    "the clean images, or of the clean and the attacked ones together.",
    "ece": "Expected calibration error, under an attack or of the clean images.",
    "brier": "Brier score over all classes, under an attack or of the clean images.",
    "median_radius": "Median over images of the smallest perturbation, by minimum-norm attacks.",
    "eps_at_50_error": "Smallest eps at which half of the images are wrong.",
}
_NOT_JUDGED = ("flags", "failures")  # rows of these are no numbers of a loss
_MOST_DIGITS = 6


@dataclass(frozen=True)
class Metric:
    """A column of a table of results.json.

    Attributes:
        name: As the gate writes it.
        table: Name of the table.
        column: Of the table.
    """

    name: str
    table: str
    column: Column

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the table."""
        return TABLES[self.table].names

    @property
    def meaning(self) -> str:
        """A sentence."""
        return _MEANINGS.get(self.name, self.column.meaning)

    @property
    def is_share(self) -> bool:
        """Whether it lies in [0, 1]."""
        return bool(self.column.scale)

    def text(self, mean: float, low: float | None = None, high: float | None = None) -> str:
        """Return a number with its interval as tables show it: "13.4 [11.9, 15.0] %", "0.957"."""
        if self.column.scale == "percent":
            return f"{interval_text(mean, low, high, unit=100.0)} %"
        if self.column.scale == "fraction":
            return interval_text(mean, low, high, digits=3)
        digits = 2 - math.floor(math.log10(abs(mean))) if mean else 2
        return interval_text(mean, low, high, digits=min(max(0, digits), _MOST_DIGITS))

    def short(self, value: float, digits: int = 6) -> str:
        """Return a bound, or a number beside it, in the same unit: "5 %", "0.9"."""
        if self.column.scale == "percent":
            return f"{100 * value:.{digits}g} %"
        return f"{value:.{digits}g}"


def find_metric(name: str) -> Metric:
    """Return the metric of a name.

    Args:
        name: A plain name; a column, which means the first table that has it; or TABLE.COLUMN.

    Raises:
        ValueError: None of these; the text is a rule with the nearest name.
    """
    known = _all_names()
    if name not in known:
        near = did_you_mean(name, [*PLAIN, *known]) or "."
        raise ValueError(
            f"must be one of {', '.join(PLAIN)}, or a number of results.json as "
            f'"calibration.brier" (robustloss list metrics){near}'
        )
    table, _, column = known[name].partition(".")
    (found,) = (each for each in TABLES[table].columns if each.name == column)
    return Metric(name, table, found)


def describe_metrics() -> dict[str, str]:
    """Return what a gate may ask for by its plain name, in a sentence with column and unit."""
    found = {}
    for name, column in PLAIN.items():
        metric = find_metric(name)
        unit = "in the unit of eps" if metric.table == "radii" else "in [0, 2]"
        unit = "in [0, 1]" if metric.is_share else unit
        found[name] = f"{metric.meaning.rstrip('.')} ({column}, {unit})"
    tables = ", ".join(name for name, _ in judged_tables())
    found["TABLE.COLUMN"] = f"any number of these tables of results.json: {tables}"
    return found


def judged_tables() -> Iterable[tuple[str, Table]]:
    """Yield the tables that a gate may ask for, with their names: a row of each is of one seed."""
    for name, table in TABLES.items():
        if "seed" in table.sorted_by and name not in _NOT_JUDGED:
            yield name, table


def _all_names() -> dict[str, str]:
    """Return TABLE.COLUMN by every name that means it."""
    full = {
        f"{name}.{column.name}": column.name
        for name, table in judged_tables()
        for column in table.columns
        if column.kind in ("number", "integer") and column.name not in {*table.sorted_by, "seed"}
    }
    # A column that several tables have is that of the first of them.
    first = {column: name for name, column in reversed(full.items())}
    return {name: name for name in full} | first | PLAIN
