"""Torch Datasets, and whatever else has a length and gives (image, label) by number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import MofNCompleteColumn

from robustloss.data.brought.pixels import Given, as_array, fits_in_memory
from robustloss.data.decode import GREY_MODES, KNOWN_MODES, OtherSize, Recipe, fit
from robustloss.data.files import DataError, showing_progress
from robustloss.data.streamed import make_array
from robustloss.notation import printable
from robustloss.spec.data import DataSpec

SAMPLE = 200  # pictures that decide on channels and size, as of an image folder
AGAIN = 3  # images that are asked for a second time


@dataclass(frozen=True, eq=False)
class Read:
    """What was read of some Datasets.

    Attributes:
        given: images and labels by the name of the set.
        size: (H, W) that a model sees, where pictures were resized; else None.
        remark: what was done to pictures; "" for nothing.
    """

    given: dict[str, Given]
    size: tuple[int, int] | None
    remark: str


def is_dataset(value: object) -> bool:
    """Tell whether images can be asked for by number."""
    return hasattr(value, "__getitem__") and hasattr(value, "__len__")


def read_datasets(datasets: Mapping[str, Any], data: DataSpec, *, where: str, quiet: bool) -> Read:
    """Read every image of some Datasets; pictures of Pillow are resized as `data` says.

    Args:
        datasets: by the name of the set, train first.
        data: whose keys image_size, resize and channels are heeded.
        where: how messages call the place.
        quiet: no progress bar.

    Raises:
        DataError: an item is no image with a label, or images differ in size.
    """
    recipe: Recipe | None = None
    given, converted = {}, 0
    for name, dataset in datasets.items():
        items = _Items(dataset, name, where)
        pictures = isinstance(items.get(0)[0], Image.Image)
        if pictures:
            recipe = recipe or _choose_recipe(items, data)
        else:
            refuse_picture_keys(data, where, name)
        given[name], others = items.read(recipe if pictures else None, quiet)
        converted += others
    remarks = [] if recipe is None else describe_pictures(recipe, converted)
    size = None if data.image_size is None else (data.image_size, data.image_size)
    return Read(given, size, "; ".join(remarks))


def describe_pictures(recipe: Recipe, converted: int) -> list[str]:
    """Say what was done to pictures.

    Args:
        recipe: that they went through.
        converted: how many got other channels.
    """
    remarks = []
    if recipe.resize is not None:
        remarks.append(f"the center of pictures whose shorter side became {recipe.resize}")
    if converted:
        remarks.append(f"{converted} images converted to {recipe.channels} channels")
    return remarks


def names_of(dataset: object) -> tuple[str, ...]:
    """Return the names of the classes where a Dataset has them, as those of torchvision do."""
    names = getattr(dataset, "classes", None)
    if not isinstance(names, list | tuple):
        return ()
    first = tuple(name[0] if isinstance(name, tuple) and name else name for name in names)
    return first if all(isinstance(name, str) for name in first) else ()


def refuse_picture_keys(data: DataSpec, where: str, name: str) -> None:
    """Refuse the keys of [data] that are for pictures, where a set holds arrays."""
    for key in ("image_size", "channels"):
        if (value := getattr(data, key)) is not None:
            raise DataError(
                f"data.{key} (={value}) is for pictures of Pillow, and {name} of {where} holds "
                "arrays. Take the key out, or give pictures."
            )


@dataclass(frozen=True, eq=False)
class _Items:
    """The items of one set."""

    dataset: Any
    name: str
    where: str

    def __post_init__(self) -> None:
        if len(self.dataset) == 0:
            raise DataError(f"{self.where}: {self.name} holds no images. Give one of each class.")

    def get(self, number: int) -> tuple[Any, Any]:
        """Return image and label of one item."""
        item = self.dataset[number]
        image = label = None
        if isinstance(item, Mapping):
            image = item.get("image", item.get("img"))
            label = item.get("label", item.get("labels"))
        elif isinstance(item, tuple | list) and len(item) == 2:
            image, label = item
        if not isinstance(image, Image.Image):
            image = as_array(image)
        if (values := as_array(label)) is not None:
            label = values.item() if values.size == 1 else values
        if image is None or label is None:
            raise DataError(
                f"{self.where}: {self.name}[{number}] is {_describe(item)}, but must be a pair "
                "(image, label), the image a tensor, an array or a picture of Pillow."
            )
        if np.ndim(label):
            raise DataError(
                f"{self.where}: the label of {self.name}[{number}] is {_describe(label)}, but must "
                "be one integer, the class. Sets for other tasks cannot be used."
            )
        return image, label

    def read(self, recipe: Recipe | None, quiet: bool) -> tuple[Given, int]:
        """Return all images and labels, and how many pictures had other channels.

        Args:
            recipe: what is done to pictures; None for arrays.
            quiet: no progress bar.
        """
        images: NDArray[Any] | None = None
        labels, converted, n = [], 0, len(self.dataset)
        with showing_progress(quiet, MofNCompleteColumn()) as bar:
            for number in bar.track(range(n), description=printable(f"Reading {self.name}")):
                image, label = self.get(number)
                pixels = self._pixels(image, recipe, number)
                if recipe is not None and _channels(image) != recipe.channels:
                    converted += 1
                if images is None:
                    fits = fits_in_memory(pixels.nbytes * n)
                    images = make_array((n, *pixels.shape), pixels.dtype, in_memory=fits)
                if pixels.shape != images.shape[1:] or pixels.dtype != images.dtype:
                    raise DataError(
                        f"{self.where}: {self.name}[0] is {images.dtype} {images.shape[1:]} and "
                        f"{self.name}[{number}] is {pixels.dtype} {pixels.shape}, but all images "
                        "must have one shape and type. Resize them alike."
                    )
                images[number] = pixels
                labels.append(label)
        assert images is not None
        for number in range(min(AGAIN, n)):
            again = self._pixels(self.get(number)[0], recipe, number)
            if not np.array_equal(again, images[number]):
                raise DataError(
                    f"{self.where}: {self.name}[{number}] gives other pixels when asked again. "
                    "Take random changes out of its transform: train.augment makes them, in "
                    "training only."
                )
        return Given(images, np.array(labels), self.name, f"the labels of {self.name}"), converted

    def _pixels(self, image: Any, recipe: Recipe | None, number: int) -> NDArray[Any]:
        """Return one image as an array, (C, H, W) where it is a picture."""
        if recipe is None and not isinstance(image, Image.Image):
            return image
        if recipe is None or not isinstance(image, Image.Image):
            raise DataError(
                f"{self.where}: {self.name} gives pictures of Pillow and arrays, as {self.name}[0] "
                f"and {self.name}[{number}]. Give one of the two."
            )
        _check_mode(image, f"{self.where}: {self.name}[{number}]")
        try:
            return fit(image, recipe)
        except OtherSize as size:
            height, width = recipe.size
            raise DataError(
                f"{self.where}: {self.name}[{number}] is {size} pixels and the first {width}x"
                f"{height}, but all must have one size. Give data.image_size, the side of the "
                "square that is cut out of each, as image_size = 64."
            ) from None


def _choose_recipe(items: _Items, data: DataSpec) -> Recipe:
    """Decide what is done to each picture; a sample decides what the spec leaves open."""
    n = len(items.dataset)
    channels, first = 1, items.get(0)[0]
    for number in np.unique(np.linspace(0, n - 1, SAMPLE).astype(int)).tolist():
        image = items.get(number)[0]
        if isinstance(image, Image.Image):  # else told when it is read
            channels = max(channels, _channels(image))
    channels = data.channels or channels
    if data.image_size is None:
        width, height = first.size
        return Recipe(channels, (height, width), None)
    resize = data.resize or data.image_size
    return Recipe(channels, (resize, resize), resize)


def _channels(image: Image.Image) -> int:
    return 1 if image.mode in GREY_MODES else 3


def _check_mode(image: Image.Image, where: str) -> None:
    if image.mode not in KNOWN_MODES:
        raise DataError(
            f"{where} has more than 8 bits a channel (mode {image.mode}). Convert it to 'L' or "
            "'RGB'."
        )


def _describe(value: object) -> str:
    """Say what a value is, in a few words."""
    shape = getattr(value, "shape", None)
    text = type(value).__name__
    if isinstance(value, tuple | list):
        text += f" of {len(value)} ({', '.join(type(each).__name__ for each in value[:3])})"
    return text if shape is None else f"{text} {tuple(shape)}"
