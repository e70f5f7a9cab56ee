"""The table of errors from one crop and from ten."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from robustloss.columns import CROPS_COLUMNS, PLACE, Row
from robustloss.records import Record
from robustloss.statistics import wilson

FEW_CLASSES = 10  # up to here top-5 error says nothing


def ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes stand before the true one (N,) int32, 0 for a right prediction.

    Of equal scores the lower class comes first, as in argmax.

    Args:
        scores: (N, K).
        labels: (N,).
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    lower = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & lower)).sum(1, dtype=np.int32)


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
        row: Row = dict.fromkeys(CROPS_COLUMNS) | {name: cell[name] for name in PLACE}
        row |= {"crops": crops, "n": len(rank)} | _error("top1", rank >= 1)
        if cell["num_classes"] > FEW_CLASSES:
            row |= _error("top5", rank >= 5)
        rows.append(row)
    return rows


def _error(name: str, wrong: np.ndarray) -> Row:
    count = int(wrong.sum())
    low, high = wilson(count, len(wrong))
    return {f"{name}_error": count / len(wrong), f"{name}_low": low, f"{name}_high": high}
