"""A run by several processes that torchrun started: the first leads, the others train along."""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

from robustloss.cells.jobs import SharedTraining
from robustloss.cells.weights import CellWeights
from robustloss.runs.errors import RunError
from robustloss.runs.executors.automatic import AUTO
from robustloss.runs.executors.workers import dataset_of
from robustloss.spec.spec import Spec
from robustloss.training import processes
from robustloss.training.processes import LeaderStoppedError

Outcome = TypeVar("Outcome")


def check_shared(spec: Spec, executor: str, device: str) -> None:
    """Check that processes which torchrun started can share this run.

    Args:
        spec: Of the run.
        executor: As asked for; it must be "auto" or "serial".
        device: "cpu" or "cuda"; no other can be shared.

    Raises:
        RunError: Another executor than serial, a time limit, another device, or fewer GPUs on
            this machine than processes.
    """
    if device not in ("cpu", "cuda"):
        raise RunError(f"device (={device!r}) cannot be shared by torchrun; use cpu or cuda.")
    count = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device == "cuda" and count > (gpus := torch.cuda.device_count()):
        raise RunError(
            f"--nproc-per-node (={count}) must be at most the GPUs that torch sees on this machine "
            f"(={gpus}): each process takes one of its own. Start torchrun with --nproc-per-node "
            f"{gpus}, or add --device cpu to the run."
        )
    if executor not in (AUTO, "serial"):
        raise RunError(
            f"executor (={executor!r}) starts processes of its own, and torchrun has started "
            "these; leave --executor out, or torchrun."
        )
    if spec.resources.minutes is not None:
        raise RunError(
            "resources.minutes cannot be kept where torchrun started the processes: one that "
            "stopped alone would leave the others waiting. Take it out of the spec."
        )


def lead_or_follow(run_all: Callable[[], Outcome], device: str) -> Outcome:
    """Do the whole run in the first process, and in the others take part in each of its trainings.

    Args:
        run_all: Does the run; called in the first process alone.
        device: "cpu" or "cuda".

    Returns:
        In every process, what `run_all` returned in the first.

    Raises:
        LeaderStoppedError: In the others, where `run_all` failed in the first.
    """
    outcome: Outcome | None
    with processes.joining(device) as group:
        if group.leads:
            try:
                outcome = run_all()
            except Exception:  # after anything else, such as Ctrl-C, the others may hear no order
                group.dismiss(None)
                group.close()
                raise
            group.dismiss(outcome)
        else:
            while isinstance(order := group.receive(), SharedTraining):
                with suppress(Exception):  # the leader hears of it too, and reports it
                    # The leader has its data already; this process may have to load them first.
                    with group.agreeing(patient=True):
                        weights = CellWeights(order.job, dataset_of(order.job))
                        weights.check_ingredients(order.ingredients)
                        model = weights.build_model()
                    weights.train_along(model)
            outcome = order
    if outcome is None:
        raise LeaderStoppedError("the run stopped in the first process, which says why.")
    return outcome
