"""One cell, a (loss, seed), computed into its folder: weights, records, numbers, done mark.

Every file carries in its name a hash of exactly what decides its content, and inside it a digest
of that content. What is there and whole is used; what is missing, stale or damaged is computed.
"""

import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from robustloss import attacks, losses
from robustloss.analysis.checks.from_probe import check_probe, trace_name
from robustloss.analysis.detection import compute as scored
from robustloss.analysis.detection import scores as detection_scores
from robustloss.analysis.tables import of_cell
from robustloss.analysis.tables.classes import crop_rows
from robustloss.cells import score_plugins
from robustloss.cells.jobs import CellJob, Failure, Part, cell_name, remove_marks
from robustloss.cells.keys import numerics, plugin_digest, probe_eps
from robustloss.cells.parts import remove_parts, write_plan
from robustloss.cells.records import CellAttacks, entry_of, read_record, stored
from robustloss.cells.time_limit import time_limit
from robustloss.cells.trial import run_trial
from robustloss.cells.weights import CellWeights
from robustloss.data import images as evaluation
from robustloss.data import outside
from robustloss.data.images import Dataset
from robustloss.evaluation import detector, landscape, noise_control, passes, probes, ten_crop
from robustloss.evaluation import reference as evaluation_reference
from robustloss.models import build, classifier
from robustloss.progress import Event, Stage
from robustloss.results import finished_cell, scores
from robustloss.results.layout import check_reference
from robustloss.results.records import Record, save_record
from robustloss.results.scores import StoredScores
from robustloss.seeding import using_repeatable_kernels
from robustloss.spec.attacks import AttackSpec
from robustloss.spec.spec import TrialSpec
from robustloss.storage import (
    CorruptFile,
    digest,
    explain_disk_full,
    is_disk_full,
    read_arrays,
    write_arrays,
    write_json,
)
from robustloss.training import log

Report = Callable[[Event], None]
Records = Mapping[tuple[str, float], Record]  # by label of the attack and budget


