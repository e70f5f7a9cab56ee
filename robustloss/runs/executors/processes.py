"""Cells in several processes on this machine.

In this process: `run_in_processes`, the `_Crew` that gives out the jobs, and the `_EventPipes` by
which it hears of them. In a worker: `_start_worker` and `_work`, at the end of the file.
"""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_pipes
from typing import Any, cast

import torch

from robustloss.cells.cell import run_cell
from robustloss.cells.jobs import CellJob, Failure
from robustloss.data.files import DataError
from robustloss.progress import Event
from robustloss.runs.executors.workers import (
    THREAD_LIMITS,
    Report,
    dataset_of,
    end_with_parent,
    give_up,
)

GRACE = 60.0  # seconds that a worker has to notice that the time of its cell is over

_KILLED = (
    "its worker process ended without a word{}, most likely killed for want of memory; use fewer "
    "workers or smaller batches. Run the command again to go on."
)
_STUCK = (
    "took longer than resources.minutes (={:g}) inside a library that did not return, so its "
    "worker process was ended. Raise it, or look for what hangs."
)


def run_in_processes(jobs: Sequence[CellJob], workers: int, report: Report) -> list[Failure | None]:
    """Compute the jobs in spawned processes, one device each, round robin over the GPUs.

    Args:
        jobs: What to compute.
        workers: How many processes, at most.
        report: Receives the events of all jobs, from another thread.

    Returns:
        None or why it failed, for each job in their order.
    """
    with limiting_threads(threads_each(workers)), _EventPipes(report) as pipes:
        crew = _Crew(jobs, workers, pipes)
        try:
            return crew.run()
        finally:
            crew.stop()


def threads_each(workers: int) -> int:
    """Return the torch threads that each of several workers gets."""
    return max(1, torch.get_num_threads() // max(1, workers))


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


class _Crew:
    """Worker processes and the jobs that they have begun.

    Every process is a pool of its own, so that it is known which cell a killed one had. That cell
    is begun again, up to spec.resources.retries times, after all others and with none beside it:
    what killed it may have been the memory that they took together.
    """

    def __init__(self, jobs: Sequence[CellJob], workers: int, pipes: "_EventPipes") -> None:
        self.jobs, self.pipes = jobs, pipes
        # Spawned, not forked: torch's threads and CUDA do not survive a fork.
        self.context = multiprocessing.get_context("spawn")
        self.threads = threads_each(workers)
        self.ends: list[Failure | None] = [None] * len(jobs)
        self.deaths = [0] * len(jobs)
        self.stuck: set[int] = set()  # jobs whose process was ended because their time was over
        self.running: dict[Future[Failure | None], tuple[int, int]] = {}  # -> job, pool
        # By time.monotonic(), when a worker began each job; 0: it has not. Shared memory.
        self.begun = self.context.RawArray("d", len(jobs))
        self.unstarted: dict[int, Connection] = {}  # pool -> its worker's end of the pipe
        self.pools = [self._new_pool(place) for place in range(min(workers, len(jobs)))]

    def run(self) -> list[Failure | None]:
        """Return how each job ended, when all have."""
        waiting, again = deque(range(len(self.jobs))), deque[int]()
        while waiting or again or self.running:
            idle = set(range(len(self.pools))) - {place for _, place in self.running.values()}
            while waiting and idle:
                self._begin(waiting.popleft(), idle.pop())
            if again and not self.running:
                for place in range(len(self.pools)):  # the idle processes keep memory too
                    self._renew(place)
                self._begin(again.popleft(), 0)
            # A short wait, so that Ctrl-C is heard between two cells.
            for future in wait(self.running, timeout=0.5, return_when=FIRST_COMPLETED).done:
                number, place = self.running.pop(future)
                try:
                    self.ends[number] = future.result()
                except BrokenProcessPool:
                    self._renew(place)
                    if self._may_retry(number):
                        again.append(number)
            for number, place in self.running.values():
                minutes = self.jobs[number].spec.resources.minutes or math.inf
                if 0 < self.begun[number] < time.monotonic() - 60 * minutes - GRACE:
                    self.stuck.add(number)
                    for process in _processes(self.pools[place]):
                        process.kill()
        return self.ends

    def stop(self) -> None:
        """End the processes, whatever they do, and wait for that.

        Also when all is done: by themselves they would take two seconds to leave.
        """
        for pool in self.pools:
            for process in _processes(pool):
                process.terminate()
        for pool in self.pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, number: int, place: int) -> None:
        """Give a job to an idle pool."""
        self.begun[number] = 0.0
        job = self.jobs[number]
        if job.device == "cuda":  # a worker keeps to one GPU: its memory is taken on each it uses
            job = replace(job, device=f"cuda:{place % torch.cuda.device_count()}")
        try:
            future = self.pools[place].submit(_work, job, number)
        except BrokenProcessPool:  # killed while it had nothing to do
            self._renew(place)
            future = self.pools[place].submit(_work, job, number)
        if place in self.unstarted:
            # The process has started and has this end for itself. While it were open here too, the
            # other end would not hear that the process is gone.
            self.unstarted.pop(place).close()
        self.running[future] = number, place

    def _may_retry(self, number: int) -> bool:
        """Return whether a job whose process died is begun again; else it has failed."""
        job, resources = self.jobs[number], self.jobs[number].spec.resources
        self.deaths[number] += 1
        deaths = self.deaths[number]
        if number in self.stuck:
            reason = _STUCK.format(resources.minutes)
        elif deaths <= resources.retries:
            return True
        else:
            times = "" if deaths == 1 else f" {deaths} times, at last with no other cell beside it"
            reason = _KILLED.format(times)
        self.ends[number] = give_up(job, "worker", reason, self.pipes.report)
        return False

    def _renew(self, place: int) -> None:
        """Put a new pool in place of one, which is idle or broken."""
        self.pools[place].shutdown()
        self.pools[place] = self._new_pool(place)

    def _new_pool(self, place: int) -> ProcessPoolExecutor:
        """Return a pool of one process, which starts with its first job."""
        if place in self.unstarted:
            self.unstarted.pop(place).close()
        ours, theirs = self.context.Pipe(duplex=False)
        self.pipes.add(ours)
        self.unstarted[place] = theirs
        known = self.threads, self.begun, theirs
        return ProcessPoolExecutor(1, self.context, initializer=_start_worker, initargs=known)


