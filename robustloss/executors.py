"""Where cells are computed: in this process, or in several. The science does not know."""

import multiprocessing
import os
import queue
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.managers import SyncManager
from typing import Any

import torch

from robustloss.cell_weights import CellWeights
from robustloss.cells import run_cell
from robustloss.data import Dataset
from robustloss.data_parallel import Distributed
from robustloss.jobs import CellJob, Failure
from robustloss.orphans import end_with_parent
from robustloss.progress import Event
from robustloss.ray_executor import check_address, run_on_ray
from robustloss.spec import Spec
from robustloss.worker_data import THREAD_LIMITS, dataset_of

Report = Callable[[Event], None]


def check_executor(name: str) -> int:
    """Returns the number of worker processes that an executor's name asks for.

    0 means none on this machine: serial, or a cluster, which is asked whether it answers.

    Raises:
        ValueError: No such executor, or it cannot be used here.
    """
    kind, _, count = name.partition(":")
    if name == "serial":
        return 0
    if kind == "processes" and re.fullmatch("[1-9][0-9]*", count):
        return int(count)
    if kind == "ray":
        check_address(name)
        return 0
    raise ValueError(
        f"executor (={name!r}) must be serial or processes:N with N >= 1, as processes:2, "
        "or ray or ray:ADDRESS."
    )


def run_jobs(
    jobs: Sequence[CellJob], dataset: Dataset, executor: str, report: Report
) -> list[Failure]:
    """Computes the jobs and returns the failures, in the order of the jobs."""
    if not jobs:
        return []  # no pool and no cluster is started for nothing
    if is_cluster(executor):
        found = run_on_ray(jobs, executor, report)
    elif workers := check_executor(executor):
        found = _in_processes(jobs, workers, report)
    else:
        found = [run_cell(job, dataset, report) for job in jobs]
    return [failure for failure in found if failure is not None]


def check_shared(spec: Spec, executor: str, device: str) -> None:
    """Checks that a run whose processes torchrun started can be done so.

    Raises:
        ValueError: Another executor than serial, a time limit, or no such device for it.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device (={device!r}) cannot be shared by torchrun; use cpu or cuda.")
    if executor != "serial":
        raise ValueError(
            f"executor (={executor!r}) starts processes of its own, and torchrun has started "
            "these; leave --executor out, or torchrun."
        )
    if spec.resources.minutes is not None:
        raise ValueError(
            "resources.minutes cannot be kept where torchrun started the processes: one that "
            "stopped alone would leave the others waiting. Take it out of the spec."
        )


def _silent(done: float, total: float, text: str) -> None:
    """Tells nothing: the leader does."""


def follow(group: Distributed) -> Any:
    """Trains along whatever the leader of the processes trains.

    Returns:
        What the leader's run ended with.
    """
    while isinstance(order := group.order(), CellJob):
        CellWeights(order, dataset_of(order), _silent).train_along()
    return order


def is_cluster(executor: str) -> bool:
    """Whether the cells are computed by a Ray cluster."""
    return executor.partition(":")[0] == "ray"


def cell_threads(executor: str, spec: Spec) -> int:
    """Returns the torch threads that a cell gets, which are part of the name of its files."""
    if is_cluster(executor):
        return spec.resources.cpus
    workers = check_executor(executor)
    return threads_each(workers) if workers else torch.get_num_threads()


def threads_each(workers: int) -> int:
    """Returns the torch threads that each of several workers gets."""
    return max(1, torch.get_num_threads() // max(1, workers))


def _in_processes(jobs: Sequence[CellJob], workers: int, report: Report) -> list[Failure | None]:
    """Runs the jobs in spawned processes, one device each, round robin over the GPUs."""
    context = multiprocessing.get_context("spawn")
    found: list[Failure | None] = [None] * len(jobs)
    with _thread_limit(threads_each(workers)), _manager(context) as manager:
        events = manager.Queue()
        pool = ProcessPoolExecutor(
            workers, context, initializer=_start_worker, initargs=(threads_each(workers),)
        )
        try:
            with _forwarded(events, report):
                futures = {
                    pool.submit(_work, _placed(job, number), events): number
                    for number, job in enumerate(jobs)
                }
                pending = set(futures)
                while pending:
                    # A short wait, so that Ctrl-C is heard between two cells.
                    done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in done:
                        number = futures[future]
                        try:
                            found[number] = future.result()
                        except BrokenProcessPool:
                            found[number] = _lost(jobs[number])
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return found


@contextmanager
def _manager(context: Any) -> Iterator[SyncManager]:
    """Keeps the queue of events while the block runs."""
    manager = SyncManager(ctx=context)
    manager.start(end_with_parent)
    with manager:
        yield manager


@contextmanager
def _thread_limit(threads: int) -> Iterator[None]:
    """Lets processes that start inside the block use so many threads each.

    torch is told in the worker, but NumPy's and scikit-learn's libraries read the environment
    when they are loaded, and would each take every core of the machine.
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


def _placed(job: CellJob, number: int) -> CellJob:
    if job.device != "cuda":
        return job
    return replace(job, device=f"cuda:{number % torch.cuda.device_count()}")


def _lost(job: CellJob) -> Failure:
    cell = job.cell
    reason = (
        "its worker process ended without a word, most likely killed for want of memory; "
        "use fewer workers. Run the command again to go on."
    )
    return Failure(cell.loss.name, cell.label, cell.seed, "worker", reason)


@contextmanager
def _forwarded(events: Any, report: Report) -> Iterator[None]:
    """Passes the workers' events on to the report while the block runs."""
    stop = threading.Event()

    def forward() -> None:
        while True:
            try:
                report(events.get(timeout=0.2))
            except queue.Empty:
                if stop.is_set():
                    return
            except (EOFError, OSError):
                return

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _start_worker(threads: int) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends us
    torch.set_num_threads(threads)


def _work(job: CellJob, events: Any) -> Failure | None:
    dataset = dataset_of(job)

    def report(event: Event) -> None:
        with suppress(EOFError, OSError):  # the parent is gone: nobody to tell
            events.put(event)

    return run_cell(job, dataset, report)
