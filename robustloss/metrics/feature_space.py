"""The shape of the feature space in numbers: distances, angles, margins, class means.

All in float64 and by explicit difference, a class at a time, so that a thousand classes fit.
A class without images in a set has no mean there and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BLOCK = 2048  # images at once in float64: 50,000 of 2,048 features would take gigabytes


def class_means(features: Array, labels: Array, num_classes: int) -> NDArray[np.float64]:
    """Return the mean features (K,D) of every class; NaN for one without images.

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
    """Return the two classes (a, b), a < b, whose means (K,D) are nearest; two must have one."""
    a, b, _ = min(_pair_distances(means), key=lambda pair: pair[2])
    return a, b


def _pair_distances(means: NDArray[np.float64]) -> Iterator[tuple[int, int, float]]:
    """Give (a, b, distance of their means) for every two classes that have images."""
    known = np.flatnonzero(np.isfinite(means).all(1))
    for i, a in enumerate(known):
        others = known[i + 1 :]
        for b, length in zip(others, np.linalg.norm(means[others] - means[a], axis=1), strict=True):
            yield int(a), int(b), float(length)


def _angles_deg(first: Array, second: Array) -> Array:
    """Return the angles in degrees between rows (N,D) and rows (N,D), seen from the origin.

    NaN for a zero row. By the half-angle form, exact at 0 and 180 where arccos is not.
    """
    lengths = np.linalg.norm(first, axis=-1), np.linalg.norm(second, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        u, v = first / lengths[0][..., None], second / lengths[1][..., None]
    gap, total = np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1)
    return np.degrees(2.0 * np.arctan2(gap, total))


def shape_of(features: Array, labels: Array, num_classes: int) -> dict[str, Any]:
    """Return distances, angles and norms of features.

    Args:
        features: (N,D).
        labels: (N,).
        num_classes: K.

    Returns:
        The columns of the table `geometry` from n to between_angle_min_deg; null where fewer than
        two classes have images, or a vector has no direction.

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
    row: dict[str, Any] = {
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


def collapse_of(
    features: Array, labels: Array, num_classes: int, class_vectors: Array | None = None
) -> dict[str, float | None]:
    """Return how far features have collapsed to their class means, and these to a simplex.

    All four are 0 in full collapse: each feature is its class's mean, the centred means have one
    length and the angles of a simplex, and the loss's class vectors are parallel to them.

    Args:
        features: (N,D).
        labels: (N,) true classes, of attacked images too.
        num_classes: K.
        class_vectors: (K,D) weights or centers of the loss, if it has some.

    Returns:
        nc1: Tr(S_W S_B⁺) / K, with the scatter S_W within and S_B between the classes.
        nc2_lengths: Standard deviation of the lengths of the centred means, over their mean.
        nc2_cosines: Mean of |cos + 1/(K−1)| over two centred means.
        nc3: ‖W/‖W‖ − M/‖M‖‖ in the Frobenius norm, with centred class vectors W and means M.
        None where fewer than two classes have images, or a number is not defined.

    Source: Papyan et al., Prevalence of Neural Collapse, PNAS 2020. K counts the classes with
        images. We center the class vectors too: distances have no origin, and a common shift of
        the weights of a linear layer changes no decision.
    """
    means = class_means(features, labels, num_classes)
    known = np.flatnonzero(np.isfinite(means).all(1))
    count = len(known)
    centred = means[known] - means[known].mean(0)
    # The directions in which the means differ; S_B = centredᵀ centred / K has rank K − 1 at most.
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    kept = sizes > max(centred.shape) * np.finfo(np.float64).eps * sizes.max(initial=0.0)
    if count < 2 or not kept.any():
        return dict.fromkeys(("nc1", "nc2_lengths", "nc2_cosines", "nc3"))
    within = np.zeros(int(kept.sum()))
    for start in range(0, len(features), BLOCK):
        part = slice(start, start + BLOCK)
        own = features[part].astype(np.float64) - means[labels[part]]
        within += ((own @ directions[kept].T) ** 2).sum(0)
    lengths = np.linalg.norm(centred, axis=1)
    row: dict[str, float | None] = {
        "nc1": float((within / len(features) / sizes[kept] ** 2).sum()),
        "nc2_lengths": float(lengths.std() / lengths.mean()),
        "nc2_cosines": None,
        "nc3": None,
    }
    if lengths.all():
        unit = centred / lengths[:, None]
        cosines = (unit @ unit.T)[np.triu_indices(count, 1)]
        row["nc2_cosines"] = float(np.abs(cosines + 1 / (count - 1)).mean())
    if class_vectors is not None:
        vectors = np.asarray(class_vectors, np.float64)[known]
        vectors = vectors - vectors.mean(0)
        length = np.linalg.norm(vectors)
        if np.isfinite(length) and length > 0:
            row["nc3"] = float(np.linalg.norm(vectors / length - centred / np.linalg.norm(centred)))
    return row


def _between_columns(means: NDArray[np.float64]) -> dict[str, Any]:
    """Return distances and angles between the class means (K,D)."""
    pairs = list(_pair_distances(means))
    if not pairs:
        names = ("between_distance", "between_distance_min", "nearest_a", "nearest_b")
        return dict.fromkeys((*names, "between_angle_deg", "between_angle_min_deg"))
    a, b, least = min(pairs, key=lambda pair: pair[2])
    first, second = (np.array([pair[i] for pair in pairs]) for i in (0, 1))
    # in pieces: a thousand classes have half a million pairs
    pieces = np.array_split(np.arange(len(pairs)), 1 + len(pairs) // 10_000)
    angles = np.concatenate([_angles_deg(means[first[p]], means[second[p]]) for p in pieces])
    angles = angles[np.isfinite(angles)]
    return {
        "between_distance": float(np.mean([pair[2] for pair in pairs])),
        "between_distance_min": least,
        "nearest_a": a,
        "nearest_b": b,
        "between_angle_deg": _mean(angles),
        "between_angle_min_deg": float(angles.min()) if len(angles) else None,
    }


def _mean(values: Array) -> float | None:
    """Return the mean of the finite values, or None without any."""
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else None
