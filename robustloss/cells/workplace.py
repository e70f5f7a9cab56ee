"""Where a cell is computed: what is asked for, the data, the folder, the device, the weights."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

import torch

from robustloss.attacks import Attack, build_attack
from robustloss.attacks.draws import average_draws, most_draws
from robustloss.cells import keys
from robustloss.cells.jobs import CellJob, cell_name, cell_values
from robustloss.cells.weights import CellWeights
from robustloss.cells.work import Work, count_work
from robustloss.data.images import Dataset
from robustloss.models.classifier import AnyClassifier
from robustloss.progress import TRAINED, Event, Stage
from robustloss.seeding import derive_seed
from robustloss.spec.spec import CellSpec, Spec
from robustloss.storage import write_json

Report = Callable[[Event], None]

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_PAUSE = 0.1  # seconds between events that say no more than how far a step is


class StepReport(Protocol):
    """Takes how far a step is, and the line of the learning curve that an epoch ended with."""

    def __call__(
        self, done: float, total: float, text: str, line: Mapping[str, Any] = _NOTHING
    ) -> None:
        """Take note of it."""


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
        weights = self.weights
        machine = keys.numerics(self.device, weights.backbones)
        tensors = weights.meta["tensors"]
        return keys.output_ingredients(
            self.dataset.checksum, weights.key, tensors, machine, self.draws
        )

    @cached_property
    def draws(self) -> int:
        """Calls of the model whose mean is judged: more than 1 if an attack averages (eot)."""
        return most_draws(self.attacks)

    def load_judge(self) -> AnyClassifier:
        """Return the trained model as every record shows it: the mean of `draws` calls.

        A new one draws the same numbers again, so that a pass that is computed anew gives the same.
        """
        model = average_draws(self.weights.load(), self.draws, derive_seed("draws", self.cell.seed))
        return cast(AnyClassifier, model)

    @property
    def density(self) -> bool:
        """Whether the loss's class_log_likelihood is a normalised log-density, once trained."""
        return bool(self.weights.meta["density"])

    @property
    def features(self) -> bool:
        """Whether the model offers features, once its weights are there."""
        return self.weights.meta.get("feature_dim", self.cell.model.feature_dim) > 0

    @cached_property
    def work(self) -> Work:
        """The passes of the model that come after its training."""
        return count_work(self.spec, self.attacks, self.dataset)

    def train(self) -> None:
        """Train the weights if they are not there, and write train.json, what the training left."""
        self.weights.ensure(self.make_reporter("train"))
        content = {"key": self.weights.key, **self.weights.meta["log"]}
        write_json(self.folder / "train.json", content, checked=True)

    def report_note(self, name: str, values: Mapping[str, Any] = _NOTHING) -> None:
        """Report by name that something happened, whatever it says of how far the cell is.

        Args:
            name: See `Event`.
            values: Beside those that say which cell it is.
        """
        told = cell_values(self.cell) | dict(values)
        self.report(Event(cell_name(self.cell), "note", name=name, values=told))

    def report_scoring(self, text: str, step: str = "", share: float = 0.0) -> None:
        """Report that a piece of work of the stage "score" begins.

        Args:
            text: Names it.
            step: Of `work` that it belongs to, if any.
            share: Of that step that is done.
        """
        fraction = self._fraction(step, share)
        self.report(Event(cell_name(self.cell), "score", 0, 1, text, fraction))

    def make_reporter(self, stage: Stage, prefix: str = "", step: str = "") -> StepReport:
        """Return a function that takes (done, total, text, line) and reports them as an Event.

        Args:
            stage: The stage of the events.
            prefix: Begins their text.
            step: Of `work`, which these events tell of, if any.
        """
        last = time.monotonic()

        def report(
            done: float, total: float, text: str, line: Mapping[str, Any] = _NOTHING
        ) -> None:
            nonlocal last
            now = time.monotonic()
            if not text and now - last < _PAUSE:
                return
            last, text = now, f"{prefix} {text}".strip()
            fraction = self._fraction(step, done / max(total, 1e-9))
            name, values = "epoch", {**cell_values(self.cell), "epochs": int(total), **line}
            if not line:
                name, values = "", {}
            event = Event(cell_name(self.cell), stage, done, total, text, fraction, name, values)
            self.report(event)

        return report

    def _fraction(self, step: str, share: float) -> float | None:
        """Return how much of the cell is done; None where it was not counted."""
        if not step or self.job.task != "cell":
            return None
        before = 0.0 if self.cell.loss.given else TRAINED
        return before + (1 - before) * self.work.fraction(step, share)


def open_workplace(job: CellJob, dataset: Dataset, report: Report) -> Workplace:
    """Return the workplace of a job; nothing is computed or written yet.

    Args:
        job: What to compute.
        dataset: The job's data.
        report: Called with an Event as the work goes on.
    """
    folder, device = job.folder / job.cell.folder, torch.device(job.device)
    return Workplace(job, dataset, folder, device, CellWeights(job, dataset), report)
