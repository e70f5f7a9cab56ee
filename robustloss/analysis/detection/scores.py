"""Detection scores: how typical of clean data a Record's images look. Higher is more typical.

A score is a function of a Record. Those that read the network's outputs need nothing else; those
of `fitted` are fitted on clean training features first. None has seen an attacked image. The first
line of each is what `robustloss list scores` prints.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from robustloss.analysis.detection import fitted
from robustloss.metrics import rates
from robustloss.results.records import Record
from robustloss.spec.detection import SCORE_NAMES

Array = NDArray[Any]
Score = Callable[[Record], Array]
VERSION = 1  # raise when a score of the same records would be another


def class_log_likelihood(record: Record) -> Array:
    """Log-likelihood of the features under the predicted class, nats: the paper's.

    The paper plots its exp; the logarithm has the same ranks and does not underflow. A loss
    without a density gives the logit of the predicted class.

    Returns:
        (N,) float64, as all scores.

    Source: Wan et al. 2018, Figure 4.
    """
    values = np.asarray(record.class_log_likelihood, dtype=np.float64)
    return np.take_along_axis(values, record.predictions[:, None], axis=1)[:, 0]


def max_log_posterior(record: Record) -> Array:
    """Log of the largest posterior, nats.

    Source: maximum softmax probability (Hendrycks and Gimpel 2017), kept in the log domain
    because float32 posteriors are exactly 1 from a logit gap of about 17.
    """
    return rates.max_log_posterior(record.logits)


def max_logit(record: Record) -> Array:
    """The largest logit.

    Source: Hendrycks et al. 2022, "Scaling out-of-distribution detection for real-world settings".
    """
    return np.asarray(record.logits, dtype=np.float64).max(1)


def energy(record: Record) -> Array:
    """Log of the sum of exp(logits): the negative energy at temperature 1, nats.

    Source: Liu et al. 2020, "Energy-based out-of-distribution detection".
    """
    return np.asarray(logsumexp(np.asarray(record.logits, dtype=np.float64), axis=1))


def feature_norm(record: Record) -> Array:
    """Length of the features, which losses with normalised features ignore.

    Source: Dhamija et al. 2018, "Reducing network agnostophobia": unknown inputs have short ones.
    """
    return np.linalg.norm(fitted.features_of(record), axis=1)


def marginal_log_likelihood(reference: Mapping[str, Array]) -> Score:
    """Log of Σ p(k) N(f; mu_k, S_k), nats, of a loss that has a density.

    The priors are those of the loss: a Gaussian-mixture head's logits and log-likelihoods differ
    by log p(k) and a constant. They are uniform where the two differ by anything else.

    Source: Bishop 2006, equation 9.7.
    """
    log_prior = fit_marginal(reference)["log_prior"]

    def score(record: Record) -> Array:
        values = np.asarray(record.class_log_likelihood, dtype=np.float64)
        return np.asarray(logsumexp(values + log_prior, axis=1))

    return score


def fit_marginal(reference: Mapping[str, Array]) -> fitted.Fit:
    """Return the logarithms "log_prior" (K,) of the priors."""
    likelihood = np.asarray(reference["validation_class_log_likelihood"], dtype=np.float64)
    gap = np.asarray(reference["validation_logits"], dtype=np.float64) - likelihood
    gap -= gap.max(1, keepdims=True)
    size = 1.0 + float(np.abs(likelihood).max())
    constant = bool(np.ptp(gap, axis=0).max() <= 1e-5 * size)  # up to float32 noise
    log_prior = np.median(gap, axis=0) if constant else np.zeros(gap.shape[1])
    return {"log_prior": log_prior - logsumexp(log_prior)}


OF_OUTPUTS = ("class_log_likelihood", "max_log_posterior", "max_logit", "energy")
# Scores that only read a Record; DESIGN calls the first the paper's.
PLAIN: dict[str, Score] = {
    "class_log_likelihood": class_log_likelihood,
    "max_log_posterior": max_log_posterior,
    "max_logit": max_logit,
    "energy": energy,
    "feature_norm": feature_norm,
}
# Scores that are fitted on a cell's reference arrays.
FITTED: dict[str, Callable[[Mapping[str, Array]], Score]] = {
    "marginal_log_likelihood": marginal_log_likelihood,
    "mahalanobis": fitted.mahalanobis,
    "relative_mahalanobis": fitted.relative_mahalanobis,
    "knn": fitted.knn,
    "gaussian_mixture": fitted.gaussian_mixture,
}
# What the fitted ones are fitted with, for those who need the score in another form.
FITS: dict[str, Callable[[Mapping[str, Array]], fitted.Fit]] = {
    "marginal_log_likelihood": fit_marginal,
    "mahalanobis": fitted.fit_mahalanobis,
    "relative_mahalanobis": fitted.fit_relative_mahalanobis,
    "knn": fitted.fit_knn,
    "gaussian_mixture": fitted.fit_gaussian_mixture,
}
# All of them, in the order of the spec.
SCORES: dict[str, Callable[..., Any]] = {name: (PLAIN | FITTED)[name] for name in SCORE_NAMES}


def build_scores(
    names: Sequence[str],
    reference: Mapping[str, Array],
    *,
    density: bool,
    plugins: Mapping[str, Score] | None = None,
) -> dict[str, Score]:
    """Return the scores of one cell, by name; those that need it are fitted.

    Args:
        names: of `SCORE_NAMES`, or keys of `plugins`.
        reference: arrays of the cell's reference: clean training features, clean validation pass.
        density: whether the loss's class_log_likelihood is a normalised log-density.
        plugins: the user's own scores by name, already fitted.

    Returns:
        In the order given. A score that the loss does not have is left out: the marginal
        likelihood of a loss without a density, and a score of the features where none are stored.

    Raises:
        ValueError: an unknown name.
    """
    found: dict[str, Score] = {}
    for name in names:
        if plugins and name in plugins:
            found[name] = plugins[name]
            continue
        if name not in SCORES:
            raise ValueError(f"score (={name!r}) must be one of {', '.join(SCORE_NAMES)}.")
        if is_offered(name, density=density, features="train_features" in reference):
            found[name] = PLAIN[name] if name in PLAIN else FITTED[name](reference)
    return found


def is_offered(name: str, *, density: bool, features: bool) -> bool:
    """Return whether a model has a score of ours: some need a density, others features.

    Args:
        name: of `SCORE_NAMES`.
        density: see `build_scores`.
        features: whether the model offers features.
    """
    if name == "marginal_log_likelihood":
        return density
    return name in OF_OUTPUTS or features
