"""ImageSet and Dataset: images as uint8 tensors, and what the rest of a run knows about them.

Where the images do not fit in memory, a `StreamedImages` takes the place of the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustloss.data.files import DataError
from robustloss.data.streamed import StreamedImages


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images as stored, with labels and their position in the original file.

    Attributes:
        images: (N, C, H, W) uint8; `images / scale` lies in [0, 1]. A tensor, or streamed images,
            which are indexed like one.
        labels: (N,) int64.
        index: (N,) int64; position in the file or folder that the images came from.
        scale: largest value that a pixel can have.
        size: (H, W) that a model sees: the center of each image, a random place when a training
            augments by crops; None for the whole image.
    """

    images: Tensor | StreamedImages
    labels: Tensor
    index: Tensor
    scale: float
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        n = self.images.shape[0]
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise ValueError(
                f"images (={self.images.dtype}, {tuple(self.images.shape)}) must be uint8 "
                "(N, C, H, W)."
            )
        for name, values in (("labels", self.labels), ("index", self.index)):
            if values.dtype != torch.int64 or tuple(values.shape) != (n,):
                raise ValueError(
                    f"{name} (={values.dtype}, {tuple(values.shape)}) must be int64 ({n},)."
                )

    @property
    def n(self) -> int:
        """Number of images."""
        return self.images.shape[0]

    def __len__(self) -> int:
        return self.n

    def count_classes(self, num_classes: int) -> list[int]:
        """Return how many images each of so many classes has."""
        return torch.bincount(self.labels, minlength=num_classes).tolist()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what a model sees."""
        channels, height, width = self.images.shape[1:]
        return channels, *(self.size or (height, width))

    @property
    def pass_size(self) -> int:
        """Images that pass a network at once where no gradient is kept: fewer of large ones."""
        return 1000 if self.shape[1] * self.shape[2] <= 64 * 64 else 100

    def passes(self, views: int = 1) -> Iterator[slice]:
        """Yield the positions of the images that pass a network at once, from first to last.

        Args:
            views: How many views of each image pass together, such as crops.
        """
        size = max(1, self.pass_size // views)
        for start in range(0, self.n, size):
            yield slice(start, start + size)

    def to(self, device: torch.device | str) -> ImageSet:
        """Return the same set on a device."""
        return replace(
            self,
            images=self.images.to(device),
            labels=self.labels.to(device),
            index=self.index.to(device),
        )

    def batch(self, selection: Tensor | slice) -> Tensor:
        """Return images at some positions as float32 (B, C, H, W) in [0, 1]; a new tensor."""
        return center(self.images[selection], self.size).to(torch.float32).div_(self.scale)

    def take(self, positions: Tensor | slice) -> ImageSet:
        """Return the subset at some positions of this set."""
        images = self.images
        return replace(
            self,
            images=images[positions] if isinstance(images, Tensor) else images.subset(positions),
            labels=self.labels[positions],
            index=self.index[positions],
        )


def center(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Cut out the center of images, as torchvision's CenterCrop rounds it.

    Args:
        images: (..., H', W').
        size: (H, W); None for the whole image.
    """
    if size is None or size == tuple(images.shape[-2:]):
        return images
    top, left = (
        round((have - want) / 2) for have, want in zip(images.shape[-2:], size, strict=True)
    )
    return images[..., top : top + size[0], left : left + size[1]]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training, validation and test set of one data set.

    Attributes:
        mean: (C,) of the training pixels in [0, 1].
        std: (C,) of the training pixels, dividing by n; 1 where a channel has one value only.
        checksum: 16 hex digits of SHA-256 over images, labels, index and scale of the three sets.
        training_checksum: The same of what a training sees, training and validation set: other
            test images need no other weights.
        label: how reports call the data; "" for the name.
        summary: a remark that must stand beside its numbers; "" for none.
        converted: files whose channels had to be converted.
        digests: SHA-256 of each image file; empty where the images are not all read from files.
        ten_crop: the clean test images are also classified from ten crops of each.
        held_out: test images of the classes that were left out, with their labels in the whole
            data set; None where no class was.
        files: the folder or archive that the images were read from; "" where a package brings them.
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    checksum: str
    training_checksum: str
    label: str = ""
    summary: str = ""
    converted: tuple[str, ...] = ()
    digests: frozenset[bytes] = frozenset()
    ten_crop: bool = False
    held_out: ImageSet | None = None
    files: str = ""

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            labels = getattr(self, name).labels
            if not len(labels):
                continue
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= self.num_classes:
                raise DataError(
                    f"{self.name}: the labels of the {name} set lie in [{low}, {high}], but must "
                    f"lie in [0, {self.num_classes - 1}]: it has {self.num_classes} classes."
                )

    @property
    def class_counts(self) -> list[int]:
        """Training images of each class."""
        return self.train.count_classes(self.num_classes)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.train.shape


def mean_and_std(
    counts: NDArray[np.int64], scale: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation per channel, in [0, 1].

    The deviation of a channel that has one value everywhere is given as 1: it is to be divided by.

    Args:
        counts: (C, 256), how often each value occurs in each channel.
        scale: the value that becomes 1.
    """
    mean, std = [], []
    # Python's integers: the squared sum over a large data set does not fit in 64 bits.
    for each in counts.tolist():
        n = sum(each)
        total = sum(value * count for value, count in enumerate(each))
        squares = sum(value**2 * count for value, count in enumerate(each))
        mean.append(total / n / scale)
        std.append(math.sqrt(squares * n - total**2) / n / scale or 1.0)
    return tuple(mean), tuple(std)


def value_counts(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count how often each value occurs in each channel: (N, C, H, W) -> (C, 256)."""
    counts = np.zeros((images.shape[1], 256), np.int64)
    # In pieces, because bincount widens its input to eight bytes a pixel.
    for piece in np.array_split(images, max(1, len(images) // 1000)):
        for channel in range(images.shape[1]):
            counts[channel] += np.bincount(piece[:, channel].ravel(), minlength=256)
    return counts


def fit_subset(images: ImageSet, size: int) -> ImageSet:
    """Return a fixed, stratified subset, such as the training images that scores are fitted on.

    Args:
        images: the whole set.
        size: images in the subset; the whole set where it has no more.
    """
    if size >= images.n:
        return images
    # Evenly over the images in the order of their classes, which gives each class its share.
    order = torch.argsort(images.labels, stable=True)
    positions = torch.div(torch.arange(size) * images.n, size, rounding_mode="floor")
    return images.take(order[positions.to(order.device)].sort().values)
