"""Tables per_class and crops, and the columns of `rows` that are means over the classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from robustloss.analysis.outcomes import error_columns
from robustloss.metrics.intervals import wilson
from robustloss.metrics.rates import ranks
from robustloss.results.records import Record
from robustloss.results.schema import TABLES, Row, cell_place

MOST_CLASSES = 100  # with more, only the clean pass has rows of its classes
FEW_CLASSES = 10  # with so many or fewer, top-5 error says nothing


def balanced_error(record: Record) -> float:
    """Return the mean over the classes that have images of the share that is wrong."""
    wrong = ~record.correct
    return float(np.mean([wrong[record.labels == k].mean() for k in np.unique(record.labels)]))


def top5_error(record: Record) -> float | None:
    """Return the share of images whose class is not among the five largest logits.

    Of equal logits the lower class comes first. None for ten classes or fewer.
    """
    if record.logits.shape[1] <= FEW_CLASSES:
        return None
    return float((ranks(record.logits, record.labels) >= 5).mean())


def class_rows(record: Record, place: Row) -> list[Row]:
    """Return a row for each class; none for an attack on more than MOST_CLASSES classes.

    Args:
        record: of the clean pass or an attack.
        place: the columns that say which record it is, "attack" among them.
    """
    classes = record.logits.shape[1]
    if classes > MOST_CLASSES and place["attack"] != "none":
        return []
    rows = []
    for k in range(classes):
        own, named = record.labels == k, record.predictions == k
        n, others = int(own.sum()), int((~own).sum())
        missed, taken = int((own & ~named).sum()), int((named & ~own).sum())
        low, high = wilson(missed, n) if n else (None, None)
        row = {
            "class_index": k,
            "n": n,
            "error": missed / n if n else None,
            "error_low": low,
            "error_high": high,
            "predicted": int(named.sum()),
            "false_positives": taken,
            "false_negatives": missed,
            "false_positive_rate": taken / others if others else None,
        }
        rows.append(place | row)
    return rows


def crop_rows(cell: Mapping[str, Any], clean: Record, rank_10: np.ndarray) -> list[Row]:
    """Return top-1 and top-5 error of the clean test images, from one crop and from ten.

    Args:
        cell: as cell.json: "loss", "label", "seed", "num_classes".
        clean: the clean pass, which sees the center crop alone.
        rank_10: (N,) ranks of the true classes in the mean of ten crops.

    Returns:
        A row for one crop and one for ten. Top-5 is None with ten classes or fewer.
    """
    rows = []
    for crops, rank in ((1, ranks(clean.logits, clean.labels)), (10, rank_10)):
        row = dict.fromkeys(TABLES["crops"].names) | cell_place(cell)
        row |= {"crops": crops, "n": len(rank)}
        for top in (1, 5) if cell["num_classes"] > FEW_CLASSES else (1,):
            errors = error_columns(rank >= top)
            row[f"top{top}_error"] = errors["error"]
            row |= {f"top{top}_{end}": errors[f"error_{end}"] for end in ("low", "high")}
        rows.append(row)
    return rows
