"""The weights of one cell: what decides them, where they lie, how they come there."""

import copy
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from robustloss import losses
from robustloss.cells.jobs import CellJob, SharedTraining
from robustloss.cells.keys import numerics, plugin_digest
from robustloss.data.images import Dataset
from robustloss.models import build, classifier, given, weight_files
from robustloss.models.build import describe_network
from robustloss.results.checking import check_tables
from robustloss.seeding import using_repeatable_kernels, using_seed
from robustloss.storage import CorruptFile, digest, write_bytes
from robustloss.training import log as training_log
from robustloss.training import processes, train
from robustloss.training.precision import choose_precision


class CellWeights:
    """The weights of one cell, trained once and loaded where something is computed with them.

    Args:
        job: Whose.
        dataset: The job's data.

    Attributes:
        build: See `describe_network`.
        fresh: Whether they were trained, or loaded to compute something.
    """

    def __init__(self, job: CellJob, dataset: Dataset) -> None:
        self.job, self.dataset = job, dataset
        self.spec, self.cell = job.spec, job.cell
        self.device = torch.device(job.device)
        self.folder = job.folder / job.cell.folder
        self.build = describe_network(self.cell, dataset)
        self.fresh = False
        self._model: classifier.AnyClassifier | None = None

    @cached_property
    def parts(self) -> dict[str, Any]:
        """What decides a training but for the numerics, by name: equal wherever it is shared."""
        training = self.cell.train.model_dump(mode="json")
        training["precision"] = choose_precision(training["precision"], self.device)
        folder = self.spec.folder
        return {
            "the versions of robustloss": [train.VERSION, build.VERSION, losses.VERSION],
            "the checksum of the training data": self.dataset.training_checksum,
            "the network": {**self.build, "mean": list(self.dataset.mean)},
            "the source of the loss": plugin_digest(self.cell.loss.name, folder),
            "the source of the backbone": plugin_digest(self.cell.model.backbone, folder),
            "train": training,
            "the seed": self.cell.seed,
        }

    @cached_property
    def training_key(self) -> str:
        """The hash of what decides a training, on however many processes."""
        if self.cell.loss.given:
            return self._given_key()
        return digest(*self.parts.values(), numerics(self.device))

    @cached_property
    def key(self) -> str:
        """What names the weights: the training's key, and its processes if they are several.

        These change rounding and dropout masks. Weights by another number serve too where there
        are some, under their own name: a model need not be attacked by as many as trained it.
        """
        count = processes.current_group().size
        if count == 1 or self.cell.loss.given:
            own = self.training_key
        else:
            own = f"{self.training_key}-x{count}"
        pattern = f"model-{self.training_key}*.safetensors"
        found = [*sorted(self.folder.glob(pattern)), *self._elsewhere(pattern)]
        if any(path.name == f"model-{own}.safetensors" for path in found):
            return own
        whole = (path for path in found if _metadata(path) is not None)
        return next((path.stem.removeprefix("model-") for path in whole), own)

    @property
    def path(self) -> Path:
        """Where the weights lie."""
        return self.folder / f"model-{self.key}.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Where an unfinished training lies; whoever needs it no more takes it away."""
        return self.folder / f"checkpoint-{self.training_key}.safetensors"

    def trained(self, report: train.Report) -> dict[str, Any]:
        """Returns the metadata of the trained weights, training them if they are not there.

        Args:
            report: Called with (done, total, text) as the training goes on.
        """
        if (known := self.known()) is not None:
            return known  # if damaged trained anew: the same weights, because the key decides them
        self.fresh = True
        if (taken := self._taken_over()) is not None:
            return taken
        model = self.new_model()
        if self.cell.loss.given:
            return self._as_given(model)
        processes.current_group().announce(SharedTraining(self.job, self.parts))
        log = self._fit(model, self.checkpoint, report)
        self._model = model
        meta: dict[str, Any] = {"log": asdict(log), "density": model.head.density}
        meta["tensors"] = weight_files.save_tensors(self.path, model.state_dict(), meta)
        return meta

    def check_parts(self, parts: Mapping[str, Any]) -> None:
        """Compares what decides the training here with the same of the process that leads.

        Raises:
            ValueError: They differ: the weights would be of neither.
        """
        if found := "; ".join(_differences(self.parts, parts)):
            raise ValueError(
                f"on {socket.gethostname()} {found}. Processes that train together must hold the "
                "same: give every machine the same data, spec folder and version of robustloss, "
                "and a train.precision that each of them has."
            )

    def train_along(self, model: classifier.AnyClassifier) -> None:
        """Takes this process's part in a training of a new model that the leader began."""
        with using_repeatable_kernels():
            self._fit(model, None, lambda done, total, text: None)  # the leader reports

    def _fit(
        self, model: classifier.AnyClassifier, checkpoint: Path | None, report: train.Report
    ) -> training_log.TrainingLog:
        assert isinstance(model, classifier.Classifier)
        return train.train(
            model,
            self.dataset,
            self.cell.train,
            seed=self.cell.seed,
            device=self.device,
            checkpoint=checkpoint,
            key=self.training_key,
            report=report,
        )

    def known(self) -> dict[str, Any] | None:
        """Returns the metadata of the weights if they are there and whole."""
        return _metadata(self.path) if self.path.exists() else None

    def loaded(self) -> classifier.AnyClassifier:
        """Returns the trained model on the device; loaded only when something must be computed."""
        self.fresh = True
        if self._model is None:
            model = self.new_model()
            model.load_state_dict(weight_files.load_tensors(self.path)[0])
            model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._model = model.eval()
        return self._model

    def new_model(self) -> classifier.AnyClassifier:
        """Returns the network as it is before training; of a model from elsewhere, that model."""
        if self.job.module is not None:
            module = copy.deepcopy(self.job.module)
            features = self.dataset.train.n > 0  # else there is nothing to fit scores on
            if isinstance(module, classifier.Classifier) and features:
                return module.eval()
            shape, classes = self.dataset.image_shape, self.dataset.num_classes
            return given.wrap_given(module, shape, classes, features=features)
        with using_seed("weights", self.cell.seed):
            return build.build_with_weights(self.cell.loss.weights, self.build, (self.spec.folder,))

    def _given_key(self) -> str:
        """Returns the key of a model from elsewhere: its bytes decide, and its code."""
        loss, folder = self.cell.loss, self.spec.folder
        names = (loss.factory,) if loss.factory else (loss.name, self.cell.model.backbone)
        return digest(
            "given",
            [given.VERSION, build.VERSION, losses.VERSION],
            {**self.build, "factory": loss.factory},
            [plugin_digest(name, folder) if self.job.module is None else "" for name in names],
            # Built anew for each job: a factory may read a file that has changed since.
            weight_files.tensor_digest(weight_files.collect_state(self.new_model())),
            numerics(self.device),
        )

    def _as_given(self, model: classifier.AnyClassifier) -> dict[str, Any]:
        """Writes a model from elsewhere where a trained one would lie; returns its metadata."""
        parameters = sum(p.numel() for p in model.parameters())
        log = training_log.TrainingLog(parameters=parameters, note=given.NOTE)
        head = model.head
        meta = {"log": asdict(log), "density": head.density, "feature_dim": head.feature_dim}
        meta["tensors"] = weight_files.save_tensors(self.path, model.state_dict(), meta)
        return meta

    def _taken_over(self) -> dict[str, Any] | None:
        """Returns the metadata of equal weights, copied here: of a trial, or of another run."""
        for other in self._elsewhere(self.path.name):
            if (meta := _metadata(other)) is not None:
                write_bytes(self.path, other.read_bytes())
                return meta
        return None

    def _elsewhere(self, pattern: str) -> list[Path]:
        """Returns the files of such a name in trials, and in the run whose weights are reused."""
        places = list(self.job.folder.glob(f"trials/*/*/{pattern}"))
        if self.job.reuse is not None:
            places += sorted(self.job.reuse.glob(f"cells/*/seed-{self.cell.seed}/{pattern}"))
            places += sorted(self.job.reuse.glob(f"trials/*/*/{pattern}"))
        return places


def _differences(here: Mapping[str, Any], leading: Mapping[str, Any]) -> Iterator[str]:
    """Yields what differs between this process and the leading one, with both values."""
    for name, value in here.items():
        other = leading.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            yield from (f"{name}: {each}" for each in _differences(value, other))
        elif value != other:
            yield f"{name} (={value!r}) is {other!r} in rank 0"


def _metadata(path: Path) -> dict[str, Any] | None:
    try:
        return _stored_meta(path)
    except CorruptFile:
        return None


def _stored_meta(path: Path) -> dict:
    """Returns the metadata of stored weights.

    Raises:
        CorruptFile: Damaged, or not of a training.
    """
    meta = weight_files.load_tensors(path)[1]
    log = meta.get("log")
    if not isinstance(log, dict) or type(meta.get("density")) is not bool:
        raise CorruptFile(f"{path} does not tell of its training.")
    check_tables(path, {"training": [log]})
    if not isinstance(log.get("curve"), list) or not all("epoch" in e for e in log["curve"]):
        raise CorruptFile(f"{path} has a learning curve without epochs.")
    return meta
