"""`--executor auto`: how many processes compute the cells, and with how many threads each.

This follows from the machine, the spec and the run folder, never from a timing, because the number
of threads decides the last bits of every number.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from robustloss.data.images import Dataset
from robustloss.results.run import load_run, read_started
from robustloss.spec.spec import Spec
from robustloss.training import processes

AUTO = "auto"
_PROCESS_BYTES = 2**30  # of memory that a worker takes without the data: torch, network, batches
_SHARE = 0.5  # of the machine's memory that all workers together may take


def choose_processes(
    spec: Spec, seeds: Sequence[int], dataset: Dataset, device: str, folders: Sequence[Path | None]
) -> str:
    """Return the executor that "auto" stands for: "serial", or "processes:NxT" with T threads each.

    One process a core, but no more than cells or trials, nor than fit in half the memory; the cores
    are shared out evenly. Other devices than a CPU, and torchrun, have one process.

    Args:
        spec: Of the run.
        seeds: Of the run.
        dataset: Its data, which every worker holds.
        device: "cpu", "cuda" or "mps".
        folders: Of the run, and of others whose files it shares. The threads that the first with
            cells has are kept, so that its files stay valid.
    """
    if device != "cpu" or processes.is_launched():
        return "serial"
    cores = torch.get_num_threads()
    kept = (_threads_of(folder) for folder in folders if folder is not None)
    threads = next((found for found in kept if found), None)
    cells = max(len(spec.cells(seeds)), len(spec.trials()))
    most = max(1, min(cells, _count_fitting(dataset)))
    workers = min(most, max(1, cores // (threads or 1)))
    threads = threads or max(1, cores // workers)
    return "serial" if workers == 1 and threads == cores else f"processes:{workers}x{threads}"


def _threads_of(folder: Path) -> int | None:
    """Return the number of threads that a folder's cells were made with; None if it is unknown.

    Args:
        folder: Of a run, which need not exist.
    """
    if not any((folder / name).is_dir() for name in ("cells", "trials")):
        return None
    try:
        noted = read_started(folder) or load_run(folder).provenance
    except (OSError, ValueError):  # damaged: its cells are found by their keys all the same
        return None
    threads = noted.get("threads")
    return threads if noted.get("device") == "cpu" and type(threads) is int and threads else None


def _count_fitting(dataset: Dataset) -> int:
    """Return how many processes fit in the share of memory that they may take together."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 1
    sets = (dataset.train, dataset.validation, dataset.test)
    held = sum(each.images.nbytes for each in sets if isinstance(each.images, torch.Tensor))
    return int(_SHARE * memory / (_PROCESS_BYTES + held))
