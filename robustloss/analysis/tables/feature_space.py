"""Tables geometry, margins and center_estimates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from robustloss.metrics.feature_space import Array, class_means, shape_of
from robustloss.results.records import Record
from robustloss.results.schema import Row, cell_place, finite_or_null

BATCHES = 200  # mini-batches whose class means are compared with the true ones
SEED = 20180328


def geometry_rows(
    cell: Mapping[str, Any], reference: Mapping[str, Array], test: Record
) -> list[Row]:
    """One row for each set of features: training, clean test, and test before training.

    Args:
        cell: as cell.json.
        reference: arrays of scores-KEY.npz.
        test: the Record of the clean pass.

    Returns:
        Rows of the table `geometry`.
    """
    place = cell_place(cell)
    splits = [("train", reference.get("train_features"), reference.get("train_labels"))]
    splits.append(("test", test.features, test.labels))
    untrained = reference.get("untrained_features"), reference.get("untrained_labels")
    splits.append(("untrained", *untrained))
    rows = []
    for split, features, labels in splits:
        if features is None or labels is None:
            continue
        row = place | {"split": split} | shape_of(features, labels, test.logits.shape[1])
        slopes = reference.get("train_gradient_norm") if split == "train" else None
        rows.append(row | _gradient_columns(features, slopes))
    return rows


def _gradient_columns(features: Array, slopes: Array | None) -> Row:
    if slopes is None:
        return {"gradient_norm_mean": None, "gradient_norm_correlation": None}
    from scipy.stats import spearmanr

    norms = np.linalg.norm(np.asarray(features, np.float64), axis=1)
    constant = np.ptp(norms) == 0 or np.ptp(slopes) == 0
    correlation = None if constant else float(spearmanr(norms, slopes).statistic)
    return {
        "gradient_norm_mean": float(np.mean(slopes, dtype=np.float64)),
        "gradient_norm_correlation": correlation,
    }


def margin_rows(cell: Mapping[str, Any], reference: Mapping[str, Array]) -> list[Row]:
    """One row for each measured pair of classes: where its boundaries lie between the class means.

    Args:
        cell: as cell.json.
        reference: arrays of scores-KEY.npz; without margin_pairs there are no rows.

    Returns:
        Rows of the table `margins`; null where there is no boundary on the way, or no
        closed form.
    """
    if "margin_pairs" not in reference:
        return []
    features, labels = reference["train_features"], reference["train_labels"]
    means = class_means(features, labels, int(labels.max()) + 1)
    rows = []
    for (a, b), measured, closed in zip(
        reference["margin_pairs"],
        reference["margin_positions"],
        reference["margin_closed"],
        strict=True,
    ):
        length = float(np.linalg.norm(means[b] - means[a]))
        both = np.isfinite(measured) & np.isfinite(closed)
        rows.append(
            cell_place(cell)
            | {"class_a": int(a), "class_b": int(b), "length": length}
            | _positions("", measured, length)
            | _positions("closed_", closed, length)
            | {"difference": float(np.abs(measured - closed)[both].max()) if both.any() else None}
        )
    return rows


def _positions(prefix: str, found: Array, length: float) -> Row:
    free, under_a, under_b = (finite_or_null(float(v)) for v in found)
    margin = None if under_a is None or under_b is None else (under_b - under_a) * length
    return {
        f"{prefix}boundary": free,
        f"{prefix}boundary_a": under_a,
        f"{prefix}boundary_b": under_b,
        f"{prefix}margin": margin,
    }


def center_rows(cell: Mapping[str, Any], reference: Mapping[str, Array]) -> list[Row]:
    """How well a mini-batch, and the loss's own centers, know the class means.

    Args:
        cell: as cell.json; without "batch_size" there is no row.
        reference: arrays of scores-KEY.npz.

    Returns:
        One row of the table `center_estimates`, or none. expected_error is sqrt(tr S_W / n) for the
        n images that a class has in a batch on average, null where that is less than one: then the
        classes that a batch does have are few, each with one image or little more.
    """
    batch_size = cell.get("batch_size")
    if batch_size is None or "train_features" not in reference:
        return []
    features = np.asarray(reference["train_features"], np.float64)
    labels = reference["train_labels"]
    means = class_means(features, labels, int(labels.max()) + 1)
    own = features - means[labels]
    drawn = min(batch_size, len(labels))
    each = drawn / len(np.unique(labels))
    centers = reference.get("centers")
    known = np.flatnonzero(np.isfinite(means).all(1))
    return [
        cell_place(cell)
        | {
            "batch_size": drawn,
            "images_per_class": each,
            "batch_mean_error": _batch_mean_error(own, labels, drawn),
            "expected_error": (
                math.sqrt(float((own**2).sum(1).mean()) / each) if each >= 1 else None
            ),
            "centers_error": None if centers is None else _rms(centers[known] - means[known]),
            "within_distance": float(np.linalg.norm(own, axis=1).mean()),
        }
    ]


def _batch_mean_error(own: Array, labels: Array, batch_size: int) -> float:
    """Root mean square over batches and classes of a batch's class mean minus the true one."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    squares = []
    for _ in range(BATCHES):
        # With replacement: from a small set, draws without it would know the mean too well.
        chosen = rng.integers(0, len(labels), batch_size)
        for label in np.unique(labels[chosen]):
            squares.append((own[chosen[labels[chosen] == label]].mean(0) ** 2).sum())
    return math.sqrt(float(np.mean(squares)))


def _rms(rows: Array) -> float:
    return math.sqrt(float((np.asarray(rows, np.float64) ** 2).sum(1).mean()))
