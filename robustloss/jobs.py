"""A piece of work for one process, as plain values, and why one may come to nothing."""

from dataclasses import dataclass
from pathlib import Path

import torch

from robustloss.spec import CellSpec, Spec


@dataclass(frozen=True)
class CellJob:
    """Everything that computes one cell; plain values, so that any process can."""

    spec: Spec
    cell: CellSpec
    folder: Path  # the run folder
    device: str
    data_root: Path | None
    reuse: Path | None = None  # another run folder, whose weights serve where they are the same
    module: torch.nn.Module | None = None  # of a model in memory, as `robustloss.evaluate` has it


@dataclass(frozen=True)
class Failure:
    """Why a cell has no numbers."""

    loss: str
    label: str
    seed: int
    stage: str
    reason: str
