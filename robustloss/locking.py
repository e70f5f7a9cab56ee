"""One run folder, one writer: a lock of the operating system, which dies with its holder."""

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no such lock: runs there are on their own
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
_BUSY = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)


class FolderBusyError(ValueError):
    """Another process writes to the folder; the text says which."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder while the block runs.

    A process that is killed holds nothing. Where the file system knows no locks, nothing is locked.

    Args:
        folder: exists and can be written.

    Raises:
        FolderBusyError: another run holds it.
    """
    handle = _locked(folder / NAME) if fcntl is not None else None
    if handle is None:
        yield
        return
    try:
        handle.truncate(0)
        handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(),
                                 "since": time.strftime("%Y-%m-%d %H:%M:%S")}))  # fmt: skip
        handle.flush()
        yield
    finally:
        with suppress(OSError):
            (folder / NAME).unlink()  # while it is held: whoever opened it meanwhile tries again
        handle.close()


def _locked(path: Path) -> IO[str] | None:
    """The open, locked file; None where there are no locks."""
    while True:
        handle = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle.fileno()), path.stat()):
                return handle
        except FileNotFoundError:
            pass  # its holder has just let go of it
        except OSError as error:
            words = _holder(handle)
            handle.close()
            if error.errno in _BUSY:
                raise FolderBusyError(
                    f"{path.parent} is being written by {words}. Wait for it or stop it, or name "
                    "another folder with --out."
                ) from None
            return None
        handle.close()


def _holder(handle: IO[str]) -> str:
    handle.seek(0)
    try:
        known = json.loads(handle.read())
        return f"process {known['pid']} on {known['host']}, since {known['since']}"
    except (ValueError, KeyError, TypeError):  # it is just writing its name
        return "another run"
