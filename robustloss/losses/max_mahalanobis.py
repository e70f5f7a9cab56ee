"""Max-Mahalanobis center loss (MMC): features are drawn to fixed centers as far apart as can be."""

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustloss.losses.arguments import check_number
from robustloss.losses.base import LossHead, LossTerms, check_inputs
from robustloss.losses.centers import half_squared_distances

Array = NDArray[np.float64]

# Of the soft maximum that stands for the largest dot product, in the order of the descent.
_SHARPNESS = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)


class MaxMahalanobisHead(LossHead):
    """MMC: ½‖f − mu_y‖² to fixed centers mu_k, no softmax; logits_k = −½‖f − mu_k‖².

    The classes do not compete in training. The loss is −log N(f; mu_y, I) up to a constant, so the
    class likelihood is that density.

    Classes are far apart: with C = 10 and ten classes the logits at a center differ by 111 nats,
    where float32 cross-entropy has a gradient of exactly 0 and an attack on it does nothing.

    Args:
        feature_dim: D; at least 2, or K = 2.
        num_classes: K.
        center_norm: C_MM, the norm of every center, positive; 10 in the paper.

    Raises:
        ValueError: if an argument is out of range.

    Source: Pang et al., Rethinking Softmax Cross-Entropy Loss for Adversarial Robustness, ICLR
        2020, equation 6 and algorithm 1. The authors' code leaves out both ½, which doubles the
        loss and the logits.
    """

    density = True
    centers: Tensor

    def __init__(self, feature_dim: int, num_classes: int, *, center_norm: float = 10.0) -> None:
        super().__init__(feature_dim, num_classes)
        norm = check_number("center_norm", center_norm)
        if norm == 0.0:
            raise ValueError("center_norm (=0) must be positive: all classes would be one.")
        if feature_dim == 1 and num_classes > 2:
            raise ValueError(
                f"feature_dim (=1) has room for 2 centers of equal norm, not for {num_classes}. "
                "Raise model.feature_dim to 2 or more."
            )
        unit = optimal_directions(num_classes, feature_dim)
        self.register_buffer("centers", torch.from_numpy(norm * unit).float())

    def logits(self, features: Tensor) -> Tensor:
        """Return −½‖f − mu_k‖², (B,D) -> (B,K)."""
        check_inputs(self, features)
        return -half_squared_distances(features, self.centers)

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return ½‖f − mu_y‖² per image, no regulariser."""
        check_inputs(self, features, labels)
        classification = 0.5 * (features - self.centers[labels]).square().sum(1)
        return LossTerms(classification, torch.zeros_like(classification))

    def phase(self, progress: float) -> tuple[float, ...]:
        """Return nothing: there is no schedule."""
        return ()

    def class_log_likelihood(self, features: Tensor) -> Tensor:
        """Return log N(f; mu_k, I), (B,D) -> (B,K)."""
        return self.logits(features) - 0.5 * self.feature_dim * math.log(2.0 * math.pi)

    def class_vectors(self) -> Tensor:
        """Return mu_k, (K,D)."""
        return self.centers


@lru_cache(maxsize=16)
def optimal_directions(num_classes: int, feature_dim: int) -> Array:
    """Return (K,D) unit vectors whose largest pairwise dot product is as small as can be.

    A simplex for D >= K − 1, a regular polygon in the plane, axes both ways for K <= 2D: these are
    optimal (Rankin, 1955). Elsewhere a numerical optimum, always the same one; the global random
    state has no part in it. The array is read-only.

    Args:
        num_classes: K, at least 2.
        feature_dim: D, at least 2, or at least 1 for two classes.
    """
    if feature_dim >= num_classes - 1:
        # Algorithm 1: mu_i·mu_j = −1/(K−1), each vector with one coordinate more.
        unit = np.zeros((num_classes, feature_dim))
        unit[0, 0] = 1.0
        for k in range(1, num_classes):
            for j in range(k):
                unit[k, j] = -(1.0 / (num_classes - 1) + unit[k] @ unit[j]) / unit[j, j]
            if k < num_classes - 1:
                unit[k, k] = math.sqrt(abs(1.0 - unit[k] @ unit[k]))
    elif feature_dim == 2:
        angles_rad = 2.0 * np.pi * np.arange(num_classes) / num_classes
        unit = np.stack([np.cos(angles_rad), np.sin(angles_rad)], axis=1)
    elif num_classes <= 2 * feature_dim:
        axes = np.eye(feature_dim)
        unit = np.stack([axes, -axes], axis=1).reshape(-1, feature_dim)[:num_classes]
    else:
        unit = _spread(num_classes, feature_dim)
    unit.setflags(write=False)  # all who ask share the one array
    return unit


def _spread(num_classes: int, feature_dim: int) -> Array:
    """Return the best of a few descents from fixed starts, on a soft maximum that hardens."""
    from scipy.optimize import minimize

    upper = np.triu_indices(num_classes, 1)

    def normalise(flat: Array) -> tuple[Array, Array]:
        rows = flat.reshape(num_classes, -1)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / norms, norms

    def soft_maximum(flat: Array, sharpness: float) -> tuple[float, Array]:
        unit, norms = normalise(flat)
        dots = (unit @ unit.T)[upper]
        weights = np.exp(sharpness * (dots - dots.max()))
        value = dots.max() + np.log(weights.sum()) / sharpness
        slope = np.zeros((num_classes, num_classes))
        slope[upper] = weights / weights.sum()
        grad = (slope + slope.T) @ unit
        grad -= (grad * unit).sum(1, keepdims=True) * unit  # only along the sphere
        return float(value), (grad / norms).ravel()

    rng = np.random.Generator(np.random.PCG64(0))
    settings = {"jac": True, "method": "L-BFGS-B", "options": {"maxiter": 300}}
    found = []
    for _ in range(max(1, min(8, 400 // num_classes))):
        flat = rng.standard_normal(num_classes * feature_dim)
        for sharpness in _SHARPNESS:
            flat = minimize(soft_maximum, flat, args=(sharpness,), **settings).x
        unit, _ = normalise(flat)
        found.append((float((unit @ unit.T)[upper].max()), unit))
    return min(found, key=lambda pair: pair[0])[1]
