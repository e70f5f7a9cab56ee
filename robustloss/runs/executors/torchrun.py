"""Started by torchrun: leader and followers."""

import os
from contextlib import suppress
from typing import Any

import torch

from robustloss.cells.jobs import SharedTraining
from robustloss.cells.weights import CellWeights
from robustloss.runs.executors.workers import dataset_of
from robustloss.spec.spec import Spec
from robustloss.training.processes import Distributed


def check_shared(spec: Spec, executor: str, device: str) -> None:
    """Checks that a run whose processes torchrun started can be done so.

    Raises:
        ValueError: Another executor than serial, a time limit, no such device for it, or fewer
            GPUs on this machine than processes.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device (={device!r}) cannot be shared by torchrun; use cpu or cuda.")
    count = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device == "cuda" and count > (gpus := torch.cuda.device_count()):
        raise ValueError(
            f"--nproc-per-node (={count}) must be at most the GPUs that torch sees on this machine "
            f"(={gpus}): each process takes one of its own. Start torchrun with --nproc-per-node "
            f"{gpus}, or add --device cpu to the run."
        )
    if executor != "serial":
        raise ValueError(
            f"executor (={executor!r}) starts processes of its own, and torchrun has started "
            "these; leave --executor out, or torchrun."
        )
    if spec.resources.minutes is not None:
        raise ValueError(
            "resources.minutes cannot be kept where torchrun started the processes: one that "
            "stopped alone would leave the others waiting. Take it out of the spec."
        )


def follow(group: Distributed) -> Any:
    """Trains along whatever the leader of the processes trains.

    Returns:
        What the leader's run ended with.
    """
    while isinstance(order := group.order(), SharedTraining):
        with suppress(Exception):  # what all were told, the leader tells
            _train_along(order, group)
    return order


def _train_along(order: SharedTraining, group: Distributed) -> None:
    """Takes this process's part in a training, if it holds the data and the code of the leader's.

    Raises:
        Exception: Whatever failed, here or in another process.
    """
    with group.agreeing(patient=True):  # the leader's data are loaded, this one's may not be
        weights = CellWeights(order.job, dataset_of(order.job))
        weights.check_ingredients(order.ingredients)
        model = weights.build_model()
    weights.train_along(model)
