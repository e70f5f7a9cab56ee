"""One pass over image files: are they whole, what are they, what do they weigh, what is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robustloss.data.decode import CHUNK, OtherSize, Recipe, UnreadableImage, decode, header, pool
from robustloss.data.files import DataError
from robustloss.data.folders.listing import Part, listed

Report = Callable[[int], None]  # files done since the last call


@dataclass
class Survey:
    """What a pass over N files found.

    Attributes:
        digests: (N, 32) uint8, SHA-256 of each file: of its bytes, or of its name and size.
        converted: paths of the files that have other channels than the recipe gives them.
        counts: (C, 256) how often each pixel value stands in the files that were counted.
        pixels: (N, C, H, W) uint8; None where they were not asked for.
    """

    digests: NDArray[np.uint8]
    counts: NDArray[np.int64]
    pixels: NDArray[np.uint8] | None
    converted: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)


def survey(
    folder: Path,
    part: Part,
    recipe: Recipe,
    *,
    keep: bool,
    full: bool,
    counted: NDArray[np.bool_],
    report: Report = lambda files: None,
) -> Survey:
    """Look at every file of a part, on all cores.

    Args:
        folder: what the paths are relative to.
        part: the files.
        recipe: what is done to each.
        keep: return the pixels.
        full: read and decode every file, so that every damaged one is found; else only the head of
            a file is looked at unless its pixels are kept or counted.
        counted: (N,) the files whose pixel values are counted.
        report: called as files are done.

    Returns:
        What was found; damaged files too: `check` refuses them.
    """
    n, channels = len(part.paths), recipe.channels
    found = Survey(
        np.zeros((n, 32), np.uint8),
        np.zeros((channels, 256), np.int64),
        np.empty((n, *recipe.shape), np.uint8) if keep else None,
    )
    futures: list[Future[Survey]] = []
    for start in range(0, n, CHUNK):
        piece = slice(start, start + CHUNK)
        into = None if found.pixels is None else found.pixels[piece]
        work = (folder, part.paths[piece], recipe, into, full, counted[piece])
        futures.append(pool().submit(_look, *work))
    try:
        for start, future in zip(range(0, n, CHUNK), futures, strict=True):
            one = future.result()
            found.digests[start : start + CHUNK] = one.digests
            found.counts += one.counts
            for name in ("converted", "damaged", "sizes"):
                getattr(found, name).extend(getattr(one, name))
            report(len(one.digests))
    finally:
        for future in futures:
            future.cancel()
    return found


def check(folder: Path, surveys: Iterable[Survey]) -> None:
    """Refuses what cannot be used.

    Raises:
        DataError: files that cannot be decoded, or of different sizes where nothing is resized.
    """
    surveys = list(surveys)
    if damaged := [name for found in surveys for name in found.damaged]:
        count = len(damaged)
        raise DataError(
            f"{folder}: {count} {'file' if count == 1 else 'files'} cannot be decoded: "
            f"{listed(damaged)}. Replace or remove {'it' if count == 1 else 'them'}."
        )
    if sizes := [name for found in surveys for name in found.sizes]:
        raise size_error(folder, sizes)


def size_error(folder: Path, sizes: list[str]) -> DataError:
    """Says that images differ in size and what to do."""
    return DataError(
        f"{folder}: the images have different sizes ({listed(sizes)}). Set data.image_size, the "
        "side in pixels that all of them are resized and cut to."
    )


def _look(
    folder: Path,
    paths: Iterable[str],
    recipe: Recipe,
    into: NDArray[np.uint8] | None,
    full: bool,
    counted: NDArray[np.bool_],
) -> Survey:
    """Looks at some files, in a thread."""
    channels = recipe.channels
    digests, counts = [], np.zeros((channels, 256), np.int64)
    found = Survey(np.zeros((0, 32), np.uint8), counts, None)
    for number, name in enumerate(paths):
        path = folder / name
        try:
            if not (full or into is not None or counted[number]):
                own = header(path)[2]
                digests.append(_name_digest(name, path))
            else:
                content = path.read_bytes()
                digests.append(
                    hashlib.sha256(content).digest() if full else _name_digest(name, path)
                )
                pixels, own = decode(content, recipe)
                if into is not None:
                    into[number] = pixels
                if counted[number]:
                    for channel in range(channels):
                        counts[channel] += np.bincount(pixels[channel].ravel(), minlength=256)
            if own != channels:
                found.converted.append(name)
        except OtherSize as error:
            found.sizes.append(f"{name} is {error}")
        except (OSError, UnreadableImage) as error:
            found.damaged.append(f"{name} ({getattr(error, 'strerror', None) or error})")
    found.digests = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    if len(found.digests) < len(counted):  # some file failed: the caller refuses them all
        found.digests = np.zeros((len(counted), 32), np.uint8)
    return found


def _name_digest(name: str, path: Path) -> bytes:
    return hashlib.sha256(f"{name} {path.stat().st_size}".encode()).digest()
