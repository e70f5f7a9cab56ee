"""Images that are not of the data: what a detector says of them stands beside the attacks.

The paper's "abnormal inputs". Each set comes out in the shape that the networks of a run take.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robustloss.data import catalogue, files, load
from robustloss.data.decode import Recipe, decode_files
from robustloss.data.files import DataError
from robustloss.data.folders.listing import find_folder, image_files, is_archive, unpacked
from robustloss.data.images import Dataset, ImageSet
from robustloss.seeding import new_generator
from robustloss.spec.data import DataSpec
from robustloss.spec.detection import OutsideSpec
from robustloss.spec.spec import Spec

VERSION = 1  # raise when the same table would give other images
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow makes grey of colour


@dataclass(frozen=True, eq=False)
class OutsideSet:
    """One set of other images.

    Attributes:
        label: how tables call it; its slug names files.
        slug: the label as a file name.
        name: which images these are, in words.
        images: they; their labels are 0 and mean nothing.
        checksum: 16 hex digits of SHA-256 over pixels and index.
    """

    label: str
    slug: str
    name: str
    images: ImageSet
    checksum: str


def load_outside(spec: Spec, dataset: Dataset, root: Path | None) -> tuple[OutsideSet, ...]:
    """Load the sets that the tables [[outside]] of a spec name; kept while the process lives.

    A data set gives its test images, thinned out evenly in the order of the file (without looking
    at their classes) where it has more than were asked for. Images of another size are resized with
    a bilinear filter that averages as it shrinks; grey ones become three equal channels, and colour
    ones grey by ITU-R BT.601.

    Args:
        spec: whose tables.
        dataset: what the networks are trained on.
        root: folder that holds MNIST/raw and so on, as in `load_dataset`.

    Raises:
        DataError: images are absent, damaged, or those of the data set itself.
    """
    found = []
    for number, table in enumerate(spec.outside):
        try:
            if table.name == "held_out_classes":
                images, name = _held_out(dataset)
            else:
                _check_apart(table, spec.data, spec.folder, root)
                known = (table.name, table.folder, table.images, dataset.image_shape)
                images, name = _loaded(*known, dataset.test.scale, spec.folder, root)
        except DataError as error:
            raise DataError(
                f"outside[{number}] ({table.label}): {error} Or take this table out of the spec: "
                "the rest of the run does not need it."
            ) from None
        images = _thinned(images, table.images)
        checksum = _checksum(images)
        found.append(OutsideSet(table.label, table.slug, _words(table, name), images, checksum))
        if checksum == _checksum(_thinned(dataset.test, table.images)):
            raise DataError(
                f"outside[{number}] ({table.label}): these are the test images themselves. Name "
                "other images, or keep classes out of [data] with its key classes."
            )
    return tuple(found)


def _check_apart(table: OutsideSpec, own: DataSpec, near: Path, root: Path | None) -> None:
    """Refuses a folder that shares files with the folders of the data, whatever they are called."""
    if table.folder is None or own.folder is None:
        return
    theirs, ours = (_place(folder, near, root).resolve() for folder in (table.folder, own.folder))
    for part in ("train", "validation", "val", "test"):
        known = (ours / part).resolve()
        if known.is_dir() and (known.is_relative_to(theirs) or theirs.is_relative_to(known)):
            raise DataError(
                f"folder (={table.folder!r}) shares images with {part} of data.folder "
                f"(={own.folder!r}). Name a folder of other images."
            )


def _place(folder: str, near: Path, root: Path | None) -> Path:
    """The folder of that name, unpacked if it is an archive."""
    path = find_folder(folder, (near, files.data_root(root)), key="folder", what="of images")
    return unpacked(path, quiet=True) if is_archive(path) else path


def _words(table: OutsideSpec, name: str) -> str:
    return name if table.folder is None else f"images of the folder {Path(table.folder).name}"


def _held_out(dataset: Dataset) -> tuple[ImageSet, str]:
    if dataset.held_out is None:
        raise DataError(
            "held_out_classes needs classes that are held out: say with data.classes which ones "
            "the networks learn, as classes = [0, 1, 2, 3, 4]."
        )
    return _unlabelled(dataset.held_out), "test images of the classes that no network has seen"


@lru_cache(maxsize=16)
def _loaded(
    name: str,
    folder: str | None,
    wanted: int,
    shape: tuple[int, int, int],
    scale: float,
    near: Path,
    root: Path | None,
) -> tuple[ImageSet, str]:
    if name == "uniform_noise":
        return _noise(wanted, shape, scale), "every pixel drawn uniformly from all grey levels"
    if folder is not None:
        return _of_folder(folder, wanted, shape, near, root), ""
    source = catalogue.DATASETS[name]
    test = load.load_dataset(name, root=root, quiet=True).test
    return _fitted(_thinned(test, wanted), shape), f"test images of {source.summary}"


def _noise(wanted: int, shape: tuple[int, int, int], scale: float) -> ImageSet:
    levels = int(scale) + 1
    drawn = torch.randint(levels, (wanted, *shape), generator=new_generator("outside", "uniform"))
    return ImageSet(drawn.to(torch.uint8), *_positions(wanted), scale)


def _of_folder(
    folder: str, wanted: int, shape: tuple[int, int, int], near: Path, root: Path | None
) -> ImageSet:
    path = _place(folder, near, root)
    names = image_files(path)
    if not names:
        raise DataError(f"{path} holds no image file. Name a folder of images, at any depth.")
    names = [names[i] for i in _spread(len(names), wanted)]
    channels, height, width = shape
    pixels = np.empty((len(names), *shape), np.uint8)
    recipe = Recipe(channels, (height, width), resize=max(height, width))
    try:
        decode_files([path / name for name in names], recipe, pixels)
    except ValueError as error:
        raise DataError(str(error)) from None
    return ImageSet(torch.from_numpy(pixels), *_positions(len(names)), 255.0)


def _positions(n: int) -> tuple[Tensor, Tensor]:
    """Labels, which mean nothing, and indices."""
    return torch.zeros(n, dtype=torch.int64), torch.arange(n)


def _spread(n: int, wanted: int) -> list[int]:
    """At most so many positions, evenly over all."""
    return list(range(n)) if n <= wanted else [i * n // wanted for i in range(wanted)]


def _thinned(images: ImageSet, wanted: int) -> ImageSet:
    return images.take(torch.tensor(_spread(images.n, wanted)))


def _unlabelled(images: ImageSet) -> ImageSet:
    return replace(images, labels=torch.zeros_like(images.labels))


def _fitted(images: ImageSet, shape: tuple[int, int, int]) -> ImageSet:
    """The images in another shape, 8 bits a channel; as they are where the shape is theirs."""
    if images.shape == shape:
        return _unlabelled(images)
    pixels = images.batch(slice(None))
    if pixels.shape[1] != shape[0]:
        if shape[0] == 1:
            weights = torch.tensor(_LUMA).view(1, 3, 1, 1)
            pixels = (pixels * weights).sum(1, keepdim=True)
        else:
            pixels = pixels.expand(-1, shape[0], -1, -1)
    if tuple(pixels.shape[2:]) != shape[1:]:
        pixels = F.interpolate(pixels, size=shape[1:], mode="bilinear", antialias=True)
    whole = (pixels.clamp(0, 1) * 255).round().to(torch.uint8)
    return ImageSet(whole, torch.zeros_like(images.labels), images.index, 255.0)


def _checksum(images: ImageSet) -> str:
    digest = hashlib.sha256(f"{VERSION} {images.scale} {images.shape}".encode())
    for start in range(0, images.n, images.pass_size):
        digest.update(images.batch(slice(start, start + images.pass_size)).numpy().tobytes())
    digest.update(images.index.numpy().astype("<i8").tobytes())
    return digest.hexdigest()[:16]
