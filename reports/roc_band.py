"""How far a ROC curve would move with other test images: a pointwise band by resampling images."""

from functools import cache

import numpy as np

from robustloss.bootstrap import Resamples, draw_resamples

RESAMPLES = 200  # enough for a band that is looked at; tables take more


@cache
def image_resamples(n: int) -> Resamples:
    """Resamples of n images, the same for every curve of a report."""
    return draw_resamples(n, RESAMPLES)


def roc_band(
    clean: np.ndarray, attacked: np.ndarray, grid: np.ndarray, resamples: Resamples
) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise 95 % band of the detection rate at each false-alarm rate.

    An image is drawn with its clean and its attacked score, so the threshold moves with the
    clean images and the rate with the attacked ones, as a pair.

    Args:
        clean: (N,) scores, higher is more typical of clean data.
        attacked: (N,) of the same images in the same order.
        grid: (G,) false-alarm rates in [0, 1].
        resamples: Of these N images.

    Returns:
        low, high (G,): fractions, the 2.5 and 97.5 % quantiles over the resamples.

    Source: Efron and Tibshirani 1993, percentile interval.
    """
    n = clean.size
    order, order_a = np.argsort(clean, kind="stable"), np.argsort(attacked, kind="stable")
    sorted_clean = clean[order]
    # attacked images strictly below each clean score, the last threshold rejects everything
    below = np.append(np.searchsorted(attacked[order_a], sorted_clean, side="left"), n)
    allowed = np.floor(np.asarray(grid) * n + 1e-9)
    rates = np.empty((len(resamples.counts), grid.size))
    for row, drawn in enumerate(resamples.counts):
        rejected = np.cumsum(drawn[order], dtype=np.int64)
        caught = np.concatenate([[0], np.cumsum(drawn[order_a], dtype=np.int64)])
        # the first clean image that may no longer be rejected is the threshold
        rates[row] = caught[below[np.searchsorted(rejected, allowed, side="right")]]
    low, high = np.quantile(rates / n, (0.025, 0.975), axis=0)
    return low, high
