"""Scores that are fitted on clean training features: they ask the feature space, not the loss.

Each takes a cell's reference arrays and gives a function of a Record. What is fitted stands in
plain arrays, by `fit_...`, because an attack on the detector needs it too. With a covariance,
features are whitened once, so that distances are plain sums of squares. Classes without training
images are left out. All in float64.
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
Fit = Mapping[str, Array]
"""What a score is fitted with, by name; "classes" (K',) are those with training images."""
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
    fit = fit_mahalanobis(reference)

    def score(record: Record) -> Array:
        points = features_of(record) @ fit["white"]
        # by explicit difference: the expanded square is wrong near a mean
        return -np.min([((points - place) ** 2).sum(1) for place in fit["places"]], axis=0)

    return score


def fit_mahalanobis(reference: Mapping[str, Array]) -> Fit:
    """Return the whitening "white" (D,D) and the whitened class means "places" (K',D)."""
    features, means, labels, classes = _training(reference)
    white = _whitening(features - means[labels])
    return {"white": white, "places": means @ white, "classes": classes}


def relative_mahalanobis(reference: Mapping[str, Array]) -> Score:
    """`mahalanobis` less the squared distance to the mean of all, with the covariance of all.

    Source: Ren et al. 2021, arXiv:2106.09022, for near out-of-distribution images.
    """
    within, fit = mahalanobis(reference), fit_background(reference)

    def score(record: Record) -> Array:
        whole = (((features_of(record) - fit["center"]) @ fit["background"]) ** 2).sum(1)
        return np.asarray(within(record) + whole)

    return score


def fit_background(reference: Mapping[str, Array]) -> Fit:
    """Return the mean "center" (D,) of all features and their whitening "background" (D,D)."""
    features = np.asarray(reference["train_features"], dtype=np.float64)
    center = features.mean(0)
    return {"center": center, "background": _whitening(features - center)}


def fit_relative_mahalanobis(reference: Mapping[str, Array]) -> Fit:
    """Return what both of its distances are fitted with."""
    return {**fit_mahalanobis(reference), **fit_background(reference)}


def knn(reference: Mapping[str, Array]) -> Score:
    """Minus the distance to the k-th nearest training features, both scaled to length 1.

    k is chosen among `NEIGHBOURS` without any attacked image: the one for which the score best
    tells right from wrong predictions on clean validation images (largest AUROC; the smallest of
    equals), and 10, or the largest possible below, where all validation images are right.

    Source: Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors".
    """
    fit = fit_knn(reference)
    measure = _distances(fit["train"])

    def score(record: Record) -> Array:
        return -measure(features_of(record), [int(fit["k"])])[:, 0]

    return score


def fit_knn(reference: Mapping[str, Array]) -> Fit:
    """Return "k" (), and the training features "train" (M,D) of length 1 with their "labels" (M,).

    "width" () says how near is near: the median distance of some training features to their k-th
    neighbour among the others.
    """
    train = _unit(np.asarray(reference["train_features"], dtype=np.float64))
    allowed, measure = [k for k in NEIGHBOURS if k <= len(train)], _distances(train)
    k = max(k for k in allowed if k <= 10)
    right = reference["validation_logits"].argmax(1) == reference["validation_labels"]
    if right.any() and not right.all() and "validation_features" in reference:
        features = np.asarray(reference["validation_features"], dtype=np.float64)
        found = -measure(features, allowed)
        areas = [auroc(found[right, i], found[~right, i]) for i in range(len(allowed))]
        k = allowed[int(np.argmax(areas))]
    width = np.median(measure(train[:_BLOCK], [min(k + 1, len(train))]))  # each is its own nearest
    return {
        "k": np.asarray(k),
        "train": train,
        "labels": np.asarray(reference["train_labels"]),
        "classes": np.unique(reference["train_labels"]),
        "width": np.asarray(width),
    }


def _distances(train: Array) -> Callable[[Array, Sequence[int]], Array]:
    """Return a function of features (N,D) and some k: distances (N,len(k)) to the k-th of (M,D)."""
    from sklearn.neighbors import NearestNeighbors  # not needed to render a report

    nearest = NearestNeighbors(algorithm="brute").fit(train)

    def measure(features: Array, ks: Sequence[int]) -> Array:
        found = [
            nearest.kneighbors(_unit(features[start : start + _BLOCK]), max(ks))[0]
            for start in range(0, len(features), _BLOCK)
        ]
        return np.concatenate(found)[:, [k - 1 for k in ks]]

    return measure


def gaussian_mixture(reference: Mapping[str, Array]) -> Score:
    """Log-density under one Gaussian a class, fitted to the training features, nats.

    Priors are the class shares; covariances are full and shrunk towards a sphere by the rule of
    Ledoit and Wolf, so that a class with fewer images than dimensions has one too. It gives losses
    without a density one, and says of the others whether their own fits.

    Source: Bishop 2006, equation 9.7; Ledoit and Wolf 2004 (shrinkage).
    """
    fit = fit_gaussian_mixture(reference)
    parts = list(zip(fit["means"], fit["whites"], fit["constants"], strict=True))

    def score(record: Record) -> Array:
        points = features_of(record)
        terms = [
            constant - (((points - mean) @ white) ** 2).sum(1) / 2
            for mean, white, constant in parts
        ]
        return np.asarray(logsumexp(np.stack(terms, axis=1), axis=1))

    return score


def fit_gaussian_mixture(reference: Mapping[str, Array]) -> Fit:
    """Return "means" (K',D), "whites" (K',D,D), and "constants" (K',), nats: what is no square."""
    features, means, labels, classes = _training(reference)
    whites, constants = [], []
    for label, mean in enumerate(means):
        own = features[labels == label]
        white = _whitening(own - mean, shrink=True)
        log_det = np.log(np.abs(np.diag(white))).sum()
        constant = np.log(len(own) / len(features)) + log_det
        whites.append(white)
        constants.append(constant - features.shape[1] / 2 * np.log(2 * np.pi))
    return {
        "means": means,
        "whites": np.stack(whites),
        "constants": np.asarray(constants),
        "classes": classes,
    }


def _training(reference: Mapping[str, Array]) -> tuple[Array, Array, Array, Array]:
    """Return features (N,D), means (K',D) of the classes with images, labels among those; these."""
    features = np.asarray(reference["train_features"], dtype=np.float64)
    classes, labels = np.unique(reference["train_labels"], return_inverse=True)
    means = np.stack([features[labels == label].mean(0) for label in range(len(classes))])
    return features, means, labels, classes


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
