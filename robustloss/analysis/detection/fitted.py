"""Scores that are fitted on clean training features: they ask the feature space, not the loss.

Each takes a cell's reference arrays and gives a function of a Record. With a covariance, features
are whitened once, so that distances are plain sums of squares. Classes without training images are
left out. All in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.special import logsumexp

from robustloss.metrics.rates import auroc
from robustloss.results.records import Record

Array = NDArray[Any]
Score = Callable[[Record], Array]
NEIGHBOURS = (1, 5, 10, 20, 50)  # the k that `knn` chooses from
_BLOCK = 2048  # images at once
_RIDGE = 1e-6  # of the mean variance, so that constant features have a covariance too


def features_of(record: Record) -> Array:
    """Return the features (N,D) of a record in float64.

    Raises:
        ValueError: the record holds none.
    """
    if record.features is None:
        raise ValueError("the record holds no features, which this score needs: run again.")
    return np.asarray(record.features, dtype=np.float64)


def mahalanobis(reference: Mapping[str, Array]) -> Score:
    """Minus the smallest squared Mahalanobis distance to a class mean, one covariance for all.

    Source: Lee et al. 2018, "A simple unified framework for detecting out-of-distribution samples
    and adversarial attacks", on the features alone, without input steps.
    """
    features, means, labels = _training(reference)
    white = _whitening(features - means[labels])
    places = means @ white

    def score(record: Record) -> Array:
        points = features_of(record) @ white
        # by explicit difference: the expanded square is wrong near a mean
        return -np.min([((points - place) ** 2).sum(1) for place in places], axis=0)

    return score


def relative_mahalanobis(reference: Mapping[str, Array]) -> Score:
    """`mahalanobis` less the squared distance to the mean of all, with the covariance of all.

    Source: Ren et al. 2021, arXiv:2106.09022, for near out-of-distribution images.
    """
    within = mahalanobis(reference)
    features, _, _ = _training(reference)
    center = features.mean(0)
    white = _whitening(features - center)

    def score(record: Record) -> Array:
        whole = (((features_of(record) - center) @ white) ** 2).sum(1)
        return np.asarray(within(record) + whole)

    return score


def knn(reference: Mapping[str, Array]) -> Score:
    """Minus the distance to the k-th nearest training features, both scaled to length 1.

    k is chosen among `NEIGHBOURS` without any attacked image: the one for which the score best
    tells right from wrong predictions on clean validation images (largest AUROC; the smallest of
    equals), and 10, or the largest possible below, where all validation images are right.

    Source: Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors".
    """
    from sklearn.neighbors import NearestNeighbors  # not needed to render a report

    train = _unit(np.asarray(reference["train_features"], dtype=np.float64))
    nearest = NearestNeighbors(algorithm="brute").fit(train)
    allowed = [k for k in NEIGHBOURS if k <= len(train)]

    def distances(features: Array, ks: Sequence[int]) -> Array:
        found = [
            nearest.kneighbors(_unit(features[start : start + _BLOCK]), max(ks))[0]
            for start in range(0, len(features), _BLOCK)
        ]
        return np.concatenate(found)[:, [k - 1 for k in ks]]

    k = max(k for k in allowed if k <= 10)
    right = reference["validation_logits"].argmax(1) == reference["validation_labels"]
    if right.any() and not right.all() and "validation_features" in reference:
        features = np.asarray(reference["validation_features"], dtype=np.float64)
        found = -distances(features, allowed)
        areas = [auroc(found[right, i], found[~right, i]) for i in range(len(allowed))]
        k = allowed[int(np.argmax(areas))]

    def score(record: Record) -> Array:
        return -distances(features_of(record), [k])[:, 0]

    return score


def gaussian_mixture(reference: Mapping[str, Array]) -> Score:
    """Log-density under one Gaussian a class, fitted to the training features, nats.

    Priors are the class shares; covariances are full and shrunk towards a sphere by the rule of
    Ledoit and Wolf, so that a class with fewer images than dimensions has one too. It gives losses
    without a density one, and says of the others whether their own fits.

    Source: Bishop 2006, equation 9.7; Ledoit and Wolf 2004 (shrinkage).
    """
    features, means, labels = _training(reference)
    parts = []
    for label, mean in enumerate(means):
        own = features[labels == label]
        white = _whitening(own - mean, shrink=True)
        log_det = np.log(np.abs(np.diag(white))).sum()
        constant = np.log(len(own) / len(features)) + log_det
        parts.append((mean, white, constant - features.shape[1] / 2 * np.log(2 * np.pi)))

    def score(record: Record) -> Array:
        points = features_of(record)
        terms = [
            constant - (((points - mean) @ white) ** 2).sum(1) / 2
            for mean, white, constant in parts
        ]
        return np.asarray(logsumexp(np.stack(terms, axis=1), axis=1))

    return score


def _training(reference: Mapping[str, Array]) -> tuple[Array, Array, Array]:
    """Return features (N,D), means (K',D) of the classes with images, and labels among those."""
    features = np.asarray(reference["train_features"], dtype=np.float64)
    _, labels = np.unique(reference["train_labels"], return_inverse=True)
    means = np.stack([features[labels == label].mean(0) for label in range(labels.max() + 1)])
    return features, means, labels


def _whitening(centered: Array, *, shrink: bool = False) -> Array:
    """Return W (D,D), triangular, where W Wᵀ is the inverse covariance of rows (N,D) of mean 0."""
    if shrink and len(centered) > 1:
        from sklearn.covariance import ledoit_wolf  # not needed to render a report

        covariance = ledoit_wolf(centered, assume_centered=True)[0]
    else:
        covariance = centered.T @ centered / len(centered)
    size = float(np.trace(covariance)) / len(covariance)
    ridge = _RIDGE * size if size > 0 else 1.0  # one image, or constant features: a unit sphere
    lower = scipy.linalg.cholesky(covariance + ridge * np.eye(len(covariance)), lower=True)
    return np.asarray(scipy.linalg.solve_triangular(lower, np.eye(len(lower)), lower=True).T)


def _unit(features: Array) -> Array:
    """Return rows (N,D) scaled to length 1; zero rows stay."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(lengths > 0, lengths, 1.0))
