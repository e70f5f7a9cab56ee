"""Where a cell is computed: what is asked for, the data, the folder, the device, the weights."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from robustloss.attacks import Attack, build_attack
from robustloss.cells import keys
from robustloss.cells.jobs import CellJob, cell_name
from robustloss.cells.weights import CellWeights
from robustloss.data.images import Dataset
from robustloss.evaluation import passes
from robustloss.progress import Event, Stage
from robustloss.spec.spec import CellSpec, Spec
from robustloss.storage import write_json

Report = Callable[[Event], None]


@dataclass(frozen=True, eq=False)
class Workplace:
    """Everything that the stages of a cell have in common; it does not change between them.

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

    @cached_property
    def attacks(self) -> list[Attack]:
        """The attacks, built, in the order of the spec."""
        folders = (self.spec.folder,)
        return [build_attack(a.name, folders=folders, **a.params) for a in self.spec.attacks]

    @cached_property
    def outputs(self) -> keys.Outputs:
        """What decides the outputs of the model on the data, once its weights are there."""
        weights, machine = self.weights, keys.numerics(self.device)
        tensors = weights.meta["tensors"]
        return keys.output_ingredients(self.dataset.checksum, weights.key, tensors, machine)

    def train(self) -> None:
        """Train the weights if they are not there, and write train.json, what the training left."""
        self.weights.ensure(self.make_reporter("train"))
        content = {"key": self.weights.key, **self.weights.meta["log"]}
        write_json(self.folder / "train.json", content, checked=True)

    def report_scoring(self, text: str) -> None:
        """Report that a piece of work of the stage "score" begins, which the text names."""
        self.report(Event(cell_name(self.cell), "score", 0, 1, text))

    def make_reporter(self, stage: Stage, prefix: str = "") -> passes.Report:
        """Return a function that takes (done, total, text) and reports them as an Event.

        Args:
            stage: The stage of the events.
            prefix: Begins their text.
        """

        def report(done: float, total: float, text: str) -> None:
            text = f"{prefix} {text}".strip()
            self.report(Event(cell_name(self.cell), stage, done, total, text))

        return report


def open_workplace(job: CellJob, dataset: Dataset, report: Report) -> Workplace:
    """Return the workplace of a job; nothing is computed or written yet.

    Args:
        job: What to compute.
        dataset: The job's data.
        report: Called with an Event as the work goes on.
    """
    folder, device = job.folder / job.cell.folder, torch.device(job.device)
    return Workplace(job, dataset, folder, device, CellWeights(job, dataset), report)
