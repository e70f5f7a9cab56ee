"""The plane in which features are looked at."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Plane:
    """A linear map of features to the page.

    Attributes:
        origin: (D,) point that lands on (0, 0).
        axes: (D, 2) directions of the page axes.
        explained: Share of the variance along each, or None when the features are 2-D already.
    """

    origin: np.ndarray
    axes: np.ndarray
    explained: tuple[float, float] | None

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Map (N, D) features to (N, 2)."""
        return (np.asarray(points, float) - self.origin) @ self.axes


def plane(features: np.ndarray) -> Plane:
    """Choose the plane to look at: the features themselves in 2-D, else the leading two PCs.

    Args:
        features: (N, D) clean features, D >= 1. With D = 1 the second axis is empty.
    """
    dim = features.shape[1]
    if dim <= 2:
        return Plane(np.zeros(dim), np.eye(dim, 2), None)
    points = np.asarray(features, float)
    origin = points.mean(0)
    values, vectors = np.linalg.eigh((points - origin).T @ (points - origin) / len(points))
    axes = vectors[:, [-1, -2]]
    # an eigenvector has no sign of its own: the largest entry is made positive
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), [0, 1]])
    total = max(float(values.sum()), 1e-300)
    return Plane(origin, axes, (float(values[-1] / total), float(values[-2] / total)))
