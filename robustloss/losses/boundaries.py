"""Decision boundaries in closed form: the gap z_a − z_b of two classes, with and without margin.

Plain numpy on plain values, written from the table of decision boundaries of the papers, with
arccos. The heads reach the same numbers by polynomials and half-angle formulas; each checks the
other.

The closed forms are of three kinds: losses without a margin (`_WITHOUT_MARGIN`), losses that put
another value in place of the true class's cosine (`_TARGETS`), and Gaussian mixtures.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robustloss.losses import LOSSES

Array = np.ndarray
Params = Mapping[str, Any]
Gaps = tuple[Array, Array, Array]  # without margin, under label a, under label b


def closed_gaps(
    loss: str,
    params: Params,
    vectors: Array,
    points: Array,
    a: int,
    b: int,
    *,
    bias: Array | None = None,
    scale: float | Array | None = None,
    log_var: Array | None = None,
    log_prior: Array | None = None,
    weight: Array | None = None,
) -> Gaps | None:
    """Return z_a − z_b at points: without margin, under label a, under label b.

    The boundary between both classes is where this is 0. Annealed margins stand at their final
    value (progress 1).

    Args:
        loss: a key of LOSSES.
        params: the loss's parameters as the spec gives them; the rest are the head's defaults.
        vectors: (K,D), `LossHead.class_vectors`.
        points: (N,D).
        a: a class index.
        b: another.
        bias: (K,); this and all that follow are `LossHead.boundary_terms`.
        scale: s, or the radius of L2-softmax.
        log_var: (K,1) or (K,D).
        log_prior: (K,).
        weight: (K,D) of the linear layer, where the class vectors are not the weights.

    Returns:
        Three (N,) arrays in nats, or None where the loss has no closed form, as a pair loss or one
        of the user's own.
    """
    if loss not in (*_WITHOUT_MARGIN, *_TARGETS, "gm", "lgm"):
        return None
    vectors = np.asarray(vectors if weight is None else weight, dtype=np.float64)
    zeros = np.zeros(len(vectors))
    defaults = {name: p.default for name, p in inspect.signature(LOSSES[loss]).parameters.items()}
    s = _Setting(
        params={**defaults, **params},
        vectors=vectors,
        points=np.asarray(points, dtype=np.float64),
        bias=zeros if bias is None else np.asarray(bias, dtype=np.float64),
        trained_scale=None if scale is None else float(scale),
        log_var=zeros[:, None] if log_var is None else np.asarray(log_var, dtype=np.float64),
        log_prior=zeros if log_prior is None else np.asarray(log_prior, dtype=np.float64),
    )
    if loss in _WITHOUT_MARGIN:
        gap = _WITHOUT_MARGIN[loss](s, a, b)
        return gap, gap, gap
    if loss in _TARGETS:  # r_a t(theta_a) − r_b cos theta_b under label a
        target = _TARGETS[loss](s.params)
        radius_a, radius_b = s.radius(loss, a), s.radius(loss, b)
        theta_a, theta_b = s.theta_rad(a), s.theta_rad(b)
        return (
            radius_a * np.cos(theta_a) - radius_b * np.cos(theta_b),
            radius_a * target(theta_a) - radius_b * np.cos(theta_b),
            radius_a * np.cos(theta_a) - radius_b * target(theta_b),
        )
    alpha = s.params.get("alpha", 0.0)  # quadratic: the true class counts as (1 + alpha) as far
    return (
        s.log_density(a, 0.0) - s.log_density(b, 0.0),
        s.log_density(a, alpha) - s.log_density(b, 0.0),
        s.log_density(a, 0.0) - s.log_density(b, alpha),
    )


@dataclass(frozen=True)
class _Setting:
    """Values of one trained head; see `closed_gaps`."""

    params: Params
    vectors: Array
    points: Array
    bias: Array
    trained_scale: float | None
    log_var: Array
    log_prior: Array

    def norm(self) -> Array:
        """Return ‖x‖, (N,)."""
        return np.linalg.norm(self.points, axis=1)

    def theta_rad(self, k: int) -> Array:
        """Return the angle of x and w_k in radians, (N,); a right one where x or w_k is zero."""
        length = self.norm() * np.linalg.norm(self.vectors[k])
        product = self.points @ self.vectors[k]
        cosine = np.divide(product, length, out=np.zeros_like(length), where=length > 0)
        return np.arccos(np.clip(cosine, -1.0, 1.0))

    def scale(self, name: str = "scale") -> float:
        """Return s as trained, else as given."""
        return float(self.params[name]) if self.trained_scale is None else self.trained_scale

    def radius(self, loss: str, k: int) -> Array | float:
        """Return r_k of a margin loss on the angle, (N,) or one number."""
        if loss == "l_softmax":
            return self.norm() * np.linalg.norm(self.vectors[k])
        return self.norm() if loss == "a_softmax" else self.scale()

    def squared_distance(self, k: int) -> Array:
        """Return (x − mu_k)ᵀ S_k⁻¹ (x − mu_k), (N,)."""
        return ((self.points - self.vectors[k]) ** 2 / np.exp(self.log_var[k])).sum(1)

    def log_density(self, k: int, alpha: float) -> Array:
        """Return log p(k) − ½ log|S_k| − (1 + alpha) d_k, (N,)."""
        log_det = np.broadcast_to(self.log_var[k], self.points.shape[1:]).sum()
        distance = 0.5 * self.squared_distance(k)
        return self.log_prior[k] - 0.5 * log_det - (1.0 + alpha) * distance


def _linear(s: _Setting, a: int, b: int) -> Array:
    """Return (w_a − w_b)·x + b_a − b_b."""
    return s.points @ (s.vectors[a] - s.vectors[b]) + s.bias[a] - s.bias[b]


def _on_sphere(s: _Setting, a: int, b: int) -> Array:
    """Return alpha (‖w_a‖ cos theta_a − ‖w_b‖ cos theta_b) + b_a − b_b."""
    of_a = np.linalg.norm(s.vectors[a]) * np.cos(s.theta_rad(a))
    of_b = np.linalg.norm(s.vectors[b]) * np.cos(s.theta_rad(b))
    return s.scale("radius") * (of_a - of_b) + s.bias[a] - s.bias[b]


def _cosines(s: _Setting, a: int, b: int) -> Array:
    """Return cos theta_a − cos theta_b."""
    return np.cos(s.theta_rad(a)) - np.cos(s.theta_rad(b))


_WITHOUT_MARGIN: Mapping[str, Callable[[_Setting, int, int], Array]] = {
    "softmax": _linear,
    "weighted_softmax": _linear,
    "center": _linear,
    "l2_softmax": _on_sphere,
    "modified_softmax": lambda s, a, b: s.norm() * _cosines(s, a, b),
    "normface": lambda s, a, b: s.scale() * _cosines(s, a, b),
    "mmc": lambda s, a, b: 0.5 * (s.squared_distance(b) - s.squared_distance(a)),
    **dict.fromkeys(("label_smoothing", "focal", "logit_norm", "one_vs_rest"), _linear),
}


def _shifted(p: Params) -> Callable[[Array], Array]:
    """Return cos(theta + m); beyond pi − m it is cos theta − m sin m."""
    m = p["margin_rad"]
    return lambda theta: np.where(
        theta + m <= np.pi, np.cos(theta + m), np.cos(theta) - m * np.sin(m)
    )


def _annealed_psi(p: Params) -> Callable[[Array], Array]:
    """Return (lambda cos theta + psi(theta)) / (1 + lambda) with the last lambda of training."""
    decayed = p["anneal_base"] * (1.0 + p["anneal_gamma"] * p["anneal_steps"]) ** -p["anneal_power"]
    last, m = max(p["anneal_min"], decayed), p["margin"]

    def target(theta: Array) -> Array:
        k = np.minimum(np.floor(m * theta / np.pi), m - 1)
        psi = (-1.0) ** k * np.cos(m * theta) - 2.0 * k
        return (last * np.cos(theta) + psi) / (1.0 + last)

    return target


# What stands for cos theta of the true class, as a function of theta.
_TARGETS: Mapping[str, Callable[[Params], Callable[[Array], Array]]] = {
    "cosface": lambda p: lambda theta: np.cos(theta) - p["margin"],
    "arcface": _shifted,
    "l_softmax": _annealed_psi,
    "a_softmax": _annealed_psi,
    "fnorm_sphereface": _annealed_psi,
}
