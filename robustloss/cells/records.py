"""The records of a cell: its clean, attacked, noisy and outside images as the model sees them.

Each is read from its file, or computed and stored where that file is missing or damaged.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from robustloss import attacks
from robustloss.cells import parts
from robustloss.cells.jobs import Part
from robustloss.cells.keys import attack_params, plugin_digest
from robustloss.cells.workplace import Workplace
from robustloss.data import outside
from robustloss.data.images import ImageSet
from robustloss.evaluation import attacked, detector, noise_control, passes
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

AttackKey = tuple[str, float]  # label of the attack, budget; ("none", 0.0) is the clean pass


class ListedRecords(NamedTuple):
    """Records, each read when it is looked up, and what cell.json lists of them."""

    records: Mapping[Any, Record]
    entries: list[dict[str, Any]]


def ensure_clean(place: Workplace, outputs: list) -> tuple[Record, Path]:
    """Return the record of the unattacked test images, and its file.

    Args:
        place: The cell's.
        outputs: What decides the outputs of the model, see `Workplace.outputs`.
    """
    path = place.folder / f"none-0-{digest('clean', outputs)}.npz"
    meta = {"attack": "none", "eps": 0.0}
    return _ensure_pass(place, place.dataset.test, path, "clean images", meta), path


class CellAttacks:
    """The attacks of the spec on one cell, whose weights are there.

    Args:
        place: The cell's.
        outputs: What decides the outputs of the model, see `Workplace.outputs`.
        reference: Arrays of clean images, for attacks on the detector.

    Attributes:
        built: The attacks, in the order of the spec.
    """

    def __init__(self, place: Workplace, outputs: list, reference: passes.Arrays) -> None:
        self.place, self.outputs, self.reference = place, outputs, reference
        folder = place.spec.folder
        self.built = [
            attacks.build_attack(attack.name, **attack_params(attack, folder))
            for attack in place.spec.attacks
        ]

    def paths(self, number: int) -> dict[float, Path]:
        """Return the file of each budget's record, of the attack at a position in the spec."""
        attack, decisive = self.place.spec.attacks[number], self.outputs
        if self.built[number].needs == "likelihood":
            # The means at which such an attack may aim are those of the fitted subset.
            decisive = [*decisive, self.place.spec.detection.fit_size]
        return {eps: record_path(self.place, attack, eps, decisive) for eps in attack.eps}

    def plan(self) -> dict[str, dict[float, str]]:
        """Return the names of all the records, by slug of the attack and budget."""
        return {
            attack.slug: {eps: path.name for eps, path in self.paths(number).items()}
            for number, attack in enumerate(self.place.spec.attacks)
        }

    def ensure(self, number: int, clean: Record) -> dict[float, Path]:
        """Return the files of an attack's records by budget, after computing those missing.

        Args:
            number: Position in the attacks of the spec.
            clean: The record of the unattacked images.
        """
        attack, paths = self.place.spec.attacks[number], self.paths(number)
        missing = tuple(eps for eps in attack.eps if read_record(paths[eps]) is None)
        if not missing:
            return paths
        split = self.place.spec.resources.split
        if split is None:
            made, spent = self._attack(Part(number, missing, 0, clean.n), clean)
        else:
            made, spent = self._join_parts(number, missing, split, clean)
        cost = {"attack_label": attack.label, "images": clean.n, "budgets": len(missing)}
        path = self.place.folder / f"{attack.slug}-cost.json"
        write_json(path, cost | asdict(spent), checked=True)
        for eps, record in made.items():
            save_record(paths[eps], record, {"attack": attack.name, "eps": eps})
        return paths

    def ensure_part(self, part: Part, clean: Record | None) -> dict[float, parts.StoredPart]:
        """Return the records of some images by budget, after computing those missing.

        Args:
            part: Which images, and at which budgets.
            clean: The record of all unattacked images, for budget 0.
        """
        whole = self.paths(part.attack)
        paths = {eps: parts.part_path(whole[eps], part.start, part.stop) for eps in part.eps}
        known = {eps: parts.load_part(path) for eps, path in paths.items()}
        found = {eps: stored for eps, stored in known.items() if stored is not None}
        if missing := tuple(eps for eps in part.eps if eps not in found):
            records, spent = self._attack(replace(part, eps=missing), clean)
            for eps, record in records.items():
                found[eps] = parts.StoredPart(record, missing, spent)
                parts.save_part(paths[eps], found[eps], part.start)
        return found

    def _join_parts(
        self, number: int, eps: tuple[float, ...], split: int, clean: Record
    ) -> tuple[Mapping[float, Record], parts.Spent]:
        """Return the records of all images and their cost, joined from parts of `split` images."""
        pieces: dict[float, list[Record]] = {budget: [] for budget in eps}
        # Budgets that were computed together had one cost, which must not be counted twice.
        costs: dict[tuple[int, tuple[float, ...]], parts.Spent] = {}
        for start, stop in parts.ranges(clean.n, split):
            for budget, stored in self.ensure_part(Part(number, eps, start, stop), clean).items():
                pieces[budget].append(stored.record)
                costs[start, stored.eps] = stored.spent
        made = {budget: joined(records) for budget, records in pieces.items()}
        return made, sum(costs.values(), parts.Spent())

    def _attack(
        self, part: Part, clean: Record | None
    ) -> tuple[Mapping[float, Record], parts.Spent]:
        """Attack some images; return their records by budget, and the cost."""
        place, attack = self.place, self.place.spec.attacks[part.attack]
        test = place.dataset.test
        spent: list[parts.Spent] = []
        report = place.make_reporter("attack", attack.label)
        made = attacked.attacked_records(
            place.weights.loaded(),
            test.take(slice(part.start, part.stop)).to(place.device),
            self.built[part.attack],
            eps=part.eps,
            seed=place.cell.seed,
            batch_size=attack.batch_size,
            clean=clean and piece_of(clean, part.start, part.stop),
            threshold=detector.detector_threshold(self.reference),
            class_means=detector.class_means(self.reference),
            eight_bit=attack.eight_bit,
            spend=lambda queries, seconds: spent.append(parts.Spent(*queries, seconds)),
            report=lambda done, total, text: report(part.start + done, test.n, text),
        )
        return made, sum(spent, parts.Spent())


