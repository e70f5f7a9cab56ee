"""What a worker process does, whoever started it, and how a cell ends whose worker is lost."""

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

Report = Callable[[Event], None]

THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which libraries are told their number of threads; they are read at import."""

_datasets: dict[tuple, Dataset] = {}


def dataset_of(job: CellJob) -> Dataset:
    """Return the job's data set, loaded once in a process; it was fetched before any worker began.

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
    report(Event(cell_name(cell), "failed", 0, 1, reason))
    return Failure(cell.loss.name, cell.label, cell.seed, stage, reason)


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
