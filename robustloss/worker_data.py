"""What a worker process needs, whoever started it, and how a cell ends that no worker could end."""

from collections.abc import Callable

from robustloss.data import Dataset, load_for_spec
from robustloss.jobs import CellJob, Failure, cell_name
from robustloss.progress import Event

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
        _datasets[key] = load_for_spec(
            data, near=job.spec.folder, root=job.data_root, download=False, quiet=True
        )
    return _datasets[key]


def lost(job: CellJob, stage: str, reason: str, report: Callable[[Event], None]) -> Failure:
    """Returns the failure of a cell that could not tell its own, as one that failed in its worker.

    Args:
        job: The cell.
        stage: "worker" or "data".
        reason: One line.
        report: Called with the event of the failure.
    """
    cell = job.cell
    # A done mark of an earlier state must not stand for a cell that now fails.
    (job.folder / cell.folder / "cell.json").unlink(missing_ok=True)
    report(Event(cell_name(cell), "failed", 0, 1, reason))
    return Failure(cell.loss.name, cell.label, cell.seed, stage, reason)
