"""Repeated sampling of paired scores from two normals with a known AUROC."""

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from robustloss.metrics.auroc_interval import auroc_interval


class Intervals(NamedTuple):
    """One of each sample."""

    auroc: np.ndarray
    low: np.ndarray
    high: np.ndarray


def paired_normals(rng, area, n, correlation, share):
    """Clean scores (n,), attacked scores (m,) of a random share of the images, their indices."""
    distance = norm.ppf(area) * math.sqrt(2)
    clean = rng.normal(size=n)
    attacked = correlation * clean + math.sqrt(1 - correlation**2) * rng.normal(size=n) - distance
    kept = np.flatnonzero(rng.random(n) < share)
    return clean, attacked[kept], np.arange(n), kept


def simulated_intervals(area, n, correlation, share, *, samples, seed, paired=True) -> Intervals:
    """The interval of every sample."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(samples):
        clean, attacked, index, kept = paired_normals(rng, area, n, correlation, share)
        who = (index, kept) if paired else (None, None)
        estimate = auroc_interval(clean, attacked, *who)
        found.append((estimate.auroc, estimate.low, estimate.high))
    return Intervals(*np.array(found).T)
