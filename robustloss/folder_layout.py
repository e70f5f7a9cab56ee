"""Folders of class folders: which images there are, in their one order, and what is amiss."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from robustloss.idx import AbsentError, DataError

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"))
EXPECTED = "Expected train/CLASS/IMAGE and test/CLASS/IMAGE in it"
NAMED = 10  # names that a message lists


@dataclass(frozen=True)
class Part:
    """The images of one of the folders train, validation and test.

    Attributes:
        paths: (N,) text, relative to the data folder, sorted by class and then by name.
        labels: (N,) int64.
    """

    paths: NDArray[np.object_]
    labels: NDArray[np.int64]

    def pick(self, positions: NDArray[np.int64]) -> Part:
        """The images at some positions."""
        return Part(self.paths[positions], self.labels[positions])


@dataclass(frozen=True)
class Layout:
    """What a data folder holds; a class's label is its place among the sorted names."""

    folder: Path
    class_names: tuple[str, ...]
    train: Part
    test: Part
    validation: Part | None


def listed(names: Sequence[object]) -> str:
    """Up to ten of the names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(str, names[:NAMED])) + more


def find_folder(
    folder: str | Path,
    places: Iterable[Path],
    *,
    key: str = "data.folder",
    what: str = "with train and test in it",
) -> Path:
    """The folder or archive of that name in the first of the places that has it.

    Args:
        folder: absolute, or relative to each place.
        places: tried in this order.
        key: of the spec, for the message.
        what: a folder is wanted, for the message.

    Raises:
        DataError: in none of them.
    """
    named = Path(folder).expanduser()
    tried = [named] if named.is_absolute() else [place / named for place in places]
    for path in tried:
        if path.exists():
            return path
    raise AbsentError(
        f"{key} (={str(folder)!r}) is not there; looked for {', '.join(map(str, tried))}. "
        f"Name a folder {what}, or a tar archive of one; --data or "
        "ROBUSTLOSS_DATA says where relative names begin."
    )


def read_layout(folder: Path) -> Layout:
    """List the images of a data folder.

    Args:
        folder: holds train/CLASS/IMAGE and test/CLASS/IMAGE, perhaps validation/CLASS/IMAGE. A
            folder val stands for the missing one of test and validation, test first.

    Raises:
        DataError: a folder is missing or empty, or its classes are not those of train.
    """
    train = folder / "train"
    if not train.is_dir():
        raise DataError(f"{folder} has no folder train. {EXPECTED}.")
    test, validation = folder / "test", folder / "validation"
    if not test.is_dir():
        test = folder / "val"
    elif not validation.is_dir():
        validation = folder / "val"
    if not test.is_dir():
        raise DataError(f"{folder} has no folder test (nor val). {EXPECTED}.")
    names = _class_folders(train)
    if len(names) < 2:
        found = f"only one class folder ({names[0]})" if names else "no class folders"
        raise DataError(f"{train} holds {found}: a classifier needs at least two. {EXPECTED}.")
    return Layout(
        folder,
        tuple(names),
        _read_part(train, names),
        _read_part(test, names),
        _read_part(validation, names) if validation.is_dir() else None,
    )


def _class_folders(part: Path) -> list[str]:
    try:
        with os.scandir(part) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise DataError(f"{part}: cannot be read ({error.strerror}).") from None


def _read_part(part: Path, names: Sequence[str]) -> Part:
    found = _class_folders(part)
    if not found:
        raise DataError(f"{part} holds no class folders. {EXPECTED}.")
    if strangers := sorted(set(found) - set(names)):
        raise DataError(
            f"{part} has {len(strangers)} class folders that train does not have: "
            f"{listed(strangers)}. Remove or rename them, or add training images."
        )
    files = {name: image_files(part / name) for name in found}
    if empty := [name for name in found if not files[name]]:
        raise DataError(
            f"{part} has {len(empty)} class folders without an image: {listed(empty)}. Put images "
            f"there ({', '.join(sorted(SUFFIXES))}) or remove the folders."
        )
    paths = [f"{part.name}/{name}/{file}" for name in found for file in files[name]]
    labels = [np.full(len(files[name]), names.index(name), np.int64) for name in found]
    return Part(np.array(paths, dtype=object), np.concatenate(labels))


def image_files(folder: Path) -> list[str]:
    """The image files at any depth below a class folder, relative to it, sorted."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = Path(place).relative_to(folder)
        for name in files:
            if not name.startswith(".") and PurePosixPath(name).suffix.lower() in SUFFIXES:
                found.append(name if place == str(folder) else (inner / name).as_posix())
    return sorted(found)
