"""Calibration: is a class named with 90 % confidence right 90 % of the time, clean and attacked?

Everything is about the largest posterior, the softmax of the margin-free logits, as a loss states
it. Labels of attacked images are those of the images before.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.special import log_softmax

from robustloss.metrics.bootstrap import Resamples

Array = NDArray[Any]
BINS = 15
RESAMPLES = 200
TEMPERATURES = (0.05, 20.0)  # where a fitted temperature is looked for


@dataclass(frozen=True, eq=False)
class Binned:
    """Images by confidence.

    Attributes:
        edges: (J+1,) rising, from 0 to 1; bin j holds confidences in (edges[j], edges[j+1]], the
            first one 0 as well, the last one exactly 1.
        place: (N,) bin of each image.
        count: (J,) images.
        confidence: (J,) mean confidence; NaN in an empty bin.
        accuracy: (J,) fraction right; NaN in an empty bin.
    """

    edges: Array
    place: Array
    count: Array
    confidence: Array
    accuracy: Array

    @property
    def error(self) -> float:
        """Expected calibration error: |accuracy − confidence|, averaged over the images."""
        known = self.count > 0
        gaps = np.abs(self.accuracy[known] - self.confidence[known])
        return float((self.count[known] * gaps).sum() / self.count.sum())


def equal_width(confidence: Array, correct: Array, bins: int = BINS) -> Binned:
    """Return the images in bins of equal width.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) bool.
        bins: J, at least 1.

    Raises:
        ValueError: confidences outside [0, 1], other lengths, no image, or no bin.

    Source: Naeini et al. 2015; Guo et al. 2017, "On calibration of modern neural networks".
    """
    _check_bins(bins)
    return _bin(confidence, correct, np.linspace(0.0, 1.0, bins + 1))


def equal_mass(confidence: Array, correct: Array, bins: int = BINS) -> Binned:
    """Return the images in bins of equally many, as far as ties allow.

    Equal confidences are never parted.

    Fewer bins come out where many confidences are equal, as those that are exactly 1 in float32.

    Args:
        confidence: (N,) in [0, 1].
        correct: (N,) bool.
        bins: J, at least 1.

    Raises:
        ValueError: as `equal_width`.

    Source: Nguyen and O'Connor 2015 (adaptive binning).
    """
    _check_bins(bins)
    ordered = np.sort(_check_confidence(confidence))
    wanted = np.arange(1, bins) * ordered.size // bins
    # an edge is the largest confidence of the bin below it
    cuts = np.unique(ordered[np.maximum(wanted - 1, 0)])
    cuts = cuts[(cuts > 0.0) & (cuts < ordered[-1])]
    return _bin(confidence, correct, np.concatenate([[0.0], cuts, [1.0]]))


def _bin(confidence: Array, correct: Array, edges: Array) -> Binned:
    confidence, correct = _check_confidence(confidence), np.asarray(correct, bool)
    if correct.shape != confidence.shape:
        raise ValueError(f"correct ({correct.shape}) must be of shape {confidence.shape}.")
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)
    count, total, right = (
        np.bincount(place, weights, len(edges) - 1) for weights in (None, confidence, correct)
    )
    with np.errstate(invalid="ignore"):
        return Binned(edges, place, count, total / count, right / count)


def _check_confidence(confidence: Array) -> Array:
    """Return confidences (N,) in float64, none above 1; refuse what is no probability."""
    confidence = np.asarray(confidence, np.float64)
    if confidence.ndim != 1 or not confidence.size:
        raise ValueError(f"confidence (shape {confidence.shape}) must be (N,), N at least 1.")
    if not ((confidence >= 0) & (confidence <= 1 + 1e-12)).all():
        raise ValueError("confidence must lie in [0, 1]: largest posteriors, not logits.")
    return np.minimum(confidence, 1.0)


def _check_bins(bins: int) -> None:
    if bins < 1:
        raise ValueError(f"bins (={bins}) must be at least 1.")


def resample_error(
    binned: Binned, confidence: Array, correct: Array, resamples: Resamples
) -> Array:
    """Return the calibration error in these bins on every resample, (R,).

    Resampling adds as much upward bias as the estimate has already, because |gap| counts noise in
    either direction; the errors are moved down by it, and may lie below 0.

    Args:
        binned: of the images.
        confidence: (N,).
        correct: (N,) bool.
        resamples: of the N images.
    """
    gaps = np.zeros((resamples.n, len(binned.count)))
    gaps[np.arange(resamples.n), binned.place] = np.asarray(correct, np.float64) - confidence
    found: Array = np.abs(resamples.add_up(gaps)).sum(axis=1) / resamples.n
    return found - (float(found.mean()) - binned.error)


def error_interval(
    binned: Binned, confidence: Array, correct: Array, resamples: Resamples
) -> tuple[float, float]:
    """Return the 95 % interval of the calibration error in these bins, from resampled images.

    The estimate's own bias stays: the true binned error is held in 87 to 95 % of simulations where
    it is at least twice `error_floor`, in far fewer below that, and under 12 % for a calibrated
    network.

    Args:
        binned: of the images.
        confidence: (N,).
        correct: (N,) bool.
        resamples: of the N images.

    Returns:
        low and high, at least 0.
    """
    found = resample_error(binned, confidence, correct, resamples)
    low, high = np.quantile(found, (0.025, 0.975))
    return max(0.0, float(low)), max(0.0, float(high))


def error_floor(
    binned: Binned, confidence: Array, draws: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Return the error that a perfectly calibrated model of these confidences shows by chance.

    Args:
        binned: of the images.
        confidence: (N,).
        draws: of the outcomes, right with the stated confidence.
        seed: of the draws.

    Returns:
        Mean and 97.5 % quantile. An error below the latter is no sign of miscalibration.

    Source: Vaicenavicius et al. 2019, consistency resampling.
    """
    confidence = np.asarray(confidence, np.float64)
    generator = np.random.default_rng(seed)
    found = np.empty(draws)
    for i in range(draws):
        gap: Array = (generator.random(confidence.size) < confidence) - confidence
        found[i] = np.abs(np.bincount(binned.place, gap, len(binned.count))).sum()
    found /= confidence.size
    return float(found.mean()), float(np.quantile(found, 0.975))


