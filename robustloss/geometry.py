"""The shape of the feature space in numbers: distances, angles, margins, class means.

All in float64 and by explicit difference, a class at a time, so that a thousand classes fit.
A class without images in a set has no mean there and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustloss.columns import PLACE, Row
from robustloss.records import Record

Array = NDArray[Any]
BLOCK = 2048  # images at once in float64: 50,000 of 2,048 features would take gigabytes
BATCHES = 200  # mini-batches whose class means are compared with the true ones
SEED = 20180328


def class_means(features: Array, labels: Array, num_classes: int) -> NDArray[np.float64]:
    """Mean features (K,D) of every class; NaN for one without images.

    Args:
        features: (N,D).
        labels: (N,).
        num_classes: K.

    Raises:
        ValueError: a feature is NaN or infinite.
    """
    if not np.isfinite(features).all():
        raise ValueError(
            "features hold NaN or infinite values, so they have no geometry. The loss or the "
            "backbone is not finite there: lower the learning rate, or mend the plug-in."
        )
    means = np.full((num_classes, features.shape[1]), np.nan)
    for label in np.unique(labels):
        means[label] = features[labels == label].mean(0, dtype=np.float64)
    return means


def nearest_pair(means: NDArray[np.float64]) -> tuple[int, int]:
    """The two classes (a, b), a < b, whose means are nearest; at least two must have one."""
    found = min(_pair_distances(means), key=lambda pair: pair[2])
    return found[0], found[1]


def _pair_distances(means: NDArray[np.float64]) -> Iterator[tuple[int, int, float]]:
    known = np.flatnonzero(np.isfinite(means).all(1))
    for i, a in enumerate(known):
        others = known[i + 1 :]
        for b, length in zip(others, np.linalg.norm(means[others] - means[a], axis=1), strict=True):
            yield int(a), int(b), float(length)


def _angles_deg(first: Array, second: Array) -> Array:
    """Angles in degrees between rows (N,D) and rows (N,D) or (D,), seen from the origin.

    NaN for a zero row. By the half-angle form, exact at 0 and 180 where arccos is not.
    """
    lengths = np.linalg.norm(first, axis=-1), np.linalg.norm(second, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        u, v = first / lengths[0][..., None], second / lengths[1][..., None]
    gap, total = np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1)
    return np.degrees(2.0 * np.arctan2(gap, total))


def geometry_rows(
    cell: Mapping[str, Any], reference: Mapping[str, Array], test: Record
) -> list[Row]:
    """One row for each set of features: training, clean test, and test before training.

    Args:
        cell: as cell.json.
        reference: arrays of scores-KEY.npz.
        test: the Record of the clean pass.

    Returns:
        Rows with `columns.GEOMETRY_COLUMNS`.
    """
    place = {name: cell[name] for name in PLACE}
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


def shape_of(features: Array, labels: Array, num_classes: int) -> Row:
    """Distances, angles and norms of features.

    Args:
        features: (N,D).
        labels: (N,).
        num_classes: K.

    Returns:
        The columns from n to between_angle_min_deg; null where fewer than two classes have images,
        or a vector has no direction.

    Source: Fisher, The Use of Multiple Measurements in Taxonomic Problems, 1936, as the ratio of
        the traces of between-class and within-class scatter.
    """
    means = class_means(features, labels, num_classes)
    overall = features.mean(0, dtype=np.float64)
    within, norms, angles = (np.empty(len(features)) for _ in range(3))
    squares = between = 0.0
    for start in range(0, len(features), BLOCK):
        part = slice(start, start + BLOCK)
        values, own = features[part].astype(np.float64), means[labels[part]]
        within[part] = np.linalg.norm(values - own, axis=1)
        norms[part] = np.linalg.norm(values, axis=1)
        angles[part] = _angles_deg(values, own)
        squares += float(((values - own) ** 2).sum())
        between += float(((own - overall) ** 2).sum())
    low, high = np.percentile(norms, (5, 95))
    row: Row = {
        "n": len(features),
        "feature_dim": features.shape[1],
        "norm_mean": float(norms.mean()),
        "norm_p5": float(low),
        "norm_p95": float(high),
        "within_distance": float(within.mean()),
        "fisher_ratio": between / squares if squares > 0 else None,
        "within_angle_deg": _mean(angles),
    }
    return row | _between_columns(means)


def _between_columns(means: NDArray[np.float64]) -> Row:
    names = ("between_distance", "between_distance_min", "nearest_a", "nearest_b")
    pairs = list(_pair_distances(means))
    if not pairs:
        return dict.fromkeys((*names, "between_angle_deg", "between_angle_min_deg"))
    a, b, least = min(pairs, key=lambda pair: pair[2])
    first, second = (np.array([pair[i] for pair in pairs]) for i in (0, 1))
    angles = np.concatenate(  # in pieces: a thousand classes have half a million pairs
        [
            _angles_deg(means[i], means[j])
            for i, j in zip(
                np.array_split(first, 1 + len(first) // 10_000),
                np.array_split(second, 1 + len(first) // 10_000),
                strict=True,
            )
        ]
    )
    angles = angles[np.isfinite(angles)]
    return {
        "between_distance": float(np.mean([pair[2] for pair in pairs])),
        "between_distance_min": least,
        "nearest_a": a,
        "nearest_b": b,
        "between_angle_deg": _mean(angles),
        "between_angle_min_deg": float(angles.min()) if len(angles) else None,
    }


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


def _mean(values: Array) -> float | None:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else None


def margin_rows(cell: Mapping[str, Any], reference: Mapping[str, Array]) -> list[Row]:
    """One row for each measured pair of classes: where its boundaries lie between the class means.

    Args:
        cell: as cell.json.
        reference: arrays of scores-KEY.npz; without margin_pairs there are no rows.

    Returns:
        Rows with `columns.MARGIN_COLUMNS`; null where there is no boundary on the way, or no
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
            {name: cell[name] for name in PLACE}
            | {"class_a": int(a), "class_b": int(b), "length": length}
            | _positions("", measured, length)
            | _positions("closed_", closed, length)
            | {"difference": float(np.abs(measured - closed)[both].max()) if both.any() else None}
        )
    return rows


def _positions(prefix: str, found: Array, length: float) -> Row:
    free, under_a, under_b = (float(v) if math.isfinite(v) else None for v in found)
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
        One row with `columns.CENTER_COLUMNS`, or none. expected_error is sqrt(tr S_W / n) for the
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
        {name: cell[name] for name in PLACE}
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
