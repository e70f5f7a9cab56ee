"""Folders of class folders: which images there are, in their one order, and what is amiss."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from robustloss.data.files import AbsentError, DataError, join_names
from robustloss.data.folders.unpack import ARCHIVES, unpack
from robustloss.data.reader import Part, Parts

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"))
EXPECTED = "Expected train/CLASS/IMAGE and test/CLASS/IMAGE in it"


def find_folder(
    folder: str,
    places: Sequence[Path],
    *,
    key: str = "data.folder",
    what: str = "with train and test in it",
    quiet: bool = False,
) -> Path:
    """Find a folder in the first of the places that has it; an archive is unpacked.

    Args:
        folder: folder or tar archive, absolute or relative to each place.
        places: tried in this order.
        key: of the spec, for the message.
        what: a folder is expected, for the message.
        quiet: no remark on stderr when an archive is unpacked.

    Raises:
        DataError: in none of them, or neither a folder nor an archive that can be unpacked.
    """
    named = Path(os.path.expanduser(folder))
    tried = [named] if named.is_absolute() else [place / named for place in places]
    path = next((path for path in tried if path.exists()), None)
    if path is None:
        raise AbsentError(
            f"{key} (={folder!r}) is not there; looked for {', '.join(map(str, tried))}. "
            f"Name a folder {what}, or a tar archive of one; --data or "
            "ROBUSTLOSS_DATA says where relative names begin."
        )
    if path.is_file() and path.name.lower().endswith(ARCHIVES):
        return _find_top(unpack(path, quiet=quiet))
    if not path.is_dir():
        raise DataError(f"{key} (={folder!r}) is neither a folder nor a tar archive.")
    return path


def _find_top(folder: Path) -> Path:
    """Return the one folder that an archive holds, as many do; its own where it holds more.

    A README beside it does not count, nor do the notes of macOS.
    """
    if (folder / "train").is_dir():
        return folder
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    folders = [entry for entry in entries if entry.is_dir() and entry.name != "__MACOSX"]
    images = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and entry.is_file()]
    return folders[0] if len(folders) == 1 and not images else folder


def read_layout(folder: Path) -> tuple[tuple[str, ...], Parts]:
    """List the images of a data folder.

    Args:
        folder: holds train/CLASS/IMAGE and test/CLASS/IMAGE, perhaps validation/CLASS/IMAGE. A
            folder val stands for the missing one of test and validation, test first.

    Returns:
        The class names, sorted, whose places are the labels. And the images of train, test and
        perhaps validation: paths relative to the folder, sorted by class and then by name.

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
    parts = {"train": _read_part(train, names), "test": _read_part(test, names)}
    if validation.is_dir():
        parts["validation"] = _read_part(validation, names)
    return tuple(names), parts


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
            f"{join_names(strangers)}. Remove or rename them, or add training images."
        )
    files = {name: image_files(part / name) for name in found}
    if empty := [name for name in found if not files[name]]:
        raise DataError(
            f"{part} has {len(empty)} class folders without an image: {join_names(empty)}. Put "
            f"images there ({', '.join(sorted(SUFFIXES))}) or remove the folders."
        )
    paths = [f"{part.name}/{name}/{file}" for name in found for file in files[name]]
    labels = [np.full(len(files[name]), names.index(name), np.int64) for name in found]
    return Part.whole(np.array(paths, dtype=object), np.concatenate(labels))


def image_files(folder: Path) -> list[str]:
    """List the image files at any depth below a folder, relative to it, sorted."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = Path(place).relative_to(folder)
        for name in files:
            if not name.startswith(".") and PurePosixPath(name).suffix.lower() in SUFFIXES:
                found.append(name if place == str(folder) else (inner / name).as_posix())
    return sorted(found)
