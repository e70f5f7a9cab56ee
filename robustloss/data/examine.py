"""What a person wants to know of a data set before a training: what is odd, and how it looks."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from robustloss.data.files import join_names
from robustloss.data.images import Dataset, ImageSet
from robustloss.notation import printable
from robustloss.storage import write_bytes

COLUMNS = 10  # images of each class on the sheet
ROWS = 40  # classes on the sheet
_SIDE = 48  # pixels that an image has at least on the sheet
_MOST = 160  # and at most
_NAMES = 110  # pixels for the name of a class
_SETS = ("train", "validation", "test")


def find_oddities(data: Dataset) -> Iterator[str]:
    """Yield what nobody would expect of a data set, each in one line.

    Args:
        data: its images are all looked at.
    """
    first: dict[bytes, tuple[str, int]] = {}
    seen: dict[str, int] = {}
    for name in _SETS:
        images: ImageSet = getattr(data, name)
        empty = 0
        for piece in images.passes():
            pixels = images.images[piece].numpy()
            labels = images.labels[piece].tolist()
            flat = pixels.reshape(len(pixels), -1)
            empty += int((flat == flat[:, :1]).all(1).sum())
            for image, label in zip(flat, labels, strict=True):
                digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
                set_name, other = first.setdefault(digest, (name, label))
                if set_name != name:
                    text = f"in {name} equal to an image of {set_name}, pixel for pixel"
                    seen[text] = seen.get(text, 0) + 1
                if other != label:
                    text = f"in {name} equal to an image of another class"
                    seen[text] = seen.get(text, 0) + 1
        if empty:
            seen[f"in {name} with one value in all pixels"] = empty
        absent = set(range(data.num_classes)) - set(images.labels.tolist())
        if absent:
            yield f"{name} has no image of {join_names([data.class_names[i] for i in absent])}"
    for text, count in seen.items():
        yield f"{count:,} {'image' if count == 1 else 'images'} {text}"
    counts = data.class_counts
    if max(counts) >= 10 * min(counts):
        yield (
            f"the largest class has {max(counts):,} training images and the smallest {min(counts)}:"
            " read the balanced error too"
        )
    if (order := find_text_order(data.class_names)) is not None:
        yield order


def find_text_order(names: tuple[str, ...]) -> str | None:
    """Say where names that count are sorted as text, so that 10 comes before 2; else None.

    Args:
        names: of the classes, in the order of their labels.
    """
    found = [re.fullmatch(r"(\D*)(\d+)(\D*)", name) for name in names]
    numbers = [int(each[2]) for each in found if each is not None]
    if len(numbers) < len(names) or len({(e[1], e[3]) for e in found if e is not None}) > 1:
        return None
    late = [i for i, (number, after) in enumerate(pairwise(numbers)) if number > after]
    if not late:
        return None
    place = late[0]
    return (
        f"classes are in the order of their names as text: {names[place]} comes before "
        f"{names[place + 1]}, so label {place} is {names[place]}. Fill up the numbers with zeros "
        "where labels from elsewhere must agree"
    )


def draw_sheet(data: Dataset, path: Path) -> None:
    """Write a PNG with some training images of each class, a class a row.

    Args:
        data: whose images.
        path: the file.

    Raises:
        OSError: it cannot be written.
    """
    channels, height, width = data.image_shape
    times = max(1, -(-_SIDE // max(height, width)))
    shrink = max(1, -(-max(height, width) // _MOST))
    tall, wide = height * times // shrink, width * times // shrink
    classes = min(data.num_classes, ROWS)
    sheet = Image.new("RGB", (_NAMES + COLUMNS * (wide + 2), classes * (tall + 2)), "white")
    pen = ImageDraw.Draw(sheet)
    for label in range(classes):
        top = label * (tall + 2)
        pen.text((4, top + tall // 2 - 5), _plain(data.class_names[label]), fill="black")
        positions = torch.nonzero(data.train.labels == label).flatten()[:COLUMNS]
        pixels = (data.train.batch(positions) * 255).round().to(torch.uint8).numpy()
        for column, image in enumerate(pixels):
            place = (_NAMES + column * (wide + 2), top)
            sheet.paste(_picture(image, channels).resize((wide, tall), _resampling(shrink)), place)
    content = io.BytesIO()
    sheet.save(content, "PNG")
    write_bytes(path, content.getvalue())


def _picture(image: NDArray[np.uint8], channels: int) -> Image.Image:
    return Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0)).convert("RGB")


def _resampling(shrink: int) -> Image.Resampling:
    # Small images are shown with their pixels, large ones smoothly.
    return Image.Resampling.NEAREST if shrink == 1 else Image.Resampling.BILINEAR


def _plain(name: str) -> str:
    """Return what Pillow's own font can write of a name."""
    text = printable(name).encode("latin-1", "replace").decode("latin-1")
    return text if len(text) <= 17 else f"{text[:16]}..."
