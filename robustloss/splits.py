"""Fixed stratified choices: who belongs to which set of a data set, for ever."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SPLIT_SEED = 20180328  # never a parameter: another seed would be another data set


def stratified_split(
    labels: NDArray[np.integer], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose `size` positions with every class in its share, the same ones for ever.

    Each class is shuffled, its j-th of n members is placed at (j + 1/2)/n, and the first `size`
    in that order are chosen (Sainte-Lague apportionment), so a smaller choice lies in a larger.

    Args:
        labels: (N,).
        size: how many to choose, 0 to N.

    Returns:
        chosen (size,) and remaining (N - size,) positions, each ascending.
    """
    # The raw stream of a bit generator never changes between numpy releases; permutations may.
    keys = np.random.PCG64(SPLIT_SEED).random_raw(len(labels))
    shuffled = np.argsort(keys, kind="stable")
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.lexsort((keys, place))
    return np.sort(order[:size]), np.sort(order[size:])
