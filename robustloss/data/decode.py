"""Image files become pixels of one shape, many files at a time."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from robustloss.data.files import is_lfs_pointer

VERSION = 1  # raise when the same file would give other pixels

# What the guide names, and nothing else: for other files Pillow may start other programs.
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")
# Pixels of a whole resized image. A larger one, of which little is kept, is cut before, so that an
# image of 30,000 x 1 pixels does not take gigabytes; the pixels at the border then differ.
MOST_PIXELS = 100_000_000
CHUNK = 32  # files a thread decodes at a time: Pillow works outside the interpreter's lock
GREY_MODES = ("1", "L", "LA", "La")
KNOWN_MODES = (*GREY_MODES, "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")
_ORIENTATION = 0x0112  # the tag of EXIF; 1 is upright
_BITS_PER_SAMPLE = 258  # the tag of TIFF


class UnreadableImage(ValueError):  # noqa: N818  (names the file's state)
    """A file is no image that can be decoded; the text says why, without the file's name."""


class OtherSize(ValueError):  # noqa: N818
    """An image is not of the one size that is expected where nothing is resized."""


@dataclass(frozen=True)
class Recipe:
    """What is done to each image.

    Attributes:
        channels: 1 (grey) or 3 (colour).
        size: (H, W) of the pixels that are kept.
        resize: length in pixels that the shorter side gets before the center is cut out; None
            where the images have that size as they are.
    """

    channels: int
    size: tuple[int, int]
    resize: int | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, *self.size


class Head(NamedTuple):
    """What an image file says of itself.

    Attributes:
        width: in pixels.
        height: in pixels.
        channels: 1 or 3; None for a palette of greys, which is as good as either.
        turned: a camera says in it that the image must be turned to be upright. It is not.
    """

    width: int
    height: int
    channels: int | None
    turned: bool


@cache
def pool() -> ThreadPoolExecutor:
    """Return the threads that decode, one a core; shared, because they hold no state."""
    # The cores that this process may use, which a container or taskset may have limited.
    limited = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if limited else os.cpu_count() or 1
    return ThreadPoolExecutor(cores, thread_name_prefix="decode")


def read_header(path: Path) -> Head:
    """Return what the head of a file says.

    Raises:
        UnreadableImage: no image of FORMATS, or one of more than 8 bits a channel.
    """
    try:
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            return _head(image)
    except UnreadableImage:
        raise
    except Exception as error:  # whatever a damaged file makes Pillow do
        raise UnreadableImage(_reason(error)) from None


def read_head(content: bytes) -> Head:
    """Return what the head of a file in memory says; see `read_header`."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return _head(image)
    except UnreadableImage:
        raise
    except Exception as error:  # whatever a damaged file makes Pillow do
        raise UnreadableImage(_reason(error)) from None


def decode(content: bytes, recipe: Recipe) -> tuple[NDArray[np.uint8], Head]:
    """Decode, convert, resize and cut one image.

    The shorter side is resized with Pillow's bilinear filter (which averages as it shrinks) and the
    center of the size asked for is cut out, as torchvision's Resize and CenterCrop do.

    Args:
        content: the bytes of a file.
        recipe: what is done to the image.

    Returns:
        Pixels (C, H, W), and what the file says of itself.

    Raises:
        UnreadableImage: no image of FORMATS, a damaged one, or one of more than 8 bits a channel.
        OtherSize: not of the recipe's size where nothing is resized.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            head = _head(opened)
            pixels = fit(opened, recipe)
    except (UnreadableImage, OtherSize):
        raise
    except Exception as error:
        if is_lfs_pointer(content):
            raise UnreadableImage("a pointer of Git LFS: fetch it by git lfs pull") from None
        raise UnreadableImage(_reason(error)) from None
    return pixels, head


