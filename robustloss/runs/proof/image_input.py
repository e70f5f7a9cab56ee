"""Images of any origin as files: .npz, .pt or a folder of PNG, read piece by piece.

A file may be made to do harm: nothing in it is executed, no name in it is followed, and memory is
taken for a piece of the images only, after a look at the sizes that the file states.
"""

import csv
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from robustloss.image_files import PIECE
from robustloss.run_files import MOST, NO_DETOUR, check_file
from robustloss.spec.errors import did_you_mean

FORMS = "an .npz or .pt file, or a folder of PNG files"
_MOST_IMAGES = 10_000_000
_MOST_PIXELS = 100_000_000  # of an image
_MOST_INDEX = 2**30  # bytes of index.csv
_TEXTS = ("norm", "attack", "loss", "data", "weights")  # what may be said beside the images
_INTEGERS = ("labels", "indices", "clean_predictions", "predictions")
_INDEX, _ABOUT = "index.csv", "export.json"

Pieces = Callable[[], Iterator[tuple[slice, np.ndarray]]]


class ImagesError(ValueError):
    """Images that cannot be used; the text is written for the user."""


@dataclass(frozen=True)
class BroughtImages:
    """Images of any origin, of which nothing is in memory, and what stands beside them.

    Attributes:
        path: file or folder.
        shape: (N,C,H,W).
        pieces: yields positions and float32 images.
        arrays: "labels", "indices", "clean_predictions", "predictions", (N,) int64 each, those that
            are there.
        eps: their budget; None where they do not say.
        texts: "norm", "attack" and so on, those that are there.
    """

    path: Path
    shape: tuple[int, ...]
    pieces: Pieces
    arrays: Mapping[str, NDArray] = field(default_factory=dict)
    eps: float | None = None
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of images."""
        return self.shape[0]


def open_brought(path: str | Path) -> BroughtImages:
    """Open images after a look at their kind, size and labels.

    Args:
        path: an .npz, a .pt, or a folder of PNG files.

    Raises:
        ImagesError: it is none of these, or holds something else than it must.
    """
    path = Path(path)
    try:
        if path.is_dir():
            found = _open_folder(path)
        elif not os.path.lexists(path):
            raise ImagesError(f"IMAGES (={path}): there is no such file. Name {FORMS}.")
        elif path.is_file() and path.stat().st_size == 0:
            raise ImagesError(f"IMAGES (={path}) is empty (0 bytes). Name {FORMS}.")
        elif path.suffix.casefold() == ".npz":
            found = _open_npz(path)
        elif path.suffix.casefold() in (".pt", ".pth"):
            found = _open_torch(path)
        else:
            raise ImagesError(f"IMAGES (={path}) must be {FORMS}.")
    except OSError as error:
        raise ImagesError(f"IMAGES (={path}) cannot be read: {error.strerror}.") from error
    for name, array in found.arrays.items():
        if array.shape != (found.n,):
            raise ImagesError(
                f"{path}: {name} (={array.shape}) must be ({found.n},), one for each image."
            )
    if not {"labels", "indices"} & found.arrays.keys():
        raise ImagesError(
            f"{path} has neither labels nor indices. Add labels, (N,) integers, or indices, the "
            "positions of the originals in the test file of the data."
        )
    return found


def _check_names(path: Path, names: list[str]) -> None:
    """Refuse a file without images."""
    if "images" not in names:
        hint = did_you_mean("images", names)
        known = ", ".join(f"{name:.40}" for name in names[:8]) or "nothing"
        raise ImagesError(
            f"{path} has no array 'images'; it has {known}{hint or '.'} "
            "`robustloss export` writes such a file."
        )


def _check_pixels(path: Path, shape: tuple[int, ...], kind: str) -> None:
    """Refuse images of another shape or type; `kind` is the type's name."""
    if len(shape) != 4 or min(shape) < 1:
        raise ImagesError(
            f"{path}: images (={shape}) must be (N, C, H, W) with at least one image. Grey ones "
            "need their channel: images[:, None]."
        )
    if shape[0] > _MOST_IMAGES or math.prod(shape[1:]) > _MOST_PIXELS:
        raise ImagesError(f"{path}: images (={shape}) are too many or too large.")
    if kind not in ("float16", "float32", "float64", "uint8"):
        raise ImagesError(
            f"{path}: images (={kind}) must be floating in [0, 1], or uint8 in 0–255."
        )


def _as_pixels(path: Path, images: NDArray) -> np.ndarray:
    """Return a piece as float32; uint8 becomes k/255."""
    if images.dtype == np.uint8:
        return np.asarray(images.astype(np.float32) / np.float32(255))
    if not np.isfinite(images).all():
        raise ImagesError(f"{path}: images hold NaN or infinite values. Remove those images.")
    if (highest := float(images.max())) > 2:
        raise ImagesError(
            f"{path}: images (highest value {highest:g}) must lie in [0, 1]. Divide by 255, or "
            "undo the normalisation: a model of a run normalises by itself."
        )
    return np.array(images, np.float32, order="C")  # a copy: what is read cannot be written


