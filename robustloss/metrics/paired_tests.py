"""Loss against loss: tests that respect that both saw the same images, or the same seeds."""

import math
from collections.abc import Sequence

import numpy as np
import scipy

EXACT_FROM = 25  # discordant images; below it the exact McNemar test is too conservative


def mcnemar(only_a: int, only_b: int, *, mid_p: bool = False) -> float:
    """Return the p-value of McNemar's two-sided test of equal error on the same images.

    Args:
        only_a: images that A alone gets wrong, >= 0.
        only_b: images that B alone gets wrong, >= 0.
        mid_p: count the observed table half, which lifts the conservatism of few images.

    Returns:
        In [0, 1]; 1 without any image on which they differ.

    Raises:
        ValueError: a negative count.

    Source: McNemar 1947, exact form; mid-p: Fagerland, Lydersen and Laake 2013,
    doi:10.1186/1471-2288-13-91.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"only_a (={only_a}) and only_b (={only_b}) must be counts, >= 0.")
    n, least = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    # the binomial's cumulative probability; scipy.stats has the same value a hundred times slower
    twice = 2 * float(scipy.special.betainc(n - least, least + 1, 0.5))
    return min(1.0, twice - math.comb(n, least) / 2**n if mid_p else twice)


def mcnemar_test(only_a: int, only_b: int) -> tuple[str, float]:
    """Return the form of McNemar's test that fits the number of images, and its p-value.

    Args:
        only_a: images that A alone gets wrong, >= 0.
        only_b: images that B alone gets wrong, >= 0.
    """
    if only_a + only_b < EXACT_FROM:
        return "McNemar mid-p", mcnemar(only_a, only_b, mid_p=True)
    return "McNemar exact", mcnemar(only_a, only_b)


def paired_difference(
    only_a: int, only_b: int, n: int, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return the difference of two errors on the same n images, A − B, with an interval.

    The interval holds 0 exactly where `mcnemar_test` gives a p-value above 1 − confidence.

    Args:
        only_a: images that A alone gets wrong.
        only_b: images that B alone gets wrong.
        n: images in all.
        confidence: in (0, 1).

    Returns:
        (difference, low, high) as fractions.

    Source: Bonett and Price 2012, doi:10.3102/1076998611411915: Wald's interval with one image
        added to either count. Where it contradicts the test, its end next to 0 is that of the
        interval given the number of images on which A and B differ (Newcombe 1998,
        doi:10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C, methods 6 and 7).
    """
    if n < 1 or only_a < 0 or only_b < 0 or only_a + only_b > n:
        raise ValueError(f"only_a (={only_a}) and only_b (={only_b}) must be counts of n (={n}).")
    a, b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = float(scipy.stats.norm.isf((1 - confidence) / 2))
    half *= math.sqrt(max(0.0, a + b - (a - b) ** 2) / (n + 2))
    low, high = max(-1.0, a - b - half), min(1.0, a - b + half)
    p = mcnemar_test(only_a, only_b)[1]
    if (p > 1 - confidence) != (low <= 0 <= high):
        # close to 0 the number of images that differ says nothing about the difference
        end = _conditional_end(max(only_a, only_b), min(only_a, only_b), 1 - confidence) / n
        low, high = (end, high) if only_a > only_b else (low, -end)
    return (only_a - only_b) / n, low, high


def _conditional_end(more: int, less: int, level: float) -> float:
    """Return the low end of (2 share − 1)(more + less), by the law that `mcnemar_test` takes.

    Args:
        more: images that only the worse of the two gets wrong; share is its expected part.
        less: images that only the other gets wrong, fewer.
        level: two-sided.
    """
    n = more + less

    def excess(share: float) -> float:
        tail = float(scipy.special.bdtrc(more - 1, n, share))
        if n < EXACT_FROM:  # mid-p
            tail -= math.comb(n, more) * share**more * (1 - share) ** less / 2
        return tail - level / 2

    return n * (2 * float(scipy.optimize.brentq(excess, 0.0, more / n)) - 1)


