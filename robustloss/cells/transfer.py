"""Work between cells: the images that fool one loss's model, shown to the models of the others.

It runs after the cells, seed by seed. A file's key holds the weights of the source and of every
target, so no retrained model is judged by old images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from robustloss.array_files import read_arrays
from robustloss.attacks import Attack, build_attack
from robustloss.attacks.base import NORMS
from robustloss.attacks.draws import average_draws, most_draws
from robustloss.attacks.settings import preserving_settings, reset_settings
from robustloss.cells import detectors, keys
from robustloss.cells.cell import explain_error, stops_run
from robustloss.cells.jobs import CellJob, Failure
from robustloss.cells.workplace import Report
from robustloss.data.images import Dataset
from robustloss.evaluation import attacked, passes
from robustloss.models import build, weight_files
from robustloss.models.classifier import AnyClassifier
from robustloss.progress import Event, Stage
from robustloss.results.transfers import Transfer, load_transfer, save_transfer
from robustloss.seeding import derive_seed, using_repeatable_kernels
from robustloss.spec.attacks import AttackSpec
from robustloss.spec.plugins import plugins_of
from robustloss.spec.spec import Spec
from robustloss.storage import CorruptFile, read_json


def transfer_seeds(spec: Spec, jobs: Sequence[CellJob]) -> list[int]:
    """Return the seeds that have transfers: those of all jobs, or none.

    Transfers take several losses, and an attack with `transfer = true` and a budget above 0.

    Args:
        spec: The run's.
        jobs: Its cells.
    """
    if len(spec.losses) < 2 or not any(_budgets(attack) for attack in spec.attacks):
        return []
    return list(dict.fromkeys(job.cell.seed for job in jobs))


def run_transfers(
    spec: Spec,
    jobs: Sequence[CellJob],
    failures: Sequence[Failure],
    dataset: Dataset,
    report: Report,
) -> tuple[list[Transfer], list[Failure]]:
    """Show the images of every source to every target of the same seed.

    An error with a source is returned as a Failure, not raised; the numbers of its cell stay.

    Args:
        spec: The run's.
        jobs: Its cells, computed before.
        failures: The cells that have no model.
        dataset: The run's data.
        report: Called with an Event as the work goes on.

    Returns:
        One Transfer for each (seed, source, attack, eps), in that order; and the failures.
    """
    failed = {(failure.label, failure.seed) for failure in failures}
    transfers: list[Transfer] = []
    lost: list[Failure] = []
    for seed in transfer_seeds(spec, jobs):
        models = [
            _Trained(job, read_json(job.folder / job.cell.folder / "cell.json", checked=True))
            for job in jobs
            if job.cell.seed == seed and (job.cell.label, seed) not in failed
        ]
        stage = _SeedTransfers(spec, seed, models, dataset, report)
        report(Event(stage.name, "note", name="transfer_started", values={"seed": seed}))
        with using_repeatable_kernels(), preserving_settings():
            reset_settings()
            transfers += stage.run()
        lost += stage.failures
        reasons = "; ".join(failure.reason for failure in stage.failures)
        end: Stage = "failed" if stage.failures else "done" if stage.fresh else "cached"
        told: dict[str, Any] = {"seed": seed, "cached": end == "cached"}
        named = "transfer_finished"
        if stage.failures:
            named, told = "transfer_failed", {"seed": seed, "reason": reasons}
        report(Event(stage.name, end, text=reasons, name=named, values=told))
    return transfers, lost


def _budgets(attack: AttackSpec) -> list[float]:
    return [eps for eps in attack.eps if eps > 0] if attack.transfer else []


# Not a Workplace: a worker with another number of threads may have computed the cell, so the names
# of its files cannot be derived in this process. cell.json has them.
@dataclass(frozen=True)
class _Trained:
    """A finished cell: its job, and the content of its cell.json."""

    job: CellJob
    content: dict[str, Any]

    @property
    def label(self) -> str:
        return self.job.cell.label

    def path(self, kind: str) -> Path:
        """Return one of the cell's files."""
        return self.job.folder / self.job.cell.folder / self.content["files"][kind]


