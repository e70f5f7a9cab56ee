"""Load a data set by name and cut it into its fixed, stratified sets."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robustloss.data.catalogue import DATASETS, Source
from robustloss.data.cifar import Cifar, read_cifar
from robustloss.data.files import DataError, data_root
from robustloss.data.folders.load import FolderOptions, load_folder
from robustloss.data.images import Dataset, ImageSet, mean_and_std, value_counts
from robustloss.data.mnist import Family, read_family
from robustloss.data.splits import check_fractions, class_prefix, stratified_split
from robustloss.spec.data import DataSpec

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]  # images, labels, index


def load_dataset(
    name: str,
    *,
    root: Path | None = None,
    train_size: int | None = None,
    validation_size: int | None = None,
    test_size: int | None = None,
    class_fractions: Sequence[float] | None = None,
    classes: Sequence[int] | None = None,
    folder: FolderOptions | None = None,
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
        class_fractions: share of each class's training images that is kept, in (0, 1]; a smaller
            one lies within a larger one.
        classes: the classes that are kept, at least two; they are numbered anew, in this order.
            The test images of the others become `held_out`. Not for image_folder.
        folder: which folder is read, and how; for image_folder only.
        download: fetch absent files.
        quiet: no progress bar.

    Raises:
        DataError: unknown name, size or fraction out of range, or files absent or damaged.
    """
    source = _source(name, folder)
    asked = {"train": train_size, "validation": validation_size, "test": test_size}
    if folder is not None:
        if classes is not None:
            raise DataError(
                f"data.classes (={list(classes)}) is not for image_folder. Move the class folders "
                "elsewhere, and name that place in a table [[outside]]."
            )
        found = load_folder(
            folder,
            name=name,
            root=root,
            asked=asked,
            fractions=class_fractions,
            quiet=quiet,
        )
        return found if class_fractions is None else _remarked(found, class_fractions)
    assert source.sizes is not None
    names = source.class_names
    if classes is not None:
        names = tuple(names[i] for i in check_classes(classes, len(names), name))
    num_classes = len(names)
    for (part, size), whole in zip(asked.items(), source.sizes, strict=True):
        if classes is None:
            _check_size(f"data.{part}_size", size, num_classes, whole, name)
    if class_fractions is not None:
        check_fractions(class_fractions, num_classes, name)
    if source.family is None:
        parts = _load_digits()
    else:
        parts = _load_family(source.family, data_root(root), download, quiet)
    held_out = None
    if classes is not None:
        rest = _pick(parts[2], np.flatnonzero(~np.isin(parts[2][1], classes)))
        held_out = _image_set(rest, source.scale) if len(rest[1]) else None
        train, validation, test = (_kept(arrays, classes) for arrays in parts)
        parts = train, validation, test
        for (part, size), arrays in zip(asked.items(), parts, strict=True):
            _check_size(f"data.{part}_size", size, num_classes, len(arrays[1]), name)
    train, validation, test = (
        _subset(arrays, size) for arrays, size in zip(parts, asked.values(), strict=True)
    )
    if class_fractions is not None:
        train = _pick(train, class_prefix(train[1], class_fractions))
    mean, std = mean_and_std(value_counts(train[0]), source.scale)
    found = Dataset(
        name=name,
        num_classes=num_classes,
        class_names=names,
        mean=mean,
        std=std,
        train=_image_set(train, source.scale),
        validation=_image_set(validation, source.scale),
        test=_image_set(test, source.scale),
        checksum=_checksum((train, validation, test), source.scale),
        training_checksum=_checksum((train, validation), source.scale),
        held_out=held_out,
    )
    if classes is not None:
        remark = f"{num_classes} of {len(source.class_names)} classes: {', '.join(names)}"
        found = replace(found, summary=remark)
    return found if class_fractions is None else _remarked(found, class_fractions)


