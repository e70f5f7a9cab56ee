"""Cells in several processes on this machine.

In this process: `run_in_processes` and the `_Crew`, which gives out the jobs and hears what becomes
of them. In each other process: `_work_off`, at the end of the file.
"""

import math
import time
import traceback
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from robustloss.cells.cell import run_cell
from robustloss.cells.jobs import CellJob, Failure, cell_name
from robustloss.data.files import DataError
from robustloss.progress import Event
from robustloss.runs.executors import alone
from robustloss.runs.executors.queue import JobQueue
from robustloss.runs.executors.workers import (
    Report,
    begin_worker,
    dataset_of,
    describe_end,
    give_up,
    limiting_threads,
    start_process,
    stop_process,
)
from robustloss.spec.plugins import plugins_of_cell

GRACE = 60.0  # seconds that a worker has to notice that the time of its cell is over

_STUCK = (
    "took longer than resources.minutes (={:g}) inside a library that did not return, so its "
    "worker process was ended. Raise it, or look for what hangs."
)


def run_in_processes(
    jobs: Sequence[CellJob], workers: int, threads: int, report: Report
) -> list[Failure | None]:
    """Compute the jobs in spawned processes, one device each, round robin over the GPUs.

    Args:
        jobs: What to compute.
        workers: How many processes, at most.
        threads: How many torch may use in each.
        report: Receives the events of all jobs.

    Returns:
        None or why it failed, for each job in their order.
    """
    with limiting_threads(threads):
        crew = _Crew(jobs, workers, threads, report)
        try:
            return crew.run()
        finally:
            crew.stop()


@dataclass
class _Worker:
    """A process that computes one job after another.

    Attributes:
        process: The process.
        pipe: Takes jobs to it, and brings its events and how each job ended. Every worker has its
            own, so that one that is killed while it writes spoils no other's.
        job: The number of the job that it has; None while it waits for one.
        deadline: By time.monotonic(), when the job must have ended.
        stuck: Whether the process was ended because it did not keep the deadline.
        foreign: The cell whose code of somebody else's the process has run; None for none.
    """

    process: BaseProcess
    pipe: Connection
    job: int | None = None
    deadline: float = math.inf
    stuck: bool = False
    foreign: str | None = None

    def stop(self) -> None:
        """End the process, whatever it does, and wait for that."""
        stop_process(self.process)
        self.pipe.close()


class _Crew:
    """Worker processes and the jobs that they have begun.

    The cell of a worker that is killed is begun again, up to spec.resources.retries times, after
    all others and with none beside it: what killed it may have been the memory that they took
    together.
    """

    def __init__(self, jobs: Sequence[CellJob], workers: int, threads: int, report: Report) -> None:
        self.jobs, self.threads, self.report = jobs, threads, report
        self.places = range(min(workers, len(jobs)))
        self.workers: dict[int, _Worker] = {}  # by place
        self.queue = JobQueue(jobs)
        self.deaths = [0] * len(jobs)

    def run(self) -> list[Failure | None]:
        """Return how each job ended, when all have."""
        again = deque[int]()
        while True:
            for place in self.places:
                if place in self._busy() or (number := self.queue.take()) is None:
                    continue
                self._begin(number, place)
            if not again and not self._busy():
                return self.queue.ends()
            if again and not self._busy():
                self.stop()  # idle workers keep memory too
                self._begin(again.popleft(), 0)
            places = {worker.pipe: place for place, worker in self.workers.items()}
            # A short wait, so that Ctrl-C is heard and deadlines are looked at between two events.
            for pipe in wait(list(places), timeout=0.5):
                assert isinstance(pipe, Connection)
                again += self._hear(places[pipe])
            for worker in self._busy().values():
                if time.monotonic() > worker.deadline:
                    worker.stuck = True
                    worker.process.kill()

    def stop(self) -> None:
        """End all workers, whatever they do."""
        while self.workers:
            self.workers.popitem()[1].stop()

    def _busy(self) -> dict[int, _Worker]:
        return {place: each for place, each in self.workers.items() if each.job is not None}

    def _begin(self, number: int, place: int) -> None:
        """Give a job to the worker of a place, which has none."""
        job = self.jobs[number]
        if job.device == "cuda":  # a worker keeps to one GPU: each that it used would cost memory
            job = replace(job, device=f"cuda:{place % torch.cuda.device_count()}")
        own = cell_name(job.cell) if alone.needs_own_process(job) else None
        worker = self.workers.get(place)
        if worker is not None and worker.foreign not in (None, own):
            # What another cell's code has left in it must not reach this one.
            worker.stop()
            worker = None
        worker = worker or self._start(place)
        try:
            worker.pipe.send(job)
        except OSError:  # it was killed while it had nothing to do
            worker.stop()
            worker = self._start(place)
            worker.pipe.send(job)
        worker.job, worker.foreign = number, own

    def _start(self, place: int) -> _Worker:
        self.workers[place] = _Worker(*start_process(_work_off, self.threads))
        return self.workers[place]

    def _hear(self, place: int) -> list[int]:
        """Take a message of a worker, or its death; return its job if it is to be begun again."""
        worker = self.workers[place]
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):  # the process is gone
            del self.workers[place]
            worker.process.join(1)  # for its exit status
            worker.stop()
            return [] if worker.job is None else self._bury(worker, worker.job)
        assert worker.job is not None
        if kind == "event":
            self.report(value)
        elif kind == "begun":
            minutes = self.jobs[worker.job].spec.resources.minutes or math.inf
            worker.deadline = time.monotonic() + 60 * minutes + GRACE
        elif kind == "ended":
            self.queue.end(worker.job, value)
            worker.job, worker.deadline = None, math.inf
        else:
            raise value
        return []

    def _bury(self, worker: _Worker, number: int) -> list[int]:
        """Return the job of a lost worker if it is to be begun again; else note that it failed."""
        job, resources = self.jobs[number], self.jobs[number].spec.resources
        foreign, exit_code = plugins_of_cell(job.spec, job.cell), worker.process.exitcode
        # Nobody killed it, and it would do so again.
        ended_itself = bool(foreign) and exit_code is not None and exit_code >= 0
        self.deaths[number] += 1
        deaths = self.deaths[number]
        if worker.stuck:
            reason = _STUCK.format(resources.minutes)
        elif deaths <= resources.retries and not ended_itself:
            return [number]
        else:
            times = "" if deaths == 1 else f" {deaths} times, at last with no other cell beside it"
            reason = describe_end(exit_code, foreign, times)
        self.queue.end(number, give_up(job, "worker", reason, self.report))
        return []


def _work_off(pipe: Connection, threads: int) -> None:
    """Compute, in a process of its own, one job after another that comes through the pipe."""
    begin_worker(threads)

    def send(kind: str, value: object) -> None:
        with suppress(OSError):  # the parent is gone, and this process ends in a moment
            pipe.send((kind, value))

    def report(event: Event) -> None:
        send("event", event)

    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            dataset = dataset_of(job)
        except DataError as error:  # the data were there when the run began
            reason = " ".join(str(error).split())
            send("ended", give_up(job, "data", reason, report))
            continue
        send("begun", None)  # loading the data does not count
        try:
            send("ended", run_cell(job, dataset, report))
        except BaseException as error:  # a fault of ours, which the parent raises
            error.add_note(traceback.format_exc())
            send("fault", error)
            raise
