"""A piece of work for one process, as plain values, and why one may come to nothing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

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
    """Everything that computes one cell, or some of it; plain values, so that any process can."""

    spec: Spec
    cell: CellSpec
    folder: Path  # the run folder
    device: str
    data_root: Path | None
    reuse: Path | None = None  # another run folder, whose weights serve where they are the same
    module: torch.nn.Module | None = None  # of a model in memory, as `robustloss.evaluate` has it
    task: Literal["cell", "preparation"] | Part = "cell"  # preparation: whatever parts need


@dataclass(frozen=True)
class SharedTraining:
    """A cell that several processes train together, and what decides its weights in all of them."""

    job: CellJob
    ingredients: dict[str, Any]  # see `CellWeights.ingredients`


def cell_name(cell: CellSpec) -> str:
    """Returns what the events of a cell call it, such as "L-GM seed 0" or "L-GM trial 3"."""
    which = f"trial {cell.number}" if isinstance(cell, TrialSpec) else f"seed {cell.seed}"
    return f"{cell.label} {which}"


def trial_stage(trial: TrialSpec) -> str:
    """Returns the stage of a trial's failure, by which its row is found."""
    return f"trial {trial.number}"


def remove_marks(folder: Path) -> None:
    """Takes away what says that a cell or a trial is done: an earlier state, if it now fails."""
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