class _SeedTransfers:
    """The transfers of one seed, between all models that it has."""

    def __init__(
        self,
        spec: Spec,
        seed: int,
        models: Sequence[_Trained],
        dataset: Dataset,
        report: Report,
    ) -> None:
        self.spec, self.seed, self.models = spec, seed, models
        self.dataset, self.report = dataset, report
        self.name = f"transfer seed {seed}"
        self.fresh = False
        self.failures: list[Failure] = []
        self._loaded: dict[str, AnyClassifier] = {}
        self.draws = most_draws([self._build(attack) for attack in spec.attacks])

    def run(self) -> list[Transfer]:
        """Return the transfers, after computing those that are missing."""
        transfers: list[Transfer] = []
        if len(self.models) < 2:
            return transfers
        work = [(source, attack) for source in self.models for attack in self.spec.attacks]
        for number, (source, attack) in enumerate(work):
            self.report(Event(self.name, "attack", number, len(work), attack.label))
            try:
                transfers += self._ensure(source, attack)
            except BaseException as error:  # a plug-in may raise anything
                if stops_run(error, plugins_of(self.spec)):
                    raise
                cell = source.job.cell
                reason = f"transfer of {attack.label}: {explain_error(error)}"
                failure = Failure(cell.loss.name, cell.label, cell.seed, "transfer", reason)
                self.failures.append(failure)
        return transfers

    def _ensure(self, source: _Trained, attack: AttackSpec) -> list[Transfer]:
        """Return what one attack made on one source, by budget, after computing what is missing."""
        budgets, content = _budgets(attack), source.content
        built = self._build(attack)
        there = {"density": content["density"], "features": content["feature_dim"] > 0}
        if not (budgets and detectors.can_attack(built, self.spec.folder, **there)):
            return []
        score = detectors.find_target(built)
        key = partial(
            keys.transfer_key,
            self.dataset.checksum,
            content,
            {t.job.cell.loss.file_label: keys.model_identity(t.content) for t in self.models},
            attack,
            seed=self.seed,
            code=keys.plugin_digest(attack.name, self.spec.folder),
            machine=keys.numerics(
                torch.device(source.job.device),
                [each.content["build"].get("backbone", "") for each in self.models],
            ),
            score_code=None if score is None else keys.plugin_digest(score, self.spec.folder),
            draws=self.draws,
        )
        folder = source.job.folder / "transfer" / f"seed-{self.seed}"
        start = f"{source.job.cell.loss.slug}-{attack.slug}"
        paths = {eps: folder / f"{start}-{eps:.6g}-{key(eps)}.npz" for eps in budgets}
        stored = {eps: self._read(path, source, attack, eps) for eps, path in paths.items()}
        if missing := {eps: paths[eps] for eps, transfer in stored.items() if transfer is None}:
            stored |= self._compute(source, attack, built, missing)
        return [
            replace(transfer, file=paths[eps].relative_to(source.job.folder).as_posix())
            for eps, transfer in stored.items()
            if transfer is not None
        ]

    def _compute(
        self, source: _Trained, attack: AttackSpec, built: Attack, paths: dict[float, Path]
    ) -> dict[float, Transfer]:
        """Attack the source once for all missing budgets and show the images to every target."""
        self.fresh = True
        images = self.dataset.test.to(torch.device(source.job.device))
        reference, _ = read_arrays(source.path("reference"))
        model, folder = self._load(source), self.spec.folder
        density = source.content["density"]
        predictions = attacked.transferred_predictions(
            detectors.build_view(built, model, reference, folder, density=density),
            [self._load_judge(target) for target in self.models],
            attacked.AttackPass(built, images, list(paths), self.seed, attack.batch_size),
        )
        made: dict[float, Transfer] = {}
        for (eps, path), each in zip(paths.items(), predictions, strict=True):
            described = self._describe(source, attack, eps)
            labels = passes.to_numpy(images.labels)
            made[eps] = Transfer(**described, norm=built.norm, labels=labels, predictions=each)
            save_transfer(path, made[eps])
        return made

    def _read(
        self, path: Path, source: _Trained, attack: AttackSpec, eps: float
    ) -> Transfer | None:
        """Return what the file holds; None where it is missing, or not what its name says."""
        if not path.exists():
            return None
        try:
            found = load_transfer(path)
        except CorruptFile:
            return None
        described = self._describe(source, attack, eps)
        same = all(getattr(found, name) == described[name] for name in ("attack", "eps", "seed"))
        same &= np.array_equal(found.labels, self.dataset.test.labels)
        same &= len(found.targets) == len(self.models)
        # A file may come from somebody else.
        classes = 0 <= found.predictions.min() <= found.predictions.max() < self.dataset.num_classes
        if not (same and classes and found.norm in NORMS):
            return None
        # Labels of attacks are not part of the key, nor are default labels of losses: the tables
        # are made with those of today.
        return replace(found, **described)

    def _describe(self, source: _Trained, attack: AttackSpec, eps: float) -> dict[str, Any]:
        """Return what identifies a Transfer: its values apart from the norm and the arrays."""
        return {
            "source": source.label,
            "targets": tuple(target.label for target in self.models),
            "attack": attack.name,
            "attack_label": attack.label,
            "eps": eps,
            "seed": self.seed,
        }

    def _build(self, attack: AttackSpec) -> Attack:
        return build_attack(attack.name, folders=(self.spec.folder,), **attack.params)

    def _load_judge(self, trained: _Trained) -> AnyClassifier:
        """Return a model as the records of its cell show it, see `Workplace.load_judge`."""
        seed = derive_seed("draws", self.seed)
        return cast(AnyClassifier, average_draws(self._load(trained), self.draws, seed))

    def _load(self, trained: _Trained) -> AnyClassifier:
        """Return a model on its device; each is loaded once."""
        if trained.label not in self._loaded:
            model = build.build_classifier(trained.content["build"], (self.spec.folder,))
            weight_files.load_state(model, weight_files.load_tensors(trained.path("model"))[0])
            model.to(device=trained.job.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._loaded[trained.label] = model.eval()
        return self._loaded[trained.label]
