"""Look-up of what explains the feature space: tables of results.json that older runs lack."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.reports.reading.featured import FEW_CLASSES
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import Estimate, over_seeds


def rows(numbers: Numbers, table: str, label: str, **where: object) -> list[dict]:
    """Rows of one table about one loss; an older run has none."""
    found = numbers.run.results.get(table) or []
    return [
        row for row in found
        if row["label"] == label and all(row.get(k) == v for k, v in where.items())
    ]  # fmt: skip


def mean(found: Sequence[dict], key: str, *, least: float = 0.0) -> Estimate | None:
    """Mean over the seeds of a number that is no share; the interval is cut at ``least``."""
    values = [float(row[key]) for row in found if row.get(key) is not None]
    return over_seeds(values, least=least, most=math.inf)


def in_widths(found: Sequence[dict], key: str) -> Estimate | None:
    """An error of class means in units of the within-class distance, over seeds."""
    return mean(
        [{key: row[key] / row["within_distance"]} for row in found
         if row.get(key) is not None and row["within_distance"]],
        key,
    )  # fmt: skip


def losses_with(numbers: Numbers, table: str, **where: object) -> list[str]:
    """Losses with a row, in the order of the spec."""
    return [label for label in numbers.labels if rows(numbers, table, label, **where)]


def class_names(numbers: Numbers) -> list[str]:
    """What each class is called; its number where the data set does not say."""
    data = numbers.run.provenance.get("data") or {}
    count = numbers.classes or 0
    names = [str(name) for name in data.get("class_names") or []]
    return names if len(names) == count else [str(k) for k in range(count)]


def class_key(numbers: Numbers) -> str:
    """The numbers of the classes with their names, for captions of figures that show numbers.

    Nothing where the classes are called by their numbers, or are too many to be told apart.
    """
    names = class_names(numbers)
    if len(names) > FEW_CLASSES or all(name == str(k) for k, name in enumerate(names)):
        return ""
    return f"Classes: {', '.join(f'{k} {name}' for k, name in enumerate(names))}. "


def class_counts(numbers: Numbers) -> list[int]:
    """Training images per class, or nothing."""
    data = numbers.run.provenance.get("data") or {}
    return [int(n) for n in data.get("class_counts") or []]


def loss_spec(numbers: Numbers, label: str) -> dict:
    """The spec's table of a loss: name, params."""
    return next((x for x in numbers.spec.get("losses", []) if x.get("label") == label), {})


def is_given(loss: Mapping[str, Any]) -> bool:
    """Whether the spec's table of a loss names a model from elsewhere."""
    return bool(loss.get("weights")) or isinstance(loss.get("model"), str)


def images(numbers: Numbers) -> str:
    """How many test images an error counts."""
    return f"{numbers.images:,}" if numbers.images else "no"


def eps_words(norm: str | None) -> str:
    """In what an eps of this norm is."""
    return "pixel units" if norm == "linf" else "Euclidean length"


def seed_words(numbers: Numbers) -> str:
    """Return the sentence that says what stands behind ± in a table of means over seeds."""
    if len(numbers.seeds) > 1:
        return "± is half a 95 % t-interval over training seeds."
    return "One training seed: no interval."


def interval_words(numbers: Numbers) -> str:
    """What stands behind the error in a table of errors."""
    if len(numbers.seeds) > 1:
        return "± is half a 95 % t-interval over training seeds; one seed alone has [Wilson 95 %]."
    return "[low, high] is a 95 % Wilson interval over images; one training seed."
