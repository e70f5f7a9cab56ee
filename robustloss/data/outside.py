"""Images that are not of the data: what a detector says of them stands beside the attacks.

The paper calls them "abnormal inputs". Each set comes out in the shape that the networks of a run
take.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robustloss.data.decode import Recipe, decode_files
from robustloss.data.files import DataError, data_root, join_names
from robustloss.data.folders.listing import find_folder, list_files
from robustloss.data.images import Dataset, ImageSet
from robustloss.data.load import load_dataset
from robustloss.data.reader import Place
from robustloss.seeding import new_generator
from robustloss.spec.data import FIXED_SETS, DataSpec, OutsideSpec, summary_of
from robustloss.spec.spec import Spec

VERSION = 1  # raise when the same table would give other images
SHARED = 0.05  # of the images; more that are test images are no chance
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow makes grey of colour


@dataclass(frozen=True, eq=False)
class OutsideSet:
    """One set of other images.

    Attributes:
        label: how tables call it; its slug names files.
        slug: the label as a file name.
        name: which images these are, in words.
        images: the images; their labels are 0 and mean nothing.
        checksum: 16 hex digits of SHA-256 over pixels and index.
    """

    label: str
    slug: str
    name: str
    images: ImageSet
    checksum: str


def load_outside(spec: Spec, dataset: Dataset, root: Path | None) -> tuple[OutsideSet, ...]:
    """Load the sets that the tables [[outside]] of a spec name.

    A data set gives its test images, thinned out evenly in the order of the file (without looking
    at their classes) where it has more than were asked for. `fit_shape` says what images of another
    size or other channels become. What was loaded is kept while the process lives.

    Args:
        spec: whose tables.
        dataset: what the networks are trained on.
        root: folder that holds MNIST/raw and so on, as in `load_dataset`.

    Raises:
        DataError: images are absent, damaged, or those of the data set itself.
    """
    sets = []
    for number, table in enumerate(spec.outside):
        try:
            if table.name == "held_out_classes":
                if dataset.held_out is None:
                    raise DataError(
                        "held_out_classes needs classes that are held out: say with data.classes "
                        "which ones the networks learn, as classes = [0, 1, 2, 3, 4]."
                    )
                images = _drop_labels(dataset.held_out)
                name = "test images of the classes that no network has seen"
            else:
                _check_apart(table, spec.data, spec.folder, root)
                _check_copies(table, dataset, spec.folder, root)
                images, name = _load_table(
                    table, dataset.image_shape, dataset.test.scale, spec.folder, root
                )
            images = _thin_out(images, table.images)
            _check_pixels(images, dataset.test)
        except DataError as error:
            raise DataError(
                f"outside[{number}] ({table.label}): {error} Or take this table out of the spec: "
                "the rest of the run does not need it."
            ) from None
        sets.append(OutsideSet(table.label, table.slug, name, images, _checksum(images)))
    return tuple(sets)


def _check_pixels(images: ImageSet, test: ImageSet) -> None:
    """Refuse images of which more than a few are test images, pixel by pixel.

    A few may be the same by chance, such as blank ones. Images that stay in their files are
    compared by the files, see `_check_copies`.
    """
    if not isinstance(images.images, Tensor) or not isinstance(test.images, Tensor):
        return
    if images.shape != test.shape or images.scale != test.scale:
        return
    own = {each.tobytes() for each in test.images.cpu().numpy()}
    shared = sum(each.tobytes() in own for each in images.images.numpy())
    if shared > SHARED * images.n:
        raise DataError(
            f"{shared} of these {images.n} images are test images themselves. Name other "
            "images, or keep classes out of [data] with its key classes."
        )


def _check_apart(table: OutsideSpec, own: DataSpec, near: Path, root: Path | None) -> None:
    """Refuse a folder that shares files with the folders of the data, whatever they are called."""
    if table.name != "image_folder" or table.folder is None or own.folder is None:
        return
    theirs, ours = (_find(folder, near, root).resolve() for folder in (table.folder, own.folder))
    for part in ("train", "validation", "val", "test"):
        known = (ours / part).resolve()
        if known.is_dir() and (known.is_relative_to(theirs) or theirs.is_relative_to(known)):
            raise DataError(
                f"folder (={table.folder!r}) shares images with {part} of data.folder "
                f"(={own.folder!r}). Name a folder of other images."
            )


def _check_copies(table: OutsideSpec, dataset: Dataset, near: Path, root: Path | None) -> None:
    """Refuse a folder with copies of the files of the data, whatever they are called."""
    if table.name != "image_folder" or not dataset.digests:
        return
    files = _hash_files(table, near, root)
    if shared := sorted(files[each] for each in files.keys() & dataset.digests):
        raise DataError(
            f"folder (={table.folder!r}) holds {len(shared)} images of the data: "
            f"{join_names(shared)}. Name a folder of other images."
        )


def _find(folder: str, near: Path, root: Path | None) -> Path:
    places = Place(data_root(root), near).folders
    return find_folder(folder, places, key="folder", what="of images", quiet=True)


@lru_cache(maxsize=16)  # every cell of a run asks for the same sets
def _load_table(
    table: OutsideSpec,
    shape: tuple[int, int, int],
    scale: float,
    near: Path,
    root: Path | None,
) -> tuple[ImageSet, str]:
    """Load the images that one table names, and say in words which they are.

    Args:
        table: any but held_out_classes.
        shape: (C, H, W) that the images get.
        scale: of noise, the largest value that a pixel can have.
        near: the folder of the spec.
        root: the data folder.
    """
    if table.name == "uniform_noise":
        stream = new_generator("outside", "uniform")
        pixels = torch.randint(int(scale) + 1, (table.images, *shape), generator=stream)
        images = ImageSet(pixels.to(torch.uint8), *_no_labels(table.images), scale)
        return images, "every pixel drawn uniformly from all grey levels"
    if table.name == "image_folder" and table.folder is not None:
        paths = _list_paths(table, near, root)
        size = shape[1:] if table.image_size is None else (table.image_size, table.image_size)
        recipe = Recipe(shape[0], size, resize=table.resize or max(size))
        array = np.empty((len(paths), *recipe.shape), np.uint8)
        try:
            decode_files(paths, recipe, array)
        except ValueError as error:
            raise DataError(str(error)) from None
        images = ImageSet(torch.from_numpy(array), *_no_labels(len(paths)), 255.0)
        return fit_shape(images, shape), f"images of the folder {Path(table.folder).name}"
    try:
        test = load_dataset(table.as_data(), near=near, root=root, quiet=True).test
    except DataError as error:  # it calls the keys by the table [data]
        raise DataError(re.sub(r"\bdata\.(?=[a-z_]+\b)", "", str(error))) from None
    images = fit_shape(_thin_out(test, table.images), shape)
    known = table.name in FIXED_SETS
    return images, f"test images of {summary_of(table.name) if known else table.as_data().label}"


def _list_paths(table: OutsideSpec, near: Path, root: Path | None) -> list[Path]:
    """Return the files that a table with a folder names, as many as it asks for."""
    assert table.folder is not None
    path = _find(table.folder, near, root)
    names = list_files(path).images
    if not names:
        raise DataError(f"{path} holds no image file. Name a folder of images, at any depth.")
    return [path / names[i] for i in spread(len(names), table.images)]


@lru_cache(maxsize=16)
def _hash_files(table: OutsideSpec, near: Path, root: Path | None) -> dict[bytes, Path]:
    """Return the files that a table with a folder names by their SHA-256."""
    try:
        return {
            hashlib.sha256(path.read_bytes()).digest(): path
            for path in _list_paths(table, near, root)
        }
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}).") from None


def _no_labels(n: int) -> tuple[Tensor, Tensor]:
    """Return labels, all 0 because they mean nothing, and indices."""
    return torch.zeros(n, dtype=torch.int64), torch.arange(n)


def _drop_labels(images: ImageSet) -> ImageSet:
    return replace(images, labels=torch.zeros_like(images.labels))


def spread(n: int, most: int) -> list[int]:
    """Return at most so many of n positions, evenly over all."""
    return list(range(n)) if n <= most else [i * n // most for i in range(most)]


def _thin_out(images: ImageSet, most: int) -> ImageSet:
    return images.take(torch.tensor(spread(images.n, most)))


def fit_shape(images: ImageSet, shape: tuple[int, int, int]) -> ImageSet:
    """Bring images into the shape of other data, with 8 bits a channel where they change.

    Where the sides have other proportions, the largest piece in the center that has the wanted ones
    is kept. Then a bilinear filter that averages as it shrinks gives the size. Grey images become
    three equal channels, and colour ones grey by ITU-R BT.601.

    Args:
        images: of any shape.
        shape: (C, H, W) that they get.
    """
    if images.shape == shape:
        return _drop_labels(images)
    pixels = images.batch(slice(None))
    (high, wide), (height, width) = pixels.shape[2:], shape[1:]
    scale = min(high / height, wide / width)
    kept = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (high - kept[0]) // 2, (wide - kept[1]) // 2
    pixels = pixels[:, :, top : top + kept[0], left : left + kept[1]]
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
    for piece in images.passes():
        digest.update(images.batch(piece).numpy().tobytes())
    digest.update(images.index.numpy().astype("<i8").tobytes())
    return digest.hexdigest()[:16]
