"""Slow, literal pair losses, written from the papers; numpy, one tuple after the other."""

from itertools import product

import numpy as np


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(((a - b) ** 2).sum()))


def contrastive(features: np.ndarray, labels: np.ndarray, margin: float) -> float:
    """Hadsell et al. 2006, equation 4; each kind of pair averaged over its non-zero terms."""
    pulls, pushes = [], []
    for i in range(len(labels)):
        for j in range(i):
            d = distance(features[i], features[j])
            if labels[i] == labels[j]:
                pulls.append(0.5 * d**2)
            else:
                pushes.append(0.5 * max(0.0, margin - d) ** 2)
    return sum(_mean_of_non_zero(kind) for kind in (pulls, pushes))


def triplets(
    features: np.ndarray, labels: np.ndarray, margin: float, mining: str, squared: bool
) -> list[float]:
    """All mined max(0, d_ap − d_an + m): FaceNet equation 3, Hermans et al. equation 5."""
    n = len(labels)
    power = 2 if squared else 1
    d = np.array(
        [[distance(features[i], features[j]) ** power for j in range(n)] for i in range(n)]
    )
    pairs = [(a, p) for a, p in product(range(n), range(n)) if a != p and labels[a] == labels[p]]
    others = [[j for j in range(n) if labels[j] != labels[a]] for a in range(n)]
    found = []
    if mining == "all":
        found = [d[a, p] - d[a, j] for a, p in pairs for j in others[a]]
    elif mining == "batch_hard":
        for a in range(n):
            own = [d[a, p] for b, p in pairs if b == a]
            if own and others[a]:
                found.append(max(own) - min(d[a, j] for j in others[a]))
    else:
        for a, p in pairs:
            farther = [d[a, j] for j in others[a] if d[a, j] > d[a, p]]
            found.append(d[a, p] - (min(farther) if farther else max(d[a, j] for j in others[a])))
    return [max(0.0, gap + margin) for gap in found]


def triplet(
    features: np.ndarray, labels: np.ndarray, margin: float, mining: str, squared: bool
) -> float:
    return _mean_of_non_zero(triplets(features, labels, margin, mining, squared))


def _mean_of_non_zero(terms: list[float]) -> float:
    kept = [term for term in terms if term > 0]
    return float(np.mean(kept)) if kept else 0.0
