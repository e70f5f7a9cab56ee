"""The attacks on one cell: what decides their records, and what reads, joins or computes them."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from robustloss import attacks
from robustloss.cells.jobs import Part
from robustloss.cells.keys import attack_params, plugin_digest
from robustloss.cells.parts import Spent, StoredPart, load_part, part_path, ranges, save_part
from robustloss.evaluation import attacked, detector, passes
from robustloss.results.records import (
    Key,
    LazyRecords,
    Record,
    joined,
    load_record,
    piece_of,
    save_record,
)
from robustloss.spec.attacks import AttackSpec
from robustloss.storage import CorruptFile, digest, write_json

if TYPE_CHECKING:
    from robustloss.cells.cell import CellRun


class CellAttacks:
    """The attacks of the spec on one cell.

    Args:
        run: Of the cell, whose weights are there.
        images: What decides what the model says of clean images.
        reference: Of clean images, for attacks on the detector.

    Attributes:
        built: The attacks, in the order of the spec.
    """

    def __init__(self, run: "CellRun", images: list, reference: passes.Arrays) -> None:
        self.run, self.images, self.reference = run, images, reference
        folder = run.spec.folder
        self.built = [
            attacks.build_attack(attack.name, **attack_params(attack, folder))
            for attack in run.spec.attacks
        ]

    def paths(self, number: int) -> dict[float, Path]:
        """Returns where the records of an attack lie, by budget."""
        attack, images = self.run.spec.attacks[number], self.images
        if self.built[number].needs == "likelihood":
            # The means at which such an attack may aim are those of the fitted subset.
            images = [*images, self.run.spec.detection.fit_size]
        return {eps: record_path(self.run, attack, eps, images) for eps in attack.eps}

    def plan(self) -> dict[str, dict[float, str]]:
        """Returns the names of all the records, by slug of the attack and budget."""
        return {
            attack.slug: {eps: path.name for eps, path in self.paths(number).items()}
            for number, attack in enumerate(self.run.spec.attacks)
        }

    def records(self, number: int, clean: Record) -> dict[float, Path]:
        """Returns the files of an attack's records by budget; computes those that are missing.

        Args:
            number: Position in the attacks of the spec.
            clean: The record of the unattacked images.
        """
        attack, paths = self.run.spec.attacks[number], self.paths(number)
        if missing := tuple(eps for eps in attack.eps if read_record(paths[eps]) is None):
            made, spent = self._whole(number, missing, clean)
            cost = {"attack_label": attack.label, "images": clean.n, "budgets": len(missing)}
            path = self.run.folder / f"{attack.slug}-cost.json"
            write_json(path, cost | asdict(spent), checked=True)
            for eps, record in made.items():
                save_record(paths[eps], record, {"attack": attack.name, "eps": eps})
        return paths

    def part(self, part: Part, clean: Record | None) -> dict[float, StoredPart]:
        """Returns the records of some images, by budget; computes and writes those not there.

        Args:
            part: Which.
            clean: The record of all unattacked images, for budget 0.
        """
        whole = self.paths(part.attack)
        paths = {eps: part_path(whole[eps], part.start, part.stop) for eps in part.eps}
        known = {eps: load_part(path) for eps, path in paths.items()}
        found = {eps: stored for eps, stored in known.items() if stored is not None}
        if missing := tuple(eps for eps in part.eps if eps not in found):
            records, spent = self._computed(replace(part, eps=missing), clean)
            for eps, record in records.items():
                found[eps] = StoredPart(record, missing, spent)
                save_part(paths[eps], found[eps], part.start)
        return found

    def _whole(
        self, number: int, eps: tuple[float, ...], clean: Record
    ) -> tuple[Mapping[float, Record], Spent]:
        """Returns the records of all images: at once, or joined where the spec splits the cell."""
        split = self.run.spec.resources.split
        if split is None:
            return self._computed(Part(number, eps, 0, clean.n), clean)
        pieces: dict[float, list[Record]] = {budget: [] for budget in eps}
        costs: dict[tuple[int, tuple[float, ...]], Spent] = {}  # one for budgets made together
        for start, stop in ranges(clean.n, split):
            for budget, stored in self.part(Part(number, eps, start, stop), clean).items():
                pieces[budget].append(stored.record)
                costs[start, stored.eps] = stored.spent
        return {e: joined(records) for e, records in pieces.items()}, sum(costs.values(), Spent())

    def _computed(self, part: Part, clean: Record | None) -> tuple[Mapping[float, Record], Spent]:
        """Attacks some images."""
        run, attack = self.run, self.run.spec.attacks[part.attack]
        test = run.dataset.test
        spent: list[Spent] = []
        report = run.reporter("attack", attack.label)
        made = attacked.attacked_records(
            run.weights.loaded(),
            test.take(slice(part.start, part.stop)).to(run.device),
            self.built[part.attack],
            eps=part.eps,
            seed=run.cell.seed,
            batch_size=attack.batch_size,
            clean=clean and piece_of(clean, part.start, part.stop),
            threshold=detector.detector_threshold(self.reference),
            class_means=detector.class_means(self.reference),
            eight_bit=attack.eight_bit,
            spend=lambda queries, seconds: spent.append(Spent(*queries, seconds)),
            report=lambda done, total, text: report(part.start + done, test.n, text),
        )
        return made, sum(spent, Spent())


def record_path(run: "CellRun", attack: AttackSpec, eps: float, images: list) -> Path:
    """Returns where the record of an attack at one budget lies.

    Args:
        run: Of the cell.
        attack: The attack.
        eps: Its budget.
        images: What decides what the attack may see of the model.
    """
    code = plugin_digest(attack.name, run.spec.folder)
    key = digest(
        attacks.VERSION,
        images,
        attack.name,
        code,
        dict(attack.params),
        eps,
        attack.eight_bit,
        run.cell.seed,
        # Our own attacks give the same result at any batch size, adapted ones need not.
        attack.batch_size if code else 0,
    )
    return run.folder / f"{attack.slug}-{eps:.6g}-{key}.npz"


def read_record(path: Path) -> Record | None:
    """Returns a record; None where it is missing or damaged."""
    if not path.exists():
        return None
    try:
        return load_record(path)
    except CorruptFile:
        return None


def stored(paths: Mapping[Key, Path]) -> Mapping[Key, Record]:
    """Returns records that are read when they are looked up: all of a cell may not fit."""
    return LazyRecords({key: partial(load_record, path) for key, path in paths.items()})


def entry_of(attack: str, label: str, norm: str | None, eps: float, file: str) -> dict:
    """What cell.json says of one record."""
    return {"attack": attack, "attack_label": label, "norm": norm, "eps": eps, "file": file}
