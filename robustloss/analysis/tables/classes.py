"""Errors class by class: what is missed, what is taken for it, and the mean over classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from robustloss.metrics.intervals import wilson
from robustloss.metrics.rates import ranks
from robustloss.results.records import Record
from robustloss.results.schema import TABLES, Row, cell_place

MOST_CLASSES = 100  # beyond, only the clean pass is told class by class

FEW_CLASSES = 10  # up to here top-5 error says nothing


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
        Rows of the table `per_class`; none for an attack on more than MOST_CLASSES classes.
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


def crop_rows(cell: Mapping[str, Any], clean: Record, rank_10: np.ndarray) -> list[Row]:
    """Top-1 and top-5 error of the clean test images, with Wilson intervals.

    Args:
        cell: as cell.json: "loss", "label", "seed", "num_classes".
        clean: the clean pass, which sees the center crop alone.
        rank_10: (N,) ranks of the true classes in the mean of ten crops.

    Returns:
        A row for one crop and one for ten. Top-5 is None with ten classes or fewer.
    """
    rows = []
    for crops, rank in ((1, ranks(clean.logits, clean.labels)), (10, rank_10)):
        row: Row = dict.fromkeys(TABLES["crops"].names) | cell_place(cell)
        row |= {"crops": crops, "n": len(rank)} | _error("top1", rank >= 1)
        if cell["num_classes"] > FEW_CLASSES:
            row |= _error("top5", rank >= 5)
        rows.append(row)
    return rows


def _error(name: str, wrong: np.ndarray) -> Row:
    count = int(wrong.sum())
    low, high = wilson(count, len(wrong))
    return {f"{name}_error": count / len(wrong), f"{name}_low": low, f"{name}_high": high}