class CellRun:
    """The computation of one cell, or of some of it, stage by stage.

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
        self.weights = CellWeights(job, dataset, self.reporter("train"))

    @property
    def fresh(self) -> bool:
        """Whether anything had to be computed."""
        return self.weights.fresh

    def run(self) -> None:
        """Does what the job asks for, and writes it into the cell's folder."""
        with using_repeatable_kernels():
            if isinstance(self.job.task, Part):
                self._part(self.job.task)
            elif self.job.task == "preparation":
                self._prepare()
            elif isinstance(self.cell, TrialSpec):
                run_trial(self)
            else:
                self._run()

    def _prepare(self) -> None:
        """Computes what parts need, and says which records they will be parts of."""
        _, meta = self._trained()
        self.weights.checkpoint.unlink(missing_ok=True)
        self.stage = "score"
        images = self._images(meta)
        reference, _ = self._reference(images)
        self._clean(images)
        self.stage = "attack"
        write_plan(self.folder, CellAttacks(self, images, reference).plan())

    def _part(self, part: Part) -> None:
        """Computes a part, unless what it needs is not there: then the cell will compute it."""
        self.stage = "attack"
        if (meta := self.weights.known()) is None:
            return
        images = self._images(meta)
        reference, _ = self._reference(images)
        clean = self._clean(images)[0] if 0 in part.eps else None
        CellAttacks(self, images, reference).part(part, clean)

    def _trained(self) -> tuple[str, dict[str, Any]]:
        """Returns the key of the weights and their metadata."""
        self.folder.mkdir(parents=True, exist_ok=True)
        key = self.weights.key
        self.stage = "train"
        return key, self.weights.trained()

    def _images(self, meta: Mapping[str, Any]) -> list:
        """Returns what decides what the model says of the images of the data."""
        # The key too: what changes the outputs of a loss need not change its weights, as its
        # class_log_likelihood.
        known = [self.dataset.checksum, self.weights.key, meta["tensors"]]
        return [*known, passes.VERSION, build.VERSION, losses.VERSION, *numerics(self.device)]

    def _run(self) -> None:
        """Computes what is missing and writes cell.json."""
        key, meta = self._trained()
        write_json(self.folder / "train.json", {"key": key, **meta["log"]}, checked=True)
        self.stage = "score"
        images = self._images(meta)
        reference, reference_file = self._reference(images)
        self.stage = "attack"
        calls = CellAttacks(self, images, reference)
        probe, probe_file = self._probe(images, reference, calls.built)
        crops, crops_file = self._crops(images)
        records, listing = self._records(images, calls)
        noise = self._noise(records, listing)
        others, others_listing = self._outside(images)
        self.stage = "score"
        density = bool(meta["density"])
        stored, scores_file = self._scores(
            reference, reference_file, records, noise, others, listing, others_listing, density
        )
        content = {
            "schema_version": finished_cell.SCHEMA_VERSION,
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
            "build": self.weights.build,
            "files": {
                "model": self.weights.path.name,
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
        content |= of_cell.cell_numbers(
            records, reference, content, asked, probe, stored=stored, temperature=temperature,
            training=log.find_chosen_line(meta["log"]),
        )  # fmt: skip
        if crops is not None:
            content["crops"] = crop_rows(content, records["none", 0.0], crops["rank_10"])
        write_json(self.folder / "cell.json", content, checked=True)
        self.weights.checkpoint.unlink(missing_ok=True)

    def _training_facts(self) -> dict[str, Any]:
        if self.cell.loss.given:
            return {"given": True}
        return {"batch_size": self.cell.train.batch_size}

    def _reference(self, images: list) -> tuple[passes.Arrays, str]:
        fit_size = self.spec.detection.fit_size

        def compute() -> passes.Arrays:
            return evaluation_reference.reference_arrays(
                self.weights.loaded(),
                self.dataset,
                self.device,
                fit_size,
                loss=self.cell.loss.name,
                params=self.cell.loss.params,
                untrained=None if self.cell.loss.given else self._untrained(),
            )

        key = digest("reference", landscape.VERSION, images, fit_size)
        return self._kept(f"reference-{key}.npz", compute, check_reference)

    def _untrained(self) -> classifier.Classifier:
        model = self.weights.new_model()
        assert isinstance(model, classifier.Classifier)
        return model

    def _scores(
        self,
        reference: passes.Arrays,
        reference_file: str,
        records: Records,
        noise: Records,
        others: Mapping[str, Record],
        listing: Sequence[dict],
        others_listing: Sequence[dict],
        density: bool,
    ) -> tuple[StoredScores, str]:
        """Returns every score of every pass, and their file."""
        names = scored.score_names(self.spec.detection.scores)
        folder = self.spec.folder
        code = [plugin_digest(name, folder) for name in names]
        files = [[entry["file"], entry.get("noise", "")] for entry in listing]
        files += [[entry["file"], entry["label"]] for entry in others_listing]
        key = digest(
            [scored.VERSION, detection_scores.VERSION],
            reference_file,
            files,
            list(names),
            code,
            density,
        )
        path = self.folder / f"scores-{key}.npz"
        if path.exists():
            try:
                return scores.load_scores(path), path.name
            except CorruptFile:
                pass
        self.report(Event(self.name, "score", 0, 1, "detection scores"))
        found = scored.compute_scores(
            names,
            reference,
            scored.passes_of(records, reference, noise, others),
            density=density,
            plugins=score_plugins.load(names, reference, (folder,)),
            name=self.name,
        )
        scores.save_scores(path, found)
        return found, path.name

    def _probe(
        self,
        images: list,
        reference: passes.Arrays,
        built: Sequence[attacks.Attack],
    ) -> tuple[passes.Arrays | None, str]:
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

        def compute() -> passes.Arrays:
            return probes.probe_arrays(
                detector.detector_view(self.weights.loaded(), reference),
                evaluation.fit_subset(self.dataset.test, size).to(self.device),
                eps=eps,
                traced=tuple(probes.Traced(trace_name(a.label), call, e) for a, call, e in traced),
                seed=self.cell.seed,
            )

        return self._kept(f"probe-{key}.npz", compute, check_probe)

    def _crops(self, images: list) -> tuple[passes.Arrays | None, str]:
        """Returns the ranks in the mean of ten crops, and their file; None where none are asked."""
        if not self.dataset.ten_crop:
            return None, ""

        def compute() -> passes.Arrays:
            self.report(Event(self.name, "score", 0, 1, "ten crops"))
            test = self.dataset.test.to(self.device)
            return {"rank_10": ten_crop.ten_crop_ranks(self.weights.loaded(), test)}

        return self._kept(f"crops-{digest('crops', ten_crop.VERSION, images)}.npz", compute)

    def _kept(
        self,
        name: str,
        compute: Callable[[], passes.Arrays],
        check: Callable[[passes.Arrays], None] = lambda arrays: None,
    ) -> tuple[passes.Arrays, str]:
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

    def _clean(self, images: list) -> tuple[Record, str]:
        """Returns the record of the unattacked test images, and its file."""
        path = self.folder / f"none-0-{digest('clean', images)}.npz"
        clean = read_record(path)
        if clean is None:
            self.report(Event(self.name, "score", 0, 1, "clean images"))
            model = self.weights.loaded()
            clean = passes.clean_record(model, self.dataset.test.to(self.device))
            save_record(path, clean, {"attack": "none", "eps": 0.0})
        return clean, path.name

    def _records(self, images: list, calls: CellAttacks) -> tuple[Records, list[dict]]:
        """Returns the records of all passes over the test images, and their listing."""
        clean, file = self._clean(images)
        paths = {("none", 0.0): self.folder / file}
        listing = [entry_of("none", "none", None, 0.0, file)]
        for number, (attack, call) in enumerate(zip(self.spec.attacks, calls.built, strict=True)):
            for eps, path in calls.records(number, clean).items():
                paths[attack.label, eps] = path
                listing.append(entry_of(attack.name, attack.label, call.norm, eps, path.name))
        remove_parts(self.folder)
        return stored(paths), listing

    def _noise(
        self,
        records: Records,
        listing: Sequence[dict],
    ) -> Records:
        """Returns a control for every attacked record, and names its file in the listing."""
        paths: dict[tuple[str, float], Path] = {}
        if not self.spec.detection.noise:
            return stored(paths)
        for entry in listing:
            place = entry["attack_label"], entry["eps"]
            if entry["eps"] == 0:
                continue
            key = digest("noise", noise_control.VERSION, entry["file"], self.cell.seed)
            path = self.folder / f"noise-{Path(entry['file']).stem.rpartition('-')[0]}-{key}.npz"
            if read_record(path) is None:
                self.report(Event(self.name, "score", 0, 1, f"noise like {place[0]}"))
                control = noise_control.noise_record(
                    self.weights.loaded(),
                    self.dataset.test.to(self.device),
                    records[place],
                    entry["norm"],
                    self.cell.seed,
                )
                save_record(path, control, {"attack": "noise", "eps": entry["eps"]})
            entry["noise"] = path.name
            paths[place] = path
        return stored(paths)

    def _outside(self, images: list) -> tuple[Mapping[str, Record], list[dict[str, Any]]]:
        """Returns the records of images that are not of the data, and their listing."""
        paths, listing = {}, []
        for each in outside.load_outside(self.spec, self.dataset, self.job.data_root):
            key = digest("outside", outside.VERSION, images, each.checksum)
            path = self.folder / f"outside-{each.slug}-{key}.npz"
            record = read_record(path)
            if record is None:
                self.report(Event(self.name, "score", 0, 1, each.label))
                record = passes.clean_record(self.weights.loaded(), each.images.to(self.device))
                save_record(path, record, {"outside": each.name})
            paths[each.label] = path
            listing.append(
                {"label": each.label, "name": each.name, "n": record.n, "file": path.name}
            )
        return stored(paths), listing

    def _attack_plugin(self, attack: AttackSpec) -> str:
        return plugin_digest(attack.name, self.spec.folder)

    def reporter(self, stage: Stage, prefix: str = "") -> passes.Report:
        """Returns what tells the run of the progress of a stage."""

        def report(done: float, total: float, text: str) -> None:
            self.report(Event(self.name, stage, done, total, f"{prefix} {text}".strip()))

        return report


def run_cell(job: CellJob, dataset: Dataset, report: Report) -> Failure | None:
    """Computes a cell, or what the job asks of it; whatever goes wrong is told, not thrown.

    Returns:
        None, or why the cell failed.
    """
    run = CellRun(job, dataset, report)
    try:
        with time_limit(job.spec.resources.minutes), _current(run.device):
            run.run()
    except (Exception, SystemExit) as error:  # a plug-in may call exit()
        reason = reason_of(error)
        remove_marks(run.folder)
        report(Event(run.name, "failed", 0, 1, reason))
        return Failure(job.cell.loss.name, job.cell.label, job.cell.seed, run.stage, reason)
    report(Event(run.name, "done" if run.fresh else "cached", 1, 1, ""))
    return None


def _current(device: torch.device) -> AbstractContextManager:
    """Makes a GPU the current one: what does not name a GPU means it."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def reason_of(error: BaseException) -> str:
    """Returns the error as one line, with the place for errors that are no message to a user."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of GPU memory; lower train.batch_size or attacks.batch_size."
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, log.TrainingDiverged | ValueError):
        return text
    if is_disk_full(error):
        return explain_disk_full(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(last.filename).name}, line {last.lineno})"
