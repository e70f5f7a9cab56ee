"""The weights of one cell: what decides them, where they lie, how they come there."""

import operator
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from robustloss.cells import keys
from robustloss.cells.jobs import CellJob, SharedTraining
from robustloss.data.images import Dataset
from robustloss.models import build, given, outputs, weight_files
from robustloss.models.classifier import AnyClassifier, Classifier
from robustloss.models.pretrained import digest_pretrained
from robustloss.results.cell_notes import REUSED
from robustloss.results.checking import check_tables
from robustloss.run_files import read_file
from robustloss.seeding import preserving_global_state, using_repeatable_kernels, using_seed
from robustloss.spec.prefixes import is_plugin
from robustloss.spec.spec import CellSpec
from robustloss.spec.text import literal
from robustloss.spec.training import FORMER_DEFAULTS
from robustloss.storage import CorruptFile, read_json, write_bytes, write_json
from robustloss.training import precision, processes, train
from robustloss.training.batches import steps_per_epoch
from robustloss.training.log import TrainingLog
from robustloss.training.optimizer import longest_gradient


class CellWeights:
    """The weights of one cell, trained once and loaded where something is computed with them.

    Args:
        job: Of the cell.
        dataset: The job's data.

    Attributes:
        network: The plain values that describe the network, see `build.describe_network`.
        meta: What is stored with the weights, once they are there: "log", "density", "tensors" (the
            digest of the weights) and, of a model from elsewhere, "feature_dim".
        fresh: Whether they were trained, or loaded to compute something.
        remark: Why weights that the folder has did not serve, if a default has changed; else "".
    """

    def __init__(self, job: CellJob, dataset: Dataset) -> None:
        self.job, self.dataset = job, dataset
        self.spec, self.cell = job.spec, job.cell
        self.device = torch.device(job.device)
        self.folder = job.folder / job.cell.folder
        self.network = build.describe_network(self.cell, dataset)
        self.meta: dict[str, Any] = {}
        self.fresh = False
        self.remark = ""
        self._model: AnyClassifier | None = None

    @cached_property
    def ingredients(self) -> dict[str, Any]:
        """What decides a training apart from the machine, see `keys.training_ingredients`."""
        return self._ingredients(self.cell, self.network)

    def _ingredients(self, cell: CellSpec, network: Mapping[str, Any]) -> dict[str, Any]:
        names = cell.loss.name, cell.model.backbone
        loss_code, backbone_code = (keys.plugin_digest(n, self.spec.folder) for n in names)
        if weights := cell.model.weights:
            folders = (self.spec.folder,)
            backbone_code += f" {digest_pretrained(cell.model.backbone, weights, folders)}"
        steps = cell.train.epochs * steps_per_epoch(self.dataset.train.n, cell.train.batch_size)
        return keys.training_ingredients(
            cell,
            {**network, "mean": list(self.dataset.mean)},
            data=self.dataset.training_checksum,
            chosen={
                "precision": precision.choose_precision(cell.train.precision, self.device),
                "max_grad_norm": longest_gradient(cell.train, steps),
            },
            codes=(loss_code, backbone_code),
        )

    @property
    def backbones(self) -> tuple[str, ...]:
        """The name of the backbone, unless the model was built elsewhere."""
        return (self.network["backbone"],) if "backbone" in self.network else ()

    def _training_key(self, ingredients: Mapping[str, Any]) -> str:
        computed = ingredients["train"]["precision"]
        return keys.training_key(ingredients, keys.numerics(self.device, self.backbones, computed))

    @cached_property
    def training_key(self) -> str:
        """The hash of what decides a training, on however many processes."""
        if not self.cell.loss.given:
            return self._training_key(self.ingredients)
        loss, folder = self.cell.loss, self.spec.folder
        names = (loss.factory,) if loss.factory else (loss.name, self.cell.model.backbone)
        in_memory = self.job.module is not None
        # Built anew for each job: a factory may read a file that has changed since.
        model = self.build_model()
        foreign = loss.factory or any(map(is_plugin, names))
        return keys.given_key(
            {**self.network, "factory": loss.factory},
            ["" if in_memory else keys.plugin_digest(name, folder) for name in names],
            weight_files.tensor_digest(weight_files.storable_state(model)),
            keys.numerics(self.device, self.backbones),
            answers=outputs.digest_answers(model, self.dataset.image_shape) if foreign else None,
        )

    @cached_property
    def key(self) -> str:
        """What names the weights, see `keys.weights_key`.

        Weights that another number of processes trained serve too where there are some, under their
        own name: a model need not be attacked by as many as trained it.
        """
        count = 1 if self.cell.loss.given else processes.current_group().size
        own = keys.weights_key(self.training_key, count)
        pattern = f"model-{self.training_key}*.safetensors"
        found = [*sorted(self.folder.glob(pattern)), *self._find_elsewhere(pattern)]
        # A damaged file of the own name counts: it is trained anew under that name.
        if any(path.name == f"model-{own}.safetensors" for path in found):
            return own
        whole = (path for path in found if self._read_fitting(path) is not None)
        return next((path.stem.removeprefix("model-") for path in whole), own)

    @property
    def path(self) -> Path:
        """Where the weights lie."""
        return self.folder / f"model-{self.key}.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Where an unfinished training lies; whoever needs it no more removes it."""
        return self.folder / f"checkpoint-{self.training_key}.safetensors"

    def find(self) -> bool:
        """Read the metadata of the weights; return whether they are there, whole and the cell's."""
        self.meta = (self._read_fitting(self.path) if self.path.exists() else None) or {}
        return bool(self.meta)

    def ensure(self, report: train.Report) -> None:
        """Train the weights if they are not there.

        Equal weights of a trial or of another run are copied instead; of another run this is noted
        in reused.json. Damaged ones, and those of another network, are trained anew and come out
        the same, because the key decides them.

        Args:
            report: Called as the training goes on, see `train.train`.
        """
        if self.find():
            return
        self.fresh = True
        # Names of equal weights are equal: the key holds whatever decides them.
        for other in self._find_elsewhere(self.path.name):
            if (meta := self._read_fitting(other)) is not None and _is_stated(other, meta):
                self._note_reuse(other, meta)
                write_bytes(self.path, read_file(other, weight_files.MOST_BYTES))
                self.meta = meta
                return
        (self.folder / REUSED).unlink(missing_ok=True)
        model = self.build_model()
        if self.cell.loss.given:
            parameters = sum(p.numel() for p in model.parameters())
            log = TrainingLog(parameters=parameters, note="; ".join([given.NOTE, *model.remarks]))
            self.meta["feature_dim"] = model.head.feature_dim
        elif (source := self._find_trained()) is not None:
            assert isinstance(model, Classifier)
            log = self._put_head(model, source)
            self._model = model
        else:
            self.remark = self._explain_retraining()
            # The other processes that torchrun started wait for this to train along.
            processes.current_group().announce(SharedTraining(self.job, self.ingredients))
            log = self._fit(model, self.checkpoint, report)
            log.note = "; ".join(filter(None, [log.note, *model.remarks]))
            self._model = model
        self.meta |= {"log": asdict(log), "density": model.head.density}
        state = weight_files.storable_state(model)
        self.meta["tensors"] = weight_files.save_tensors(self.path, state, self.meta)

    def check_ingredients(self, leading: Mapping[str, Any]) -> None:
        """Compare what decides the training here with the same of the process that leads.

        Args:
            leading: The `ingredients` of that process.

        Raises:
            ValueError: They differ, so the weights would belong to neither.
        """
        if found := "; ".join(_differences(self.ingredients, leading)):
            raise ValueError(
                f"on {socket.gethostname()} {found}. Processes that train together must hold the "
                "same: give every machine the same data, spec folder and version of robustloss, "
                "and a train.precision that each of them has."
            )

    def train_along(self, model: AnyClassifier) -> None:
        """Take this process's part in the training of a new model, which the leader began."""
        with using_repeatable_kernels():
            self._fit(model, None, lambda done, total, text, line: None)  # the leader reports

    def load(self) -> AnyClassifier:
        """Return the trained model on the device; loaded only when something must be computed."""
        self.fresh = True
        if self._model is None:
            model = self.build_model()
            weight_files.load_state(model, weight_files.load_tensors(self.path)[0])
            model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._model = model.eval()
        return self._model

    def build_model(self) -> AnyClassifier:
        """Return the network as it is before training; of a model from elsewhere, that model."""
        if self.job.module is None:
            with using_seed("weights", self.cell.seed):
                weights, folders = self.cell.loss.weights, (self.spec.folder,)
                pretrained = None if self.cell.loss.factory else self.cell.model.weights
                return build.build_with_weights(
                    weights, self.network, folders, pretrained=pretrained
                )
        module = given.copy_module(self.job.module)
        features = self.dataset.train.n > 0  # else there is nothing to fit scores on
        if isinstance(module, Classifier) and features:
            return module.eval()
        shape, classes = self.dataset.image_shape, self.dataset.num_classes
        normalize = self.network.get("normalize")
        return given.wrap_given(module, shape, classes, features=features, normalize=normalize)

    def _fit(
        self, model: AnyClassifier, checkpoint: Path | None, report: train.Report
    ) -> TrainingLog:
        assert isinstance(model, Classifier)
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

    def _find_trained(self) -> Path | None:
        """Return the weights of the loss whose network gets another head, if they are there.

        Where they are not, as when that loss failed, the network is trained again: it comes out the
        same.
        """
        if not self.cell.loss.head:
            return None
        network = {key: value for key, value in self.network.items() if key != "head"}
        key = self._training_key(self._ingredients(self.cell, network))
        found = self.job.folder.glob(f"cells/*/seed-{self.cell.seed}/model-{key}*.safetensors")
        return next((path for path in sorted(found) if _read_weights(path) is not None), None)

    def _put_head(self, model: Classifier, source: Path) -> TrainingLog:
        """Load another loss's network into a model, and fit the head on it.

        Args:
            model: New; has that loss's head inside its own.
            source: Weights of the network and of that head.

        Returns:
            The log of that training, without its cost.
        """
        tensors, meta = weight_files.load_tensors(source)
        inner = {
            name.replace("head.", "head.trained.", 1) if name.startswith("head.") else name: value
            for name, value in tensors.items()
        }
        own = {n: v for n, v in model.state_dict().items() if n not in inner}
        weight_files.load_state(model, {**own, **inner})
        model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        with preserving_global_state(self.device):
            train.fit_head(model, self.dataset.train.to(self.device), self.cell.seed)
        log = TrainingLog(**meta["log"])
        note = "; ".join(filter(None, (model.head.note(), log.adversarial)))
        return replace(log, seconds=0.0, peak_bytes=None, note=note)

    def _explain_retraining(self) -> str:
        """Say which defaults have changed if the folder has weights of the older ones; else ""."""
        given = self.cell.train.model_fields_set
        former = {key: old for key, old in FORMER_DEFAULTS.items() if key not in given}
        cell = replace(self.cell, train=self.cell.train.override(former))
        key = self._training_key(self._ingredients(cell, self.network))
        if not former or not any(self.folder.glob(f"model-{key}*.safetensors")):
            return ""
        changes = " and ".join(
            f"of train.{each} has changed from {literal(old)} to "
            f"{literal(getattr(self.cell.train, each))}"
            for each, old in former.items()
        )
        return f"retrained: the default {changes}"

    def _read_fitting(self, path: Path) -> dict[str, Any] | None:
        """Return the metadata of stored weights, or None where they cannot be those of the cell.

        Their name alone proves nothing: a file may come from somebody else.
        """
        found = _read_weights(path)
        if found is None:
            return None
        tensors, meta = found
        model = self.build_model()
        own = weight_files.storable_state(model)
        if self.cell.loss.given and meta["tensors"] != weight_files.tensor_digest(own):
            return None
        kinds = ({name: (each.shape, each.dtype) for name, each in state.items()}
                 for state in (own, tensors))  # fmt: skip
        trained = [name for name, _ in model.named_parameters()]
        fits = (
            operator.eq(*kinds)
            and meta["density"] == model.head.density
            and all(bool(tensors[name].isfinite().all()) for name in trained if name in tensors)
        )
        return meta if fits else None

    def _note_reuse(self, other: Path, meta: Mapping[str, Any]) -> None:
        """Write which run has trained weights that are taken over; nothing if this run has.

        Args:
            other: Their file. A trial of this run may have taken them from another run before.
            meta: Their metadata.
        """
        reuse, note = self.job.reuse, {}
        if reuse is not None and other.is_relative_to(reuse):
            name = self.path.name
            note = {"weights": name, "tensors": meta["tensors"], "run": reuse.resolve().name}
        else:
            with suppress(CorruptFile):
                note = read_json(other.with_name(REUSED), checked=True)
        if note:
            write_json(self.folder / REUSED, note, checked=True)
        else:
            (self.folder / REUSED).unlink(missing_ok=True)

    def _find_elsewhere(self, pattern: str) -> list[Path]:
        """Return the files of such a name in trials, and in the run whose weights are reused."""
        # The trial whose values were chosen had the cell's own training, if it had its seed.
        places = list(self.job.folder.glob(f"trials/*/*/{pattern}"))
        if self.job.reuse is not None:
            places += sorted(self.job.reuse.glob(f"cells/*/seed-{self.cell.seed}/{pattern}"))
            places += sorted(self.job.reuse.glob(f"trials/*/*/{pattern}"))
        return places


def _differences(here: Mapping[str, Any], leading: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between this process and the leading one, with both values."""
    for name, value in here.items():
        other = leading.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            yield from (f"{name}: {each}" for each in _differences(value, other))
        elif value != other:
            yield f"{name} (={value!r}) is {other!r} in rank 0"


def _is_stated(path: Path, meta: Mapping[str, Any]) -> bool:
    """Return whether weights are those that the cell beside them states, if there is one.

    Args:
        path: Their file.
        meta: Their metadata.
    """
    try:
        cell = read_json(path.parent / "cell.json", checked=True)
    except CorruptFile:
        return True  # the cell is not finished, or they are a trial's
    files = cell.get("files")
    named = isinstance(files, dict) and files.get("model") == path.name
    return not named or cell.get("weights") == meta["tensors"]


def _read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Return stored weights and their metadata; None where damaged, or of no training."""
    try:
        tensors, meta = weight_files.load_tensors(path)
        log = meta.get("log")
        if not isinstance(log, dict) or type(meta.get("density")) is not bool:
            return None
        check_tables(path, {"training": [log]})
    except CorruptFile:
        return None
    curve = log.get("curve")
    whole = isinstance(curve, list) and all("epoch" in line for line in curve)
    return (tensors, meta) if whole else None
