"""One pass over image files: are they whole, what size and channels, and what are their pixels?"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustloss.data import decode
from robustloss.data.decode import CHUNK, OtherSize, Recipe, UnreadableImage
from robustloss.data.files import DataError, join_names
from robustloss.data.images import value_counts
from robustloss.data.reader import Parts


@dataclass
class Survey:
    """What a pass over N files found.

    Attributes:
        full: every file was read.
        digests: (N, 32) uint8, SHA-256 of each file: of its bytes, or, if not full, of its name and
            size.
        counts: (C, 256), how often each pixel value occurs in the files that were counted.
        pixels: (N, C, H, W) uint8; None where they were not asked for.
        converted: paths of the files that have other channels than the recipe gives them.
        turned: paths of the files that say they must be turned to be upright.
        damaged: paths of the files that cannot be decoded, each with the reason.
        sizes: paths of the files of another size, each with the size, where nothing is resized.
    """

    full: bool
    digests: NDArray[np.uint8]
    counts: NDArray[np.int64]
    pixels: NDArray[np.uint8] | None
    converted: list[str] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)


def survey(
    folder: Path,
    paths: NDArray[np.object_],
    recipe: Recipe,
    *,
    keep: bool,
    full: bool,
    counted: NDArray[np.bool_],
    advance: Callable[[int], None] = lambda files: None,
) -> Survey:
    """Look at files, on all cores.

    Args:
        folder: what the paths are relative to.
        paths: (N,) text.
        recipe: what is done to each image.
        keep: return the pixels.
        full: read and decode every file, so that every damaged one is found; else only the head of
            a file is looked at unless its pixels are kept or counted.
        counted: (N,) the files whose pixel values are counted.
        advance: called with the number of files that were done since the last call.

    Returns:
        What was found, damaged files too: `check_surveys` refuses them.
    """
    n = len(paths)
    found = Survey(
        full,
        np.zeros((n, 32), np.uint8),
        np.zeros((recipe.channels, 256), np.int64),
        np.empty((n, *recipe.shape), np.uint8) if keep else None,
    )
    pieces = [slice(start, start + CHUNK) for start in range(0, n, CHUNK)]
    futures: list[Future[Survey]] = []
    for piece in pieces:
        into = None if found.pixels is None else found.pixels[piece]
        work = (folder, paths[piece], recipe, into, full, counted[piece])
        futures.append(decode.pool().submit(_look, *work))
    try:
        for piece, future in zip(pieces, futures, strict=True):
            one = future.result()
            found.digests[piece] = one.digests
            found.counts += one.counts
            found.converted += one.converted
            found.turned += one.turned
            found.damaged += one.damaged
            found.sizes += one.sizes
            advance(len(one.digests))
    finally:  # after an interruption nothing more is decoded
        for future in futures:
            future.cancel()
    return found


def check_surveys(folder: Path, surveys: Collection[Survey]) -> None:
    """Refuse files that cannot be used, all of them in one message.

    Raises:
        DataError: files that cannot be decoded, or of different sizes where nothing is resized.
    """
    if damaged := [name for found in surveys for name in found.damaged]:
        several = len(damaged) > 1
        raise DataError(
            f"{folder}: {len(damaged)} {'files' if several else 'file'} cannot be decoded: "
            f"{join_names(damaged)}. Replace or remove {'them' if several else 'it'}."
        )
    if sizes := [name for found in surveys for name in found.sizes]:
        raise size_error(folder, sizes)


def find_copies(parts: Parts, surveys: Mapping[str, Survey]) -> dict[str, list[str]]:
    """Find files with the same bytes in two sets, or under two classes.

    Args:
        parts: of each set, paths and labels.
        surveys: of each set.

    Returns:
        What is said of them, and their paths, of two files the one that comes later; empty where
        not every file was read.
    """
    found: dict[str, list[str]] = {}
    if not all(each.full for each in surveys.values()):
        return found
    first: dict[bytes, tuple[str, int]] = {}
    for name in ("train", "validation", "test"):
        part = parts[name]
        rows = zip(part.images, part.labels.tolist(), surveys[name].digests, strict=True)
        for path, label, digest in rows:
            set_name, other = first.setdefault(digest.tobytes(), (name, label))
            if set_name != name:
                what = f"of the {name} set with the same bytes in the {set_name} set"
                found.setdefault(what, []).append(path)
            if other != label:
                what = "with the same bytes under another class"
                found.setdefault(what, []).append(path)
    return found


def size_error(folder: Path, sizes: Sequence[str]) -> DataError:
    """Make the error which says that images differ in size, and what to do."""
    return DataError(
        f"{folder}: the images have different sizes ({join_names(sizes)}). Set data.image_size, "
        "the side in pixels that all of them are resized and cut to."
    )


def _look(
    folder: Path,
    paths: NDArray[np.object_],
    recipe: Recipe,
    into: NDArray[np.uint8] | None,
    full: bool,
    counted: NDArray[np.bool_],
) -> Survey:
    """Look at some files, in a thread; the arguments are those of `survey`."""
    found = Survey(
        full, np.zeros((len(paths), 32), np.uint8), np.zeros((recipe.channels, 256), np.int64), None
    )
    for number, name in enumerate(paths):
        path = folder / name
        try:
            read = full or into is not None or bool(counted[number])
            content = path.read_bytes() if read else b""
            # A file of a large folder is known by its name and size: reading all takes too long.
            known = content if full else os.fsencode(f"{name} {path.stat().st_size}")
            found.digests[number] = np.frombuffer(hashlib.sha256(known).digest(), np.uint8)
            if not read:
                head = decode.read_header(path)
            else:
                pixels, head = decode.decode(content, recipe)
                if into is not None:
                    into[number] = pixels
                if counted[number]:
                    found.counts += value_counts(pixels[None])
            if head.channels not in (None, recipe.channels):
                found.converted.append(name)
            if head.turned:
                found.turned.append(name)
        except OtherSize as error:
            found.sizes.append(f"{name} is {error}")
        except (OSError, UnreadableImage) as error:
            found.damaged.append(f"{name} ({getattr(error, 'strerror', None) or error})")
    return found
