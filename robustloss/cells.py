"""One cell, a (loss, seed), computed into its folder: weights, records, numbers, done mark.

Every file carries in its name a hash of exactly what decides its content, and inside it a digest
of that content. What is there and whole is used; what is missing, stale or damaged is computed.
"""

import copy
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import attacks
import robustloss.losses as losses
from robustloss import (
    controls,
    evaluation,
    given,
    landscape,
    models,
    outside,
    probes,
    results,
    score_plugins,
    scored,
    scores,
    tables,
    ten_crop,
    train,
)
from robustloss.checks_probe import check_probe, trace_name
from robustloss.crops import crop_rows
from robustloss.data import Dataset
from robustloss.keys import attack_params, numerics, plugin_digest, probe_eps
from robustloss.layout import check_reference
from robustloss.precision import choose_precision
from robustloss.progress import Event, Stage
from robustloss.results import Record, load_record, save_record
from robustloss.results_shape import check_tables
from robustloss.scored import StoredScores
from robustloss.seeding import repeatable, seeded
from robustloss.spec import AttackSpec, CellSpec, Spec, TrialSpec
from robustloss.storage import (
    CorruptFile,
    digest,
    full_text,
    is_full,
    read_arrays,
    write_arrays,
    write_bytes,
    write_json,
)
from robustloss.time_limit import time_limit
from robustloss.trials import run_trial

Report = Callable[[Event], None]


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


def cell_name(cell: CellSpec) -> str:
    """Returns what the events of a cell call it, such as "L-GM seed 0" or "L-GM trial 3"."""
    which = f"trial {cell.number}" if isinstance(cell, TrialSpec) else f"seed {cell.seed}"
    return f"{cell.label} {which}"


def build_of(cell: CellSpec, dataset: Dataset) -> dict[str, Any]:
    """Returns the plain values that describe a cell's network, as build_classifier takes them."""
    common = {
        "loss": cell.loss.name,
        "loss_params": dict(cell.loss.params),
        "num_classes": dataset.num_classes,
        "image_shape": list(dataset.image_shape),
    }
    if cell.loss.factory:
        return {**common, "factory": cell.loss.factory}
    return {
        **common,
        "backbone": cell.model.backbone,
        "backbone_params": dict(cell.model.params),
        "feature_dim": cell.model.feature_dim,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
    }


