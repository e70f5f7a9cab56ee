"""Numbers of one network on N images, each with what it takes to compare it with another's.

An `Estimate` knows its value, what each image adds to it, and its value on resampled images. Two
estimates on the same images are compared by `compare`. A new number needs a function here that
returns an `Estimate`, and a line in `analysis.measures`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from robustloss.metrics import calibration
from robustloss.metrics.auroc_interval import influence as auroc_influence
from robustloss.metrics.auroc_interval import placements
from robustloss.metrics.bootstrap import (
    Resamples,
    bootstrap_auroc,
    bootstrap_mean,
    degrees_of_freedom,
    p_value,
    percentile_interval,
    student_quantile,
)
from robustloss.metrics.paired_tests import (
    detectable_by_images,
    mcnemar_test,
    paired_difference,
)
from robustloss.metrics.risk_coverage import estimate_areas


@dataclass(frozen=True, eq=False)
class Estimate:
    """A number that was computed from N images.

    Attributes:
        value: the number; inf where half the images are not known to be fooled at any eps.
        influence: (N,) what each image adds to it, to first order; the mean is 0.
        resample: gives the number on every resample, (R,); NaN where a resample has none.
        wrong: (N,) bool of an error, else None.
        beyond: half the images have no radius, so `value` is inf, or what stands for it.
    """

    value: float
    influence: np.ndarray
    resample: Callable[[Resamples], np.ndarray]
    wrong: np.ndarray | None = None
    beyond: bool = False


class Difference(NamedTuple):
    """A − B of two estimates on the same images; NaN or infinite where it is not known.

    The smallest detectable difference is the one that would be shown with power 0.8.
    """

    difference: float
    low: float
    high: float
    test: str
    p_value: float
    minimum_detectable: float


def estimate_error(wrong: np.ndarray) -> Estimate:
    """Estimate the share of images (N,) that are wrong."""
    value = float(wrong.mean())
    return Estimate(value, wrong - value, lambda drawn: bootstrap_mean(drawn, wrong), wrong)


def estimate_mean(values: np.ndarray, keep: np.ndarray | None = None) -> Estimate | None:
    """Estimate a mean over images, or over some of them.

    Args:
        values: (N,) numbers or bool.
        keep: (N,) bool, the images that count; None for all. Without any there is no mean.
    """
    keep = np.ones(len(values), bool) if keep is None else keep
    if not keep.any():
        return None
    value = float(values[keep].mean())
    influence = np.where(keep, values - value, 0.0) / keep.mean()
    return Estimate(value, influence, lambda drawn: bootstrap_mean(drawn, values, keep))


def estimate_auroc(
    clean: np.ndarray,
    attacked: np.ndarray,
    clean_keep: np.ndarray | None = None,
    attacked_keep: np.ndarray | None = None,
) -> Estimate | None:
    """Estimate the AUROC of clean against attacked scores of the same images.

    Args:
        clean: (N,) scores, higher for what is more typical of clean images.
        attacked: (N,) likewise.
        clean_keep: (N,) bool, the images that count on the clean side; None for all.
        attacked_keep: (N,) bool, likewise. Without an image on a side there is no AUROC.
    """
    sides = ((clean, clean_keep), (attacked, attacked_keep))
    before, after = (scores if keep is None else scores[keep] for scores, keep in sides)
    if not (before.size and after.size):
        return None
    placed = placements(before, after)
    return Estimate(
        placed.auroc,
        auroc_influence(placed, clean_keep, attacked_keep),
        lambda drawn: bootstrap_auroc(drawn, clean, attacked, clean_keep, attacked_keep),
    )


def estimate_augrc(
    scores: np.ndarray, wrong: np.ndarray, index: np.ndarray | None = None
) -> Estimate:
    """Estimate AUGRC, the mean risk of an undetected failure over all thresholds.

    It is a mean over pairs of images, so on a resample it is all but the sum of what each image
    adds; that is what resamples get, without a sort of their own.

    Args:
        scores: (M,) higher is accepted earlier.
        wrong: (M,) bool.
        index: (M,) of which image each prediction is, from 0 to N - 1; None where M is N.
    """
    found = estimate_areas(scores, wrong, index).augrc
    return Estimate(
        found.area,
        found.influence,
        lambda drawn: found.area + bootstrap_mean(drawn, found.influence),
    )


def estimate_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> Estimate:
    """Estimate the expected calibration error in bins of equal width.

    Resamples are moved by the bias that resampling adds, see `calibration.resample_error`.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) bool.
    """
    binned = calibration.equal_width(confidence, correct)
    gap = correct - confidence
    sign = np.sign(np.bincount(binned.place, gap, len(binned.count)))
    influence = sign[binned.place] * gap - binned.error
    return Estimate(
        binned.error,
        influence,
        lambda drawn: calibration.resample_error(binned, confidence, correct, drawn),
    )


def estimate_median(radius: np.ndarray, cap: float = math.inf) -> Estimate:
    """Estimate the median of radii.

    Args:
        radius: (N,), inf where none was found.
        cap: the radius that stands for inf, so that a loss of radii shows in the value; by default
            the value is inf where half the images have none.

    Source: influence of a quantile, Koenker 2005, "Quantile regression", section 3.4, its
        sparsity by a difference quotient of quantiles over n^(-1/3).
    """
    held = np.minimum(radius.astype(np.float64), cap)
    found = held[np.isfinite(held)]
    within = np.minimum(held, found.max(initial=0.0))  # influence needs finite differences
    middle, width = float(np.median(within)), min(0.4, held.size ** (-1 / 3))
    low, high = np.quantile(within, (0.5 - width, 0.5 + width))
    influence = np.sign(within - middle) / 2 * float(high - low) / (2 * width)
    order = np.argsort(held)
    # the median of a resample lies 8 standard deviations around that of the images
    start = max(0, held.size // 2 - 4 * math.ceil(math.sqrt(held.size)))
    near = order[start : held.size - start]

    def resample(drawn: Resamples) -> np.ndarray:
        medians = np.empty(len(drawn.counts))
        for place, counts in drawn.blocks():
            below = counts.take(order[:start], axis=1).sum(axis=1, dtype=np.int64)[:, None]
            below = below + np.cumsum(counts.take(near, axis=1), axis=1, dtype=np.int64)
            medians[place] = held[near][(2 * below >= drawn.n).argmax(axis=1)]
        return medians

    return Estimate(
        value=float(np.median(held)),
        influence=influence - influence.mean(),
        resample=resample,
        beyond=bool(np.isinf(np.median(radius))),
    )


def estimate_crossing(eps: np.ndarray, wrong: np.ndarray) -> Estimate:
    """Estimate the eps at which half the images are wrong, by straight lines between known eps.

    Args:
        eps: (E,) rising, from 0.
        wrong: (E,N) bool, the images that are wrong at each.
    """
    errors = wrong.mean(axis=1)
    value = float(find_crossing(eps, errors))
    influence = np.zeros(wrong.shape[1])
    after = int((errors >= 0.5).argmax())
    if math.isfinite(value) and after > 0:
        before = after - 1
        rise = errors[after] - errors[before]
        share = (0.5 - errors[before]) / rise
        own = (1 - share) * wrong[before] + share * wrong[after]
        influence = (0.5 - own) * (eps[after] - eps[before]) / rise

    def resample(drawn: Resamples) -> np.ndarray:
        return find_crossing(eps, drawn.add_up(wrong.T.astype(np.float64)) / drawn.n)

    return Estimate(value, influence, resample, beyond=math.isinf(value))


def find_crossing(eps: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return where error curves reach 1/2, straight between known eps; inf where they do not.

    Args:
        eps: (E,) rising.
        errors: (...,E) at each.
    """
    reached = errors >= 0.5
    after = reached.argmax(axis=-1)[..., None]
    before = np.maximum(after - 1, 0)
    low, high = (np.take_along_axis(errors, place, -1) for place in (before, after))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(after > 0, (0.5 - low) / (high - low), 1.0)
    found = (eps[before] + share * (eps[after] - eps[before]))[..., 0]
    return np.where(reached.any(axis=-1), found, math.inf)


