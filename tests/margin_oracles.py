"""Slow float64 oracles of the margin losses, one image and one class at a time, with acos.

Written from the papers; nothing is shared with the code under test or with robustloss.boundaries.
"""

import math

import numpy as np

from tests.oracles import cross_entropy

Array = np.ndarray


def angle_rad(a: Array, b: Array) -> float:
    """Angle between two vectors."""
    length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return math.acos(max(-1.0, min(1.0, sum(x * y for x, y in zip(a, b, strict=True)) / length)))


def length(vector: Array) -> float:
    """Euclidean norm."""
    return math.sqrt(sum(x * x for x in vector))


def psi(theta_rad: float, m: int) -> float:
    """(−1)^k cos(m theta) − 2k, theta in [k pi/m, (k+1) pi/m] (Liu et al. 2016, equation 6)."""
    for k in range(m):
        if k * math.pi / m <= theta_rad <= (k + 1) * math.pi / m:
            return (-1) ** k * math.cos(m * theta_rad) - 2 * k
    raise AssertionError(theta_rad)


def annealed_psi(theta_rad: float, m: int, lam: float) -> float:
    """(lambda cos theta + psi(theta)) / (1 + lambda)."""
    return (lam * math.cos(theta_rad) + psi(theta_rad, m)) / (1 + lam)


def _logits(features: Array, labels: Array, weight: Array, radius, target) -> Array:
    logits = np.zeros((len(features), len(weight)))
    for i, feature in enumerate(features):
        for k, row in enumerate(weight):
            theta = angle_rad(feature, row)
            value = target(theta) if k == labels[i] else math.cos(theta)
            logits[i, k] = radius(feature, row) * value
    return logits


def l_softmax(features: Array, labels: Array, weight: Array, m: int, lam: float) -> Array:
    """Liu et al. 2016, equations 4 to 7: ‖w‖‖x‖ psi(theta_y) against ‖w‖‖x‖ cos theta_j."""
    logits = _logits(
        features,
        labels,
        weight,
        lambda x, w: length(x) * length(w),
        lambda theta: annealed_psi(theta, m, lam),
    )
    return cross_entropy(logits, labels)


def a_softmax(features: Array, labels: Array, weight: Array, m: int, lam: float) -> Array:
    """Liu et al. 2017, equation 7: ‖x‖ psi(theta_y) against ‖x‖ cos theta_j."""
    logits = _logits(
        features, labels, weight, lambda x, w: length(x), lambda t: annealed_psi(t, m, lam)
    )
    return cross_entropy(logits, labels)


def fnorm_sphereface(
    features: Array, labels: Array, weight: Array, m: int, lam: float, s: float
) -> Array:
    """s psi(theta_y) against s cos theta_j."""
    logits = _logits(features, labels, weight, lambda x, w: s, lambda t: annealed_psi(t, m, lam))
    return cross_entropy(logits, labels)


def cosface(features: Array, labels: Array, weight: Array, s: float, m: float) -> Array:
    """Wang et al. 2018, equation 4: s (cos theta_y − m) against s cos theta_j."""
    logits = _logits(features, labels, weight, lambda x, w: s, lambda t: math.cos(t) - m)
    return cross_entropy(logits, labels)


def arcface(features: Array, labels: Array, weight: Array, s: float, m: float) -> Array:
    """Deng et al. 2019, equation 3: s cos(theta_y + m) against s cos theta_j.

    Where theta + m exceeds pi: cos theta − m sin m, as in the authors' code.
    """

    def target(theta: float) -> float:
        if theta + m > math.pi:
            return math.cos(theta) - m * math.sin(m)
        return math.cos(theta + m)

    return cross_entropy(_logits(features, labels, weight, lambda x, w: s, target), labels)


def l2_softmax(features: Array, labels: Array, weight: Array, bias: Array, radius: float) -> Array:
    """Ranjan et al. 2017, equation 3: softmax of W x + b where ‖x‖ = alpha for every image."""
    logits = np.zeros((len(features), len(weight)))
    for i, feature in enumerate(features):
        on_sphere = [radius * x / length(feature) for x in feature]
        for k, row in enumerate(weight):
            logits[i, k] = sum(w * x for w, x in zip(row, on_sphere, strict=True)) + bias[k]
    return cross_entropy(logits, labels)


def weighted_softmax(
    logits: Array, labels: Array, class_weights: Array, class_counts: Array
) -> Array:
    """v_y times the cross-entropy, the v scaled to have mean 1 over the training images."""
    images = [k for k, count in enumerate(class_counts) for _ in range(count)]
    mean = sum(class_weights[k] for k in images) / len(images)
    losses = cross_entropy(logits, labels)
    return np.array([class_weights[y] / mean * v for y, v in zip(labels, losses, strict=True)])
