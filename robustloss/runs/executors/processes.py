"""Where cells are computed: in this process, or in several. The science does not know."""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, cast

import torch

from robustloss.cells.cell import run_cell
from robustloss.cells.jobs import CellJob, Failure
from robustloss.data.files import DataError
from robustloss.progress import Event
from robustloss.runs.executors.workers import THREAD_LIMITS, dataset_of, end_with_parent, lost

Report = Callable[[Event], None]

GRACE = 60.0  # seconds until a worker must have heard that the time of its cell is over

_KILLED = (
    "its worker process ended without a word{}, most likely killed for want of memory; use fewer "
    "workers or smaller batches. Run the command again to go on."
)
_DEAF = (
    "took longer than resources.minutes (={:g}) inside a library that did not return, so its "
    "worker process was ended. Raise it, or look for what hangs."
)


def threads_each(workers: int) -> int:
    """Returns the torch threads that each of several workers gets."""
    return max(1, torch.get_num_threads() // max(1, workers))


def run_in_processes(jobs: Sequence[CellJob], workers: int, report: Report) -> list[Failure | None]:
    """Runs the jobs in spawned processes, one device each, round robin over the GPUs."""
    with _thread_limit(threads_each(workers)), _forwarded(report) as lines:
        crew = _Crew(jobs, workers, lines)
        try:
            return crew.run()
        finally:
            crew.stop()


class _Crew:
    """Worker processes and the jobs that they have begun.

    Every process is a pool of its own, so that of a process that is killed the cell is known. That
    cell is begun again, up to spec.resources.retries times, after all others and with none beside
    it: what killed it may have been the memory that they took together.
    """

    def __init__(self, jobs: Sequence[CellJob], workers: int, lines: "_Lines") -> None:
        self.jobs, self.lines = jobs, lines
        self.context = multiprocessing.get_context("spawn")
        self.threads = threads_each(workers)
        self.found: list[Failure | None] = [None] * len(jobs)
        self.deaths = [0] * len(jobs)
        self.deaf: set[int] = set()
        self.running: dict[Future[Failure | None], tuple[int, int]] = {}  # -> job, pool
        # when a worker began each, by time.monotonic(); 0: it has not
        self.begun = self.context.RawArray("d", len(jobs))
        self.ends: dict[int, Connection] = {}  # of the lines of workers not started yet, by pool
        self.pools = [self._pool(place) for place in range(min(workers, len(jobs)))]

    def run(self) -> list[Failure | None]:
        """Returns how each job ended, when all have."""
        waiting, again = deque(range(len(self.jobs))), deque[int]()
        while waiting or again or self.running:
            free = set(range(len(self.pools))) - {place for _, place in self.running.values()}
            while waiting and free:
                self._begin(waiting.popleft(), free.pop())
            if again and not self.running:
                for place in range(len(self.pools)):  # the idle ones keep memory too
                    self._renew(place)
                self._begin(again.popleft(), 0)
            # A short wait, so that Ctrl-C is heard between two cells.
            for future in wait(self.running, timeout=0.5, return_when=FIRST_COMPLETED).done:
                number, place = self.running.pop(future)
                try:
                    self.found[number] = future.result()
                except BrokenProcessPool:
                    self._renew(place)
                    again += self._died(number)
            self._end_the_deaf()
        return self.found

    def stop(self) -> None:
        """Ends the processes, whatever they do, and waits for that.

        Also when all is done: they would take two seconds to leave by themselves.
        """
        for process in (each for pool in self.pools for each in _processes(pool)):
            process.terminate()
        for pool in self.pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def _pool(self, place: int) -> ProcessPoolExecutor:
        """Returns a pool of one process, which starts with its first job."""
        if place in self.ends:
            self.ends.pop(place).close()
        ours, theirs = self.context.Pipe(duplex=False)
        self.lines.add(ours)
        self.ends[place] = theirs
        known = self.threads, self.begun, theirs
        return ProcessPoolExecutor(1, self.context, initializer=_start_worker, initargs=known)

    def _renew(self, place: int) -> None:
        self.pools[place].shutdown()
        self.pools[place] = self._pool(place)

    def _begin(self, number: int, place: int) -> None:
        self.begun[number] = 0.0
        try:
            future = self._submit(number, place)
        except BrokenProcessPool:  # killed while it had nothing to do
            self._renew(place)
            future = self._submit(number, place)
        self.running[future] = number, place

    def _submit(self, number: int, place: int) -> Future[Failure | None]:
        job = _placed(self.jobs[number], place)
        future = self.pools[place].submit(_work, job, number)
        if place in self.ends:  # the process has its own now; with it alone the line must end
            self.ends.pop(place).close()
        return future

    def _died(self, number: int) -> list[int]:
        """Returns the job if it is to be begun again; else it has failed."""
        job, report = self.jobs[number], self.lines.report
        self.deaths[number] += 1
        if number in self.deaf:
            self.found[number] = lost(
                job, "worker", _DEAF.format(job.spec.resources.minutes), report
            )
        elif self.deaths[number] <= job.spec.resources.retries:
            return [number]
        else:
            deaths = self.deaths[number]
            times = "" if deaths == 1 else f" {deaths} times, at last with no other cell beside it"
            self.found[number] = lost(job, "worker", _KILLED.format(times), report)
        return []

    def _end_the_deaf(self) -> None:
        """Ends the processes that did not hear that the time of their cell is over."""
        for number, place in self.running.values():
            minutes = self.jobs[number].spec.resources.minutes or math.inf
            if 0 < self.begun[number] < time.monotonic() - 60 * minutes - GRACE:
                self.deaf.add(number)
                for process in _processes(self.pools[place]):
                    process.kill()


def _processes(pool: ProcessPoolExecutor) -> list[Any]:
    return list((pool._processes or {}).values())


class _Lines:
    """The pipes by which workers tell their events, one each: a killed one breaks no other's."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._open: list[Connection] = []

    def add(self, line: Connection) -> None:
        """Takes the end of a pipe that a worker will write to."""
        with self._lock:
            self._open.append(line)

    def report(self, event: Event) -> None:
        """Tells an event, whichever thread has it."""
        with self._lock:
            self._report(event)

    def pass_on(self, timeout: float) -> bool:
        """Passes on what has come, and returns whether anything has.

        Args:
            timeout: Seconds to wait for it.
        """
        with self._lock:
            lines = list(self._open)
        ready = cast("list[Connection]", wait_for(lines, timeout))
        for line in ready:
            try:
                event = line.recv()
            except (EOFError, OSError):  # its worker has ended
                with self._lock:
                    self._open.remove(line)
                line.close()
            else:
                self.report(event)
        return bool(ready)


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


def _placed(job: CellJob, place: int) -> CellJob:
    """Returns the job for the GPU of its worker, which keeps to one: each costs it memory."""
    if job.device != "cuda":
        return job
    return replace(job, device=f"cuda:{place % torch.cuda.device_count()}")


@contextmanager
def _forwarded(report: Report) -> Iterator[_Lines]:
    """Passes the workers' events on to the report while the block runs."""
    stop, lines = threading.Event(), _Lines(report)

    def forward() -> None:
        while lines.pass_on(0.2) or not stop.is_set():
            pass

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        stop.set()
        thread.join()


# In a worker: when it began each job, which `_Crew` looks at, and where it tells its events.
_begun: Any = None
_line: Connection


def _start_worker(threads: int, begun: Any, line: Connection) -> None:
    global _begun, _line
    _begun, _line = begun, line
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends us
    torch.set_num_threads(threads)


def _tell(event: Event) -> None:
    with suppress(OSError):  # the other side is gone: nobody to tell
        _line.send(event)


def _work(job: CellJob, number: int) -> Failure | None:
    try:
        dataset = dataset_of(job)
    except DataError as error:  # it was there when the run began
        return lost(job, "data", " ".join(str(error).split()), _tell)
    _begun[number] = time.monotonic()
    return run_cell(job, dataset, _tell)