def record_path(place: Workplace, attack: AttackSpec, eps: float, decisive: list) -> Path:
    """Return the file of an attack's record at one budget.

    Args:
        place: The cell's.
        attack: The attack.
        eps: Its budget.
        decisive: What decides what the attack may see of the model.
    """
    code = plugin_digest(attack.name, place.spec.folder)
    key = digest(
        attacks.VERSION,
        decisive,
        attack.name,
        code,
        dict(attack.params),
        eps,
        attack.eight_bit,
        place.cell.seed,
        # Our own attacks give the same result at any batch size, adapted ones need not.
        attack.batch_size if code else 0,
    )
    return place.folder / f"{attack.slug}-{eps:.6g}-{key}.npz"


def ensure_attacked(place: Workplace, outputs: list, calls: CellAttacks) -> ListedRecords:
    """Return the records of all passes over the test images by `AttackKey`, the clean pass first.

    Args:
        place: The cell's.
        outputs: What decides the outputs of the model, see `Workplace.outputs`.
        calls: The attacks.
    """
    clean, path = ensure_clean(place, outputs)
    paths = {("none", 0.0): path}
    entries = [_entry("none", "none", None, 0.0, path)]
    for number, (attack, call) in enumerate(zip(place.spec.attacks, calls.built, strict=True)):
        for eps, path in calls.ensure(number, clean).items():
            paths[attack.label, eps] = path
            entries.append(_entry(attack.name, attack.label, call.norm, eps, path))
    parts.remove_parts(place.folder)
    return ListedRecords(_load_lazily(paths), entries)


def ensure_noise(place: Workplace, tested: ListedRecords) -> Mapping[AttackKey, Record]:
    """Return the noise control of every attacked record, where the spec asks for controls.

    Args:
        place: The cell's.
        tested: The attacked records; each of their entries gets the key "noise", a file name.
    """
    paths: dict[AttackKey, Path] = {}
    for entry in tested.entries if place.spec.detection.noise else ():
        label, eps = entry["attack_label"], entry["eps"]
        if eps == 0:
            continue
        key = digest("noise", noise_control.VERSION, entry["file"], place.cell.seed)
        path = place.folder / f"noise-{Path(entry['file']).stem.rpartition('-')[0]}-{key}.npz"
        if read_record(path) is None:
            place.report_scoring(f"noise like {label}")
            control = noise_control.noise_record(
                place.weights.loaded(),
                place.dataset.test.to(place.device),
                tested.records[label, eps],
                entry["norm"],
                place.cell.seed,
            )
            save_record(path, control, {"attack": "noise", "eps": eps})
        entry["noise"] = path.name
        paths[label, eps] = path
    return _load_lazily(paths)


def ensure_outside(place: Workplace, outputs: list) -> ListedRecords:
    """Return the records of images that are not of the data, by label of their set.

    Args:
        place: The cell's.
        outputs: What decides the outputs of the model, see `Workplace.outputs`.
    """
    paths, entries = {}, []
    for each in outside.load_outside(place.spec, place.dataset, place.job.data_root):
        key = digest("outside", outside.VERSION, outputs, each.checksum)
        path = place.folder / f"outside-{each.slug}-{key}.npz"
        record = _ensure_pass(place, each.images, path, each.label, {"outside": each.name})
        paths[each.label] = path
        entries.append({"label": each.label, "name": each.name, "n": record.n, "file": path.name})
    return ListedRecords(_load_lazily(paths), entries)


def read_record(path: Path) -> Record | None:
    """Return the record of a file, or None where it is missing or damaged."""
    if not path.exists():
        return None
    try:
        return load_record(path)
    except CorruptFile:
        return None


def _ensure_pass(
    place: Workplace, images: ImageSet, path: Path, text: str, meta: Mapping[str, Any]
) -> Record:
    """Return the record of images as they are, after computing and storing it where it is missing.

    Args:
        place: The cell's.
        images: Which images.
        path: The record's file.
        text: Names the images in the progress of the run.
        meta: Plain values that are stored with the record.
    """
    record = read_record(path)
    if record is None:
        place.report_scoring(text)
        record = passes.clean_record(place.weights.loaded(), images.to(place.device))
        save_record(path, record, meta)
    return record


def _entry(attack: str, label: str, norm: str | None, eps: float, path: Path) -> dict[str, Any]:
    """Return what cell.json says of one record."""
    return {"attack": attack, "attack_label": label, "norm": norm, "eps": eps, "file": path.name}


def _load_lazily(paths: Mapping[Key, Path]) -> Mapping[Key, Record]:
    """Return the records of files. All of a cell may not fit into memory, so none is loaded yet."""
    return LazyRecords({key: partial(load_record, path) for key, path in paths.items()})