def load_for_spec(
    data: DataSpec,
    *,
    near: Path,
    root: Path | None = None,
    download: bool = True,
    quiet: bool = False,
) -> Dataset:
    """Load what the table [data] of a spec asks for.

    Args:
        data: the table.
        near: the spec's folder, in which a relative data.folder may lie.
        root: see `load_dataset`.
        download: see `load_dataset`.
        quiet: see `load_dataset`.
    """
    options = None
    if data.folder is not None:
        options = FolderOptions(
            data.folder,
            image_size=data.image_size,
            resize=data.resize,
            channels=data.channels,
            ten_crop=data.ten_crop,
            in_memory=data.in_memory,
            near=near,
        )
    found = load_dataset(
        data.name,
        root=root,
        train_size=data.train_size,
        validation_size=data.validation_size,
        test_size=data.test_size,
        class_fractions=data.class_fractions,
        classes=data.classes,
        folder=options,
        download=download,
        quiet=quiet,
    )
    return replace(found, label=data.label)


def _source(name: str, folder: FolderOptions | None) -> Source:
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise DataError(f"data.name (={name!r}) must be one of {', '.join(DATASETS)}.{hint}")
    source = DATASETS[name]
    if source.sizes is None and folder is None:
        raise DataError(
            f"data.name (={name!r}) needs data.folder: a folder with train and test in it."
        )
    if source.sizes is not None and folder is not None:
        raise DataError(f"data.folder (={str(folder.folder)!r}) is for image_folder, not {name}.")
    return source


def check_classes(classes: Sequence[int], num_classes: int, name: str) -> Sequence[int]:
    """The classes, if a data set has them.

    Raises:
        DataError: fewer than two, one twice, or one that the data set does not have.
    """
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise DataError(f"data.classes (={list(classes)}) must name two or more different classes.")
    if bad := [c for c in classes if not 0 <= c < num_classes]:
        raise DataError(
            f"data.classes (={list(classes)}) has {bad[0]}, but the classes of {name} are 0 to "
            f"{num_classes - 1}."
        )
    return classes


def _kept(arrays: Arrays, classes: Sequence[int]) -> Arrays:
    """The images of some classes, whose labels become their places in the list."""
    images, labels, index = _pick(arrays, np.flatnonzero(np.isin(arrays[1], classes)))
    places = np.full(max(classes) + 1, -1, np.int64)
    places[list(classes)] = np.arange(len(classes))
    return images, places[labels], index


def _remarked(dataset: Dataset, fractions: Sequence[float]) -> Dataset:
    """The data set with the remark that its training classes were thinned out."""
    kept = ", ".join(f"{fraction:g}" for fraction in fractions)
    if len(set(fractions)) == 1:
        kept = f"{fractions[0]:g} of each"
    elif len(fractions) > 20:
        kept = f"{min(fractions):g} to {max(fractions):g}"
    remark = f"training images kept of the classes: {kept}"
    return replace(dataset, summary="; ".join(filter(None, (dataset.summary, remark))))


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


def _checksum(parts: tuple[Arrays, ...], scale: float) -> str:
    digest = hashlib.sha256(f"scale {scale}".encode())
    for images, labels, index in parts:
        digest.update(f"images {images.shape}".encode())
        digest.update(images.tobytes())
        digest.update(labels.astype("<i8").tobytes())
        digest.update(index.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def _whole(images: NDArray[np.uint8], labels: NDArray[np.integer]) -> Arrays:
    images = images[:, None] if images.ndim == 3 else images
    return images, labels.astype(np.int64), np.arange(len(labels))


def _load_family(
    family: Family | Cifar, root: Path, download: bool, quiet: bool
) -> tuple[Arrays, Arrays, Arrays]:
    arrays: tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.uint8], NDArray[Any]]
    if isinstance(family, Cifar):
        arrays = read_cifar(family, root, download=download, quiet=quiet)
    else:
        arrays = read_family(family, root, download=download, quiet=quiet)
    images, labels, test_images, test_labels = arrays
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
