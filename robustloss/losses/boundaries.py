"""Decision boundaries in closed form: the gap z_a − z_b of two classes, with and without margin.

Plain numpy on plain values, written from the table of decision boundaries of the papers, with
arccos. The heads reach the same numbers by polynomials and half-angle formulas; each checks the
other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray
Params = Mapping[str, Any]
Gaps = tuple[Array, Array, Array]

_MULTIPLE = {"anneal_base": 1000.0, "anneal_gamma": 0.12, "anneal_power": 1.0, "anneal_min": 5.0}
DEFAULTS: Mapping[str, Params] = {
    "l2_softmax": {"radius": 16.0},
    "normface": {"scale": 10.0},
    "cosface": {"scale": 30.0, "margin": 0.35},
    "arcface": {"scale": 64.0, "margin_rad": 0.5},
    "lgm": {"alpha": 1.0},
    "l_softmax": {
        "margin": 4,
        "anneal_base": 1000.0,
        "anneal_gamma": 2.5e-5,
        "anneal_power": 35.0,
        "anneal_min": 0.0,
        "anneal_steps": 20_000,
    },
    "a_softmax": {"margin": 4, **_MULTIPLE, "anneal_steps": 30_000},
    "fnorm_sphereface": {"scale": 30.0, "margin": 4, **_MULTIPLE, "anneal_steps": 30_000},
}
"""What a loss takes where a spec says nothing, as in the heads; only what moves a boundary."""


@dataclass(frozen=True)
class _Setting:
    """Values of one trained head; see `closed_gaps`."""

    params: Params
    vectors: Array
    points: Array
    bias: Array
    scale: float | None
    log_var: Array
    log_prior: Array

    def squared_distance(self, k: int) -> Array:
        """(x − mu_k)ᵀ S_k⁻¹ (x − mu_k), (N,)."""
        return ((self.points - self.vectors[k]) ** 2 / np.exp(self.log_var[k])).sum(1)

    def log_density(self, k: int, alpha: float) -> Array:
        """log p(k) − ½ log|S_k| − (1 + alpha) d_k, (N,)."""
        log_det = np.broadcast_to(self.log_var[k], self.points.shape[1:]).sum()
        distance = 0.5 * self.squared_distance(k)
        return self.log_prior[k] - 0.5 * log_det - (1.0 + alpha) * distance

    def norm(self) -> Array:
        """‖x‖, (N,)."""
        return np.linalg.norm(self.points, axis=1)

    def theta_rad(self, k: int) -> Array:
        """Angle between x and w_k in radians, (N,); a right angle where x or w_k is zero."""
        length = self.norm() * np.linalg.norm(self.vectors[k])
        product = self.points @ self.vectors[k]
        cosine = np.divide(product, length, out=np.zeros_like(length), where=length > 0)
        return np.arccos(np.clip(cosine, -1.0, 1.0))


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
    """z_a − z_b at points: without margin, under label a, under label b; 0 is the boundary.

    Annealed margins stand at their final value (progress 1).

    Args:
        loss: a key of LOSSES.
        params: the loss's parameters as the spec gives them; the rest is as in the heads.
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
    formula = _FORMULAS.get(loss)
    if formula is None:
        return None
    vectors = np.asarray(vectors if weight is None else weight, dtype=np.float64)
    zeros = np.zeros(len(vectors))
    setting = _Setting(
        params={**DEFAULTS.get(loss, {}), **params},
        vectors=vectors,
        points=np.asarray(points, dtype=np.float64),
        bias=zeros if bias is None else np.asarray(bias, dtype=np.float64),
        scale=None if scale is None else float(scale),
        log_var=zeros[:, None] if log_var is None else np.asarray(log_var, dtype=np.float64),
        log_prior=zeros if log_prior is None else np.asarray(log_prior, dtype=np.float64),
    )
    return formula(setting, a, b)


def _linear(s: _Setting, a: int, b: int) -> Gaps:
    """(w_a − w_b)·x + b_a − b_b: no margin."""
    gap = s.points @ (s.vectors[a] - s.vectors[b]) + s.bias[a] - s.bias[b]
    return gap, gap, gap


def _on_sphere(s: _Setting, a: int, b: int) -> Gaps:
    """alpha (‖w_a‖ cos theta_a − ‖w_b‖ cos theta_b) + b_a − b_b: L2-softmax, no margin."""
    of_a = np.linalg.norm(s.vectors[a]) * np.cos(s.theta_rad(a))
    of_b = np.linalg.norm(s.vectors[b]) * np.cos(s.theta_rad(b))
    gap = _scale(s, "radius") * (of_a - of_b) + s.bias[a] - s.bias[b]
    return gap, gap, gap