def fit(image: Image.Image, recipe: Recipe) -> NDArray[np.uint8]:
    """Convert, resize and cut one image of Pillow.

    Args:
        image: of 8 bits a channel at most.
        recipe: what is done to it.

    Returns:
        Pixels (C, H, W).

    Raises:
        OtherSize: not of the recipe's size where nothing is resized.
    """
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # what Pillow asks for; transparency is dropped
    if image.mode != (mode := "L" if recipe.channels == 1 else "RGB"):
        image = image.convert(mode)  # not always: it copies where there is nothing to do
    width, height = image.size
    if recipe.resize is None and (height, width) != recipe.size:
        raise OtherSize(f"{width}x{height}")
    if recipe.resize is not None:
        short = min(width, height)
        if width * height * (recipe.resize / short) ** 2 > MOST_PIXELS:
            left, top = (width - short) // 2, (height - short) // 2
            image = image.crop((left, top, left + short, top + short))
            width = height = short
        if short != recipe.resize:
            size = int(recipe.resize * width / short), int(recipe.resize * height / short)
            image = image.resize(size, Image.Resampling.BILINEAR)
        (height, width), (wide, high) = recipe.size, image.size
        top, left = round((high - height) / 2), round((wide - width) / 2)
        image = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(image)
    return pixels.reshape(*recipe.size, recipe.channels).transpose(2, 0, 1)


def _reason(error: Exception) -> str:
    """Say what Pillow has against a file, in one line without the name of the file."""
    text = " ".join(str(error).split())
    return "no image" if "cannot identify image" in text else text or type(error).__name__


def _head(image: ImageFile) -> Head:
    """Read the head of an image whose pixels are not read yet: then its raw mode is gone."""
    if image.mode not in KNOWN_MODES:
        raise UnreadableImage(f"has more than 8 bits a channel (mode {image.mode})")
    if _has_16_bits(image):
        raise UnreadableImage(f"has more than 8 bits a channel (16, mode {image.mode})")
    channels: int | None = 1 if image.mode in GREY_MODES else 3
    if image.mode == "P" and _has_grey_palette(image):
        channels = None
    return Head(*image.size, channels, _is_turned(image))


def _has_16_bits(image: ImageFile) -> bool:
    """Tell whether Pillow would make 8 bits of 16 without a word, as it does with colour."""
    if max(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))) > 8:  # TIFF
        return True
    for tile in image.tile:
        raw = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        largest = raw[-1] if image.format == "PPM" and isinstance(raw[-1], int) else 255
        if largest > 255 or ";16" in str(raw[0]):
            return True
    return False


def _has_grey_palette(image: ImageFile) -> bool:
    assert image.palette is not None
    layout = image.palette.rawmode or "RGB"
    values = np.frombuffer(bytes(image.palette.palette), np.uint8)
    if layout == "RGB;L":  # TIFF: all reds, all greens, all blues
        colours = values[: len(values) // 3 * 3].reshape(3, -1).T
    elif layout in ("RGB", "BGR", "BGRX"):
        n = len(layout)
        colours = values[: len(values) // n * n].reshape(-1, n)[:, :3]
    else:
        return False
    return bool(len(colours)) and bool((colours == colours[:, :1]).all())


def _is_turned(image: ImageFile) -> bool:
    # Pillow itself turns TIFF. Of PNG, EXIF behind the pixels is not looked for.
    if image.format == "TIFF" or "exif" not in image.info:
        return False
    try:
        return image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    except Exception:  # damaged EXIF says nothing, and the image is whole
        return False


def decode_files(paths: Sequence[Path], recipe: Recipe, into: NDArray[np.uint8]) -> None:
    """Decode files in this thread.

    Args:
        paths: (N,).
        recipe: what is done to each image.
        into: (N, C, H, W), gets the pixels.

    Raises:
        ValueError: a file cannot be read or decoded; the text names it.
    """
    for number, path in enumerate(paths):
        try:
            into[number] = decode(path.read_bytes(), recipe)[0]
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror}).") from None
        except (UnreadableImage, OtherSize) as error:
            raise ValueError(
                f"{path}: cannot be decoded ({error}). Replace or remove it."
            ) from None
