"""Fixed stratified choices: who belongs to which set of a data set, for ever."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from robustloss.data.files import DataError

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
    keys, shuffled = _shuffled(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.lexsort((keys, place))
    return np.sort(order[:size]), np.sort(order[size:])


def check_fractions(fractions: Sequence[float], num_classes: int, name: str) -> None:
    """Refuses fractions that do not fit the classes.

    Raises:
        DataError: not one for each class, or one outside (0, 1].
    """
    if len(fractions) != num_classes:
        raise DataError(
            f"data.class_fractions has {len(fractions)} numbers, but must have {num_classes}, one "
            f"for each class of {name}."
        )
    for number, fraction in enumerate(fractions):
        if not 0 < fraction <= 1:
            raise DataError(
                f"data.class_fractions[{number}] (={fraction:g}) must lie in (0, 1]: the share of "
                "that class's training images that is kept."
            )


def class_prefix(labels: NDArray[np.integer], fractions: Sequence[float]) -> NDArray[np.int64]:
    """Choose a fraction of each class, the same positions for ever.

    Each class is shuffled as in `stratified_split` and its first images are kept, their number
    rounded, at least one: a smaller fraction lies in a larger.

    Args:
        labels: (N,) in [0, K).
        fractions: (K,) in (0, 1].

    Returns:
        chosen positions, ascending.
    """
    _, shuffled = _shuffled(len(labels))
    chosen = []
    for label, fraction in enumerate(fractions):
        members = shuffled[labels[shuffled] == label]
        chosen.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen))


def _shuffled(n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    # The raw stream of a bit generator never changes between numpy releases; permutations may.
    keys = np.random.PCG64(SPLIT_SEED).random_raw(n)
    return keys, np.argsort(keys, kind="stable")
