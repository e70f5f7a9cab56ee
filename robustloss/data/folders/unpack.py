"""Archives of images, unpacked to the cache folder: in full, counted, and known again."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from robustloss.data.archives import ArchiveError, iter_members
from robustloss.data.files import DataError, cache_folder, show_remark
from robustloss.storage import CorruptFile, digest, read_json, write_json
from robustloss.work_folders import making_folder, remove_left_folders

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
READ_WHOLE = 2 * 10**9  # bytes up to which an archive is read in full to know it again
BLOCKS, BLOCK = 256, 2**20  # what is read of a larger one, from the first byte to the last

_COUNT = ".unpacked.json"  # what was unpacked, for the next time that it is used
_UNFINISHED = ".unpacking-"  # begins the name of a folder into which any archive is unpacked


def unpack(path: Path, *, quiet: bool) -> Path:
    """Return the folder that holds an archive's content; unpack it there if it is not yet.

    It lies in the cache folder under the archive's name and a hash of its path, size, time of
    change and content. Size and time alone do not do: some tools set all times alike, and another
    archive of the same size would be taken for the first. A folder that has lost or gained a file
    is made anew. Delete the folder to save the room.

    Raises:
        DataError: not a tar archive, damaged, with a member that is no file or would land outside
            the folder, or no room for it.
    """
    try:
        state = path.stat()
        content = hash_archive(path, state.st_size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    key = digest(str(path.resolve()), state.st_size, state.st_mtime_ns, content)
    folder = cache_folder() / "unpacked" / f"{path.name}-{key}"
    try:
        remove_left_folders(folder, _UNFINISHED)
        if not _is_whole(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            show_remark(f"Unpacking {path} to {folder}", quiet=quiet)
            with making_folder(folder, _UNFINISHED) as work:
                _extract(path, work / "content")
                _put_into_place(work / "content", folder, work / "damaged")
    except ArchiveError as error:
        raise DataError(f"{path}: cannot be unpacked ({error}).") from None
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be unpacked to {folder} ({reason}).") from None
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
    """Write the members of an archive below a folder, and beside them how many they are."""
    folder.mkdir()
    files = size = 0
    for member in iter_members(path):
        place = folder.joinpath(*member.parts)
        try:
            (place if member.is_folder else place.parent).mkdir(parents=True, exist_ok=True)
            if member.is_folder:
                continue
            with place.open("xb") as file:
                file.writelines(member.pieces)
        except (FileExistsError, NotADirectoryError):
            raise ArchiveError(f"it holds {member.name} twice") from None
        files, size = files + 1, size + member.size
    found = _count(folder)
    if (found["files"], found["bytes"]) != (files, size):
        raise ArchiveError(
            f"{files} files were in it, {found['files']} of them could be kept apart"
        )
    write_json(folder / _COUNT, found, checked=True)


def _count(folder: Path) -> dict[str, Any]:
    """Return how many files lie below a folder, their bytes, and a hash of names and sizes."""
    lines, size = [], 0
    for place, _, files in os.walk(folder):
        inner = os.path.relpath(place, folder)
        for name in files:
            if name == _COUNT and inner == ".":
                continue
            own = Path(place, name).lstat().st_size
            size += own
            lines.append(os.fsencode(f"{inner}/{name} {own}\n"))
    sha256 = hashlib.sha256(b"".join(sorted(lines))).hexdigest()
    return {"files": len(lines), "bytes": size, "names": sha256}


def _is_whole(folder: Path) -> bool:
    """Tell whether a folder of the cache still holds what was unpacked to it."""
    try:
        return read_json(folder / _COUNT, checked=True) == _count(folder)
    except (CorruptFile, OSError):
        return False


def _put_into_place(content: Path, folder: Path, damaged: Path) -> None:
    """Rename what was unpacked to its place; what lies there goes, unless it is whole."""
    with suppress(OSError):
        content.rename(folder)
        return
    if not _is_whole(folder):  # else another process was faster
        folder.rename(damaged)
        content.rename(folder)
