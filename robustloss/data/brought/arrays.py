"""Data sets in one .npz file, read without pickle and without trust in what the file says."""

from __future__ import annotations

import math
import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustloss.data.brought.pixels import Given, build_content, fits_in_memory
from robustloss.data.files import AbsentError, DataError, is_lfs_pointer, join_names
from robustloss.data.reader import Content, Place
from robustloss.data.streamed import make_array
from robustloss.spec.data import DataSpec

NAMES = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
    "validation": (
        ("x_validation", "y_validation"),
        ("x_val", "y_val"),
        ("val_images", "val_labels"),
    ),
}
"""Set -> what its images and labels may be called: as Keras and as MedMNIST do."""

CLASS_NAMES = "class_names"
_BOMB = 10**9, 100  # a file that unpacks to more bytes, and to so many times its own, is refused
_PIECE = 1 << 24


class ArraysReader:
    """Reads the .npz that data.file names."""

    def read(self, data: DataSpec, place: Place) -> Content:
        """Read images and labels; see `Reader.read`."""
        assert data.file is not None, "the spec refuses arrays without a file"
        path = _find(data.file, place)
        where = f"data.file (={data.file!r})"
        try:
            arrays = _read(path, where)
        except DataError:
            raise
        except Exception as error:  # whatever a damaged file makes the readers do
            with path.open("rb") as file:
                start = file.read(64)
            reason = " ".join(str(error).split()) or type(error).__name__
            remedy = "Write it by np.savez(file, x_train=..., y_train=..., x_test=..., y_test=...)."
            if not start:
                reason = "it is empty, 0 bytes"
            elif is_lfs_pointer(start):
                reason, remedy = "a pointer of Git LFS", "Fetch it by git lfs pull."
            raise DataError(f"{where}: {path} cannot be read ({reason}). {remedy}") from None
        given = {}
        for name, ways in NAMES.items():
            found = next((way for way in ways if set(way) <= set(arrays)), None)
            if found is not None:
                images, labels = found
                given[name] = Given(arrays[images], arrays[labels], images, labels)
            elif name != "validation":
                with zipfile.ZipFile(path) as archive:
                    have = [each.removesuffix(".npy") for each in archive.namelist()]
                raise DataError(
                    f"{where}: {path} has no {' and '.join(ways[0])}; it has "
                    f"{join_names(sorted(have)) or 'no arrays'}. Write x_train, y_train, x_test "
                    "and y_test, by np.savez."
                )
        names = [str(name) for name in arrays.get(CLASS_NAMES, np.array([])).ravel().tolist()]
        return build_content(given, data, where=where, class_names=names, files=str(path))


def _find(name: str, place: Place) -> Path:
    """Return the file, which is an ordinary one."""
    named = Path(os.path.expanduser(name))
    tried = [named] if named.is_absolute() else [folder / named for folder in place.folders]
    path = next((path for path in tried if path.exists()), None)
    if path is None:
        raise AbsentError(
            f"data.file (={name!r}) is not there; looked for {', '.join(map(str, tried))}. Name "
            "an .npz; --data or ROBUSTLOSS_DATA says where relative names begin."
        )
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"data.file (={name!r}) is no file. Name an .npz with x_train and so on.")
    return path


def _read(path: Path, where: str) -> Mapping[str, NDArray[Any]]:
    """Return the arrays that may be wanted, by name."""
    wanted = {name for ways in NAMES.values() for way in ways for name in way} | {CLASS_NAMES}
    with zipfile.ZipFile(path) as archive:
        members = {
            name: member
            for member in archive.infolist()
            if (name := member.filename.removesuffix(".npy")) in wanted
        }
        unpacked = sum(member.file_size for member in members.values())
        if unpacked > max(_BOMB[0], _BOMB[1] * path.stat().st_size):
            raise DataError(
                f"{where}: it unpacks to {unpacked:,} bytes, more than {_BOMB[1]} times its own. "
                "Write it by np.savez, which packs nothing."
            )
        fits = fits_in_memory(unpacked)
        return {name: _read_member(archive, member, fits) for name, member in members.items()}


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, fits: bool) -> NDArray[Any]:
    """Return one array; memory is taken only for what the file really holds."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"{member.filename} is an array of version {version}")
        if dtype.hasobject:
            raise ValueError(
                f"{member.filename} holds Python objects, which only a pickle can: stack the "
                "images to one array"
            )
        size = math.prod(shape) * dtype.itemsize
        if size != member.file_size - file.tell():
            raise ValueError(f"{member.filename} is cut off, or longer than its shape {shape} says")
        if fits or size <= _PIECE:
            content = bytearray()
            while piece := file.read(_PIECE):
                content += piece
            array = np.frombuffer(content, dtype)
        else:
            array = make_array((math.prod(shape),), dtype, in_memory=False)
            into, done = array.view(np.uint8), 0
            while done < size and (piece := file.read(_PIECE)):
                into[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
                done += len(piece)
            if done < size:
                raise ValueError(f"{member.filename} is cut off")
    return array.reshape(shape, order="F" if fortran else "C")
