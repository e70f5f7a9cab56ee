"""Work between cells: the images that fool one loss's model, shown to the models of the others.

Runs after the cells, seed by seed. A file's key holds the weights of the source and of every
target, so that no retrained model is judged by old images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustloss.attacks import build_attack
from robustloss.cells import keys
from robustloss.cells.cell import reason_of
from robustloss.cells.jobs import CellJob, Failure
from robustloss.cells.workplace import Report
from robustloss.data.images import Dataset
from robustloss.evaluation import attacked, detector
from robustloss.models import build, weight_files
from robustloss.models.classifier import AnyClassifier
from robustloss.progress import Event, Stage
from robustloss.results.transfers import Transfer, load_transfer, save_transfer
from robustloss.seeding import using_repeatable_kernels
from robustloss.spec.attacks import AttackSpec
from robustloss.spec.spec import Spec
from robustloss.storage import CorruptFile, read_arrays, read_json


@dataclass(frozen=True)
class _Trained:
    """A finished cell: its job, cell.json and folder."""

    job: CellJob
    content: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.job.folder / self.job.cell.folder


def transfer_seeds(spec: Spec, jobs: Sequence[CellJob]) -> list[int]:
    """Returns the seeds that have a second stage: several losses and an attack that transfers."""
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
    """Shows the images of every source to every target of the same seed.

    Whatever goes wrong with a source is told, not thrown; the numbers of its cell stay.

    Args:
        spec: Of the run.
        jobs: Its cells, computed before.
        failures: The cells that have no model.
        dataset: Its data.
        report: Called with an Event as the work goes on.

    Returns:
        One of each (seed, source, attack, eps), in that order; and why sources have none.
    """
    failed = {(failure.label, failure.seed) for failure in failures}
    found: list[Transfer] = []
    lost: list[Failure] = []
    for seed in transfer_seeds(spec, jobs):
        trained = [
            _Trained(job, read_json(job.folder / job.cell.folder / "cell.json", checked=True))
            for job in jobs
            if job.cell.seed == seed and (job.cell.label, seed) not in failed
        ]
        stage = _Stage(spec, seed, trained, dataset, report)
        with using_repeatable_kernels():
            found += stage.run()
        lost += stage.failures
        reasons = "; ".join(failure.reason for failure in stage.failures)
        end: Stage = "failed" if stage.failures else "done" if stage.fresh else "cached"
        report(Event(stage.name, end, text=reasons))
    return found, lost


def _budgets(attack: AttackSpec) -> list[float]:
    return [eps for eps in attack.eps if eps > 0] if attack.transfer else []


class _Stage:
    """The transfers of one seed."""

    def __init__(
        self,
        spec: Spec,
        seed: int,
        trained: Sequence[_Trained],
        dataset: Dataset,
        report: Report,
    ) -> None:
        self.spec, self.seed, self.trained = spec, seed, trained
        self.dataset, self.report = dataset, report
        self.name = f"transfer seed {seed}"
        self.fresh = False
        self.failures: list[Failure] = []
        self._models: dict[str, AnyClassifier] = {}

    def run(self) -> list[Transfer]:
        """Computes what is missing."""
        found: list[Transfer] = []
        if len(self.trained) < 2:
            return found
        work = [(source, attack) for source in self.trained for attack in self.spec.attacks]
        for number, (source, attack) in enumerate(work):
            self.report(Event(self.name, "attack", number, len(work), attack.label))
            try:
                found += self._of(source, attack)
            except Exception as error:
                cell = source.job.cell
                reason = f"transfer of {attack.label}: {reason_of(error)}"
                failure = Failure(cell.loss.name, cell.label, cell.seed, "transfer", reason)
                self.failures.append(failure)
        return found

    def _of(self, source: _Trained, attack: AttackSpec) -> list[Transfer]:
        """What one attack made on one source, read or computed."""
        paths = {eps: self._path(source, attack, eps) for eps in _budgets(attack)}
        have = {eps: self._read(path, source, attack, eps) for eps, path in paths.items()}
        missing = [eps for eps, each in have.items() if each is None]
        if missing:
            have |= self._made(source, attack, {eps: paths[eps] for eps in missing})
        return [each for each in have.values() if each is not None]

    def _made(
        self, source: _Trained, attack: AttackSpec, paths: dict[float, Path]
    ) -> dict[float, Transfer]:
        """Attacks the source once for all missing budgets and shows the images to every target."""
        self.fresh = True
        job = source.job
        device = torch.device(job.device)
        images = self.dataset.test.to(device)
        reference, _ = read_arrays(source.folder / source.content["files"]["reference"])
        built = build_attack(attack.name, folders=(self.spec.folder,), **attack.params)
        predictions = attacked.transferred_predictions(
            detector.detector_view(self._model(source), reference),
            [self._model(target) for target in self.trained],
            attacked.AttackPass(built, images, list(paths), self.seed, attack.batch_size),
        )
        made: dict[float, Transfer] = {}
        for (eps, path), each in zip(paths.items(), predictions, strict=True):
            made[eps] = Transfer(
                source=job.cell.label,
                targets=tuple(target.job.cell.label for target in self.trained),
                attack=attack.name,
                attack_label=attack.label,
                norm=built.norm,
                eps=eps,
                seed=self.seed,
                labels=images.labels.cpu().numpy(),
                predictions=each,
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            save_transfer(path, made[eps])
        return made

    def _read(
        self, path: Path, source: _Trained, attack: AttackSpec, eps: float
    ) -> Transfer | None:
        """What the file holds; None where there is none, or it is not what its name says."""
        if not path.exists():
            return None
        try:
            found = load_transfer(path)
        except CorruptFile:
            return None
        targets = tuple(target.job.cell.label for target in self.trained)
        wanted = source.job.cell.label, targets, attack.name, attack.label, eps, self.seed
        told = (found.source, found.targets, found.attack, found.attack_label, found.eps,
                found.seed)  # fmt: skip
        labels = self.dataset.test.labels.numpy()
        return found if told == wanted and np.array_equal(found.labels, labels) else None

    def _model(self, trained: _Trained) -> AnyClassifier:
        label = trained.job.cell.label
        if label not in self._models:
            model = build.build_classifier(trained.content["build"], (self.spec.folder,))
            tensors, _ = weight_files.load_tensors(
                trained.folder / trained.content["files"]["model"]
            )
            model.load_state_dict(tensors)
            model.to(device=trained.job.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._models[label] = model.eval()
        return self._models[label]

    def _path(self, source: _Trained, attack: AttackSpec, eps: float) -> Path:
        key = keys.transfer_key(
            self.dataset.checksum,
            source.content,
            {target.job.cell.label: target.content["weights"] for target in self.trained},
            attack,
            eps,
            seed=self.seed,
            code=keys.plugin_digest(attack.name, self.spec.folder),
            machine=keys.numerics(torch.device(source.job.device)),
        )
        folder = source.job.folder / "transfer" / f"seed-{self.seed}"
        return folder / f"{source.job.cell.loss.slug}-{attack.slug}-{eps:.6g}-{key}.npz"
