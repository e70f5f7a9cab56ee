"""Where a cell is computed: what is asked for, the data, the folder, the device, the weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robustloss import losses
from robustloss.cells.jobs import CellJob, cell_name
from robustloss.cells.keys import numerics
from robustloss.cells.weights import CellWeights
from robustloss.data.images import Dataset
from robustloss.evaluation import passes
from robustloss.models import build
from robustloss.progress import Event, Stage
from robustloss.spec.spec import CellSpec, Spec

Report = Callable[[Event], None]


@dataclass(frozen=True)
class Workplace:
    """Everything that the stages of a cell have in common. It does not change between them.

    Attributes:
        job: What to compute.
        dataset: The job's data.
        folder: The cell's folder, which takes the files.
        device: Where to compute.
        weights: The cell's weights, trained or loaded when they are first needed.
        report: Called with an Event as the work goes on.
    """

    job: CellJob
    dataset: Dataset
    folder: Path
    device: torch.device
    weights: CellWeights
    report: Report

    @property
    def spec(self) -> Spec:
        """The spec of the run."""
        return self.job.spec

    @property
    def cell(self) -> CellSpec:
        """The loss and the seed, with the network and the training that hold for them."""
        return self.job.cell

    @property
    def name(self) -> str:
        """The cell's name in events, see `cell_name`."""
        return cell_name(self.job.cell)

    def outputs(self, meta: Mapping[str, Any]) -> list[object]:
        """Return what decides the outputs of the trained model on the images of the data.

        Args:
            meta: The metadata of the trained weights.
        """
        # The key too: what changes the outputs of a loss need not change its weights, as its
        # class_log_likelihood.
        known = [self.dataset.checksum, self.weights.key, meta["tensors"]]
        versions = [passes.VERSION, build.VERSION, losses.VERSION]
        return [*known, *versions, *numerics(self.device)]

    def report_scoring(self, text: str) -> None:
        """Report that a pass over images, or another part of the stage "score", begins."""
        self.report(Event(self.name, "score", 0, 1, text))

    def make_reporter(self, stage: Stage, prefix: str = "") -> passes.Report:
        """Return a function that takes (done, total, text) and reports them as an Event.

        Args:
            stage: The stage of the events.
            prefix: Begins their text.
        """

        def report(done: float, total: float, text: str) -> None:
            self.report(Event(self.name, stage, done, total, f"{prefix} {text}".strip()))

        return report


def open_workplace(job: CellJob, dataset: Dataset, report: Report) -> Workplace:
    """Return the workplace of a job. Nothing is computed or written yet.

    Args:
        job: What to compute.
        dataset: The job's data.
        report: Called with an Event as the work goes on.
    """
    folder, device = job.folder / job.cell.folder, torch.device(job.device)
    return Workplace(job, dataset, folder, device, CellWeights(job, dataset), report)
