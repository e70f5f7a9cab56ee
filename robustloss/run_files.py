"""Files of a run folder, which may be somebody else's: used as they lie there, or not at all.

A link in such a folder would lead whoever reads, writes or deletes out of it. A device or a pipe
would keep a reader waiting, and a file without end would fill the memory. So the files and folders
inside a run folder must be no links, and a file must be an ordinary one of no more than a stated
size. The run folder itself may be a link: its user has named it.
"""

import errno
import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

MOST = 2**50  # bytes of a file that is read in pieces
NO_DETOUR = sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC")
)
"""Flags of `os.open`, as far as the system has them: no link is followed, no pipe waited for."""

# Where the files of a run lie: so many folders below the run folder, from this one on; or in the
# run folder itself, as those do that are named here and could be taken for others.
_DEPTHS = {"cells": 3, "trials": 3, "transfer": 2}
_AT_THE_TOP = ("spec.toml", "results.json", "started.json", "merged.json", ".lock", ".ray-run")


def read_file(path: str | Path, most: int) -> bytes:
    """Return the content of a file of a run folder.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        OSError: it cannot be read, a link leads to it, or it is no ordinary file or a larger one.
    """
    path = Path(path)
    with opening(path, most) as file:
        content = file.read(most + 1)
    if len(content) > most:
        _refuse_size(path, most)
    return content


@contextmanager
def opening(path: str | Path, most: int = MOST) -> Iterator[io.BufferedReader]:
    """Open a file of a run folder for reading while the block runs; errors as `read_file`.

    Args:
        path: the file.
        most: bytes that it may have.
    """
    path = Path(path)
    check_file(path, most)
    # Between the look and the opening something else may have come there: a link is refused, and
    # a pipe does not wait for its writer.
    handle = os.open(path, os.O_RDONLY | NO_DETOUR)
    with os.fdopen(handle, "rb") as file:
        _check_ordinary(path, os.fstat(handle), most)
        yield file


def check_file(path: Path, most: int) -> None:
    """Refuse what `read_file` refuses, without reading; for readers that open files themselves."""
    check_folders(path)
    _check_ordinary(path, path.lstat(), most)


def is_file(path: Path) -> bool:
    """Return whether a path is a file itself and not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def check_folders(path: Path) -> None:
    """Refuse a file of a run folder if one of the folders between the two is a link.

    Args:
        path: the file, which need not exist.

    Raises:
        OSError: names the link.
    """
    for folder in reversed(_folders_above(path)):
        check_no_link(folder)


def check_no_link(path: Path) -> None:
    """Refuse a path if it is a link; it need not exist.

    Raises:
        OSError: names it.
    """
    if path.is_symlink():
        _refuse_link(path)


def check_run_folder(folder: Path) -> None:
    """Refuse a run folder in which a link stands where a run reads, writes or deletes.

    Args:
        folder: of the run; it need not exist.

    Raises:
        OSError: names the first link.
    """
    names = (*_AT_THE_TOP, "report", "report/tables", "report/figures")
    inner = _walk([folder / name for name in _DEPTHS])
    for path in (*(folder / name for name in names), *inner):
        check_no_link(path)


def _walk(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield paths and whatever lies in those that are folders; no link is followed."""
    waiting = list(reversed(paths))
    while waiting:  # not by recursion: somebody's folders may lie in one another without end
        yield (path := waiting.pop())
        if not path.is_symlink() and path.is_dir():
            waiting += sorted(path.iterdir(), reverse=True)


def _folders_above(path: Path) -> Sequence[Path]:
    """Return the folders between a file and its run folder, the innermost first."""
    above = path.parents
    for name, depth in _DEPTHS.items():
        if depth < len(above) and above[depth - 1].name == name and path.name not in _AT_THE_TOP:
            return above[:depth]
    return ()


def _check_ordinary(path: Path, state: os.stat_result, most: int) -> None:
    if stat.S_ISLNK(state.st_mode):
        _refuse_link(path)
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(state.st_mode):
        why = "is a device, a pipe or a socket and no file: remove it"
        raise OSError(errno.EINVAL, why, str(path))
    if state.st_size > most:
        _refuse_size(path, most)


def _refuse_link(path: Path) -> NoReturn:
    why = (
        "is a link, and nothing is followed out of a run folder: put what it leads to in its place"
    )
    raise OSError(errno.ELOOP, why, str(path))


def _refuse_size(path: Path, most: int) -> NoReturn:
    why = f"has more than {most // 2**20} MiB, the most that a file of this kind may have"
    raise OSError(errno.EOVERFLOW, why, str(path))