def _modified(s: _Setting, a: int, b: int) -> Gaps:
    """‖x‖ (cos theta_a − cos theta_b): no margin."""
    gap = s.norm() * (np.cos(s.theta_rad(a)) - np.cos(s.theta_rad(b)))
    return gap, gap, gap


def _normface(s: _Setting, a: int, b: int) -> Gaps:
    """s (cos theta_a − cos theta_b): no margin."""
    gap = _scale(s) * (np.cos(s.theta_rad(a)) - np.cos(s.theta_rad(b)))
    return gap, gap, gap


def _cosface(s: _Setting, a: int, b: int) -> Gaps:
    """s (cos theta_a − m − cos theta_b) under label a."""
    margin = s.params["margin"]
    return _three(s, a, b, (_scale(s), _scale(s)), lambda theta: np.cos(theta) - margin)


def _arcface(s: _Setting, a: int, b: int) -> Gaps:
    """s (cos(theta_a + m) − cos theta_b) under label a; cos theta_a − m sin m beyond pi − m."""
    m = s.params["margin_rad"]

    def target(theta: Array) -> Array:
        return np.where(theta + m <= np.pi, np.cos(theta + m), np.cos(theta) - m * np.sin(m))

    return _three(s, a, b, (_scale(s), _scale(s)), target)


def _l_softmax(s: _Setting, a: int, b: int) -> Gaps:
    """‖x‖ (‖w_a‖ psi(theta_a) − ‖w_b‖ cos theta_b) under label a, psi annealed."""
    radii = tuple(s.norm() * np.linalg.norm(s.vectors[k]) for k in (a, b))
    return _three(s, a, b, radii, _annealed_psi(s.params))


def _a_softmax(s: _Setting, a: int, b: int) -> Gaps:
    """‖x‖ (psi(theta_a) − cos theta_b) under label a, psi annealed."""
    return _three(s, a, b, (s.norm(), s.norm()), _annealed_psi(s.params))


def _fnorm_sphereface(s: _Setting, a: int, b: int) -> Gaps:
    """s (psi(theta_a) − cos theta_b) under label a, psi annealed."""
    return _three(s, a, b, (_scale(s), _scale(s)), _annealed_psi(s.params))


def _gaussian(s: _Setting, a: int, b: int) -> Gaps:
    """Quadratic: d_b − (1 + alpha) d_a and the constants of both classes under label a."""
    alpha = s.params.get("alpha", 0.0)
    return (
        s.log_density(a, 0.0) - s.log_density(b, 0.0),
        s.log_density(a, alpha) - s.log_density(b, 0.0),
        s.log_density(a, 0.0) - s.log_density(b, alpha),
    )


def _nearest_center(s: _Setting, a: int, b: int) -> Gaps:
    """½‖x − mu_b‖² − ½‖x − mu_a‖²: no margin."""
    gap = 0.5 * (s.squared_distance(b) - s.squared_distance(a))
    return gap, gap, gap


_FORMULAS: Mapping[str, Callable[[_Setting, int, int], Gaps]] = {
    "softmax": _linear,
    "weighted_softmax": _linear,
    "center": _linear,
    "gm": _gaussian,
    "lgm": _gaussian,
    "l_softmax": _l_softmax,
    "a_softmax": _a_softmax,
    "modified_softmax": _modified,
    "fnorm_sphereface": _fnorm_sphereface,
    "l2_softmax": _on_sphere,
    "normface": _normface,
    "cosface": _cosface,
    "arcface": _arcface,
    "mmc": _nearest_center,
}


def _scale(s: _Setting, name: str = "scale") -> float:
    return float(s.params[name]) if s.scale is None else s.scale


def _three(
    s: _Setting,
    a: int,
    b: int,
    radii: tuple[Any, ...],
    target: Callable[[Array], Array],
) -> Gaps:
    """The gaps of a loss that puts target(theta) in place of the true class's cosine."""
    (radius_a, radius_b), theta_a, theta_b = radii, s.theta_rad(a), s.theta_rad(b)
    return (
        radius_a * np.cos(theta_a) - radius_b * np.cos(theta_b),
        radius_a * target(theta_a) - radius_b * np.cos(theta_b),
        radius_a * np.cos(theta_a) - radius_b * target(theta_b),
    )


def _annealed_psi(p: Params) -> Callable[[Array], Array]:
    """(lambda cos theta + psi(theta)) / (1 + lambda) with the last lambda of the training."""
    iterations = p["anneal_steps"]
    decayed = p["anneal_base"] * (1.0 + p["anneal_gamma"] * iterations) ** -p["anneal_power"]
    last, m = max(p["anneal_min"], decayed), p["margin"]

    def target(theta: Array) -> Array:
        k = np.minimum(np.floor(m * theta / np.pi), m - 1)
        psi = (-1.0) ** k * np.cos(m * theta) - 2.0 * k
        return (last * np.cos(theta) + psi) / (1.0 + last)

    return target
