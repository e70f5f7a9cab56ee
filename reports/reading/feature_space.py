"""What the pictures of the feature space need of scores-KEY.npz: reduced when read."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MOST_POINTS = 4000
# Class vectors that are points although the loss has no centers: the means of features as they are.
# Triplet's are means on the unit sphere, so directions, as weights are.
CENTERED = ("contrastive",)


@dataclass(frozen=True)
class Boundary:
    """Two classes on the grid of a 2-D feature space; every boundary is where a field is 0.

    Attributes:
        pair: The classes a and b.
        x, y: (G,) grid lines.
        free: (G, G) z_a - z_b without margin; row = y, column = x.
        own: The same with the margin of label a, and of label b.
        closed: Closed forms of the three, or None.
    """

    pair: tuple[int, int]
    x: np.ndarray
    y: np.ndarray
    free: np.ndarray
    own: tuple[np.ndarray, np.ndarray]
    closed: tuple[np.ndarray, np.ndarray, np.ndarray] | None


@dataclass(frozen=True)
class Space:
    """One model's feature space.

    Attributes:
        train, train_labels: (M, D) and (M,) evenly chosen training images.
        norms: (N,) feature norms of the training images the scores were fitted on.
        gradients: (N,) size of the loss gradient at each of them, or None.
        untrained, untrained_labels: Test images through the untrained network, or None.
        vectors: (K, D) what stands for each class, or None.
        are_centers: Whether the vectors are points; else directions.
        boundary: Of the nearest pair of classes, 2-D features only.
    """

    train: np.ndarray | None
    train_labels: np.ndarray | None
    norms: np.ndarray | None
    gradients: np.ndarray | None
    untrained: np.ndarray | None
    untrained_labels: np.ndarray | None
    vectors: np.ndarray | None
    are_centers: bool
    boundary: Boundary | None


def space(arrays: Mapping[str, np.ndarray], loss: str) -> Space:
    """Reduce the stored reference arrays of a cell to what is drawn of its feature space.

    Args:
        arrays: Of scores-KEY.npz.
        loss: Key of the loss, which says what its class vectors are.
    """
    train, labels = arrays.get("train_features"), arrays.get("train_labels")
    norms = some = some_labels = None
    if train is not None and labels is not None:
        norms = np.linalg.norm(np.asarray(train, float), axis=1)
        places = evenly(len(train), MOST_POINTS)
        some, some_labels = train[places], labels[places]
    boundary = None
    if "boundary_pair" in arrays and "grid_x" in arrays:
        a, b = (int(k) for k in arrays["boundary_pair"])
        closed = None
        if all(f"closed_{part}" in arrays for part in ("free", "a", "b")):
            closed = (arrays["closed_free"], arrays["closed_a"], arrays["closed_b"])
        boundary = Boundary(
            (a, b),
            arrays["grid_x"],
            arrays["grid_y"],
            arrays["boundary_free"],
            (arrays["boundary_a"], arrays["boundary_b"]),
            closed,
        )
    centers = arrays.get("centers")
    return Space(
        some,
        some_labels,
        norms,
        arrays.get("train_gradient_norm"),
        arrays.get("untrained_features"),
        arrays.get("untrained_labels"),
        vectors=centers if centers is not None else arrays.get("class_vectors"),
        are_centers=centers is not None or loss in CENTERED,
        boundary=boundary,
    )


def evenly(count: int, most: int) -> np.ndarray:
    """Return the places of at most ``most`` of ``count`` things, evenly chosen, each once.

    Args:
        count: Of things.
        most: So many places at most.
    """
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
