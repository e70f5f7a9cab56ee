"""What a worker process needs, whoever started it, and how a cell ends that no worker could end."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing import connection

from robustloss.cells.jobs import CellJob, Failure, cell_name, remove_marks, trial_stage
from robustloss.data.images import Dataset
from robustloss.data.load import load_dataset
from robustloss.progress import Event
from robustloss.spec.spec import TrialSpec

THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which libraries are told their threads when they are loaded."""

_datasets: dict[tuple, Dataset] = {}


def dataset_of(job: CellJob) -> Dataset:
    """Returns the job's data set; it was fetched before any worker began.

    Raises:
        DataError: The data are not where the job says.
    """
    data = job.spec.data
    key = (data, job.spec.folder, job.data_root)
    if key not in _datasets:
        _datasets[key] = load_dataset(
            data, near=job.spec.folder, root=job.data_root, download=False, quiet=True
        )
    return _datasets[key]


def lost(job: CellJob, stage: str, reason: str, report: Callable[[Event], None]) -> Failure:
    """Returns the failure of a cell that could not tell its own, as one that failed in its worker.

    Args:
        job: The cell.
        stage: "worker" or "data"; the failure of a trial names that instead, by which it is known.
        reason: One line.
        report: Called with the event of the failure.
    """
    cell = job.cell
    if isinstance(cell, TrialSpec):
        stage = trial_stage(cell)
    remove_marks(job.folder / cell.folder)
    report(Event(cell_name(cell), "failed", 0, 1, reason))
    return Failure(cell.loss.name, cell.label, cell.seed, stage, reason)


def end_with_parent() -> None:
    """Ends this process as soon as the one that started it is gone; returns at once.

    Else workers would wait for work for ever, and until then compute beside the run that goes on.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
