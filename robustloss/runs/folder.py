"""The folder of a run: whose it is, which seeds it has, and that no other run writes to it."""

import errno
import json
import os
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import IO

from robustloss.notation import one_line
from robustloss.results.run import Run, load_run
from robustloss.run_files import NO_DETOUR, check_run_folder
from robustloss.runs.errors import RunError
from robustloss.runs.meaning import find_loss_differences, loss_settings, spec_of
from robustloss.runs.watching.log import ENDING
from robustloss.spec.data import DataSpec
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from robustloss.spec.spec import Spec
from robustloss.storage import CorruptFile, read_json, remove_leftovers, write_text
from robustloss.work_folders import remove_left_folders

try:
    import fcntl
except ImportError:  # Windows has no such lock: there a run is not protected from another
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
MARK = ".ray-run"  # holds a text by which a worker on another node knows that it sees this folder
_BUSY = (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)


class RunFolderError(RunError):
    """The run folder cannot be used for this run."""


def choose_seeds(spec: Spec, folder: Path, seeds: Sequence[int] | None) -> tuple[int, ...]:
    """Return the training seeds of a run: those asked for, and those that its folder already has.

    Args:
        spec: Of the run.
        folder: The run folder, which need not exist.
        seeds: Those asked for, from 0 to 2**32 - 1; None for the spec's.
    """
    if seeds is None:
        return spec.seeds
    if not seeds or not all(map(_is_seed, seeds)):
        raise RunError(f"seeds (={seeds!r}) must be whole numbers from 0 to {2**32 - 1}.")
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
    """Refuse a folder that holds anything but an earlier state of this run.

    Args:
        folder: The run folder, which need not exist.
        spec: Of the run.

    Raises:
        RunFolderError: It holds something else, or a link where the run would follow it.
    """
    try:
        check_run_folder(folder)
    except OSError as error:
        raise RunFolderError(f"{error.filename}: {error.strerror}.") from error
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder} is a file; name another folder with --out.")
    # A log may have been written there before a mistake in the data ended the run.
    if not folder.is_dir() or all(
        path.name == LOCK or path.suffix == ENDING for path in folder.iterdir()
    ):
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


def describe_replaced(folder: Path, spec: Spec) -> str:
    """Return a line if finished results of another spec are to be replaced; else nothing.

    More seeds, eps, attacks or losses extend a run. Other data, and a loss, its network or its
    training that the spec no longer has, make it another one.

    Args:
        folder: The run folder, which need not exist.
        spec: Of the run that begins.
    """
    try:
        run = load_run(folder)
        changes = _find_changes(run, spec)
    except (ValueError, KeyError, TypeError):  # unfinished, damaged or of another version
        return ""
    if not changes:
        return ""
    more = f", and {len(changes) - 1} more" if changes[1:] else ""
    return one_line(
        f"{folder} holds finished results of another spec ({changes[0]}{more}). They are replaced, "
        "what its cells computed stays. --out DIR keeps both results."
    )


def _find_changes(run: Run, spec: Spec) -> list[str]:
    """Return what a finished run has and the spec lacks: its data, and losses trained as they are.

    Args:
        run: In whose folder the spec is to run.
        spec: That spec.
    """
    old, new = spec_of(run), spec.plain()
    provenance = {"spec": new, "precision": run.provenance.get("precision")}
    now = {
        loss["label"]: loss_settings(Run(run.path, {"provenance": provenance}), loss)
        for loss in new["losses"]
    }
    searched = {loss.label for loss in spec.losses if loss.search}  # their values are yet to come
    data = DataSpec.model_validate(old["data"]).model_dump(mode="json")
    changes = [
        f"data.{key} is {value!r} there, {new['data'].get(key)!r} here"
        for key, value in data.items()
        if key != "label" and value != new["data"].get(key)
    ]
    finished = {row["label"] for row in run.rows}
    for loss in old["losses"]:
        label, had = loss["label"], loss_settings(run, loss)
        if label not in finished or label in searched:
            continue
        if all(find_loss_differences(had, each) for each in now.values()):
            found = find_loss_differences(had, now[label]) if label in now else {}
            what = [
                f"{label}: {key} is {one!r} there, {other!r} here"
                for key, (one, other) in found.items()
            ]
            changes += what[:1] or [f"{label} is left out"]
    return changes


@contextmanager
def claiming(folder: Path, spec: Spec) -> Iterator[None]:
    """Make the folder this run's while the block runs, without what a killed run left behind.

    Args:
        folder: As `check_folder` lets it pass; it is made if need be.
        spec: Of the run.

    Raises:
        RunFolderError: Another run is writing to the folder, or nothing can be written there.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locking(folder))
            remove_leftovers(folder)
            (folder / MARK).unlink(missing_ok=True)
            remove_left_folders(folder / "report", ".report-")
            write_text(folder / "spec.toml", spec.text)
        except OSError as error:
            raise RunFolderError(
                f"{folder} cannot be written: {error.strerror}; name another folder with --out."
            ) from error
        yield


@contextmanager
def locking(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder while the block runs.

    The lock ends with the process, so a killed run keeps nobody out. Where the file system knows no
    locks, nothing is locked.

    Args:
        folder: Exists and can be written.

    Raises:
        RunFolderError: Another run has locked it; the text says which.
    """
    handle = _open_locked(folder / LOCK) if fcntl is not None else None
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
        with closing(handle), suppress(OSError):
            # Removed while it is locked: who opened it meanwhile sees that it is gone.
            (folder / LOCK).unlink()


def _open_lock(path: Path) -> IO[str]:
    """Open the lock file, which is made if need be, so that writing to it changes no other file."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | NO_DETOUR, 0o666)
    state = os.fstat(handle)
    if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
        os.close(handle)
        raise OSError(errno.EINVAL, f"{path.name} in it is no file of its own", str(path))
    return os.fdopen(handle, "a+", encoding="utf-8")


def _open_locked(path: Path) -> IO[str] | None:
    """Return the open, locked file; None where there are no locks."""
    while True:
        handle = _open_lock(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The file may have been removed between opening and locking: then it locks nobody out.
            if os.path.samestat(os.fstat(handle.fileno()), path.stat()):
                return handle
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in _BUSY:
                handle.close()
                return None
            handle.seek(0)
            try:
                known = json.loads(handle.read())
                holder = f"process {known['pid']} on {known['host']}, since {known['since']}"
            except (ValueError, KeyError, TypeError):  # it has not written its name yet
                holder = "another run"
            handle.close()
            raise RunFolderError(
                f"{path.parent} is being written by {holder}. Wait for it or stop it, or name "
                "another folder with --out."
            ) from None
        handle.close()