def _as_integers(path: Path, name: str, array: NDArray) -> NDArray:
    if array.dtype.kind not in "iu":
        raise ImagesError(f"{path}: {name} (={array.dtype}) must be integers.")
    return np.asarray(array.astype(np.int64))


def _as_eps(path: Path, value: Any) -> float:
    number = float(value) if isinstance(value, int | float) and type(value) is not bool else -1.0
    if not 0 <= number < math.inf:
        raise ImagesError(f"{path}: eps (={value!s:.40}) must be a number >= 0.")
    return number


# --- .npz ----------------------------------------------------------------------------------------


def _open_npz(path: Path) -> BroughtImages:
    check_file(path.resolve(), MOST)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            _check_names(path, list(members))
            shape, dtype = _read_head(path, archive, members["images"])
            _check_pixels(path, shape, dtype.name)
            arrays, texts, eps = {}, {}, None
            for name in (*_INTEGERS, *_TEXTS, "eps"):
                if name not in members:
                    continue
                value = _read_small(path, archive, members[name], shape[0])
                if name in _INTEGERS:
                    arrays[name] = _as_integers(path, name, value)
                elif name == "eps":
                    eps = _as_eps(path, value.item() if value.size == 1 else None)
                elif value.size == 1 and value.dtype.kind == "U":
                    texts[name] = str(value.item())
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ImagesError(f"{path} is no whole .npz file: {error}.") from error

    def pieces() -> Iterator[tuple[slice, np.ndarray]]:
        row = math.prod(shape[1:]) * dtype.itemsize
        with zipfile.ZipFile(path) as archive, archive.open(members["images"]) as file:
            _read_header(file)
            for start in range(0, shape[0], PIECE):
                stop = min(start + PIECE, shape[0])
                try:
                    data = file.read((stop - start) * row)
                except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                    raise ImagesError(f"{path} is damaged: {error}.") from error
                if len(data) < (stop - start) * row:
                    raise ImagesError(f"{path} is truncated.")
                images = np.frombuffer(data, dtype).reshape(stop - start, *shape[1:])
                yield slice(start, stop), _as_pixels(path, images)

    return BroughtImages(path, shape, pieces, arrays, eps, texts)


def _read_head(
    path: Path, archive: zipfile.ZipFile, member: str
) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of an array in an archive, whose size must be what they say."""
    info = archive.getinfo(member)
    with archive.open(member) as file:
        try:
            shape, fortran, dtype = _read_header(file)
            start = file.tell()
        except ValueError as error:
            raise ImagesError(f"{path}: {member:.60} is no array: {error}.") from error
    if dtype.hasobject:
        raise ImagesError(
            f"{path}: {member:.60} holds objects, which only pickle reads, and pickle executes "
            "code. Save plain arrays: numpy.savez(FILE, images=..., labels=...)."
        )
    if fortran:
        raise ImagesError(
            f"{path}: {member:.60} is in Fortran order. Save numpy.ascontiguousarray of it."
        )
    if math.prod(shape) * dtype.itemsize != info.file_size - start:
        raise ImagesError(f"{path}: {member:.60} says shape {shape}, which is not its size.")
    return shape, dtype


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, order and type of the .npy that begins at this place of a file."""
    if np.lib.format.read_magic(file) != (1, 0):  # all that have short headers
        raise ValueError("it is of another version than numpy.savez writes for plain arrays")
    return np.lib.format.read_array_header_1_0(file)


def _read_small(path: Path, archive: zipfile.ZipFile, member: str, n: int) -> NDArray:
    """Return an array of at most one number, or one text of some length, for each image."""
    shape, dtype = _read_head(path, archive, member)
    if math.prod(shape) * dtype.itemsize > 8 * n + 4096:
        raise ImagesError(f"{path}: {member:.60} (={shape}, {dtype}) must be one value an image.")
    with archive.open(member) as file:
        _read_header(file)
        try:
            return np.frombuffer(file.read(), dtype).reshape(shape)
        except (zipfile.BadZipFile, zlib.error, ValueError) as error:
            raise ImagesError(f"{path}: {member:.60} is damaged: {error}.") from error


# --- .pt -----------------------------------------------------------------------------------------


def _open_torch(path: Path) -> BroughtImages:
    check_file(path.resolve(), MOST)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a damaged or an odd file makes the reader do
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise ImagesError(
            f"{path} is no file of torch, or holds more than tensors, numbers and text, and is "
            f"not loaded: {reason:.200}. Save torch.save(dict(images=..., labels=...), FILE)."
        ) from error
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise ImagesError(
            f"{path} must hold a dict. Save torch.save(dict(images=..., labels=...), FILE)."
        )
    _check_names(path, list(found))
    arrays, images = {}, found["images"]
    for name in ("images", *(each for each in _INTEGERS if each in found)):
        value = found[name]
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
            raise ImagesError(f"{path}: {name} must be a dense tensor.")
        if value.is_meta or value.is_nested:
            raise ImagesError(f"{path}: {name} must be a tensor with values.")
        if name != "images":
            if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
                raise ImagesError(f"{path}: {name} (={value.dtype}) must be integers.")
            arrays[name] = _as_integers(path, name, value.numpy())
    kind = str(images.dtype).removeprefix("torch.")
    _check_pixels(path, tuple(images.shape), kind)

    def pieces() -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, len(images), PIECE):
            piece = slice(start, min(start + PIECE, len(images)))
            yield piece, _as_pixels(path, images[piece].detach().numpy())

    eps = _as_eps(path, found["eps"]) if "eps" in found else None
    texts = {name: found[name] for name in _TEXTS if isinstance(found.get(name), str)}
    return BroughtImages(path, tuple(images.shape), pieces, arrays, eps, texts)


