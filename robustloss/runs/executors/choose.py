"""Which executor a name asks for, and what it computes the jobs with."""

import re
from collections.abc import Sequence

import torch

from robustloss.cells.cell import run_cell
from robustloss.cells.jobs import CellJob, Failure
from robustloss.data.images import Dataset
from robustloss.runs.errors import RunError
from robustloss.runs.executors import alone
from robustloss.runs.executors.automatic import AUTO
from robustloss.runs.executors.cluster import check_address, run_on_ray
from robustloss.runs.executors.processes import run_in_processes
from robustloss.runs.executors.queue import JobQueue
from robustloss.runs.executors.workers import Report
from robustloss.spec.spec import Spec

_PROCESSES = re.compile("processes:([1-9][0-9]*)(?:x([1-9][0-9]*))?")


def check_executor(name: str) -> None:
    """Check that an executor can be used.

    Args:
        name: "auto", "serial", "processes:N" or "processes:NxT"; "ray" or "ray:ADDRESS", which is
            asked whether it answers.

    Raises:
        RunError: No such executor, or it cannot be used here.
    """
    if _is_cluster(name):
        check_address(name)
    elif name not in (AUTO, "serial") and not _PROCESSES.fullmatch(name):
        raise RunError(
            f"executor (={name!r}) must be auto, serial or processes:N with N >= 1, as "
            "processes:2, or ray or ray:ADDRESS."
        )


def count_processes(name: str) -> tuple[int, int]:
    """Return how many worker processes an executor starts here, and the torch threads of each.

    Args:
        name: See check_executor; any but "auto", and no cluster.

    Returns:
        N and T; 0 and the threads of this process for serial.
    """
    threads = torch.get_num_threads()
    if not (found := _PROCESSES.fullmatch(name)):
        return 0, threads
    count = int(found[1])
    return count, int(found[2] or max(1, threads // count))


def run_jobs(
    jobs: Sequence[CellJob], dataset: Dataset, executor: str, report: Report
) -> list[Failure]:
    """Compute the jobs and return the failures, in the order of the jobs.

    Where the first job of every loss fails with the same message, the rest is left out, see
    `JobQueue`. A cell that runs somebody else's code has a process that no other cell uses.

    Args:
        jobs: Cells, trials or parts of cells, all of one run.
        dataset: Its data; other processes and nodes load them by themselves.
        executor: See check_executor; any but "auto".
        report: Receives the events of all jobs.
    """
    if not jobs:
        return []  # no process and no cluster is started for nothing
    if _is_cluster(executor):
        ends = run_on_ray(jobs, executor, report)
    elif (crew := count_processes(executor))[0]:
        ends = run_in_processes(jobs, *crew, report)
    else:
        queue = JobQueue(jobs)
        while (number := queue.take()) is not None:
            job = jobs[number]
            if alone.needs_own_process(job):
                queue.end(number, run_in_processes([job], 1, crew[1], report)[0])
            else:
                queue.end(number, run_cell(job, dataset, report))
        ends = queue.ends()
    return [failure for failure in ends if failure is not None]


def cell_threads(executor: str, spec: Spec) -> int:
    """Return the torch threads that a cell gets; they are part of the key of its files.

    Args:
        executor: See check_executor; any but "auto".
        spec: Of the run: on a cluster its resources.cpus count.
    """
    if _is_cluster(executor):
        return spec.resources.cpus
    return count_processes(executor)[1]


def _is_cluster(executor: str) -> bool:
    return executor.partition(":")[0] == "ray"
