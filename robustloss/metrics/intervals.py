"""Intervals: what the finite number of images, or of training seeds, leaves open."""

import math
from collections.abc import Sequence

import numpy as np
import scipy  # whose parts are loaded where they are used: a report needs few of them
from scipy.special import ndtri, stdtrit


def wilson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion.

    Args:
        k: images counted, 0 <= k <= n.
        n: images in all, n >= 1.
        confidence: in (0, 1).

    Returns:
        (low, high) as fractions; exactly 0 at k = 0 and exactly 1 at k = n.

    Raises:
        ValueError: an argument outside its range.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"k (={k}) of n (={n}) must fulfil 0 <= k <= n and n >= 1.")
    check_confidence(confidence)
    z = float(-ndtri((1 - confidence) / 2))
    center = (k + z**2 / 2) / (n + z**2)
    half = z * np.sqrt(k * (n - k) / n + z**2 / 4) / (n + z**2)
    # rounding would leave a bound of 1 - 1e-16 that misses the observed 1; at 0 it is exact
    high = 1.0 if k == n else float(center + half)
    return float(center - half), high


def t_interval(
    values: Sequence[float] | np.ndarray, confidence: float = 0.95
) -> tuple[float, float, float, float]:
    """Return the mean over independent repetitions (training seeds) with Student's t-interval.

    The interval is for the mean and is not cut at the ends of a fraction's range: with few
    seeds it may leave [0, 1], which says that there are too few.

    Args:
        values: (S,) finite, one per seed, S >= 1.
        confidence: in (0, 1).

    Returns:
        (mean, sd, low, high) in the unit of the values; sd divides by S - 1. With S = 1 the
        last three are NaN: one seed says nothing about the spread.

    Raises:
        ValueError: no value, a value that is not finite, or a bad confidence.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError(
            f"values (={array.tolist()}) must be one or more finite numbers. Leave out the "
            "seeds without a value."
        )
    check_confidence(confidence)
    mean = float(array.mean())
    if array.size == 1:
        return mean, math.nan, math.nan, math.nan
    sd = float(array.std(ddof=1))
    half = float(-stdtrit(array.size - 1, (1 - confidence) / 2)) * sd / np.sqrt(array.size)
    return mean, sd, float(mean - half), float(mean + half)


def median_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval of a median between two order statistics.

    It needs no more than independent values, and holds the median with at least the confidence,
    with little more where there are many.

    Args:
        values: (N,), inf for what is beyond all that was found.
        confidence: in (0, 1).

    Returns:
        (low, high); the high end may be inf. NaN where N is too small for the confidence.

    Source: David and Nagaraja 2003, "Order statistics", section 7.1.
    """
    check_confidence(confidence)
    ordered = np.sort(np.asarray(values, np.float64))
    # values below the lower end: as many as a fair coin shows heads too rarely
    below = int(scipy.stats.binom.ppf((1 - confidence) / 2, ordered.size, 0.5))
    if below == 0:
        return math.nan, math.nan
    return float(ordered[below - 1]), float(ordered[ordered.size - below])


def sign_test(wins: int, losses: int) -> float:
    """Return the p-value of a one-sided sign test: so many wins if both sides were equally good.

    Images on which both sides agree carry no information and are left out before.

    Args:
        wins: images on which the one alone succeeds, >= 0.
        losses: images on which the other alone succeeds, >= 0.

    Returns:
        P(X >= wins) for X ~ Binomial(wins + losses, 1/2); 1 without any such image.

    Raises:
        ValueError: a negative count.

    Source: exact McNemar test (McNemar 1947), one side of it.
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"wins (={wins}) and losses (={losses}) must be counts, >= 0.")
    return float(scipy.stats.binom.sf(wins - 1, wins + losses, 0.5))


def check_confidence(confidence: float) -> None:
    """Refuse a confidence outside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence (={confidence}) must lie in (0, 1), as 0.95.")
