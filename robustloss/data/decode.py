"""Image files become pixels of one shape, many files at a time."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

VERSION = 1  # raise when the same file would give other pixels

CHUNK = 32  # files a thread decodes at a time: Pillow works outside the interpreter's lock
_GREY = ("1", "L", "LA", "La")
_KNOWN = (*_GREY, "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")


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


@cache
def pool() -> ThreadPoolExecutor:
    """Return the threads that decode, one a core; shared, because they hold no state."""
    # The cores that this process may use, which a container or taskset may have limited.
    limited = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if limited else os.cpu_count() or 1
    return ThreadPoolExecutor(cores, thread_name_prefix="decode")


def read_header(path: Path) -> tuple[int, int, int]:
    """Return width, height and channels (1 or 3) as the head of a file says.

    Raises:
        UnreadableImage: no image, or one of more than 8 bits a channel.
    """
    try:
        with Image.open(path) as image:
            return *image.size, _channels(image)
    except UnreadableImage:
        raise
    except Exception as error:  # whatever a damaged file makes Pillow do
        raise UnreadableImage(_reason(error)) from None


def decode(content: bytes, recipe: Recipe) -> tuple[NDArray[np.uint8], int]:
    """Decode, convert, resize and cut one image.

    The shorter side is resized with Pillow's bilinear filter (which averages as it shrinks) and the
    center of the size asked for is cut out, as torchvision's Resize and CenterCrop do.

    Args:
        content: the bytes of a file.
        recipe: what is done to the image.

    Returns:
        Pixels (C, H, W), and the channels that the file has, 1 or 3.

    Raises:
        UnreadableImage: no image, a damaged one, or one of more than 8 bits a channel.
        OtherSize: not of the recipe's size where nothing is resized.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            channels = _channels(opened)
            image: Image.Image = opened
            if image.mode == "P" and "transparency" in image.info:
                image = image.convert("RGBA")  # what Pillow asks for; transparency is dropped
            if image.mode != (mode := "L" if recipe.channels == 1 else "RGB"):
                image = image.convert(mode)  # not always: it copies where there is nothing to do
            width, height = image.size
            if recipe.resize is None and (height, width) != recipe.size:
                raise OtherSize(f"{width}x{height}")
            if recipe.resize is not None:
                short = min(width, height)
                if short != recipe.resize:
                    size = int(recipe.resize * width / short), int(recipe.resize * height / short)
                    image = image.resize(size, Image.Resampling.BILINEAR)
                (height, width), (wide, high) = recipe.size, image.size
                top, left = round((high - height) / 2), round((wide - width) / 2)
                image = image.crop((left, top, left + width, top + height))
            pixels = np.asarray(image)
    except (UnreadableImage, OtherSize):
        raise
    except Exception as error:
        raise UnreadableImage(_reason(error)) from None
    return pixels.reshape(*recipe.size, recipe.channels).transpose(2, 0, 1), channels


def _reason(error: Exception) -> str:
    """Say what Pillow has against a file, in one line without the name of the file."""
    text = " ".join(str(error).split())
    return "no image" if "cannot identify image" in text else text or type(error).__name__


def _channels(image: Image.Image) -> int:
    if image.mode not in _KNOWN:
        raise UnreadableImage(f"has more than 8 bits a channel (mode {image.mode})")
    return 1 if image.mode in _GREY else 3


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
