"""Folders of class folders: which images there are, in their one order, and what is amiss."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from robustloss.data.files import AbsentError, DataError, join_names
from robustloss.data.folders.unpack import ARCHIVES, unpack
from robustloss.data.reader import Part, Parts

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"))
EXPECTED = "Expected train/CLASS/IMAGE and test/CLASS/IMAGE in it"


class Listing(NamedTuple):
    """The files below a folder, relative to it, sorted.

    Attributes:
        images: those that are read.
        others: those that are not, for their suffix.
    """

    images: list[str]
    others: list[str]


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


def read_layout(folder: Path) -> tuple[tuple[str, ...], Parts, tuple[str, ...]]:
    """List the images of a data folder.

    Args:
        folder: holds train/CLASS/IMAGE and test/CLASS/IMAGE, perhaps validation/CLASS/IMAGE. A
            folder val stands for the missing one of test and validation, test first.

    Returns:
        The class names, sorted, whose places are the labels. The images of train, test and perhaps
        validation: paths relative to the folder, sorted by class and then by name. And the files
        that are left out: of no known suffix, or images that lie in no class folder.

    Raises:
        DataError: a folder is missing, empty or unreadable, or its classes are not those of train.
    """
    train = folder / "train"
    if not _is_folder(train):
        with _naming_unreadable(folder):
            held = sorted(entry.name for entry in folder.iterdir())
        inner = [name for name in held if (folder / name / "train").is_dir()]
        hint = f" Did you mean {folder / inner[0]}?" if inner else ""
        raise DataError(
            f"{folder} has no folder train. {EXPECTED}; it holds {join_names(held) or 'nothing'}."
            f"{hint}"
        )
    test, validation = folder / "test", folder / "validation"
    if not _is_folder(test):
        test = folder / "val"
    elif not _is_folder(validation):
        validation = folder / "val"
    if not _is_folder(test):
        raise DataError(f"{folder} has no folder test (nor val). {EXPECTED}.")
    names, _ = _class_folders(train)
    if len(names) < 2:
        found = f"only one class folder ({names[0]})" if names else "no class folders"
        raise DataError(f"{train} holds {found}: a classifier needs at least two. {EXPECTED}.")
    places = {"train": train, "test": test}
    if _is_folder(validation):
        places["validation"] = validation
    parts, others = {}, []
    for name, place in places.items():
        parts[name], left_out = _read_part(place, names)
        others += left_out
    return tuple(names), parts, tuple(others)


def _is_folder(path: Path) -> bool:
    """Tell whether there is such a folder; a link that leads nowhere is refused."""
    with _naming_unreadable(path):
        if path.is_symlink() and not path.exists():
            raise _dead_link(path)
        return path.is_dir()


def _class_folders(part: Path) -> tuple[list[str], list[str]]:
    """Return the names of the class folders, and of images beside them, which have no class."""
    with _naming_unreadable(part):
        entries = sorted(part.iterdir())
    entries = [entry for entry in entries if not entry.name.startswith(".")]
    folders = [entry.name for entry in entries if _is_folder(entry)]
    stray = {entry.name for entry in entries if entry.suffix.lower() in SUFFIXES}
    return folders, sorted(stray - set(folders))


def _read_part(part: Path, names: Sequence[str]) -> tuple[Part, list[str]]:
    """Return the images of one set, and the files that are left out."""
    found, stray = _class_folders(part)
    if not found:
        raise DataError(f"{part} holds no class folders. {EXPECTED}.")
    if strangers := sorted(set(found) - set(names)):
        raise DataError(
            f"{part} has {len(strangers)} class folders that train does not have: "
            f"{join_names(strangers)}. Remove or rename them, or add training images."
        )
    files = {name: list_files(part / name) for name in found}
    if empty := [name for name in found if not files[name].images]:
        raise DataError(
            f"{part} has {len(empty)} class folders without an image: {join_names(empty)}. Put "
            f"images there ({', '.join(sorted(SUFFIXES))}) or remove the folders."
        )
    paths = [f"{part.name}/{name}/{file}" for name in found for file in files[name].images]
    labels = [np.full(len(files[name].images), names.index(name), np.int64) for name in found]
    others = [f"{part.name}/{name}/{file}" for name in found for file in files[name].others]
    others += [f"{part.name}/{name}" for name in stray]
    return Part.whole(np.array(paths, dtype=object), np.concatenate(labels)), others


def list_files(folder: Path) -> Listing:
    """List the files at any depth below a folder; those whose names begin with a dot are not seen.

    Links are followed. Each folder is read once, however many links lead to it or round in a
    circle; where it lies itself comes before any link.

    Raises:
        DataError: a folder that cannot be read, a link that leads nowhere, or a pipe or device.
    """
    found = Listing([], [])
    seen: set[tuple[int, int]] = set()
    waiting, links = [(folder, "")], deque[tuple[Path, str]]()
    while waiting or links:
        place, inner = waiting.pop() if waiting else links.popleft()
        with _naming_unreadable(place):
            state = place.stat()
            if (known := (state.st_dev, state.st_ino)) in seen:
                continue
            seen.add(known)
            with os.scandir(place) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
            for entry in entries:
                name = f"{inner}{entry.name}"
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    (links if entry.is_symlink() else waiting).append((Path(entry), f"{name}/"))
                elif entry.is_symlink() and not Path(entry).exists():
                    raise _dead_link(Path(entry))
                elif PurePosixPath(entry.name).suffix.lower() not in SUFFIXES:
                    found.others.append(name)
                elif entry.is_file():
                    found.images.append(name)
                else:
                    raise DataError(f"{entry.path} is a pipe or device and no file. Remove it.")
    return Listing(sorted(found.images), sorted(found.others))


def _dead_link(path: Path) -> DataError:
    return DataError(f"{path} is a link that leads nowhere. Mend or remove it.")


@contextmanager
def _naming_unreadable(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or place}: cannot be read ({error.strerror}).") from None