def _processes(pool: ProcessPoolExecutor) -> list[Any]:
    return list((pool._processes or {}).values())


class _EventPipes:
    """Passes the workers' events on while its block runs.

    Each worker has a pipe of its own: one that is killed while it writes breaks no other's.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._open: list[Connection] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._forward, daemon=True)

    def __enter__(self) -> "_EventPipes":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def add(self, pipe: Connection) -> None:
        """Listen to a pipe that a worker will write to."""
        with self._lock:
            self._open.append(pipe)

    def report(self, event: Event) -> None:
        """Pass an event on, whichever thread has it."""
        with self._lock:
            self._report(event)

    def _forward(self) -> None:
        """Pass on what comes, until the block is over and nothing comes any more."""
        while True:
            with self._lock:
                pipes = list(self._open)
            ready = cast("list[Connection]", wait_for_pipes(pipes, timeout=0.2))
            if not ready and self._stop.is_set():
                return
            for pipe in ready:
                try:
                    event = pipe.recv()
                except (EOFError, OSError):  # its worker has ended
                    with self._lock:
                        self._open.remove(pipe)
                    pipe.close()
                else:
                    self.report(event)


# What follows runs in a worker. It is started with the array in which it notes when it began each
# job, where `_Crew` looks for jobs that take too long, and with its end of a pipe for events.
_begun: Any = None
_pipe: Connection


def _start_worker(threads: int, begun: Any, pipe: Connection) -> None:
    global _begun, _pipe
    _begun, _pipe = begun, pipe
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends its workers
    torch.set_num_threads(threads)


def _work(job: CellJob, number: int) -> Failure | None:
    def report(event: Event) -> None:
        with suppress(OSError):  # the parent is gone: nobody is left to hear it
            _pipe.send(event)

    try:
        dataset = dataset_of(job)
    except DataError as error:  # the data were there when the run began
        return give_up(job, "data", " ".join(str(error).split()), report)
    _begun[number] = time.monotonic()
    return run_cell(job, dataset, report)
