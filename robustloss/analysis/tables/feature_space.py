"""Tables geometry, collapse, margins and center_estimates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import scipy

from robustloss.analysis.tables.measured import MeasuredPass
from robustloss.metrics.feature_space import Array, class_means, collapse_of, shape_of
from robustloss.results.records import Record
from robustloss.results.schema import Row, cell_place, finite_or_null

BATCHES = 200  # mini-batches whose class means are compared with the true ones
SEED = 20180328


def geometry_rows(
    cell: Mapping[str, Any], reference: Mapping[str, Array], test: Record
) -> list[Row]:
    """Return a row for each set of features: training, clean test, and test before training.

    Args:
        cell: as cell.json.
        reference: the arrays of reference-KEY.npz.
        test: the record of the clean pass.
    """
    sets = {
        "train": (reference.get("train_features"), reference.get("train_labels")),
        "test": (test.features, test.labels),
        "untrained": (reference.get("untrained_features"), reference.get("untrained_labels")),
    }
    rows = []
    for split, (features, labels) in sets.items():
        if features is None or labels is None:
            continue
        row = cell_place(cell) | {"split": split}
        row |= shape_of(features, labels, test.logits.shape[1])
        row |= dict.fromkeys(("gradient_norm_mean", "gradient_norm_correlation"))
        slopes = reference.get("train_gradient_norm")
        if split == "train" and slopes is not None:
            norms = np.linalg.norm(np.asarray(features, np.float64), axis=1)
            row["gradient_norm_mean"] = float(np.mean(slopes, dtype=np.float64))
            if np.ptp(norms) > 0 and np.ptp(slopes) > 0:  # constants have no ranks
                row["gradient_norm_correlation"] = float(
                    scipy.stats.spearmanr(norms, slopes).statistic
                )
        rows.append(row)
    return rows


def collapse_rows(one: MeasuredPass, reference: Mapping[str, Array]) -> list[Row]:
    """Return the neural-collapse numbers of one pass; no row for a model without features.

    Args:
        one: The clean pass, or an attack at one eps.
        reference: the arrays of reference-KEY.npz, for the class vectors of the loss.
    """
    record = one.record
    if record.features is None or one.repeats_clean:
        return []
    vectors = reference.get("class_vectors")
    found = collapse_of(record.features, record.labels, record.logits.shape[1], vectors)
    return [{**one.place, "n": record.n, **found}]


def margin_rows(cell: Mapping[str, Any], reference: Mapping[str, Array]) -> list[Row]:
    """Return where the boundaries of each measured pair of classes lie between the class means.

    Args:
        cell: as cell.json.
        reference: the arrays of reference-KEY.npz; without margin_pairs there are no rows.

    Returns:
        One row for each pair; null where there is no boundary on the way, or no closed form.
    """
    if "margin_pairs" not in reference:
        return []
    features, labels = reference["train_features"], reference["train_labels"]
    means = class_means(features, labels, int(labels.max()) + 1)
    rows = []
    for (a, b), *positions in zip(
        reference["margin_pairs"],
        reference["margin_positions"],
        reference["margin_closed"],
        strict=True,
    ):
        length = float(np.linalg.norm(means[b] - means[a]))
        row = cell_place(cell) | {"class_a": int(a), "class_b": int(b), "length": length}
        for prefix, found in zip(("", "closed_"), positions, strict=True):
            free, under_a, under_b = (finite_or_null(float(value)) for value in found)
            margin = None if under_a is None or under_b is None else (under_b - under_a) * length
            row |= {
                f"{prefix}boundary": free,
                f"{prefix}boundary_a": under_a,
                f"{prefix}boundary_b": under_b,
                f"{prefix}margin": margin,
            }
        measured, closed = positions
        gaps = np.abs(measured - closed)[np.isfinite(measured) & np.isfinite(closed)]
        rows.append(row | {"difference": float(gaps.max()) if gaps.size else None})
    return rows


def center_rows(cell: Mapping[str, Any], reference: Mapping[str, Array]) -> list[Row]:
    """Return how well a mini-batch, and the loss's own centers, know the class means.

    Args:
        cell: as cell.json; without "batch_size" there is no row.
        reference: the arrays of reference-KEY.npz.

    Returns:
        One row, or none. expected_error is sqrt(tr S_W / n) for the n images that a class has in a
        batch on average, null where that is less than one: then the classes that a batch does have
        are few, each with one image or little more.
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
    known = np.isfinite(means).all(1)
    centers = reference.get("centers")
    scatter = float((own**2).sum(1).mean())
    rng = np.random.Generator(np.random.PCG64(SEED))
    squares = []  # of the distance from a batch's class mean to the true one
    for _ in range(BATCHES):
        # With replacement: from a small set, draws without it would know the mean too well.
        chosen = rng.integers(0, len(labels), drawn)
        chosen = chosen[np.argsort(labels[chosen], kind="stable")]
        off, starts = own[chosen], np.flatnonzero(np.diff(labels[chosen], prepend=-1))
        for start, stop in pairwise([*starts, drawn]):  # of each class that it has
            squares.append(((off[start:stop].sum(0) / (stop - start)) ** 2).sum())
    row = {
        "batch_size": drawn,
        "images_per_class": each,
        "batch_mean_error": math.sqrt(float(np.mean(squares))),
        "expected_error": math.sqrt(scatter / each) if each >= 1 else None,
        "centers_error": None,
        "within_distance": float(np.linalg.norm(own, axis=1).mean()),
    }
    if centers is not None:
        apart = np.asarray(centers[known] - means[known], np.float64)
        row["centers_error"] = math.sqrt(float((apart**2).sum(1).mean()))
    return [cell_place(cell) | row]
