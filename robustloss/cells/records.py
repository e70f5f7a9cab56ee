"""The records of a cell: its clean, attacked, noisy and outside images as the model sees them.

Each is read from its file, or computed and stored where that file is missing or damaged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from robustloss.attacks.witness import is_ours
from robustloss.cells import detectors, kept, keys, parts, work
from robustloss.cells.jobs import Part
from robustloss.cells.workplace import Workplace
from robustloss.data.images import ImageSet
from robustloss.data.outside import load_outside
from robustloss.data.shifts import load_shifts
from robustloss.evaluation import attacked, noise_control, passes
from robustloss.results import records as stored
from robustloss.results.records import Key, Record
from robustloss.storage import CorruptFile, write_json

PassName = tuple[str, float]  # label of the attack and budget; ("none", 0.0) for clean images
Made = tuple[dict[float, Record], parts.Spent]  # by budget; what they took


class ListedRecords(NamedTuple):
    """Records, each read when it is looked up, and what cell.json lists of them.

    Attributes:
        records: By what names them.
        entries: What cell.json lists of each.
        worst: What it lists of the images of worst cases.
    """

    records: Mapping[Any, Record]
    entries: list[dict[str, Any]]
    worst: Sequence[dict[str, Any]] = ()


def ensure_clean(place: Workplace) -> tuple[Record, Path]:
    """Return the record of the unattacked test images, and its file."""
    path = place.folder / f"none-0-{keys.clean_key(place.outputs)}.npz"
    meta = {"attack": "none", "eps": 0.0}
    test = place.dataset.test
    return _ensure_pass(place, test, path, "clean images", meta, work.CLEAN), path


def ensure_attacked(place: Workplace, reference: passes.Arrays) -> ListedRecords:
    """Return the records of all passes over the test images by `PassName`, the clean pass first.

    Args:
        place: The cell's.
        reference: Arrays of clean images, for attacks on the detector.
    """
    clean, path = ensure_clean(place)
    paths = {("none", 0.0): path}
    entries = [_entry("none", "none", None, 0.0, path)]
    listed, keeping = _list_attacked(place), _plan_keeping(place)
    # Others' code comes last: what it may leave behind then reaches no attack of ours.
    for number in sorted(listed, key=lambda number: not is_ours(place.attacks[number])):
        _ensure_attack(place, reference, number, clean, keeping)
    for own in listed.values():
        for entry in own:
            paths[entry["attack_label"], entry["eps"]] = place.folder / entry["file"]
            kept.list_images(keeping, entry, place.folder)
            entries.append(entry)
    records = _load_lazily(paths)
    worst = kept.ensure_worst(place, keeping, entries, records)
    # Only now: a cell that is stopped among its attacks finds the parts that it has.
    parts.remove_parts(place.folder)
    return ListedRecords(records, entries, worst)


def _plan_keeping(place: Workplace) -> kept.Keeping:
    """Return which attacked images the cell keeps; nothing need be computed yet."""
    listed = _list_attacked(place)
    return kept.plan_keeping(place, [entry for own in listed.values() for entry in own])


def ensure_part(
    place: Workplace, reference: passes.Arrays, part: Part, clean: Record | None
) -> dict[float, parts.StoredPart]:
    """Return the records of some images under one attack, by budget.

    Args:
        place: The cell's.
        reference: Arrays of clean images, for attacks on the detector.
        part: Which images, attack and budgets.
        clean: The record of all unattacked images, for budget 0.
    """
    whole, keeping = _attacked_paths(place, part.attack), _plan_keeping(place)
    paths = {eps: parts.part_path(whole[eps], part.start, part.stop) for eps in part.eps}
    known = {eps: parts.load_part(path) for eps, path in paths.items()}
    found = {
        eps: each
        for eps, each in known.items()
        if each is not None and not keeping.lacks_part(whole[eps], part.start, part.stop)
    }
    missing = tuple(eps for eps in part.eps if eps not in found)
    for group in work.group_budgets(place.attacks[part.attack], missing):
        made, spent = _attack(place, reference, replace(part, eps=group), clean, keeping)
        for eps, record in made.items():
            found[eps] = parts.StoredPart(record, group, spent)
            parts.save_part(paths[eps], found[eps], part.start)
    return found


def plan_parts(place: Workplace) -> None:
    """Write which files the cell will have: what decides their names is known here alone."""
    keeping, plan = _plan_keeping(place), {}
    for number, table in enumerate(place.spec.attacks):
        plan[table.slug] = {
            eps: parts.Planned(path.name, kept.images_path(path).name, keeping.count)
            if path in keeping.records
            else parts.Planned(path.name)
            for eps, path in _attacked_paths(place, number).items()
        }
    parts.write_plan(place.folder, plan)


def ensure_noise(place: Workplace, tested: ListedRecords) -> Mapping[PassName, Record]:
    """Return the noise control of every attacked record, where the spec asks for controls.

    Args:
        place: The cell's.
        tested: The attacked records. Each entry gets the name of its control, key "noise".
    """
    paths: dict[PassName, Path] = {}
    wanted = tested.entries if place.spec.detection.noise else ()
    for number, entry in enumerate(wanted):
        label, eps = entry["attack_label"], entry["eps"]
        if eps == 0:
            continue
        key = keys.noise_key(entry["file"], place.cell.seed)
        attack, _, _ = Path(entry["file"]).stem.rpartition("-")  # without its own key
        path = place.folder / f"noise-{attack}-{key}.npz"
        if read_record(path) is None:
            place.report_scoring(f"noise like {label}", work.NOISE, number / len(wanted))
            control = noise_control.noise_record(
                place.load_judge(),
                place.dataset.test.to(place.device),
                tested.records[label, eps],
                entry["norm"],
                place.cell.seed,
            )
            stored.save_record(path, control, {"attack": "noise", "eps": eps})
        entry["noise"] = path.name
        paths[label, eps] = path
    return _load_lazily(paths)


def ensure_outside(place: Workplace) -> ListedRecords:
    """Return the records of images that are not of the data, by label of their set."""
    paths, entries = {}, []
    for each in load_outside(place.spec, place.dataset, place.job.data_root):
        key = keys.outside_key(place.outputs, each.checksum)
        path = place.folder / f"outside-{each.slug}-{key}.npz"
        record = _ensure_pass(
            place, each.images, path, each.label, {"outside": each.name}, work.OUTSIDE
        )
        paths[each.label] = path
        entries.append({"label": each.label, "name": each.name, "n": record.n, "file": path.name})
    return ListedRecords(_load_lazily(paths), entries)


def ensure_shifts(place: Workplace) -> ListedRecords:
    """Return the records of shifted images, by shift and severity."""
    paths, entries = {}, []
    for each in load_shifts(place.spec, place.dataset, place.job.data_root):
        key = keys.shift_key(place.outputs, each.checksum)
        path = place.folder / f"shift-{each.slug}-{each.severity}-{key}.npz"
        text = f"{each.shift}, severity {each.severity}"
        _ensure_pass(place, each.images, path, text, {"shift": each.shift}, work.SHIFTS)
        paths[each.shift, float(each.severity)] = path
        entries.append({"label": each.shift, "severity": each.severity, "file": path.name})
    return ListedRecords(_load_lazily(paths), entries)


def read_record(path: Path) -> Record | None:
    """Return the record of a file, or None where it is missing or damaged."""
    if not path.exists():
        return None
    try:
        return stored.load_record(path)
    except CorruptFile:
        return None


def _ensure_pass(
    place: Workplace,
    images: ImageSet,
    path: Path,
    text: str,
    meta: Mapping[str, Any],
    step: str,
) -> Record:
    """Return the record of images as they are.

    Args:
        place: The cell's.
        images: Which images.
        path: The record's file.
        text: Names the images in the progress of the run.
        meta: Plain values to store with the record.
        step: Of `Workplace.work` that it is.
    """
    record = read_record(path)
    if record is None:
        place.report_scoring(text, step)
        record = passes.clean_record(place.load_judge(), images.to(place.device))
        stored.save_record(path, record, meta)
    return record


def _attacked_paths(place: Workplace, number: int) -> dict[float, Path]:
    """Return the file of each budget's record, of the attack at this position in the spec.

    None where the cell lacks the score that the attack aims at.
    """
    table, detection = place.spec.attacks[number], place.spec.detection
    attack, folder = place.attacks[number], place.spec.folder
    if not detectors.can_attack(attack, folder, density=place.density, features=place.features):
        return {}
    score = detectors.find_target(attack)
    key = partial(
        keys.attacked_key,
        place.outputs,
        table,
        seed=place.cell.seed,
        code=keys.plugin_digest(table.name, folder),
        fit_size=None if attack.needs == "logits" else detection.fit_size,
        score_code=None if score is None else keys.plugin_digest(score, folder),
    )
    return {eps: place.folder / f"{table.slug}-{eps:.6g}-{key(eps)}.npz" for eps in table.eps}


def _list_attacked(place: Workplace) -> dict[int, list[dict[str, Any]]]:
    """Return what cell.json lists of the attacked records, by position of the attack."""
    tables = zip(place.spec.attacks, place.attacks, strict=True)
    return {
        number: [
            _entry(table.name, table.label, attack.norm, eps, path)
            | ({"score": score} if (score := detectors.find_target(attack)) else {})
            for eps, path in _attacked_paths(place, number).items()
        ]
        for number, (table, attack) in enumerate(tables)
    }


def _ensure_attack(
    place: Workplace, reference: passes.Arrays, number: int, clean: Record, keeping: kept.Keeping
) -> None:
    """Compute what is missing of an attack; its records leave memory after each group of eps."""
    table, paths = place.spec.attacks[number], _attacked_paths(place, number)
    missing = tuple(
        eps for eps, path in paths.items() if read_record(path) is None or keeping.lacks(path)
    )
    spent, done = parts.Spent(), 0
    for group in work.group_budgets(place.attacks[number], missing):
        for eps in group:
            told = {"attack": table.label, "eps": eps, "images": clean.n}
            place.report_note("attack_started", told)
        made, own = _attack_all(place, reference, number, group, clean, keeping)
        spent, done = spent + own, done + len(group)
        cost = {"attack_label": table.label, "images": clean.n, "budgets": done}
        write_json(place.folder / f"{table.slug}-cost.json", cost | asdict(spent), checked=True)
        for eps in group:
            record = made.pop(eps)
            stored.save_record(paths[eps], record, {"attack": table.name, "eps": eps})
            told = {"attack": table.label, "eps": eps, "images": record.n}
            told |= {"error": float((~record.correct).mean()), "seconds": round(own.seconds, 3)}
            place.report_note("attack_finished", told)


def _attack_all(
    place: Workplace,
    reference: passes.Arrays,
    number: int,
    eps: tuple[float, ...],
    clean: Record,
    keeping: kept.Keeping,
) -> Made:
    """Attack all images: at once, or in parts that are joined where the spec splits the cell."""
    split = place.spec.resources.split
    if split is None:
        return _attack(place, reference, Part(number, eps, 0, clean.n), clean, keeping)
    pieces: dict[float, list[Record]] = {budget: [] for budget in eps}
    # Budgets that were computed together had one cost, which must not be counted twice.
    costs: dict[tuple[int, tuple[float, ...]], parts.Spent] = {}
    ranges = parts.ranges(clean.n, split)
    for start, stop in ranges:
        found = ensure_part(place, reference, Part(number, eps, start, stop), clean)
        for budget, part in found.items():
            pieces[budget].append(part.record)
            costs[start, part.eps] = part.spent
    paths = _attacked_paths(place, number)
    for record in (paths[budget] for budget in eps if paths[budget] in keeping.records):
        images = kept.images_path(record)
        files = [
            parts.part_path(images, *part) for part in ranges if keeping.rows(record, *part) > 0
        ]
        kept.join_images(images, files, (keeping.count, *keeping.shape))
    made = {budget: stored.join_records(records) for budget, records in pieces.items()}
    return made, sum(costs.values(), parts.Spent())


def _attack(
    place: Workplace,
    reference: passes.Arrays,
    part: Part,
    clean: Record | None,
    keeping: kept.Keeping,
) -> Made:
    """Attack some images at once, and write their images where they are to be kept."""
    table, test = place.spec.attacks[part.attack], place.dataset.test
    spent: list[parts.Spent] = []
    report = place.make_reporter("attack", table.label, work.attack_step(table.label))
    # Budgets that come before these are done.
    before, own, total = table.eps.index(part.eps[0]), len(part.eps), len(table.eps)
    images = test.take(slice(part.start, part.stop)).to(place.device)
    attack = place.attacks[part.attack]
    targets = {}
    for eps, record in _attacked_paths(place, part.attack).items():
        rows = keeping.rows(record, part.start, part.stop)
        if rows and eps in part.eps:
            path = kept.images_path(record)
            whole = place.spec.resources.split is None
            target = path if whole else parts.part_path(path, part.start, part.stop)
            targets[eps] = (target, rows)
    with kept.Keeper(targets, keeping.shape) as keeper:
        made = attacked.attacked_records(
            place.load_judge(),
            attacked.AttackPass(attack, images, part.eps, place.cell.seed, table.batch_size),
            clean=clean and stored.cut_record(clean, part.start, part.stop),
            detector=detectors.build_view(
                attack, place.weights.load(), reference, place.spec.folder, density=place.density
            ),
            eight_bit=table.eight_bit,
            spend=lambda queries, seconds: spent.append(parts.Spent(*queries, seconds)),
            keep=keeper,
            report=lambda done, _, text: report(
                (before * test.n + own * (part.start + done)) / total, test.n, text
            ),
        )
    return made, sum(spent, parts.Spent())


def _entry(attack: str, label: str, norm: str | None, eps: float, path: Path) -> dict[str, Any]:
    """Return what cell.json says of one record."""
    return {"attack": attack, "attack_label": label, "norm": norm, "eps": eps, "file": path.name}


def _load_lazily(paths: Mapping[Key, Path]) -> Mapping[Key, Record]:
    """Return the records of files. All of a cell may not fit into memory, so none is loaded yet."""
    return stored.LazyRecords(
        {key: partial(stored.load_record, path) for key, path in paths.items()}
    )
