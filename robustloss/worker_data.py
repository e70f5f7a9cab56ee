"""The data set of a worker process: loaded once, used by every cell that the process computes."""

from robustloss.cells import CellJob
from robustloss.data import Dataset, load_for_spec

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
