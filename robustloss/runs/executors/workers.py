"""What a worker process does, whoever started it, and how a cell ends whose worker is lost."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from types import ModuleType

import torch

from robustloss.cells.jobs import CellJob, Failure, failed_event, remove_marks, trial_stage
from robustloss.data.images import Dataset
from robustloss.data.load import load_dataset
from robustloss.progress import Event
from robustloss.runs.executors.server import SAFE_PATH, THREAD_LIMITS, start_server
from robustloss.spec.plugins import describe_plugins
from robustloss.spec.spec import TrialSpec

Report = Callable[[Event], None]

_OURS = "robustloss"  # any text of SAFE_PATH means yes; this one means that we set it
_PATIENCE = 5.0  # seconds in which a process that is told to end may do so by itself

_datasets: dict[tuple, Dataset] = {}


def dataset_of(job: CellJob) -> Dataset:
    """Return the job's data set, loaded once in a process; it was fetched before any worker began.

    Raises:
        DataError: The data are not where the job says.
    """
    data = job.spec.data
    key = (data.model_dump_json(), job.spec.folder, job.data_root)
    if key not in _datasets:
        _datasets[key] = load_dataset(
            data, near=job.spec.folder, root=job.data_root, download=False, quiet=True
        )
    return _datasets[key]


def give_up(job: CellJob, stage: str, reason: str, report: Report) -> Failure:
    """Return the failure of a cell that could not report its own, and report it as a worker would.

    Args:
        job: The cell or the trial.
        stage: "worker" or "data". The failure of a trial names the trial instead, by which its row
            is found.
        reason: One line.
        report: Receives the event of the failure.
    """
    cell = job.cell
    if isinstance(cell, TrialSpec):
        stage = trial_stage(cell)
    remove_marks(job.folder / cell.folder)
    report(failed_event(cell, stage, reason))
    return Failure(cell.loss.name, cell.label, cell.seed, stage, reason)


@contextmanager
def limiting_threads(threads: int) -> Iterator[None]:
    """Let processes that start inside the block use so many threads each.

    torch is told in the worker. NumPy's and scikit-learn's libraries read the environment when they
    are loaded, and would each take every core of the machine.
    """
    before = {name: os.environ.get(name) for name in THREAD_LIMITS}
    os.environ.update({name: str(threads) for name in THREAD_LIMITS})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def start_process(
    target: Callable[[Connection, int], None], threads: int
) -> tuple[BaseProcess, Connection]:
    """Start a process of this program, and return it with our end of the pipe between the two.

    Args:
        target: Called there with its end of the pipe and the threads.
        threads: How many torch may use there.
    """
    # Never forked from this one: neither torch's threads nor CUDA survive a fork. The server has
    # neither, and libraries that were told to use one thread.
    context = (start_server() if threads == 1 else None) or multiprocessing.get_context("spawn")
    try:
        return _start(context, target, threads)
    except (OSError, EOFError):  # the server was killed, or could not import
        return _start(multiprocessing.get_context("spawn"), target, threads)


def _start(
    context: ForkServerContext | SpawnContext,
    target: Callable[[Connection, int], None],
    threads: int,
) -> tuple[BaseProcess, Connection]:
    ours, theirs = context.Pipe()
    process = context.Process(target=_enter, args=(target, theirs, threads, dict(os.environ)))
    # A new process runs the caller's script once more, which may not be written for that. Ours
    # need nothing of it.
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    # Until it knows our search path, Python takes modules from the working directory first: a file
    # pickle.py beside somebody's spec would run.
    os.environ.setdefault(SAFE_PATH, _OURS)
    try:
        process.start()
    finally:
        if os.environ[SAFE_PATH] == _OURS:
            del os.environ[SAFE_PATH]
        sys.modules["__main__"] = main
    theirs.close()  # with this end open here, the other end would not hear that it is gone
    return process, ours


def _enter(
    target: Callable[[Connection, int], None],
    pipe: Connection,
    threads: int,
    environment: Mapping[str, str],
) -> None:  # pragma: no cover - runs in a worker
    """Begin a process with the environment of the one that wants it, not with the server's."""
    os.environ.clear()
    os.environ.update(environment)
    target(pipe, threads)


def stop_process(process: BaseProcess) -> None:
    """End a process, whatever it does, and wait for that."""
    process.terminate()
    process.join(_PATIENCE)
    if process.is_alive():  # others' code may not listen
        process.kill()
        process.join()


def begin_worker(threads: int) -> None:
    """Make this process a worker: it ends with its parent, which alone hears Ctrl-C.

    Args:
        threads: How many torch may use.
    """
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)


def describe_end(exit_code: int | None, foreign: Mapping[str, str], times: str = "") -> str:
    """Return why a worker has ended before its work was done.

    Args:
        exit_code: Of its process; below 0 for a signal.
        foreign: The code of others that it ran, by key of the spec.
        times: How often, with a blank before it; "" for once.
    """
    named = f" It ran code of others: {describe_plugins(dict(foreign))}." if foreign else ""
    if exit_code is not None and exit_code >= 0 and foreign:
        return (
            f"its process ended itself{times} with exit status {exit_code}, before the work was "
            f"done.{named} Code that the spec names must not end the process."
        )
    return (
        f"its worker process ended without a word{times}, most likely killed for want of memory; "
        f"use fewer workers or smaller batches.{named} Run the command again to go on."
    )


def end_with_parent() -> None:
    """Let this process end as soon as the one that started it is gone; return at once.

    Without this the workers of a killed run would wait for work for ever, and until then compute
    beside the run that was started again.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