def paired_margin(only_a: int, only_b: int, n: int, margin: float) -> float:
    """Return the one-sided p-value of "the error of A is at most that of B plus a margin".

    Args:
        only_a: images that A alone gets wrong.
        only_b: images that B alone gets wrong.
        n: images in all.
        margin: in (0, 1), a fraction.

    Raises:
        ValueError: counts that are no counts of n, or a margin outside (0, 1).

    Source: Tango 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B, score
        test of a paired difference.
    """
    if n < 1 or only_a < 0 or only_b < 0 or only_a + only_b > n:
        raise ValueError(f"only_a (={only_a}) and only_b (={only_b}) must be counts of n (={n}).")
    if not 0 < margin < 1:
        raise ValueError(f"margin (={margin}) must lie in (0, 1): a fraction, not percent.")
    # the share that B alone gets wrong, most likely where the difference is the margin
    linear = (2 * n - only_a + only_b) * margin - only_a - only_b
    constant = -only_b * margin * (1 - margin)
    share = (math.sqrt(linear**2 - 8 * n * constant) - linear) / (4 * n)
    variance = n * (2 * share + margin * (1 - margin))
    return float(scipy.stats.norm.sf((only_a - only_b - n * margin) / math.sqrt(variance)))


def paired_t(differences: Sequence[float] | np.ndarray) -> float:
    """Return the p-value of a two-sided paired t-test over seeds.

    NaN for fewer than two seeds; 1 or 0 where they all agree but for rounding.

    Args:
        differences: (S,) A − B of each seed.

    Source: Student 1908.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size < 2:
        return math.nan
    mean = values.mean()
    if np.abs(values - mean).max() <= 10 * np.finfo(np.float64).eps * abs(mean):
        return 1.0 if mean == 0 else 0.0
    t = mean / (values.std(ddof=1) / math.sqrt(values.size))
    return 2 * float(scipy.special.stdtr(values.size - 1, -abs(t)))


def benjamini_hochberg(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return p-values adjusted so that at most a share alpha of those below alpha is false.

    Args:
        p_values: (T,); NaN is no test and stays NaN.

    Source: Benjamini and Hochberg 1995.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    known = np.isfinite(values)
    if known.any():
        adjusted[known] = scipy.stats.false_discovery_control(values[known], method="bh")
    return adjusted


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return p-values adjusted so that one false finding among all of them is rare.

    With a share alpha of those who have no true finding, any adjusted value lies below alpha.

    Args:
        p_values: (T,); NaN is no test and stays NaN.

    Source: Holm 1979.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    steps = values[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if order.size else steps
    return adjusted


def detectable_by_images(
    n: int, discordant: float, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Return the smallest difference of errors that McNemar's test shows with this power.

    Args:
        n: images.
        discordant: share of images on which the two differ, in (0, 1].
        power: in (0, 1).
        alpha: two-sided level.

    Returns:
        A fraction, at most `discordant`; NaN where nothing differs.

    Source: Connor 1987, doi:10.2307/2531961, solved for the difference.
    """
    if n < 1 or not 0 <= discordant <= 1:
        raise ValueError(f"n (={n}) must be >= 1 and discordant (={discordant}) in [0, 1].")
    if discordant == 0:
        return math.nan
    z_alpha, z_power = scipy.stats.norm.isf(alpha / 2), scipy.stats.norm.isf(1 - power)

    def missing(difference: float) -> float:
        spread = math.sqrt(max(0.0, discordant - difference**2))
        needed = (z_alpha * math.sqrt(discordant) + z_power * spread) / math.sqrt(n)
        return float(difference - needed)

    if missing(discordant) < 0:
        return math.nan  # too few images for any difference
    return float(scipy.optimize.brentq(missing, 0.0, discordant))


def detectable_by_seeds(sd: float, seeds: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the smallest mean difference that a paired t-test over seeds shows with this power.

    Args:
        sd: standard deviation of the per-seed differences, >= 0.
        seeds: S.
        power: in (0, 1).
        alpha: two-sided level.

    Returns:
        In the unit of sd; NaN for fewer than two seeds.

    Source: the noncentral t-distribution.
    """
    if seeds < 2:
        return math.nan
    limit = scipy.stats.t.isf(alpha / 2, seeds - 1)

    def missing(size: float) -> float:
        # a difference shown the wrong way round is no success, so one tail counts
        return float(scipy.stats.nct.sf(limit, seeds - 1, size * math.sqrt(seeds)) - power)

    most = 0.5
    while missing(most) < 0:  # in steps: far out the noncentral t has no value
        most *= 1.5
    return sd * float(scipy.optimize.brentq(missing, 1e-6, most))
