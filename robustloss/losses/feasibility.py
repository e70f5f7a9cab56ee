"""What a margin or a scale can ask of K classes in D dimensions; heads warn where it is too much.

Warnings, not errors: a run that shows what an impossible margin does is a legitimate run.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

REACHABLE = 0.9
"""The posterior that a perfectly placed image must be able to reach, or a scale is too small."""


class LossWarning(UserWarning):
    """A loss whose parameters are legal but cannot do what they are meant to."""


@contextmanager
def collecting_warnings() -> Iterator[list[str]]:
    """Hold back the LossWarnings of a block; their texts, each once, stand in the list after it."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LossWarning)
        yield texts
    for warning in caught:
        if not issubclass(warning.category, LossWarning):
            place = warning.filename, warning.lineno
            warnings.warn_explicit(warning.message, warning.category, *place)
        elif (text := str(warning.message)) not in texts:
            texts.append(text)


def largest_angle_rad(feature_dim: int, num_classes: int) -> float:
    """Return a bound on the smallest angle between K directions in D dimensions, in radians.

    It is reached for D >= K − 1 (a simplex), in the plane (2 pi / K) and for K <= 2D (axes both
    ways); elsewhere the best arrangement is unknown, and K caps that do not overlap bound it.

    Args:
        feature_dim: D, at least 1.
        num_classes: K, at least 2.

    Source: Rankin, The closest packing of spherical caps in n dimensions, 1955.
    """
    if feature_dim >= num_classes - 1:
        return math.acos(-1.0 / (num_classes - 1))
    if feature_dim == 1:
        return 0.0
    from scipy.special import betaincinv

    # A cap of half-angle phi is the share ½ I_{sin² phi}((D−1)/2, ½) of the sphere.
    sin_squared = float(betaincinv((feature_dim - 1) / 2, 0.5, 2.0 / num_classes))
    return min(math.pi / 2, 2.0 * math.asin(math.sqrt(sin_squared)))


def smallest_scale(num_classes: int, posterior: float = REACHABLE) -> float:
    """Return the scale s from which a perfectly placed image can reach a posterior.

    With the K weights on a simplex the best logits are s and −s/(K−1), so the posterior is at
    most 1 / (1 + (K−1) e^{−sK/(K−1)}) and the loss never below minus its logarithm.

    Args:
        num_classes: K, at least 2.
        posterior: in (0,1).

    Source: Wang et al., NormFace, 2017; Wang et al., CosFace, 2018.
    """
    others = num_classes - 1
    return others / num_classes * math.log(others * posterior / (1.0 - posterior))


def smallest_radius(num_classes: int, posterior: float = REACHABLE) -> float:
    """Return the feature norm from which L2-softmax can reach a posterior; −inf for two classes.

    Args:
        num_classes: K, at least 2.
        posterior: in (0,1).

    Source: Ranjan et al., L2-constrained Softmax Loss, 2017.
    """
    if num_classes == 2:
        return -math.inf
    return math.log(posterior * (num_classes - 2) / (1.0 - posterior))


def warn_of_margin(
    loss: str, name: str, value: float, bound: float, feature_dim: int, num_classes: int
) -> None:
    """Warn if a margin is not below what the best arrangement of the classes allows.

    Args:
        loss: its key in LOSSES.
        name: the margin's parameter.
        value: what the user gave.
        bound: in the margin's own unit.
        feature_dim: D.
        num_classes: K.
    """
    if value >= bound:
        warnings.warn(
            f"{loss}: {name} (={value:g}) cannot be met by {num_classes} classes in "
            f"{feature_dim}-D features: it must be below {bound:.3f}. "
            f"Lower {name} or raise model.feature_dim.",
            LossWarning,
            stacklevel=3,
        )


def warn_of_scale(loss: str, value: float, num_classes: int, name: str = "scale") -> None:
    """Warn if a scale, or L2-softmax's radius, is too small for the posterior REACHABLE.

    Args:
        loss: its key in LOSSES.
        value: what the user gave.
        num_classes: K.
        name: the parameter, "scale" or "radius".
    """
    bound = (smallest_radius if name == "radius" else smallest_scale)(num_classes)
    if value < bound:
        warnings.warn(
            f"{loss}: {name} (={value:g}) is too small for {num_classes} classes: below "
            f"{bound:.3f} even a perfect image has a posterior under {REACHABLE:g}. Raise {name}.",
            LossWarning,
            stacklevel=3,
        )
