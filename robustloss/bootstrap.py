"""Image bootstrap: every number of a comparison computed anew on the same resampled images."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from robustloss.metrics import checked_scores
from robustloss.statistics import check_confidence

RESAMPLES = 1000
_BLOCK = 50  # resamples at once: 50 x 20,000 float64 are 8 MB


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


def draw_resamples(n: int, resamples: int = RESAMPLES, seed: int = 0) -> Resamples:
    """Draw images with replacement.

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
    """AUROC on every resample of the images; both scores of an image come and go together.

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
    clean, attacked = checked_scores(clean_scores, "clean"), checked_scores(attacked_scores, "att.")
    _check_length(resamples, clean_scores=clean, attacked_scores=attacked)
    every = np.arange(resamples.n)
    on_clean = every if clean_keep is None else every[clean_keep]
    on_attacked = every if attacked_keep is None else every[attacked_keep]
    if not (on_clean.size and on_attacked.size):
        return np.full(len(resamples.counts), np.nan)
    # The scores are sorted once; a resample only changes how often each of them counts.
    on_clean = on_clean[np.argsort(clean[on_clean], kind="stable")]
    ordered = clean[on_clean]
    lower = np.searchsorted(ordered, attacked[on_attacked], side="left")
    upper = np.searchsorted(ordered, attacked[on_attacked], side="right")
    found = np.empty(len(resamples.counts))
    for start in range(0, len(found), _BLOCK):
        counts = resamples.counts[start : start + _BLOCK]
        weights = counts[:, on_attacked].astype(np.float64)
        below = np.zeros((len(counts), on_clean.size + 1))
        np.cumsum(counts[:, on_clean], axis=1, dtype=np.float64, out=below[:, 1:])
        total = below[:, -1]
        # clean scores above an attacked one, and half of those equal to it
        above = total[:, None] - (below[:, lower] + below[:, upper]) / 2
        pairs = total * weights.sum(1)
        with np.errstate(invalid="ignore"):
            found[start : start + _BLOCK] = np.einsum("rj,rj->r", weights, above) / pairs
    return found


def bootstrap_mean(
    resamples: Resamples, values: np.ndarray, keep: np.ndarray | None = None
) -> np.ndarray:
    """Mean of per-image values on every resample.

    Args:
        resamples: of N images.
        values: (N,) numbers or bool.
        keep: (N,) bool, the images that count; None for all.

    Returns:
        (R,); NaN where a resample leaves no image.
    """
    _check_length(resamples, values=np.asarray(values))
    weights = np.ones(resamples.n) if keep is None else np.asarray(keep, np.float64)
    counts = resamples.counts.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return (counts @ (weights * values)) / (counts @ weights)


def percentile_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Middle part of the resampled values; NaN where fewer than half of them exist."""
    check_confidence(confidence)
    known = np.asarray(values)[np.isfinite(values)]
    if 2 * known.size < np.size(values) or known.size == 0:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, (tail, 1 - tail))
    return float(low), float(high)


def p_value(differences: np.ndarray, observed: float | None = None) -> float:
    """Two-sided p-value of "no difference", from resampled differences.

    Twice the smaller share on either side of 0, with one added to count and number, so that no
    finite number of resamples gives 0. NaN where fewer than half of the differences exist.

    Args:
        differences: (R,) one a resample.
        observed: the difference itself. Where no resample lies on the other side of 0, counting
            can say no more than 2 / (R + 1), and adjusting for many comparisons would hide what is
            plain; then the normal p-value of observed over the spread of the resamples counts, if
            it is smaller.

    Source: Davison and Hinkley 1997, section 4.4, inverted percentile interval, and 5.2, normal
        approximation.
    """
    known = np.asarray(differences)[np.isfinite(differences)]
    if 2 * known.size < np.size(differences) or known.size == 0:
        return float("nan")
    side = min(int((known <= 0).sum()), int((known >= 0).sum()))
    counted = min(1.0, 2 * (side + 1) / (known.size + 1))
    spread = float(known.std())
    if observed is None or side > 0 or spread == 0.0:
        return counted
    return min(counted, float(2 * norm.sf(abs(observed) / spread)))


def _check_length(resamples: Resamples, **arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        if array.shape != (resamples.n,):
            raise ValueError(f"{name} (shape {array.shape}) must be ({resamples.n},).")
