"""Folders of class folders: which images there are, in their one order, and what is amiss."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from robustloss.data.files import AbsentError, DataError, cache_folder, join_names, show_remark
from robustloss.data.reader import Part, Parts
from robustloss.storage import digest

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"))
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
EXPECTED = "Expected train/CLASS/IMAGE and test/CLASS/IMAGE in it"

READ_WHOLE = 2 * 10**9  # bytes up to which an archive is read in full to know it again
BLOCKS, BLOCK = 256, 2**20  # what is read of a larger one, from the first byte to the last


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
    named = Path(folder).expanduser()
    tried = [named] if named.is_absolute() else [place / named for place in places]
    path = next((path for path in tried if path.exists()), None)
    if path is None:
        raise AbsentError(
            f"{key} (={folder!r}) is not there; looked for {', '.join(map(str, tried))}. "
            f"Name a folder {what}, or a tar archive of one; --data or "
            "ROBUSTLOSS_DATA says where relative names begin."
        )
    if path.is_file() and path.name.lower().endswith(ARCHIVES):
        return unpack(path, quiet=quiet)
    if not path.is_dir():
        raise DataError(f"{key} (={folder!r}) is neither a folder nor a tar archive.")
    return path


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


def unpack(path: Path, *, quiet: bool) -> Path:
    """Return the folder that holds an archive's content; unpack it there if it is not yet.

    It lies in the cache folder under the archive's name and a hash of its path, size, time of
    change and content. Size and time alone do not do: some tools set all times alike, and another
    archive of the same size would be taken for the first. Delete the folder to save the room.

    Raises:
        DataError: not a tar archive, damaged, with a member that would land outside the folder, or
            no room for it.
    """
    state = path.stat()
    try:
        content = hash_archive(path, state.st_size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    key = digest(str(path.resolve()), state.st_size, state.st_mtime_ns, content)
    folder = cache_folder() / "unpacked" / f"{path.name}-{key}"
    if not folder.is_dir():
        show_remark(f"Unpacking {path} to {folder}", quiet=quiet)
        try:
            _extract(path, folder)
        except (tarfile.TarError, EOFError) as error:
            raise DataError(f"{path}: cannot be unpacked ({error}).") from None
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"{path}: cannot be unpacked to {folder} ({reason}).") from None
        except Exception as error:  # lzma.LZMAError, zlib.error: what the packers raise
            raise DataError(f"{path}: cannot be unpacked ({error}): is it damaged?") from None
    # Archives often hold one top folder, with the data in it.
    inner = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    if len(inner) == 1 and inner[0].is_dir() and inner[0].name != "train":
        return inner[0]
    return folder


def hash_archive(path: Path, size: int) -> str:
    """Hash the bytes of an archive: all of them, or blocks all over a file that is large.

    Args:
        path: of the archive.
        size: its bytes.
    """
    with path.open("rb") as file:
        if size <= READ_WHOLE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        sha256 = hashlib.sha256()
        for number in range(BLOCKS):
            file.seek((size - BLOCK) * number // (BLOCKS - 1))
            sha256.update(file.read(BLOCK))
        return sha256.hexdigest()


def _extract(path: Path, folder: Path) -> None:
    """Unpack to a folder that is there in full, or not at all."""
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