def crossing_interval(eps: np.ndarray, wrong: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval over images of the eps at which half the images are wrong.

    It holds every eps whose error, straight between known eps, differs from 1/2 by no more than
    1.96 standard errors.

    Args:
        eps: (E,) rising, from 0.
        wrong: (E,N) bool, the images that are wrong at each.

    Returns:
        (low, high); inf for an end that lies beyond the largest eps.
    """
    fine = np.interp(np.linspace(0, len(eps) - 1, 32 * len(eps) - 31), np.arange(len(eps)), eps)
    share = np.stack([np.interp(fine, eps, one) for one in np.eye(len(eps))], axis=1)
    errors = share @ wrong.mean(axis=1)
    covariance = np.atleast_2d(np.cov(wrong, ddof=0)) / wrong.shape[1]
    spread = np.sqrt(np.einsum("fe,eg,fg->f", share, covariance, share).clip(0))
    reach = student_quantile(0.025, math.inf) * spread
    low, high = (float(find_crossing(fine, errors + end * reach)) for end in (1, -1))
    return low, high


def resample(estimates: Mapping[str, Estimate], drawn: Resamples) -> dict[str, np.ndarray]:
    """Return estimates on every resample, (R,) by name; errors need none and are left out.

    Args:
        estimates: by name.
        drawn: resamples of their images.
    """
    return {name: one.resample(drawn) for name, one in estimates.items() if one.wrong is None}


def compare(
    a: Estimate,
    b: Estimate,
    resampled_a: np.ndarray | None = None,
    resampled_b: np.ndarray | None = None,
) -> Difference:
    """Compare two estimates of the same images.

    Errors are compared by McNemar's test, all else by resampling the images, the same for both;
    where few images carry the difference, by Student's law with as few degrees of freedom.

    Args:
        a: of A.
        b: of B.
        resampled_a: (R,) of A, as `resample` gives it.
        resampled_b: (R,) of B, on the same resamples.
    """
    if a.wrong is not None and b.wrong is not None:
        n = a.wrong.size
        only_a, only_b = int((a.wrong & ~b.wrong).sum()), int((b.wrong & ~a.wrong).sum())
        detectable = detectable_by_images(n, (only_a + only_b) / n)
        gap, low, high = paired_difference(only_a, only_b, n)
        return Difference(gap, low, high, *mcnemar_test(only_a, only_b), detectable)
    assert resampled_a is not None
    assert resampled_b is not None
    with np.errstate(invalid="ignore"):
        gap, differences = a.value - b.value, resampled_a - resampled_b
    # where both radii lie beyond what was found, neither is the larger
    differences[np.isinf(resampled_a) & np.isinf(resampled_b)] = 0.0
    freedom = degrees_of_freedom(a.influence - b.influence)
    low, high = percentile_interval(differences, observed=gap, freedom=freedom)
    p = p_value(differences, gap, freedom=freedom)
    finite = differences[np.isfinite(differences)]
    width = student_quantile(0.025, freedom) + student_quantile(0.2, freedom)  # with power 0.8
    detectable = width * float(finite.std()) if finite.size else math.nan
    return Difference(gap, low, high, "paired image bootstrap", p, detectable)
