"""The seam to a new data set: what a reader is asked for, and what it hands over.

A reader knows files: it finds, checks and reads them. What it hands over, a `Content`, holds every
image with its label: an `ArrayContent` where the pixels are in memory. Which of these images a run
uses is decided in `splits`, by the same rules for every data set. A new data set is therefore one
reader, and one entry in `catalogue.DATASETS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustloss.data.images import ImageSet, value_counts
from robustloss.data.streamed import PixelFile, StreamedImages
from robustloss.spec.data import DataSpec


@dataclass(frozen=True)
class Place:
    """Where a reader looks for files, and what it may do there.

    Attributes:
        root: the data folder, which holds MNIST/raw and so on.
        near: the folder of the spec, in which a relative data.folder may lie; None for none.
        download: whether absent files may be fetched, to root.
        quiet: no progress bar and no remark on stderr.
    """

    root: Path
    near: Path | None = None
    download: bool = True
    quiet: bool = False

    @property
    def folders(self) -> list[Path]:
        """Where a relative name begins, in order: the spec, the data folder, where one stands.

        The last finds the data of a finished run, whose folder does not hold them.
        """
        near = [] if self.near is None else [self.near]
        places = [*near, self.root, Path.cwd()]
        return list({place.absolute(): place for place in places}.values())


class Reader(Protocol):
    """Reads one data set, or one kind of data set."""

    def read(self, data: DataSpec, place: Place) -> Content:
        """Find, check and read the files.

        Args:
            data: the table [data] of the spec; a reader heeds the keys that say what its files are.
                Sizes, fractions and classes are applied later, by `splits.cut`.
            place: where the files may lie.

        Raises:
            DataError: a file is absent and cannot be fetched, or is not what it should be.
        """


@dataclass(frozen=True, eq=False)
class Part:
    """Images that belong together, such as those of one training file.

    Attributes:
        images: (N, C, H, W) uint8 pixels; or (N,) paths or rows, of files that are decoded once it
            is known which of them are used.
        labels: (N,) int64.
        index: (N,) int64, position in the file or folder that the images came from.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]
    index: NDArray[np.int64]

    @classmethod
    def whole(cls, images: NDArray[Any], labels: NDArray[np.integer]) -> Part:
        """Take all images of a file, in its order.

        Args:
            images: (N, C, H, W), or (N, H, W) for grey ones, uint8; or (N,) paths.
            labels: (N,) integers.
        """
        images = images[:, None] if images.ndim == 3 else images  # one channel
        return cls(images, labels.astype(np.int64), np.arange(len(labels)))

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.labels)

    def pick(self, positions: NDArray[np.int64]) -> Part:
        """Return the images at some positions of this part, in that order."""
        return Part(self.images[positions], self.labels[positions], self.index[positions])


Parts = dict[str, Part]
"""By the name of their set: train, validation, test; and held_out where classes are left out."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """The pixels of the images that a run uses, and what identifies them.

    Attributes:
        images: of each set, (N, C, H, W) uint8; a tensor, or streamed images.
        counts: (C, 256), how often each value occurs in each channel of the training images.
        settings: text that enters the checksums: what, beside the files, decides the pixels.
        contents: of each set, a line of text and arrays of uint8, which enter the checksums.
        scale: largest value that a pixel can have.
        size: (H, W) that a model sees, as in `ImageSet`.
        summary: a remark that must stand beside the numbers; "" for none.
        converted: files whose channels had to be converted.
        digests: as in `Dataset`.
    """

    images: dict[str, Tensor | StreamedImages]
    counts: NDArray[np.int64]
    settings: str
    contents: dict[str, tuple[str, Iterable[NDArray[np.uint8]]]]
    scale: float = 255.0
    size: tuple[int, int] | None = None
    summary: str = ""
    converted: tuple[str, ...] = ()
    digests: frozenset[bytes] = frozenset()

    def image_set(self, name: str, part: Part) -> ImageSet:
        """Return the images of a set with the labels and positions that belong to them."""
        return ImageSet(
            self.images[name],
            torch.from_numpy(part.labels),
            torch.from_numpy(part.index),
            self.scale,
            self.size,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Content(ABC):
    """All images of a data set, of which `splits.cut` chooses the sets of a run.

    Attributes:
        where: how messages call the place that the images came from.
        train: training images.
        test: test images; None: they are cut out of `train`, as many as the catalogue says, else a
            fifth.
        validation: validation images; None: they are cut out of `train`.
        class_names: in the order of the labels; () where the catalogue says them.
        files: the folder or archive of its files; "" where a package brings them.
        turns: whether test images take turns by class, for files that are sorted by class.
    """

    turns: ClassVar[bool] = False
    where: str
    train: Part
    test: Part | None
    validation: Part | None = None
    class_names: tuple[str, ...] = ()
    files: str = ""

    @abstractmethod
    def load(self, parts: Parts) -> Loaded:
        """Load the pixels of the sets that were cut."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ArrayContent(Content):
    """Images whose pixels are there already, in memory or in a file.

    Attributes:
        file: the pixels, where they do not fit in memory: each `Part` then has their places in it.
        scale: largest value that a pixel can have.
        size: (H, W) that a model sees, as in `ImageSet`.
        remark: what must stand beside the numbers; "" for nothing.
    """

    file: PixelFile | None = None
    scale: float = 255.0
    size: tuple[int, int] | None = None
    remark: str = ""

    def load(self, parts: Parts) -> Loaded:
        """Hand the pixels over as they are."""
        if self.file is not None:
            streamed = {n: StreamedImages(self.file, part.images) for n, part in parts.items()}
            return gather_pixels(streamed, scale=self.scale, size=self.size, remark=self.remark)
        whole = [part.images for part in (self.train, self.test, self.validation) if part]
        pixels = {
            # What was chosen is new. Else a copy: torch must not share an array that is read-only,
            # as of a file's bytes, or that is somebody's own.
            name: part.images.copy() if any(part.images is each for each in whole) else part.images
            for name, part in parts.items()
        }
        return gather_pixels(pixels, scale=self.scale, size=self.size, remark=self.remark)


def gather_pixels(
    pixels: Mapping[str, NDArray[np.uint8] | StreamedImages],
    *,
    scale: float = 255.0,
    size: tuple[int, int] | None = None,
    remark: str = "",
) -> Loaded:
    """Return what the rest asks for of pixels, wherever they come from and lie.

    Args:
        pixels: of each set, (N, C, H, W), in memory or in a file.
        scale: largest value that a pixel can have.
        size: (H, W) that a model sees, as in `ImageSet`.
        remark: what must stand beside the numbers; "" for nothing.
    """
    train = pixels["train"]
    pieces = [train] if isinstance(train, np.ndarray) else train
    return Loaded(
        images={
            name: torch.from_numpy(each) if isinstance(each, np.ndarray) else each
            for name, each in pixels.items()
        },
        counts=sum((value_counts(each) for each in pieces), np.zeros((train.shape[-3], 256), int)),
        settings=f"scale {scale}" + (f" size {size}" if size else ""),
        contents={
            name: (f"images {(len(each), *each.shape[-3:])}", each) for name, each in pixels.items()
        },
        scale=scale,
        size=size,
        summary=remark,
    )
