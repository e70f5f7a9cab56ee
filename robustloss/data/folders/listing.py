"""Folders of class folders: which images there are, in their one order, and what is amiss."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from robustloss.data.files import AbsentError, DataError, cache_folder
from robustloss.storage import digest

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"))
EXPECTED = "Expected train/CLASS/IMAGE and test/CLASS/IMAGE in it"
NAMED = 10  # names that a message lists

READ_WHOLE = 2 * 10**9  # bytes up to which an archive is read in full to know it again
BLOCKS, BLOCK = 256, 2**20  # what is read of a larger one, from the first byte to the last


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


ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")


def is_archive(path: Path) -> bool:
    """Whether a path names a tar archive."""
    return path.is_file() and path.name.lower().endswith(ARCHIVES)


def unpacked(path: Path, *, quiet: bool) -> Path:
    """The folder that holds an archive's content, which is unpacked there if it is not yet.

    It lies in the cache folder under the archive's name and a hash of its path, size, time of
    change and content, so that another archive is not taken for it: a size and a time can be
    those of the one before, as from a tool that sets all times alike. Delete it to save the room.

    Raises:
        DataError: not a tar archive, damaged, with a member that would land outside the folder, or
            no room for it.
    """
    state = path.stat()
    try:
        content = _content(path, state.st_size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    key = digest(str(path.resolve()), state.st_size, state.st_mtime_ns, content)
    folder = cache_folder() / "unpacked" / f"{path.name}-{key}"
    if not folder.is_dir():
        if not quiet:
            Console(stderr=True).print(
                f"Unpacking {path} to {folder}", markup=False, soft_wrap=True
            )
        try:
            _unpack(path, folder)
        except (tarfile.TarError, EOFError) as error:
            raise DataError(f"{path}: cannot be unpacked ({error}).") from None
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"{path}: cannot be unpacked to {folder} ({reason}).") from None
        except Exception as error:  # lzma.LZMAError, zlib.error: what the packers raise
            raise DataError(f"{path}: cannot be unpacked ({error}): is it damaged?") from None
    return _single(folder)


def _content(path: Path, size: int) -> str:
    """A hash of the bytes: of all of them, or of blocks all over a file that is large."""
    with path.open("rb") as file:
        if size <= READ_WHOLE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        found = hashlib.sha256()
        for number in range(BLOCKS):
            file.seek((size - BLOCK) * number // (BLOCKS - 1))
            found.update(file.read(BLOCK))
        return found.hexdigest()


def _unpack(path: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with tarfile.open(path) as archive:
            archive.extractall(temporary, filter="data")
        temporary.chmod(0o755)
        try:
            temporary.replace(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster with the same content
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _single(folder: Path) -> Path:
    """The folder, or the only one in it: archives often hold one top folder."""
    inner = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    if len(inner) == 1 and inner[0].is_dir() and inner[0].name != "train":
        return inner[0]
    return folder
