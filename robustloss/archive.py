"""A tar archive as a folder: unpacked once, into a cache, by no more than its own names."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from pathlib import Path

from rich.console import Console

from robustloss.idx import DataError, cache_folder
from robustloss.storage import digest

READ_WHOLE = 2 * 10**9  # bytes up to which an archive is read in full to know it again
BLOCKS, BLOCK = 256, 2**20  # what is read of a larger one, from the first byte to the last
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")


def is_archive(path: Path) -> bool:
    """Whether a path names a tar archive."""
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


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
