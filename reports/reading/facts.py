"""Look-up of what explains the feature space: tables of results.json that older runs lack."""

import math
from collections.abc import Sequence

from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.scene import FEW_CLASSES
from robustloss.reports.words import Estimate, over_seeds
from robustloss.results.provenance import find_searches


def rows(numbers: Numbers, table: str, label: str, **where: object) -> list[dict]:
    """Return the rows of one table about one loss; an older run has none.

    Args:
        numbers: Of the run.
        table: Its name in results.json.
        label: Of the loss.
        where: Columns and the values that the rows have in them.
    """
    found = numbers.run.results.get(table) or []
    where = {"label": label, **where}
    return [row for row in found if all(row.get(k) == v for k, v in where.items())]


def by_loss(numbers: Numbers, table: str, **where: object) -> dict[str, list[dict]]:
    """Return such rows (see :func:`rows`) of every loss that has any, in the order of the spec.

    Args:
        numbers: Of the run.
        table: Its name in results.json.
        where: Columns and the values that the rows have in them.
    """
    found = {label: rows(numbers, table, label, **where) for label in numbers.labels}
    return {label: own for label, own in found.items() if own}


def mean(found: Sequence[dict], key: str, *, least: float = 0.0) -> Estimate | None:
    """Return the mean over seeds of a number that is no share.

    Args:
        found: Rows, one a seed; those with null in the column are left out.
        key: The column.
        least: What the number can be at least; the interval is cut there.
    """
    values = [float(row[key]) for row in found if row.get(key) is not None]
    return over_seeds(values, least=least, most=math.inf)


def in_widths(found: Sequence[dict], key: str) -> Estimate | None:
    """Return an error of class means over seeds, in units of the within-class distance.

    Args:
        found: Rows of `center_estimates`, one a seed.
        key: The column of the error.
    """
    known = [row for row in found if row.get(key) is not None and row["within_distance"]]
    return mean([{key: row[key] / row["within_distance"]} for row in known], key)


def class_names(numbers: Numbers) -> list[str]:
    """Return what each class is called: its number where the data set does not say."""
    count = numbers.classes or 0
    # A folder's name need not be UTF-8; what is no letter in it can be neither drawn nor written.
    names = [
        str(name).encode("utf-8", "replace").decode()
        for name in numbers.data.get("class_names") or []
    ]
    return names if len(names) == count else [str(k) for k in range(count)]


def class_key(numbers: Numbers) -> str:
    """Return the classes' numbers with their names, for captions of figures that show numbers.

    Nothing where the classes are called by their numbers, or are too many to be told apart.
    """
    names = class_names(numbers)
    if len(names) > FEW_CLASSES or all(name == str(k) for k, name in enumerate(names)):
        return ""
    return f"Classes: {', '.join(f'{k} {name}' for k, name in enumerate(names))}. "


def loss_spec(numbers: Numbers, label: str) -> dict:
    """Return the spec's table of a loss: name, params."""
    return next((x for x in numbers.spec.get("losses", []) if x.get("label") == label), {})


def images(numbers: Numbers) -> str:
    """Return how many test images an error counts."""
    return f"{numbers.images:,}" if numbers.images else "no"


def basis_words(numbers: Numbers) -> str:
    """Return what the numbers of each loss rest on: data, images, seeds, intervals."""
    return f"Data: {numbers.data_label}, {images(numbers)} test images. {numbers.result.caption}"


def choice_words(numbers: Numbers) -> str:
    """Return what a value had to be for a loss to keep it, in a run with trials."""
    searches = find_searches(numbers.run.provenance).values()
    if any(search["tuning"].get("choose") == "first" for search in searches):
        return "the first whose clean validation error is not shown to be above the smallest"
    return "those of the smallest clean validation error"


def eps_words(norm: str | None) -> str:
    """Return in what an eps of this norm is measured."""
    lengths = {"linf": "pixel units", "l1": "a sum over all pixels"}
    return lengths.get(norm or "", "Euclidean length")


def data_remark(numbers: Numbers) -> str:
    """Return what must be known of the data, as their provenance says it."""
    return str(numbers.data.get("summary") or "").strip().rstrip(".")


def draws_remark(numbers: Numbers) -> str:
    """Return how many calls of a model judge an image; nothing for a single one."""
    if numbers.draws == 1:
        return ""
    return f"Every number is that of the mean posterior of {numbers.draws} calls of the model (eot)"
