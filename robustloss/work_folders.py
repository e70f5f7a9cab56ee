"""Folders that are made aside and put in place as a whole, and what killed makers leave of them.

Work in progress lies in a hidden folder beside its place. Its maker holds a lock on that folder,
which ends with the process. So anybody may remove the folders of killed makers, and nobody those of
makers that live.
"""

import ctypes
import errno
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from robustloss.run_files import check_no_link

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MOST_DEPTH = 50  # folders in one another that are kept where they lie beside a result
_EARLIER = "earlier"  # in a folder of work: what stood in the place of the result
_LONG = 24 * 3600.0  # seconds after which a folder counts as left behind where there are no locks
_SWAP = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
_HERE = -100  # AT_FDCWD of Linux
_SYSTEM: Any = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None


@contextmanager
def making_folder(target: Path, prefix: str) -> Iterator[Path]:
    """Keep a folder beside a target while the block makes in it what will stand there.

    What killed makers left beside the target is removed first. The folder and all that is left in
    it go when the block ends.

    Args:
        target: where the result will stand; its parent exists.
        prefix: of the names of such folders; it says which target they are for.
    """
    remove_left_folders(target, prefix)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
        with suppress(BlockingIOError, FileNotFoundError):
            lock = _lock(folder)
            if folder.is_dir():
                break
            _unlock(lock)  # somebody has just taken it for one that was left, and removed it
    try:
        yield folder
    finally:
        try:
            _remove(folder)
        finally:
            _unlock(lock)


def remove_left_folders(target: Path, prefix: str) -> None:
    """Remove the folders that killed makers of a target left beside it.

    Args:
        target: as in `making_folder`. Where its maker was killed just between taking the old one
            away and putting the new one there, the old one is put back.
        prefix: likewise.
    """
    # As mkdtemp names them; ".run-a-" also begins those of a target "a-b", which are not ours.
    own = re.compile(f"{re.escape(prefix)}[a-z0-9_]{{8}}")
    for folder in sorted(target.parent.iterdir()) if target.parent.is_dir() else ():
        if not own.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
            continue
        try:
            lock = _lock(folder)
            old = lock is None and time.time() - folder.stat().st_mtime > _LONG
        except OSError:  # its maker lives, or has just removed it
            continue
        if lock is not None or old:
            with suppress(OSError):
                if not os.path.lexists(target):
                    (folder / _EARLIER).rename(target)
            _remove(folder)
        _unlock(lock)


def put_in_place(fresh: Path, target: Path, replaced: Collection[str]) -> None:
    """Put a finished folder in the place of another, in one step wherever the system can do that.

    Args:
        fresh: the finished one, in a folder of `making_folder`. What stood in its place goes
            there, and goes with it.
        target: where it will stand; no link.
        replaced: names of what a maker writes. Anything else in the target stays.

    Raises:
        OSError: it cannot be done; the target is then as it was.
    """
    check_no_link(target)
    if not target.exists():
        with suppress(OSError):  # another maker was faster
            fresh.rename(target)
            return
    for entry in sorted(target.iterdir()):
        if entry.name not in replaced:
            _link(entry, fresh / entry.name)
    try:
        _exchange(fresh, target)
    except OSError:  # a system or a disk that cannot: two steps, see remove_left_folders
        earlier = fresh.with_name(_EARLIER)
        target.rename(earlier)
        try:
            fresh.rename(target)
        except OSError:
            earlier.rename(target)
            raise


def _remove(folder: Path) -> None:
    """Remove a folder and what lies in it, as far as that can be done."""
    with suppress(RecursionError):  # somebody's folders lie in one another without end
        shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path, depth: int = 0) -> None:
    """Make an entry of a folder stand in another too; a link stays a link."""
    if source.is_dir() and not source.is_symlink():
        if depth == MOST_DEPTH:
            why = f"lies in more than {MOST_DEPTH} folders: remove it"
            raise OSError(errno.ENAMETOOLONG, why, str(source))
        target.mkdir()
        for entry in sorted(source.iterdir()):
            _link(entry, target / entry.name, depth + 1)
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError):  # a disk without hard links
        shutil.copy2(source, target, follow_symlinks=False)


def _exchange(one: Path, other: Path) -> None:
    """Let two paths change places at once.

    Raises:
        OSError: they cannot, or the system has no such call.
    """
    sys.audit("os.rename", str(one), str(other), -1, -1)  # as Python does for its own calls
    names = os.fsencode(one), os.fsencode(other)
    if hasattr(_SYSTEM, "renameat2"):
        failed = _SYSTEM.renameat2(_HERE, names[0], _HERE, names[1], _SWAP)
    elif hasattr(_SYSTEM, "renamex_np"):
        failed = _SYSTEM.renamex_np(*names, _SWAP)
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(other))
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))


def _lock(folder: Path) -> int | None:
    """Return a lock on a folder; None where there are no locks.

    Raises:
        BlockingIOError: somebody else holds it.
    """
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN):
            raise BlockingIOError(error.errno, error.strerror, str(folder)) from error
        return None
    return handle


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
