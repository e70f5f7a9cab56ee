"""Which executor a name asks for, and what it computes the jobs with."""

import re
from collections.abc import Sequence

import torch

from robustloss.cells.cell import run_cell
from robustloss.cells.jobs import CellJob, Failure
from robustloss.data.images import Dataset
from robustloss.runs.errors import RunError
from robustloss.runs.executors import alone
from robustloss.runs.executors.cluster import check_address, run_on_ray
from robustloss.runs.executors.processes import run_in_processes, threads_each
from robustloss.runs.executors.queue import JobQueue
from robustloss.runs.executors.workers import Report
from robustloss.spec.spec import Spec


def check_executor(name: str) -> int:
    """Return how many worker processes an executor starts on this machine.

    Args:
        name: "serial" or "processes:N"; "ray" or "ray:ADDRESS", which is asked whether it answers.

    Returns:
        N; 0 for serial and for a cluster.

    Raises:
        RunError: No such executor, or it cannot be used here.
    """
    kind, _, count = name.partition(":")
    if name == "serial":
        return 0
    if kind == "processes" and re.fullmatch("[1-9][0-9]*", count):
        return int(count)
    if _is_cluster(name):
        check_address(name)
        return 0
    raise RunError(
        f"executor (={name!r}) must be serial or processes:N with N >= 1, as processes:2, "
        "or ray or ray:ADDRESS."
    )


def run_jobs(
    jobs: Sequence[CellJob], dataset: Dataset, executor: str, report: Report
) -> list[Failure]:
    """Compute the jobs and return the failures, in the order of the jobs.

    Where the first job of every loss fails with the same message, the rest is left out, see
    `JobQueue`. A cell that runs somebody else's code has a process that no other cell uses.

    Args:
        jobs: Cells, trials or parts of cells, all of one run.
        dataset: Its data; other processes and nodes load them by themselves.
        executor: See check_executor.
        report: Receives the events of all jobs.
    """
    if not jobs:
        return []  # no process and no cluster is started for nothing
    if _is_cluster(executor):
        ends = run_on_ray(jobs, executor, report)
    elif workers := check_executor(executor):
        ends = run_in_processes(jobs, workers, report)
    else:
        queue = JobQueue(jobs)
        while (number := queue.take()) is not None:
            job = jobs[number]
            if alone.needs_own_process(job):
                queue.end(number, run_in_processes([job], 1, report)[0])
            else:
                queue.end(number, run_cell(job, dataset, report))
        ends = queue.ends()
    return [failure for failure in ends if failure is not None]


def cell_threads(executor: str, spec: Spec) -> int:
    """Return the torch threads that a cell gets; they are part of the key of its files.

    Args:
        executor: See check_executor.
        spec: Of the run: on a cluster its resources.cpus count.
    """
    if _is_cluster(executor):
        return spec.resources.cpus
    workers = check_executor(executor)
    return threads_each(workers) if workers else torch.get_num_threads()


def _is_cluster(executor: str) -> bool:
    return executor.partition(":")[0] == "ray"
