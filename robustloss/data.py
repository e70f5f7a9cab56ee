"""Load a data set by name and cut it into its fixed, stratified sets."""

from __future__ import annotations

import difflib
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from robustloss.idx import FASHION_MNIST, KMNIST, MNIST, DataError, Family, data_root, read_family
from robustloss.images import Dataset, ImageSet
from robustloss.splits import stratified_split

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "ImageSet",
    "Source",
    "load_dataset",
    "stratified_split",
]

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]  # images, labels, index


@dataclass(frozen=True)
class Source:
    """Where a data set comes from and how it is cut.

    Attributes:
        summary: one line for `robustloss list datasets`.
        sizes: images in the whole training, validation and test set.
        scale: largest value that a pixel can have.
        family: the files it is read from; None for the digits bundled with scikit-learn.
    """

    summary: str
    class_names: tuple[str, ...]
    sizes: tuple[int, int, int]
    scale: float = 255.0
    family: Family | None = None


def load_dataset(
    name: str,
    *,
    root: Path | None = None,
    train_size: int | None = None,
    validation_size: int | None = None,
    test_size: int | None = None,
    download: bool = True,
    quiet: bool = False,
) -> Dataset:
    """Load a data set, check its files, and cut it into its fixed sets.

    The sets never change sides: a size asks for a stratified subset of the fixed set of that name,
    a smaller subset lies within a larger one, and images keep the order of the file.

    Args:
        name: a key of DATASETS.
        root: folder that holds MNIST/raw and so on; else ROBUSTLOSS_DATA; else a cache folder.
        train_size: images in the training set, from one per class to all; None for all.
        validation_size: likewise.
        test_size: likewise.
        download: fetch absent files.
        quiet: no progress bar.

    Raises:
        DataError: unknown name, size out of range, or files absent or damaged.
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise DataError(f"data.name (={name!r}) must be one of {', '.join(DATASETS)}.{hint}")
    source = DATASETS[name]
    asked = {"train": train_size, "validation": validation_size, "test": test_size}
    for (part, size), whole in zip(asked.items(), source.sizes, strict=True):
        _check_size(f"data.{part}_size", size, len(source.class_names), whole, name)
    if source.family is None:
        parts = _load_digits()
    else:
        parts = _load_family(source.family, data_root(root), download, quiet)
    train, validation, test = (
        _subset(arrays, size) for arrays, size in zip(parts, asked.values(), strict=True)
    )
    mean, std = _mean_and_std(train[0], source.scale)
    return Dataset(
        name=name,
        num_classes=len(source.class_names),
        class_names=source.class_names,
        mean=mean,
        std=std,
        train=_image_set(train, source.scale),
        validation=_image_set(validation, source.scale),
        test=_image_set(test, source.scale),
        checksum=_checksum((train, validation, test), source.scale),
        training_checksum=_checksum((train, validation), source.scale),
    )


def _check_size(key: str, size: int | None, smallest: int, largest: int, name: str) -> None:
    if size is None:
        return
    if not isinstance(size, int) or not smallest <= size <= largest:
        raise DataError(
            f"{key} (={size!r}) must be a whole number in [{smallest}, {largest}]: {name} has "
            f"{smallest} classes and {largest} images in that set. Leave it out for all of them."
        )


def _pick(arrays: Arrays, positions: NDArray[np.int64]) -> Arrays:
    images, labels, index = arrays
    return images[positions], labels[positions], index[positions]


def _subset(arrays: Arrays, size: int | None) -> Arrays:
    return arrays if size is None else _pick(arrays, stratified_split(arrays[1], size)[0])


def _image_set(arrays: Arrays, scale: float) -> ImageSet:
    images, labels, index = (torch.from_numpy(values.copy()) for values in arrays)
    return ImageSet(images, labels, index, scale)


def _mean_and_std(
    images: NDArray[np.uint8], scale: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, from exact integer sums."""
    mean, std = [], []
    for channel in range(images.shape[1]):
        counts = _value_counts(images[:, channel])
        n = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value**2 * count for value, count in enumerate(counts))
        mean.append(total / n / scale)
        std.append(math.sqrt(squares * n - total**2) / n / scale)
    return tuple(mean), tuple(std)


def _value_counts(pixels: NDArray[np.uint8]) -> list[int]:
    # In pieces, because bincount widens its input to eight bytes a pixel; as Python's integers,
    # because the squared sum over a large data set does not fit in 64 bits.
    pieces = np.array_split(pixels, max(1, len(pixels) // 1000))
    counts: NDArray[np.int64] = sum(
        (np.bincount(piece.ravel(), minlength=256) for piece in pieces), np.zeros(256, np.int64)
    )
    return counts.tolist()


def _checksum(parts: tuple[Arrays, ...], scale: float) -> str:
    digest = hashlib.sha256(f"scale {scale}".encode())
    for images, labels, index in parts:
        digest.update(f"images {images.shape}".encode())
        digest.update(images.tobytes())
        digest.update(labels.astype("<i8").tobytes())
        digest.update(index.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def _whole(images: NDArray[np.uint8], labels: NDArray[np.integer]) -> Arrays:
    return images[:, None], labels.astype(np.int64), np.arange(len(labels))


def _load_family(
    family: Family, root: Path, download: bool, quiet: bool
) -> tuple[Arrays, Arrays, Arrays]:
    images, labels, test_images, test_labels = read_family(
        family, root, download=download, quiet=quiet
    )
    training = _whole(images, labels)
    validation, train = stratified_split(labels, 5_000)
    return _pick(training, train), _pick(training, validation), _whole(test_images, test_labels)


def _load_digits() -> tuple[Arrays, Arrays, Arrays]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    everything = _whole(images.reshape(-1, 8, 8).astype(np.uint8), labels)
    test, rest = stratified_split(labels, 500)
    validation, train = stratified_split(labels[rest], 300)
    return (
        _pick(everything, rest[train]),
        _pick(everything, rest[validation]),
        _pick(everything, test),
    )


_DIGIT_NAMES = tuple("0123456789")
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat")
_SHOES_AND_MORE = ("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_HIRAGANA = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_MNIST_SIZES = (55_000, 5_000, 10_000)

DATASETS: dict[str, Source] = {
    "digits": Source(
        "1,797 handwritten digits of 8x8 pixels, bundled with scikit-learn (no download)",
        _DIGIT_NAMES,
        (997, 300, 500),
        scale=16.0,
    ),
    "mnist": Source(
        "MNIST: 70,000 handwritten digits of 28x28 pixels",
        _DIGIT_NAMES,
        _MNIST_SIZES,
        family=MNIST,
    ),
    "fashion_mnist": Source(
        "Fashion-MNIST: 70,000 articles of clothing, 28x28 pixels",
        _CLOTHES + _SHOES_AND_MORE,
        _MNIST_SIZES,
        family=FASHION_MNIST,
    ),
    "kmnist": Source(
        "Kuzushiji-MNIST: 70,000 cursive Japanese characters, 28x28 pixels",
        _HIRAGANA,
        _MNIST_SIZES,
        family=KMNIST,
    ),
}
