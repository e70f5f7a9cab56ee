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
    """Two classes on the grid of a 2-D feature space; every boundary is where a field is 0."""

    pair: tuple[int, int]  # the classes a and b
    x: np.ndarray  # (G,) grid lines
    y: np.ndarray
    free: np.ndarray  # (G, G) z_a - z_b without margin; row = y, column = x
    own: tuple[np.ndarray, np.ndarray]  # the same with the margin of label a, and of label b
    closed: tuple[np.ndarray, np.ndarray, np.ndarray] | None  # closed forms of the three, or None


@dataclass(frozen=True)
class Space:
    """One model's feature space."""

    train: np.ndarray | None  # (M, D) and (M,) evenly chosen training images
    train_labels: np.ndarray | None
    norms: np.ndarray | None  # (N,) feature norms of the training images the scores were fitted on
    gradients: np.ndarray | None  # (N,) size of the loss gradient at each of them, or None
    untrained: np.ndarray | None  # test images through the untrained network, or None
    untrained_labels: np.ndarray | None
    vectors: np.ndarray | None  # (K, D) what stands for each class, or None
    are_centers: bool  # whether the vectors are points; else directions
    boundary: Boundary | None  # of the nearest pair of classes, 2-D features only


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
        own = arrays["boundary_a"], arrays["boundary_b"]
        lines = arrays["grid_x"], arrays["grid_y"], arrays["boundary_free"]
        boundary = Boundary((a, b), *lines, own, closed)
    centers = arrays.get("centers")
    gradients = arrays.get("train_gradient_norm")
    untrained = arrays.get("untrained_features"), arrays.get("untrained_labels")
    vectors = centers if centers is not None else arrays.get("class_vectors")
    are_centers = centers is not None or loss in CENTERED
    return Space(some, some_labels, norms, gradients, *untrained, vectors, are_centers, boundary)


def evenly(count: int, most: int) -> np.ndarray:
    """Return the places of at most ``most`` of ``count`` things, evenly chosen, each once.

    Args:
        count: Of things.
        most: So many places at most.
    """
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