def brier_scores(logits: Array, labels: Array) -> Array:
    """Return of each image (N,) Σ_k (posterior_k − [k is the label])², in [0, 2].

    Args:
        logits: (N,K).
        labels: (N,).

    Source: Brier 1950, in its original form over all classes.
    """
    posterior = np.exp(log_posteriors(logits))
    posterior[np.arange(len(labels)), labels] -= 1.0
    return np.asarray((posterior**2).sum(1))


def negative_log_likelihood(logits: Array, labels: Array, temperature: float = 1.0) -> float:
    """Return the mean over images of −log posterior of the label, nats, in the log domain.

    A posterior that float32 shows as 0 has a finite logarithm here.

    Args:
        logits: (N,K).
        labels: (N,).
        temperature: that the logits are divided by, > 0.
    """
    log_posterior = log_posteriors(np.asarray(logits, np.float64) / temperature)
    return float(-log_posterior[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: Array, labels: Array) -> float:
    """Return the number to divide logits by that makes the likelihood of the labels largest.

    Args:
        logits: (V,K) of clean validation images: never of those that are then judged.
        labels: (V,).

    Returns:
        T in `TEMPERATURES`, at an end where the likelihood still grows there; 1 where no other
        value is better.

    Source: Guo et al. 2017, section 4.2.
    """
    low, high = np.log(TEMPERATURES)
    found = scipy.optimize.minimize_scalar(
        lambda t: negative_log_likelihood(logits, labels, float(np.exp(t))),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-5},
    )
    better = float(np.exp(found.x))
    before = negative_log_likelihood(logits, labels)
    return better if negative_log_likelihood(logits, labels, better) < before else 1.0


def confidence_of(logits: Array) -> Array:
    """Return the largest posterior (N,) of logits (N,K), in float64."""
    return np.asarray(np.exp(log_posteriors(logits).max(1)))


def log_posteriors(logits: Array) -> Array:
    """Return the log of the posterior (N,K) of logits (N,K), in float64."""
    return np.asarray(log_softmax(np.asarray(logits, np.float64), axis=1))
