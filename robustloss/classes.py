"""Errors class by class: what is missed, what is taken for it, and the mean over classes."""

import numpy as np

from robustloss.columns import Row
from robustloss.crops import FEW_CLASSES, ranks
from robustloss.records import Record
from robustloss.statistics import wilson

MOST_CLASSES = 100  # beyond, only the clean pass is told class by class


def balanced_error(record: Record) -> float:
    """Mean over the classes that have images of the share that is wrong."""
    wrong = ~record.correct
    return float(np.mean([wrong[record.labels == k].mean() for k in np.unique(record.labels)]))


def top5_error(record: Record) -> float | None:
    """Share of images whose class is not among the five largest logits; None up to ten classes.

    Of equal logits the lower class comes first.
    """
    if record.logits.shape[1] <= FEW_CLASSES:
        return None
    return float((ranks(record.logits, record.labels) >= 5).mean())


def class_rows(record: Record, place: Row) -> list[Row]:
    """One row for each class.

    Args:
        record: of the clean pass or an attack.
        place: the columns that say which record it is, "attack" among them.

    Returns:
        Rows with `columns.CLASS_COLUMNS`; none for an attack on more than MOST_CLASSES classes.
    """
    classes = record.logits.shape[1]
    if classes > MOST_CLASSES and place["attack"] != "none":
        return []
    counts = np.bincount(record.labels, minlength=classes)
    predicted = np.bincount(record.predictions, minlength=classes)
    right = np.bincount(record.labels[record.correct], minlength=classes)
    rows = []
    for k in range(classes):
        n, missed, taken = int(counts[k]), int(counts[k] - right[k]), int(predicted[k] - right[k])
        others = record.n - n
        low, high = wilson(missed, n) if n else (None, None)
        rows.append(
            place
            | {
                "class_index": k,
                "n": n,
                "error": missed / n if n else None,
                "error_low": low,
                "error_high": high,
                "predicted": int(predicted[k]),
                "false_positives": taken,
                "false_negatives": missed,
                "false_positive_rate": taken / others if others else None,
            }
        )
    return rows
