"""Test images that are changed but keep their label: noise, blur, rotation, published corruptions.

A classifier should keep its answer, and a detector of attacks should let it pass. Each generated
shift is drawn from a named random stream, stays in the box, and has 8 bits a channel.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robustloss.data.files import DataError, data_root
from robustloss.data.folders.listing import find_folder
from robustloss.data.images import Dataset, ImageSet
from robustloss.data.outside import spread
from robustloss.data.reader import Place
from robustloss.seeding import new_generator
from robustloss.spec.data import CORRUPTIONS, ShiftSpec
from robustloss.spec.spec import Spec
from robustloss.spec.text import slug

VERSION = 1  # raise when the same table would give other images
_LABELS = "labels.npy"  # of CIFAR-10-C
_OF_MNIST_C = ("test_images.npy", "test_labels.npy")


@dataclass(frozen=True, eq=False)
class ShiftedSet:
    """The images of one shift at one severity.

    Attributes:
        shift: How tables call it.
        slug: The shift as a file name.
        severity: From 1 to 5.
        images: The images, with their labels; the index is that of the test images, and negative
            where it is not known which of them they were.
        checksum: 16 hex digits of SHA-256 over pixels, labels and index.
    """

    shift: str
    slug: str
    severity: int
    images: ImageSet
    checksum: str


def load_shifts(spec: Spec, dataset: Dataset, root: Path | None) -> Iterator[ShiftedSet]:
    """Yield the sets that the tables [[shifts]] of a spec name, one after the other.

    Args:
        spec: Whose tables.
        dataset: What the networks are trained on; its test images are changed.
        root: Folder that holds the data sets, as in `load_dataset`.

    Raises:
        DataError: A folder of corruptions is absent, damaged, or of images of another shape.
    """
    for number, table in enumerate(spec.shifts):
        try:
            if table.name == CORRUPTIONS:
                yield from _read_corruptions(table, dataset, Place(data_root(root), spec.folder))
            else:
                for severity in table.severities:
                    images = _shift(dataset.test, table.name, severity, table.images)
                    yield _name_set(table.label, severity, images)
        except DataError as error:
            raise DataError(
                f"shifts[{number}] ({table.label}): {error} Or take this table out of the spec: "
                "the rest of the run does not need it."
            ) from None


def _name_set(shift: str, severity: int, images: ImageSet) -> ShiftedSet:
    digest = hashlib.sha256(f"{VERSION} {images.scale} {images.shape}".encode())
    assert isinstance(images.images, Tensor)
    for each in (images.images, images.labels, images.index):
        digest.update(each.numpy().tobytes())
    return ShiftedSet(shift, slug(shift), severity, images, digest.hexdigest()[:16])


# --- made from the test images -------------------------------------------------------------------

Shift = Callable[[Tensor, float, torch.Generator], Tensor]  # images in [0,1], strength, stream


def _add_noise(images: Tensor, deviation: float, stream: torch.Generator) -> Tensor:
    return images + deviation * torch.randn(images.shape, generator=stream)


def _blur(images: Tensor, deviation: float, stream: torch.Generator) -> Tensor:
    """Convolve with a Gaussian; its deviation is in pixels, of larger images in those of 32."""
    deviation = deviation * max(1.0, min(images.shape[2:]) / 32)
    radius = min(round(3 * deviation) + 1, min(images.shape[2:]) - 1)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / deviation) ** 2)
    weights = (weights / weights.sum()).expand(images.shape[1], 1, 1, -1)
    for across in (weights, weights.transpose(2, 3)):
        pads = (radius, radius, 0, 0) if across.shape[3] > 1 else (0, 0, radius, radius)
        images = F.conv2d(F.pad(images, pads, mode="reflect"), across, groups=images.shape[1])
    return images


def _lower_contrast(images: Tensor, factor: float, stream: torch.Generator) -> Tensor:
    means = images.mean((2, 3), keepdim=True)
    return means + factor * (images - means)


def _brighten(images: Tensor, amount: float, stream: torch.Generator) -> Tensor:
    return images + amount


def _rotate(images: Tensor, degrees: float, stream: torch.Generator) -> Tensor:
    """Rotate about the center, to either side; what comes in from outside is black."""
    angle = torch.deg2rad(degrees * _draw_signs(len(images), stream))
    zeros = torch.zeros_like(angle)
    return _warp(images, angle, zeros, zeros)


def _translate(images: Tensor, share: float, stream: torch.Generator) -> Tensor:
    """Move towards one of the corners, by a share of each side in whole pixels, at least one."""
    down, right = (
        max(1, round(share * side)) * _draw_signs(len(images), stream) for side in images.shape[2:]
    )
    return _warp(images, torch.zeros_like(down), right, down)


def _warp(images: Tensor, angle: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Rotate images by angles (B,) in radians and move them by pixels (B,), bilinearly."""
    height, width = images.shape[2:]
    cos, sin = angle.cos(), angle.sin()
    rows = [cos, -sin * height / width, -2 * right / width]
    rows += [sin * width / height, cos, -2 * down / height]
    places = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), False)
    return F.grid_sample(images, places, padding_mode="zeros", align_corners=False)


def _occlude(images: Tensor, share: float, stream: torch.Generator) -> Tensor:
    """Put a grey square somewhere; its side is a share of the image's shorter one."""
    height, width = images.shape[2:]
    side = max(1, round(share * min(height, width)))
    top, left = (
        torch.randint(size - side + 1, (len(images), 1), generator=stream)
        for size in (height, width)
    )
    rows = (torch.arange(height) >= top) & (torch.arange(height) < top + side)
    columns = (torch.arange(width) >= left) & (torch.arange(width) < left + side)
    return images.masked_fill((rows[:, None, :, None] & columns[:, None, None, :]), 0.5)