class CellRun:
    """The computation of one cell, stage by stage.

    Args:
        job: What to compute.
        dataset: The job's data.
        report: Called with an Event as the work goes on.
    """

    def __init__(self, job: CellJob, dataset: Dataset, report: Report) -> None:
        self.job, self.dataset, self.report = job, dataset, report
        self.spec, self.cell = job.spec, job.cell
        self.device = torch.device(job.device)
        self.folder = job.folder / job.cell.folder
        self.name = cell_name(job.cell)
        self.stage = "build"
        self.build = build_of(self.cell, dataset)
        self._model: models.AnyClassifier | None = None
        self.fresh = False  # whether anything had to be computed

    def run(self) -> dict:
        """Computes what is missing and writes cell.json.

        Returns:
            The content of cell.json.
        """
        with repeatable():
            return self._run()

    def _run(self) -> dict:
        self.folder.mkdir(parents=True, exist_ok=True)
        key = self.model_key()
        self.stage = "train"
        model_file = self.folder / f"model-{key}.safetensors"
        meta = self.trained(model_file, key)
        write_json(self.folder / "train.json", {"key": key, **meta["log"]}, checked=True)
        self.stage = "score"
        # The key too: what changes the outputs of a loss need not change its weights, as its
        # class_log_likelihood.
        images = [self.dataset.checksum, key, meta["tensors"], evaluation.VERSION, models.VERSION]
        images += [losses.VERSION, *numerics(self.device)]
        reference, reference_file = self._reference(model_file, images)
        self.stage = "attack"
        built = [attacks.build_attack(a.name, **attack_params(a, self.spec.folder))
                 for a in self.spec.attacks]  # fmt: skip
        probe, probe_file = self._probe(model_file, images, reference, built)
        crops, crops_file = self._crops(model_file, images)
        records, listing = self._records(model_file, images, reference, built)
        noise = self._noise(model_file, records, listing)
        others, others_listing = self._outside(model_file, images)
        self.stage = "score"
        density = bool(meta["density"])
        stored, scores_file = self._scores(
            reference, reference_file, records, noise, others, listing, others_listing, density
        )
        content = {
            "schema_version": results.SCHEMA_VERSION,
            "loss": self.cell.loss.name,
            "label": self.cell.label,
            "slug": self.cell.loss.slug,
            "seed": self.cell.seed,
            "key": key,
            "num_classes": self.dataset.num_classes,
            "feature_dim": meta.get("feature_dim", self.cell.model.feature_dim),
            **self._training_facts(),
            "density": density,
            "weights": meta["tensors"],
            "build": self.build,
            "files": {
                "model": model_file.name,
                "training": "train.json",
                "reference": reference_file,
                "scores": scores_file,
                "records": listing,
                **({"outside": others_listing} if others_listing else {}),
                **({"probe": probe_file} if probe_file else {}),
                **({"crops": crops_file} if crops_file else {}),
            },
        }
        asked = self.spec.detection.scores
        temperature = self.spec.detection.temperature
        content |= results.cell_numbers(
            records, reference, content, asked, probe, stored=stored, temperature=temperature,
            training=train.kept_line(meta["log"]),
        )  # fmt: skip
        if crops is not None:
            content["crops"] = crop_rows(content, records["none", 0.0], crops["rank_10"])
        write_json(self.folder / "cell.json", content, checked=True)
        (self.folder / f"checkpoint-{key}.safetensors").unlink(missing_ok=True)
        return content

    def _training_facts(self) -> dict[str, Any]:
        if self.cell.loss.given:
            return {"given": True}
        return {"batch_size": self.cell.train.batch_size}

    def model_key(self) -> str:
        """Returns the hash of what decides the weights."""
        if self.cell.loss.given:
            return self._given_key()
        training = self.cell.train.model_dump(mode="json")
        training["precision"] = choose_precision(training["precision"], self.device)
        folder = self.spec.folder
        return digest(
            [train.VERSION, models.VERSION, losses.VERSION],
            self.dataset.training_checksum,
            {**self.build, "mean": list(self.dataset.mean)},
            plugin_digest(self.cell.loss.name, folder),
            plugin_digest(self.cell.model.backbone, folder),
            training,
            self.cell.seed,
            numerics(self.device),
        )

    def _given_key(self) -> str:
        """Returns the same of a model from elsewhere: its bytes decide, and its code."""
        loss, folder = self.cell.loss, self.spec.folder
        names = (loss.factory,) if loss.factory else (loss.name, self.cell.model.backbone)
        return digest(
            "given",
            [given.VERSION, models.VERSION, losses.VERSION],
            {**self.build, "factory": loss.factory},
            [plugin_digest(name, folder) if self.job.module is None else "" for name in names],
            # Built anew each time: a factory may read a file that has changed since.
            models.tensor_digest(models.plain_state(self._new_model())),
            numerics(self.device),
        )

    def _new_model(self) -> models.AnyClassifier:
        if self.job.module is not None:
            module = copy.deepcopy(self.job.module)
            features = self.dataset.train.n > 0  # else there is nothing to fit scores on
            if isinstance(module, models.Classifier) and features:
                return module.eval()
            shape, classes = self.dataset.image_shape, self.dataset.num_classes
            return given.look_over(module, shape, classes, features=features)
        with seeded("weights", self.cell.seed):
            return models.build_for(self.cell.loss.weights, self.build, (self.spec.folder,))

    def trained(self, path: Path, key: str) -> dict:
        """Returns the metadata of the trained weights, training them if they are not there."""
        if path.exists():
            try:
                return _stored_meta(path)
            except CorruptFile:
                pass  # trained anew: the same weights, because the key decides them
        self.fresh = True
        if (taken := self._taken_over(path)) is not None:
            return taken
        model = self._new_model()
        if self.cell.loss.given:
            return self._as_given(path, model)
        assert isinstance(model, models.Classifier)
        log = train.train(
            model,
            self.dataset,
            self.cell.train,
            seed=self.cell.seed,
            device=self.device,
            checkpoint=self.folder / f"checkpoint-{key}.safetensors",
            key=key,
            report=self.reporter("train"),
        )
        self._model = model
        meta: dict[str, Any] = {"log": asdict(log), "density": model.head.density}
        meta["tensors"] = models.save_tensors(path, model.state_dict(), meta)
        return meta

    def _as_given(self, path: Path, model: models.AnyClassifier) -> dict:
        """Writes a model from elsewhere where a trained one would lie; returns its metadata."""
        parameters = sum(p.numel() for p in model.parameters())
        log = train.TrainingLog(parameters=parameters, note=given.NOTE)
        head = model.head
        meta = {"log": asdict(log), "density": head.density, "feature_dim": head.feature_dim}
        meta["tensors"] = models.save_tensors(path, model.state_dict(), meta)
        return meta

    def _taken_over(self, path: Path) -> dict | None:
        """Returns the metadata of equal weights, copied to the path: of a trial, or another run."""
        places = list(self.job.folder.glob(f"trials/*/*/{path.name}"))
        if self.job.reuse is not None:
            cells = f"cells/*/seed-{self.cell.seed}/{path.name}"
            places += sorted(self.job.reuse.glob(cells))
            places += sorted(self.job.reuse.glob(f"trials/*/*/{path.name}"))
        for other in places:
            try:
                meta = _stored_meta(other)
            except CorruptFile:
                continue
            write_bytes(path, other.read_bytes())
            return meta
        return None

    def loaded(self, path: Path) -> models.AnyClassifier:
        """Returns the trained model on the device; loaded only when something must be computed."""
        self.fresh = True
        if self._model is None:
            model = self._new_model()
            model.load_state_dict(models.load_tensors(path)[0])
            model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._model = model.eval()
        return self._model

    def _reference(self, model_file: Path, images: list) -> tuple[evaluation.Arrays, str]:
        fit_size = self.spec.detection.fit_size

        def compute() -> evaluation.Arrays:
            return evaluation.reference_arrays(
                self.loaded(model_file),
                self.dataset,
                self.device,
                fit_size,
                loss=self.cell.loss.name,
                params=self.cell.loss.params,
                untrained=None if self.cell.loss.given else self._untrained(),
            )

        key = digest("reference", landscape.VERSION, images, fit_size)
        return self._kept(f"reference-{key}.npz", compute, check_reference)

    def _untrained(self) -> models.Classifier:
        model = self._new_model()
        assert isinstance(model, models.Classifier)
        return model

    def _scores(
        self,
        reference: evaluation.Arrays,
        reference_file: str,
        records: Mapping[tuple[str, float], Record],
        noise: Mapping[tuple[str, float], Record],
        others: Mapping[str, Record],
        listing: Sequence[dict],
        others_listing: Sequence[dict],
        density: bool,
    ) -> tuple[StoredScores, str]:
        """Returns every score of every pass, and their file."""
        names = tables.score_names(self.spec.detection.scores)
        folder = self.spec.folder
        code = [plugin_digest(name, folder) for name in names]
        files = [[entry["file"], entry.get("noise", "")] for entry in listing]
        files += [[entry["file"], entry["label"]] for entry in others_listing]
        key = digest(
            [scored.VERSION, scores.VERSION], reference_file, files, list(names), code, density
        )
        path = self.folder / f"scores-{key}.npz"
        if path.exists():
            try:
                return scored.load_scores(path), path.name
            except CorruptFile:
                pass
        self.report(Event(self.name, "score", 0, 1, "detection scores"))
        found = scored.compute_scores(
            names,
            reference,
            tables.passes_of(records, reference, noise, others),
            density=density,
            plugins=score_plugins.load(names, reference, (folder,)),
            name=self.name,
        )
        scored.save_scores(path, found)
        return found, path.name

    def _probe(
        self,
        model_file: Path,
        images: list,
        reference: evaluation.Arrays,
        built: Sequence[attacks.Attack],
    ) -> tuple[evaluation.Arrays | None, str]:
        """Returns the trial attacks' arrays and their file; None where the spec leaves them out."""
        size = self.spec.checks.images
        if size == 0:
            return None, ""
        traced = [
            (spec, attack, min(positive))
            for spec, attack in zip(self.spec.attacks, built, strict=True)
            if probes.traceable(attack) and (positive := [e for e in spec.eps if e > 0])
        ]
        eps = probe_eps(self.spec, built)
        what = [[a.slug, a.name, self._attack_plugin(a), dict(a.params), e] for a, _, e in traced]
        key = digest("probe", probes.VERSION, attacks.VERSION, images, size, eps, what)

        def compute() -> evaluation.Arrays:
            return probes.probe_arrays(
                evaluation.detector_view(self.loaded(model_file), reference),
                evaluation.fit_subset(self.dataset.test, size).to(self.device),
                eps=eps,
                traced=tuple(probes.Traced(trace_name(a.label), call, e) for a, call, e in traced),
                seed=self.cell.seed,
            )

        return self._kept(f"probe-{key}.npz", compute, check_probe)

    def _crops(self, model_file: Path, images: list) -> tuple[evaluation.Arrays | None, str]:
        """Returns the ranks in the mean of ten crops, and their file; None where none are asked."""
        if not self.dataset.ten_crop:
            return None, ""

        def compute() -> evaluation.Arrays:
            self.report(Event(self.name, "score", 0, 1, "ten crops"))
            test = self.dataset.test.to(self.device)
            return {"rank_10": ten_crop.ten_crop_ranks(self.loaded(model_file), test)}

        return self._kept(f"crops-{digest('crops', ten_crop.VERSION, images)}.npz", compute)

    def _kept(
        self,
        name: str,
        compute: Callable[[], evaluation.Arrays],
        check: Callable[[evaluation.Arrays], None] = lambda arrays: None,
    ) -> tuple[evaluation.Arrays, str]:
        """Returns the arrays of a file and its name, computed if it is missing or damaged."""
        path = self.folder / name
        if path.exists():
            try:
                arrays = read_arrays(path)[0]
                check(arrays)
                return arrays, name
            except ValueError:  # CorruptFile too
                pass
        arrays = compute()
        write_arrays(path, arrays)
        return arrays, name

    def _records(
        self,
        model_file: Path,
        images: list,
        reference: evaluation.Arrays,
        built: Sequence[attacks.Attack],
    ) -> tuple[dict[tuple[str, float], Record], list[dict]]:
        path = self.folder / f"none-0-{digest('clean', images)}.npz"
        clean = self._read(path)
        if clean is None:
            self.report(Event(self.name, "score", 0, 1, "clean images"))
            model = self.loaded(model_file)
            clean = evaluation.clean_record(model, self.dataset.test.to(self.device))
            save_record(path, clean, {"attack": "none", "eps": 0.0})
        records = {("none", 0.0): clean}
        listing = [_entry("none", "none", None, 0.0, path.name)]
        for attack, call in zip(self.spec.attacks, built, strict=True):
            # The means at which an attack on the detector may aim are those of the fitted subset.
            fitted = [self.spec.detection.fit_size] if call.needs == "likelihood" else []
            paths = {eps: self._record_path(attack, eps, images + fitted) for eps in attack.eps}
            found = {eps: self._read(path) for eps, path in paths.items()}
            missing = [eps for eps in attack.eps if found[eps] is None]
            if missing:
                cost = _Cost(attack.label, self.dataset.test.n, len(missing))
                made = evaluation.attacked_records(
                    self.loaded(model_file),
                    self.dataset.test.to(self.device),
                    call,
                    eps=missing,
                    seed=self.cell.seed,
                    batch_size=attack.batch_size,
                    clean=clean,
                    threshold=evaluation.detector_threshold(reference),
                    class_means=evaluation.class_means(reference),
                    eight_bit=attack.eight_bit,
                    spend=cost.add,
                    report=self.reporter("attack", attack.label),
                )
                write_json(self.folder / f"{attack.slug}-cost.json", asdict(cost), checked=True)
                for eps, record in made.items():
                    save_record(paths[eps], record, {"attack": attack.name, "eps": eps})
                    found[eps] = record
            for eps in attack.eps:
                attacked = found[eps]
                assert attacked is not None
                records[attack.label, eps] = attacked
                listing.append(_entry(attack.name, attack.label, call.norm, eps, paths[eps].name))
        return records, listing

    def _noise(
        self,
        model_file: Path,
        records: Mapping[tuple[str, float], Record],
        listing: Sequence[dict],
    ) -> dict[tuple[str, float], Record]:
        """Returns a control for every attacked record, and names its file in the listing."""
        found: dict[tuple[str, float], Record] = {}
        if not self.spec.detection.noise:
            return found
        for entry in listing:
            place = entry["attack_label"], entry["eps"]
            if entry["eps"] == 0:
                continue
            key = digest("noise", controls.VERSION, entry["file"], self.cell.seed)
            path = self.folder / f"noise-{Path(entry['file']).stem.rpartition('-')[0]}-{key}.npz"
            control = self._read(path)
            if control is None:
                self.report(Event(self.name, "score", 0, 1, f"noise like {place[0]}"))
                control = controls.noise_record(
                    self.loaded(model_file),
                    self.dataset.test.to(self.device),
                    records[place],
                    entry["norm"],
                    self.cell.seed,
                )
                save_record(path, control, {"attack": "noise", "eps": entry["eps"]})
            entry["noise"] = path.name
            found[place] = control
        return found

    def _outside(
        self, model_file: Path, images: list
    ) -> tuple[dict[str, Record], list[dict[str, Any]]]:
        """Returns the records of images that are not of the data, and their listing."""
        found, listing = {}, []
        for each in outside.load_outside(self.spec, self.dataset, self.job.data_root):
            key = digest("outside", outside.VERSION, images, each.checksum)
            path = self.folder / f"outside-{each.slug}-{key}.npz"
            record = self._read(path)
            if record is None:
                self.report(Event(self.name, "score", 0, 1, each.label))
                record = evaluation.clean_record(
                    self.loaded(model_file), each.images.to(self.device)
                )
                save_record(path, record, {"outside": each.name})
            found[each.label] = record
            listing.append(
                {"label": each.label, "name": each.name, "n": record.n, "file": path.name}
            )
        return found, listing

    def _record_path(self, attack: AttackSpec, eps: float, images: list) -> Path:
        code = plugin_digest(attack.name, self.spec.folder)
        key = digest(
            attacks.VERSION,
            images,
            attack.name,
            code,
            dict(attack.params),
            eps,
            attack.eight_bit,
            self.cell.seed,
            # Our own attacks give the same result at any batch size, adapted ones need not.
            attack.batch_size if code else 0,
        )
        return self.folder / f"{attack.slug}-{eps:.6g}-{key}.npz"

    def _attack_plugin(self, attack: AttackSpec) -> str:
        return plugin_digest(attack.name, self.spec.folder)

    def _read(self, path: Path) -> Record | None:
        if not path.exists():
            return None
        try:
            return load_record(path)
        except CorruptFile:
            return None

    def reporter(self, stage: Stage, prefix: str = "") -> evaluation.Report:
        """Returns what tells the run of the progress of a stage."""

        def report(done: float, total: float, text: str) -> None:
            self.report(Event(self.name, stage, done, total, f"{prefix} {text}".strip()))

        return report


