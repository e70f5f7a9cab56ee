"""What a worker process needs, whoever started it: the data set, loaded once, and its threads."""

from robustloss.data import Dataset, load_for_spec
from robustloss.jobs import CellJob

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
