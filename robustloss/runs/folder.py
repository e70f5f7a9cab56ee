"""The folder of a run: whose it is, what it has, and that no other run writes to it."""

import errno
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from robustloss.spec.spec import Spec
from robustloss.storage import CorruptFile, read_json, remove_leftovers, write_text

NAME = ".lock"
_BUSY = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)

MARK = ".ray-run"  # in the run folder: who reads the right text there shares the file system


class RunFolderError(ValueError):
    """The run folder cannot be used for this run."""


def wanted_seeds(spec: Spec, folder: Path, seeds: Sequence[int] | None) -> tuple[int, ...]:
    """Returns the seeds to compute: those asked for, and with them what the folder has."""
    if seeds is None:
        return spec.seeds
    if not seeds or not all(map(_is_seed, seeds)):
        raise ValueError(f"seeds (={seeds!r}) must be whole numbers from 0 to {2**32 - 1}.")
    try:
        had = read_json(folder / "results.json")["provenance"]["seeds"]
    except (CorruptFile, KeyError, TypeError):
        had = None
    if not isinstance(had, list) or not all(map(_is_seed, had)):  # damaged: the cells stay anyway
        had = []
    return tuple(sorted({*seeds, *had}))


def _is_seed(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**32


def check_folder(folder: Path, spec: Spec) -> None:
    """Refuses a folder that holds anything but an earlier state of this run."""
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder} is a file; name another folder with --out.")
    if not folder.is_dir() or all(path.name == NAME for path in folder.iterdir()):
        return
    if not (folder / "spec.toml").exists():
        raise RunFolderError(
            f"{folder} is not empty and holds no spec.toml, so it is no run folder; name another "
            "with --out."
        )
    try:
        before = load_spec(folder / "spec.toml")
    except SpecError as error:
        raise RunFolderError(
            f"{folder}/spec.toml cannot be read, so the folder's run is unknown; name another "
            f"folder with --out. {error}"
        ) from error
    for what, old, new in (
        ("spec", before.name, spec.name),
        ("data set", before.data.name, spec.data.name),
        ("data folder", before.data.folder, spec.data.folder),
    ):
        if old != new:
            raise RunFolderError(
                f"{folder} belongs to {what} {old!r}, this is {what} {new!r}; name another folder "
                "with --out."
            )


@contextmanager
def claimed(folder: Path, spec: Spec) -> Iterator[None]:
    """Makes the folder this run's while the block runs."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(folder))
            remove_leftovers(folder)
            (folder / MARK).unlink(missing_ok=True)
            for unfinished in folder.glob(".report-*"):
                shutil.rmtree(unfinished, ignore_errors=True)
            write_text(folder / "spec.toml", spec.text)
        except FolderBusyError as error:
            raise RunFolderError(str(error)) from None
        except OSError as error:
            raise RunFolderError(
                f"{folder} cannot be written: {error.strerror}; name another folder with --out."
            ) from error
        yield


try:
    import fcntl
except ImportError:  # Windows has no such lock: runs there are on their own
    fcntl = None  # type: ignore[assignment]


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