@dataclass
class _Cost:
    """What an attack spent on a cell: images through the model and back, seconds."""

    attack_label: str
    images: int
    budgets: int
    forward: int = 0
    backward: int = 0
    seconds: float = 0.0

    def add(self, queries: attacks.Queries, seconds: float) -> None:
        """Count a batch."""
        self.forward += queries.forward
        self.backward += queries.backward
        self.seconds += seconds


def _entry(attack: str, label: str, norm: str | None, eps: float, file: str) -> dict:
    return {"attack": attack, "attack_label": label, "norm": norm, "eps": eps, "file": file}


def _stored_meta(path: Path) -> dict:
    """Returns the metadata of stored weights.

    Raises:
        CorruptFile: Damaged, or not of a training.
    """
    meta = models.load_tensors(path)[1]
    log = meta.get("log")
    if not isinstance(log, dict) or type(meta.get("density")) is not bool:
        raise CorruptFile(f"{path} does not tell of its training.")
    check_tables(path, {"training": [log]})
    if not isinstance(log.get("curve"), list) or not all("epoch" in e for e in log["curve"]):
        raise CorruptFile(f"{path} has a learning curve without epochs.")
    return meta


def run_cell(job: CellJob, dataset: Dataset, report: Report) -> Failure | None:
    """Computes one cell; whatever goes wrong in it is told, not thrown.

    Returns:
        None, or why the cell failed.
    """
    run = CellRun(job, dataset, report)
    try:
        with time_limit(job.spec.resources.minutes):
            if isinstance(job.cell, TrialSpec):
                with repeatable():
                    run_trial(run)
            else:
                run.run()
    except (Exception, SystemExit) as error:  # a plug-in may call exit()
        reason = reason_of(error)
        # A done mark of an earlier state must not stand for a cell that now fails.
        (run.folder / "cell.json").unlink(missing_ok=True)
        report(Event(run.name, "failed", 0, 1, reason))
        return Failure(job.cell.loss.name, job.cell.label, job.cell.seed, run.stage, reason)
    report(Event(run.name, "done" if run.fresh else "cached", 1, 1, ""))
    return None


def reason_of(error: BaseException) -> str:
    """Returns the error as one line, with the place for errors that are no message to a user."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of GPU memory; lower train.batch_size or attacks.batch_size."
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, train.TrainingDiverged | ValueError):
        return text
    if is_full(error):
        return full_text(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(last.filename).name}, line {last.lineno})"
