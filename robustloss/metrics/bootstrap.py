"""Image bootstrap: every number of a comparison computed anew on the same resampled images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from robustloss.metrics.intervals import check_confidence
from robustloss.metrics.rates import check_sides

RESAMPLES = 1000
_BLOCK = 80_000  # counts at once: 8 resamples of 10,000 images, whose memory stays in the cache


@dataclass(frozen=True, eq=False)
class Resamples:
    """How often each image stands in each resample; drawn once, used for all that is compared.

    Attributes:
        counts: (R, N) uint16, every row sums to N.
    """

    counts: np.ndarray

    @property
    def n(self) -> int:
        """Images."""
        return int(self.counts.shape[1])

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Give the counts of a few resamples after the other, with their place."""
        step = max(1, _BLOCK // self.n)
        for start in range(0, len(self.counts), step):
            place = slice(start, start + step)
            yield place, self.counts[place]

    def add_up(self, values: np.ndarray) -> np.ndarray:
        """Return sums over the images of every resample, (R,M).

        Args:
            values: (N,M) of each image.
        """
        found = np.empty((len(self.counts), values.shape[1]))
        for place, counts in self.blocks():
            found[place] = counts.astype(np.float64) @ values
        return found


def draw_resamples(n: int, resamples: int = RESAMPLES, seed: int = 0) -> Resamples:
    """Return resamples of n images, drawn with replacement.

    Args:
        n: images, >= 1.
        resamples: R, >= 1.
        seed: of the draw; equal seeds give equal resamples.

    Raises:
        ValueError: n or resamples below 1.

    Source: Efron 1979.
    """
    if n < 1 or resamples < 1:
        raise ValueError(f"n (={n}) and resamples (={resamples}) must be at least 1.")
    generator = np.random.default_rng(seed)
    counts = np.empty((resamples, n), np.uint16)
    for row in counts:
        row[:] = np.bincount(generator.integers(0, n, n), minlength=n)
    return Resamples(counts)


def bootstrap_auroc(
    resamples: Resamples,
    clean_scores: np.ndarray,
    attacked_scores: np.ndarray,
    clean_keep: np.ndarray | None = None,
    attacked_keep: np.ndarray | None = None,
) -> np.ndarray:
    """Return the AUROC on every resample; both scores of an image come and go together.

    Args:
        resamples: of N images.
        clean_scores: (N,) of the clean images.
        attacked_scores: (N,) of the same images attacked.
        clean_keep: (N,) bool, the images that count on the clean side; None for all.
        attacked_keep: (N,) bool, likewise.

    Returns:
        (R,); NaN where a resample leaves a side empty.

    Raises:
        ValueError: NaN scores, or another length than the resamples'.
    """
    clean, attacked = check_sides(clean_scores, attacked_scores)
    _check_length(resamples, clean_scores=clean, attacked_scores=attacked)
    every = np.arange(resamples.n)
    on_clean, on_attacked = (
        every if keep is None else every[keep] for keep in (clean_keep, attacked_keep)
    )
    found = np.full(len(resamples.counts), np.nan)
    if not (on_clean.size and on_attacked.size):
        return found
    # The scores are sorted once; a resample only changes how often each of them counts.
    on_clean = on_clean[np.argsort(clean[on_clean], kind="stable")]
    on_attacked = on_attacked[np.argsort(attacked[on_attacked], kind="stable")]
    ordered = clean[on_clean]
    lower = np.searchsorted(ordered, attacked[on_attacked], side="left")
    upper = np.searchsorted(ordered, attacked[on_attacked], side="right")
    tied = not np.array_equal(lower, upper)
    for place, counts in resamples.blocks():
        weights = counts.take(on_attacked, axis=1).astype(np.float64)
        below = np.zeros((len(counts), on_clean.size + 1), np.int32)
        np.cumsum(counts.take(on_clean, axis=1), axis=1, dtype=np.int32, out=below[:, 1:])
        total = below[:, -1].astype(np.float64)
        # twice the clean scores below an attacked one, and once those equal to it
        under = below.take(lower, axis=1)
        under += below.take(upper, axis=1) if tied else under
        pairs = total * weights.sum(axis=1)
        with np.errstate(invalid="ignore"):
            found[place] = 1 - np.einsum("rj,rj->r", weights, under) / (2 * pairs)
    return found


def bootstrap_mean(
    resamples: Resamples, values: np.ndarray, keep: np.ndarray | None = None
) -> np.ndarray:
    """Return the mean of per-image values on every resample.

    Args:
        resamples: of N images.
        values: (N,) numbers or bool.
        keep: (N,) bool, the images that count; None for all.

    Returns:
        (R,); NaN where a resample leaves no image.
    """
    _check_length(resamples, values=np.asarray(values))
    weights = np.ones(resamples.n) if keep is None else np.asarray(keep, np.float64)
    total, n = resamples.add_up(np.stack([weights * values, weights], axis=1)).T
    with np.errstate(invalid="ignore"):
        return np.asarray(total / n)


def percentile_interval(
    values: np.ndarray,
    confidence: float = 0.95,
    *,
    observed: float | None = None,
    freedom: float = math.inf,
) -> tuple[float, float]:
    """Return the middle part of the resampled values; NaN where fewer than half of them exist.

    Args:
        values: (R,) one a resample; infinite ones count, NaN do not exist.
        confidence: in (0, 1).
        observed: the number itself. Percentiles beyond the reach of R resamples are then taken
            from their spread around it.
        freedom: degrees of freedom of the spread, `degrees_of_freedom`. Few of them move the
            percentiles outwards, from the normal quantile to Student's.

    Source: Hesterberg 2015, doi:10.1080/00031305.2015.1089789, expanded percentile interval.
    """
    check_confidence(confidence)
    known = np.asarray(values)[~np.isnan(values)]
    if 2 * known.size < np.size(values) or known.size == 0:
        return math.nan, math.nan
    quantile = student_quantile((1 - confidence) / 2, freedom)
    tail = float(ndtr(-quantile))
    finite = bool(np.isfinite(known).all())
    # nothing lies between a number and infinity
    low = np.quantile(known, tail, method="linear" if finite else "lower")
    high = np.quantile(known, 1 - tail, method="linear" if finite else "higher")
    if observed is not None and finite and tail < 1 / (known.size + 1):
        reach = quantile * known.std()
        low, high = min(low, observed - reach), max(high, observed + reach)
    return float(low), float(high)


def p_value(
    differences: np.ndarray, observed: float | None = None, *, freedom: float = math.inf
) -> float:
    """Return the two-sided p-value of "no difference", from resampled differences.

    Twice the smaller share on either side of 0, with one added to count and number, so that no
    finite number of resamples gives 0. NaN where fewer than half of the differences exist.

    Args:
        differences: (R,) one a resample; infinite ones count, NaN do not exist.
        observed: the difference itself. Where no resample lies on the other side of 0, counting
            can say no more than 2 / (R + 1), and adjusting for many comparisons would hide what is
            plain; then the p-value of observed over the spread of the resamples counts, if it is
            smaller.
        freedom: degrees of freedom of the spread, `degrees_of_freedom`. Shares are those of a
            normal law; with few degrees they are read as Student's, which is what the expanded
            percentile interval does.

    Source: Davison and Hinkley 1997, section 4.4, inverted percentile interval, and 5.2, normal
        approximation; Hesterberg 2015, doi:10.1080/00031305.2015.1089789.
    """
    known = np.asarray(differences)[~np.isnan(differences)]
    if 2 * known.size < np.size(differences) or known.size == 0:
        return math.nan
    side = min(int((known <= 0).sum()), int((known >= 0).sum()))
    quantile = float(-ndtri(min(1.0, 2 * (side + 1) / (known.size + 1)) / 2))
    if observed is not None and side == 0 and np.isfinite(known).all() and known.std() > 0.0:
        spread = float(known.std())
        quantile = max(quantile, abs(observed) / spread)
    tail = ndtr(-quantile) if math.isinf(freedom) else stdtr(freedom, -quantile)
    return 2 * float(tail)


def degrees_of_freedom(influence: np.ndarray) -> float:
    """Return how many degrees of freedom the estimated spread of a mean over images has.

    Where a few images carry the estimate, as the few misplaced ones near AUROC 1, its spread is
    known badly however many images there are. The degrees are those of the chi-square law with the
    relative variance that the sum of squares has: 2 / (sum u^4 / (sum u^2)^2 - 1/N). Normal
    influences give about N, k equal ones among many zeros about 2k, at least 2.

    Args:
        influence: (N,) what each image adds to the estimate, up to a factor.

    Returns:
        infinity where all images add as much, up to the sign; the normal law then.

    Source: Satterthwaite 1946, doi:10.2307/3002019.
    """
    square = np.asarray(influence, np.float64) ** 2
    if not square.any():
        return math.inf
    square /= square.max()
    excess = float((square @ square) / square.sum() ** 2) - 1 / square.size
    return 2 / excess if excess > 0 else math.inf


def student_quantile(tail: float, freedom: float) -> float:
    """Return the quantile of Student's law with a given upper tail.

    Args:
        tail: in (0, 1).
        freedom: degrees of freedom, > 0; infinity for the normal law.
    """
    # what scipy.stats does, without its checks of arrays, which take ten times as long
    return float(-ndtri(tail) if math.isinf(freedom) else -stdtrit(freedom, tail))


def _check_length(resamples: Resamples, **arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        if array.shape != (resamples.n,):
            raise ValueError(f"{name} (shape {array.shape}) must be ({resamples.n},).")