# --- a folder of PNG -----------------------------------------------------------------------------


def _open_folder(path: Path) -> BroughtImages:
    names, arrays = _list_folder(path)
    about: dict[str, Any] = {}
    if (path / _ABOUT).is_file():
        try:
            about = json.loads(_read_plain(path, _ABOUT, 2**20))
        except (ValueError, RecursionError) as error:
            raise ImagesError(f"{path / _ABOUT} is no JSON: {error}.") from error
    first = _read_png(path, names[0])
    shape = (len(names), *first.shape)
    _check_pixels(path, shape, "uint8")

    def pieces() -> Iterator[tuple[slice, np.ndarray]]:
        for start in range(0, len(names), PIECE):
            piece = slice(start, min(start + PIECE, len(names)))
            images = [_read_png(path, name) for name in names[piece]]
            for name, image in zip(names[piece], images, strict=True):
                if image.shape != first.shape:
                    raise ImagesError(
                        f"{path / name} (={image.shape}) must be {first.shape}, as the others."
                    )
            yield piece, _as_pixels(path, np.stack(images))

    about = about if isinstance(about, dict) else {}
    eps = _as_eps(path, about["eps"]) if about.get("eps") is not None else None
    texts = {name: about[name] for name in _TEXTS if isinstance(about.get(name), str)}
    return BroughtImages(path, shape, pieces, arrays, eps, texts)


def _list_folder(path: Path) -> tuple[list[str], dict[str, NDArray]]:
    """Return the names of the files, and what index.csv or the names say of each."""
    if not os.path.lexists(path / _INDEX):
        names = sorted(p.name for p in path.iterdir() if p.suffix.casefold() == ".png")
        stems = [name[:-4] for name in names]
        if not names or not all(stem.isascii() and stem.isdecimal() for stem in stems):
            raise ImagesError(
                f"{path} must hold {_INDEX} with the columns file and label or index, or PNG files "
                "whose names are the positions of the originals, as 000123.png."
            )
        return names, {"indices": np.array([int(stem[-18:]) for stem in stems], np.int64)}
    text = _read_plain(path, _INDEX, _MOST_INDEX).decode("utf-8", errors="replace")
    rows = list(csv.DictReader(io.StringIO(text)))
    columns = set(rows[0]) if rows else set()
    if "file" not in columns:
        raise ImagesError(f"{path / _INDEX} must have the column file, and label or index.")
    names = [str(row["file"]) for row in rows]
    for name in names:
        if Path(name).name != name or name in ("", ".", "..") or "\\" in name or "\0" in name:
            raise ImagesError(f"{path / _INDEX} names a file outside the folder ({name!r:.60}).")
    arrays = {}
    for column, name in {
        "label": "labels",
        "index": "indices",
        "clean_prediction": "clean_predictions",
        "prediction_8bit": "predictions",
    }.items():
        if column in columns:
            try:
                arrays[name] = np.array([int(str(row[column])) for row in rows], np.int64)
            except (ValueError, OverflowError) as error:
                raise ImagesError(f"{path / _INDEX}: {column} must be integers.") from error
    return names, arrays


def _open_inside(folder: Path, name: str) -> BinaryIO:
    """Open a file of a folder, unless it is a link, a device or a pipe."""
    path = folder / name
    check_file(path, _MOST_INDEX)
    return os.fdopen(os.open(path, os.O_RDONLY | NO_DETOUR), "rb")


def _read_plain(folder: Path, name: str, most: int) -> bytes:
    with _open_inside(folder, name) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ImagesError(f"{folder / name} has more than {most // 2**20} MiB.")
    return content


def _read_png(folder: Path, name: str) -> NDArray:
    """Return a PNG as uint8 (C,H,W)."""
    try:
        with _open_inside(folder, name) as file, Image.open(file, formats=("PNG",)) as image:
            if image.width * image.height > _MOST_PIXELS or image.mode not in ("L", "RGB", "1"):
                raise ImagesError(
                    f"{folder / name} ({image.mode}, {image.width} x {image.height}) must be grey "
                    "or RGB, of 8 bits, without transparency."
                )
            pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    except ImagesError:
        raise
    except Exception as error:  # whatever a damaged file makes the decoder do
        reason = getattr(error, "strerror", None) or error
        raise ImagesError(f"{folder / name} cannot be read: {reason!s:.200}.") from error
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