def _draw_signs(n: int, stream: torch.Generator) -> Tensor:
    return torch.randint(2, (n,), generator=stream).mul(2).sub(1).float()


_GENERATED: dict[str, tuple[Shift, tuple[float, float, float, float, float]]] = {
    "noise": (_add_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),  # as ImageNet-C
    "blur": (_blur, (0.4, 0.6, 0.8, 1.1, 1.5)),
    "contrast": (_lower_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),  # as CIFAR-10-C
    "brightness": (_brighten, (0.05, 0.1, 0.15, 0.2, 0.3)),  # as CIFAR-10-C, but on the pixels
    "rotation": (_rotate, (8.0, 16.0, 24.0, 32.0, 40.0)),
    "translation": (_translate, (0.04, 0.07, 0.11, 0.15, 0.18)),
    "occlusion": (_occlude, (0.15, 0.2, 0.25, 0.3, 0.4)),
}
"""By name: what makes the shift, and how strong it is at each severity.

Source of the form with five severities: Hendrycks and Dietterich, Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations, ICLR 2019.
"""


def _shift(test: ImageSet, name: str, severity: int, most: int) -> ImageSet:
    """Return test images, spread evenly, with one shift at one severity."""
    few = test.take(torch.tensor(spread(test.n, most)))
    make, strengths = _GENERATED[name]
    stream = new_generator("shift", name, severity)
    pixels = torch.empty((few.n, *few.shape), dtype=torch.uint8)
    for piece in few.passes():
        changed = make(few.batch(piece), strengths[severity - 1], stream)
        pixels[piece] = (changed.clamp(0, 1) * 255).round().to(torch.uint8)
    return replace(few, images=pixels, scale=255.0, size=None)


# --- published -----------------------------------------------------------------------------------


def _read_corruptions(table: ShiftSpec, dataset: Dataset, place: Place) -> Iterator[ShiftedSet]:
    """Yield the sets of a folder of corruptions, by name.

    CIFAR-10-C has CORRUPTION.npy of five severities one after the other, and labels.npy of as many
    rows; MNIST-C has CORRUPTION/test_images.npy and test_labels.npy.
    """
    assert table.folder is not None
    path = find_folder(
        table.folder, place.folders, key="folder", what="of corrupted images", quiet=True
    )
    if (path / _LABELS).is_file():
        files = {each.stem: (each, path / _LABELS) for each in sorted(path.glob("*.npy"))}
        del files["labels"]
        levels = 5
    else:
        folders = sorted(each for each in path.iterdir() if (each / _OF_MNIST_C[0]).is_file())
        images, labels = _OF_MNIST_C
        files = {each.name: (each / images, each / labels) for each in folders}
        levels = 1
    if not files:
        raise DataError(
            f"{path} holds no corruptions: neither NAME.npy beside labels.npy, as CIFAR-10-C, nor "
            "NAME/test_images.npy, as MNIST-C. Name the folder in which these lie."
        )
    for name, (pixels, classes) in files.items():
        arrays = _load(pixels), _load(classes)
        yield from _read_corruption(table, f"{table.label}, {name}", arrays, levels, dataset)


def _read_corruption(
    table: ShiftSpec,
    shift: str,
    arrays: tuple[np.ndarray, np.ndarray],
    levels: int,
    dataset: Dataset,
) -> Iterator[ShiftedSet]:
    """Yield the asked severities of one corruption.

    Args:
        table: That asks.
        shift: How tables call it.
        arrays: Images (N,H,W,C) or (N,H,W), labels (N,).
        levels: How many severities stand one after the other.
        dataset: Of the run.
    """
    pixels, classes = arrays
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    channels, height, width = dataset.image_shape
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (height, width, channels):
        raise DataError(
            f"{shift}: the images are {pixels.dtype} {pixels.shape[1:]}, but must be uint8 "
            f"{(height, width, channels)}, as those of the data are."
        )
    if classes.shape != pixels.shape[:1] or classes.dtype.kind not in "iu" or not len(classes):
        raise DataError(
            f"{shift}: the labels are {classes.dtype} {classes.shape}, but must be whole numbers, "
            f"one for each of {len(pixels)} images."
        )
    count = len(pixels) // levels
    for severity in table.severities:
        if severity > levels:
            continue
        chosen = (severity - 1) * count + np.array(spread(count, table.images))
        labels = torch.from_numpy(np.asarray(classes[chosen], np.int64))
        if int(labels.min()) < 0 or int(labels.max()) >= dataset.num_classes:
            raise DataError(f"{shift}: a label is outside [0, {dataset.num_classes - 1}].")
        index = torch.from_numpy(chosen - (severity - 1) * count)
        if not _are_test_images(index, labels, dataset.test):
            index = -1 - index
        whole = torch.from_numpy(np.ascontiguousarray(pixels[chosen].transpose(0, 3, 1, 2)))
        yield _name_set(shift, severity, ImageSet(whole, labels, index, 255.0))


def _are_test_images(index: Tensor, labels: Tensor, test: ImageSet) -> bool:
    """Return whether images at these places of the original file have these labels in the test."""
    known = dict(zip(test.index.tolist(), test.labels.tolist(), strict=True))
    pairs = zip(index.tolist(), labels.tolist(), strict=True)
    return all(known.get(place, label) == label for place, label in pairs)


def _load(path: Path) -> np.ndarray:
    """Map an array of a file; only what is used of it is read."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
