"""Which image belongs to which set: fixed stratified choices, the same for ever.

Published numbers rest on these choices. `cut` makes all of them, by the same rules for every data
set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from robustloss.data.files import DataError, join_names
from robustloss.data.reader import Content, Part, Parts
from robustloss.spec.data import DataSpec

SPLIT_SEED = 20180328  # never a parameter: another seed would be another data set
TEST_SHARE = 5  # one image in so many is held out for testing where a data set has no test images
VALIDATION = 5_000  # images held out for validation where nothing says how many, a tenth at most


def cut(content: Content, data: DataSpec, names: Sequence[str], sizes: Mapping[str, int]) -> Parts:
    """Cut all images of a data set into the sets that a run uses.

    Args:
        content: what a reader found.
        data: which classes, how many images of each set, and which share of each training class.
        names: (K,) of the classes in `content`.
        sizes: of the whole sets, where the catalogue says them; else empty.

    Returns:
        train, validation and test; and held_out, the test images of the classes that `data` leaves
        out, where there are any. Images keep the order of their file, but for `content.turns`.

    Raises:
        DataError: `data` asks for what the images do not give.
    """
    train, validation, test = content.train, content.validation, content.test
    if test is None:
        chosen, rest = stratified_split(train.labels, sizes.get("test", train.n // TEST_SHARE))
        test, train = train.pick(chosen), train.pick(rest)
    if validation is None:
        size = sizes.get("validation", min(VALIDATION, max(train.n // 10, len(names))))
        chosen, rest = stratified_split(train.labels, min(size, train.n))
        left = np.bincount(train.labels[rest], minlength=len(names))
        if bare := [names[label] for label in np.flatnonzero(left == 0).tolist()]:
            raise DataError(
                f"{content.where}: nothing is left to train {join_names(bare)} on when {size} of "
                f"{train.n} training images are kept for validation. Add training images, or a "
                "validation set."
            )
        validation, train = train.pick(chosen), train.pick(rest)
    parts = {"train": train, "validation": validation, "test": test}

    # Classes come before sizes, so that a size counts images of the classes that are kept.
    held_out = None
    if data.classes is not None:
        held_out = test.pick(np.flatnonzero(~np.isin(test.labels, data.classes)))
        parts = {name: select_classes(part, data.classes) for name, part in parts.items()}
    check_choice(data, len(names), {name: part.n for name, part in parts.items()}, content.where)
    for name, part in parts.items():
        size = getattr(data, f"{name}_size")
        if size is not None:
            part = part.pick(stratified_split(part.labels, size)[0])
        if name == "train" and data.class_fractions is not None:
            part = part.pick(class_prefix(part.labels, data.class_fractions))
        # Turns come last: a choice of images must not depend on the order that they are shown in.
        if name == "test" and content.turns:
            part = part.pick(take_turns(part.labels))
        parts[name] = part
    if held_out is not None and held_out.n:
        parts["held_out"] = held_out
    return parts


def check_choice(data: DataSpec, num_classes: int, sizes: Mapping[str, int], where: str) -> None:
    """Refuse classes, sizes and fractions that a data set does not have.

    Args:
        data: what a spec asks for.
        num_classes: of the whole data set.
        sizes: images in the whole sets after the choice of classes, as far as they are known.
        where: how messages call the data set.

    Raises:
        DataError: key, value, rule and remedy.
    """
    if data.classes is not None:
        if len(set(data.classes)) < len(data.classes):
            raise DataError(
                f"data.classes (={list(data.classes)}) must name two or more different classes."
            )
        if bad := [label for label in data.classes if label >= num_classes]:
            raise DataError(
                f"data.classes (={list(data.classes)}) has {bad[0]}, but the classes of {where} "
                f"are 0 to {num_classes - 1}."
            )
        num_classes = len(data.classes)
    for name, whole in sizes.items():
        size = getattr(data, f"{name}_size")
        if size is not None and not num_classes <= size <= whole:
            rule = f"a whole number in [{num_classes}, {whole}]"
            if whole < num_classes:  # no smaller set has an image of each class
                rule = f"{whole}"
            raise DataError(
                f"data.{name}_size (={size}) must be {rule}: "
                f"{where} has {num_classes} classes and {whole} images in that set. Leave it out "
                "for all of them."
            )
    if data.class_fractions is not None and len(data.class_fractions) != num_classes:
        raise DataError(
            f"data.class_fractions has {len(data.class_fractions)} numbers, but must have "
            f"{num_classes}, one for each class of {where}."
        )


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
    keys, shuffled = _shuffle(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.lexsort((keys, place))
    return np.sort(order[:size]), np.sort(order[size:])


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
    _, shuffled = _shuffle(len(labels))
    chosen = []
    for label, fraction in enumerate(fractions):
        members = shuffled[labels[shuffled] == label]
        chosen.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen))


def select_classes(part: Part, classes: Sequence[int]) -> Part:
    """Return the images of some classes; their labels become the places in the list.

    Args:
        part: images of all classes.
        classes: labels, in the order that numbers them anew.
    """
    own = part.pick(np.flatnonzero(np.isin(part.labels, classes)))
    places = np.zeros(max(classes) + 1, np.int64)
    places[list(classes)] = np.arange(len(classes))
    return Part(own.images, places[own.labels], own.index)


def take_turns(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order one image of every class, then a second of every class, so that the first show all."""
    order = np.argsort(labels, kind="stable")
    rounds = np.empty(len(labels), np.int64)
    rounds[order] = np.concatenate([np.arange(count) for count in np.bincount(labels)])
    return np.lexsort((labels, rounds))


def _shuffle(n: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    # The raw stream of a bit generator never changes between numpy releases; permutations may.
    keys = np.random.PCG64(SPLIT_SEED).random_raw(n)
    return keys, np.argsort(keys, kind="stable")
