"""Which executor a spec asks for."""

import re
from collections.abc import Sequence

import torch

from robustloss.cells.cell import run_cell
from robustloss.cells.jobs import CellJob, Failure
from robustloss.data.images import Dataset
from robustloss.runs.executors.cluster import check_address, run_on_ray
from robustloss.runs.executors.processes import Report, run_in_processes, threads_each
from robustloss.spec.spec import Spec


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
        found = run_in_processes(jobs, workers, report)
    else:
        found = [run_cell(job, dataset, report) for job in jobs]
    return [failure for failure in found if failure is not None]


def is_cluster(executor: str) -> bool:
    """Whether the cells are computed by a Ray cluster."""
    return executor.partition(":")[0] == "ray"


def cell_threads(executor: str, spec: Spec) -> int:
    """Returns the torch threads that a cell gets, which are part of the name of its files."""
    if is_cluster(executor):
        return spec.resources.cpus
    workers = check_executor(executor)
    return threads_each(workers) if workers else torch.get_num_threads()
