"""What one process is asked to compute, as plain values, and why a cell may have no numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from robustloss.progress import Event
from robustloss.spec.spec import CellSpec, Spec, TrialSpec


@dataclass(frozen=True)
class Part:
    """Some test images under one attack: what a worker computes of a cell that is split.

    Attributes:
        attack: Position in the attacks of the spec.
        eps: The budgets whose records are missing.
        start: Position of the first image in the test set, where a batch begins.
        stop: Position after the last image.
    """

    attack: int
    eps: tuple[float, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class CellJob:
    """Everything that decides how one cell is computed; plain values, so that any process can."""

    spec: Spec
    cell: CellSpec
    folder: Path  # of the run
    device: str
    data_root: Path | None
    reuse: Path | None = None  # another run's folder: equal weights are copied from there
    module: torch.nn.Module | None = None  # a model in memory, of `robustloss.evaluate`
    task: Literal["cell", "preparation"] | Part = "cell"  # preparation: what parts need


@dataclass(frozen=True)
class SharedTraining:
    """A cell that several processes train together, and what decides its weights in all of them."""

    job: CellJob
    ingredients: dict[str, Any]  # see `CellWeights.ingredients`


def cell_name(cell: CellSpec) -> str:
    """Return the name of a cell in events, such as "L-GM seed 0" or "L-GM trial 3"."""
    which = f"trial {cell.number}" if isinstance(cell, TrialSpec) else f"seed {cell.seed}"
    return f"{cell.label} {which}"


def cell_values(cell: CellSpec) -> dict[str, Any]:
    """Return what says in the values of an event which cell it is of."""
    number = {"trial": cell.number} if isinstance(cell, TrialSpec) else {}
    return {"label": cell.label, "seed": cell.seed, **number}


def failed_event(cell: CellSpec, stage: str, reason: str) -> Event:
    """Return the event of a cell or a trial that failed.

    Args:
        cell: Which.
        stage: Where, as in `Failure`.
        reason: Why, in a line.
    """
    told = {**cell_values(cell), "stage": stage, "reason": reason}
    return Event(cell_name(cell), "failed", 0, 1, reason, name="cell_failed", values=told)


def trial_stage(trial: TrialSpec) -> str:
    """Return the stage that the Failure of a trial has: its row is found by it."""
    return f"trial {trial.number}"


def remove_marks(folder: Path) -> None:
    """Remove what says that a cell or a trial is done; what fails now may have been done before."""
    for name in ("cell.json", "trial.json"):
        (folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Failure:
    """Why a cell has no numbers."""

    loss: str
    label: str
    seed: int
    stage: str
    reason: str
