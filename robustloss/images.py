"""Images of one data set as uint8 tensors, with what is known about them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images as stored, with labels and their position in the original file.

    Attributes:
        images: (N, C, H, W) uint8; `images / scale` lies in [0, 1].
        labels: (N,) int64.
        index: (N,) int64, ascending; position in the file that the images came from.
        scale: largest value that a pixel can have.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    scale: float

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

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on a device."""
        return replace(
            self,
            images=self.images.to(device),
            labels=self.labels.to(device),
            index=self.index.to(device),
        )

    def batch(self, selection: Tensor | slice) -> Tensor:
        """Images at the given positions as float32 (B, C, H, W) in [0, 1]; a new tensor."""
        return self.images[selection].to(torch.float32).div_(self.scale)

    def take(self, positions: Tensor | slice) -> ImageSet:
        """The subset at the given positions of this set."""
        return replace(
            self,
            images=self.images[positions],
            labels=self.labels[positions],
            index=self.index[positions],
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training, validation and test set of one data set.

    Attributes:
        mean: (C,) of the training pixels in [0, 1].
        std: (C,) of the training pixels, dividing by n.
        checksum: 16 hex digits of SHA-256 over images, labels, index and scale of the three sets.
        training_checksum: The same of what a training sees, training and validation set: other
            test images need no other weights.
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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width
