"""What several runs have in common, and a clear word why they cannot stand in one table."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustloss.notation import eps_text
from robustloss.results.checking import check_tables
from robustloss.results.provenance import find_searches
from robustloss.results.run import Run
from robustloss.runs.meaning import (
    fill_network,
    fill_training,
    find_attack_differences,
    find_loss_differences,
    list_differences,
    loss_settings,
    spec_of,
)
from robustloss.spec.data import OutsideSpec, ShiftSpec
from robustloss.spec.text import slug
from robustloss.storage import read_json

# Of provenance.data, in the order in which a difference is reported: the checksum last, because it
# differs whenever one of the others does.
_SAME_DATA = ("name", "train", "validation", "test", "class_counts", "class_names")


class NotComparableError(ValueError):
    """Runs whose numbers cannot stand in one table; the text says which value differs."""


@dataclass
class RunCell:
    """A finished cell of one of the runs, under the label that it gets in the merged run.

    Attributes:
        run: The run that has it.
        folder: Its folder there.
        content: Its cell.json.
        label: Its label in the merged run.
        settings: What decides its training beside seed and data, as in a table [[losses]].
        attacks: The labels in the merged run by those of its run, of the attacks that all have.
        twins: Further runs that have the same cell.
    """

    run: Run
    folder: Path
    content: dict[str, Any]
    label: str
    settings: dict[str, Any]
    attacks: Mapping[str, str] = field(default_factory=dict)
    twins: list[Run] = field(default_factory=list)


def check_data(first: Run, other: Run) -> None:
    """Refuse a run on other images.

    Raises:
        NotComparableError: Names what differs.
    """
    data = [run.provenance.get("data") or {} for run in (first, other)]
    why = "Losses compare only on the same training and test images."
    check_equal((first, other), data, _SAME_DATA, "data.{}", why)
    why = f"The images, their labels or their order differ. {why}"
    check_equal((first, other), data, ["checksum"], "data.{}", why)


def check_network(first: Run, other: Run) -> None:
    """Refuse a run of another network.

    Raises:
        NotComparableError: Names what differs.
    """
    models = [spec_of(run).get("model") or {} for run in (first, other)]
    if models[0] != models[1]:
        models = [fill_network(model) for model in models]
    why = (
        "A difference could come from the network and not from the loss; "
        "--other-networks merges them all the same."
    )
    check_equal((first, other), models, sorted({*models[0], *models[1]}), "model.{}", why)


def check_equal(
    runs: Sequence[Run],
    tables: Sequence[Mapping[str, Any]],
    keys: Iterable[str],
    name: str,
    why: str,
) -> None:
    """Refuse two runs of which two tables differ in one of the keys.

    Args:
        runs: The two.
        tables: One of each.
        keys: Those that must be equal.
        name: What the message calls a key, with {} in place of it.
        why: Why it must be equal, and the remedy.
    """
    for key in keys:
        values = [table.get(key) for table in tables]
        if values[0] != values[1]:
            first, second = (v if len(v) <= 80 else f"{v[:77]}..." for v in map(repr, values))
            raise NotComparableError(
                f"{runs[0].path} and {runs[1].path} cannot be compared: "
                f"{name.replace('{}', key, 1)} is {first} in the first and {second} in the second. "
                f"{why}"
            )


def other_images(runs: Sequence[Run], key: str, what: str) -> list[dict[str, Any]]:
    """Return the tables [[outside]] or [[shifts]] of all runs; one label means one set of images.

    Args:
        runs: To be merged.
        key: "outside" or "shifts".
        what: Such a table is in messages.
    """
    fields = (OutsideSpec if key == "outside" else ShiftSpec).model_fields
    known: dict[str, tuple[Run, Mapping[str, Any]]] = {}
    for run in runs:
        for table in spec_of(run).get(key) or ():
            first, own = known.setdefault(table["label"], (run, table))
            name = f"{{}} of {what} {table['label']!r}"
            why = "One label must mean one set. Run one again with another label."
            keys = [each for each in fields if each != "label"]
            of_both = [{k: v for k, v in each.items() if v} for each in (own, table)]  # as defaults
            check_equal((first, run), (of_both[0], of_both[1]), keys, name, why)
    return [dict(table) for _, table in known.values()]


@dataclass
class SharedAttacks:
    """The attacks that every run has.

    Attributes:
        tables: The tables [[attacks]] of the merged run by label, with the eps of all runs.
        labels: For each run, the labels in the merged run by its own.
        notes: What is called otherwise, means something else, or is left out.
    """

    tables: dict[str, dict[str, Any]]
    labels: list[dict[str, str]]
    notes: list[str]


def shared_attacks(runs: Sequence[Run]) -> SharedAttacks:
    """Return the attacks of all runs: those that do the same, however each run calls them.

    Raises:
        NotComparableError: No attack has an eps in every run.
    """
    lists = [list(spec_of(run).get("attacks", [])) for run in runs]
    tables: dict[str, dict[str, Any]] = {}
    labels: list[dict[str, str]] = [{} for _ in runs]
    for attack in lists[0]:
        twins = [_find_twin(attack, known, own) for known, own in zip(lists, labels, strict=True)]
        found = [twin for twin in twins if twin is not None]
        common = [eps for eps in attack["eps"] if all(eps in twin["eps"] for twin in found)]
        if len(found) < len(runs) or not common:
            continue
        tables[attack["label"]] = {**attack, "eps": common}
        for own, twin in zip(labels, found, strict=True):
            own[twin["label"]] = attack["label"]
    names = tell_apart(runs)
    notes = _other_meanings(names, lists, labels)
    if not tables:
        each = "; ".join(
            f"{run.path} has "
            + ", ".join(f"{a['label']} at {', '.join(map(eps_text, a['eps']))}" for a in known)
            for run, known in zip(runs, lists, strict=True)
        )
        told = "".join(f"{note} " for note in notes)
        raise NotComparableError(
            f"The runs have no attack with an eps in common: {each}. {told}Run one of them again "
            "with an attack of the other."
        )
    notes = [*_renaming_note(names, labels), *notes]
    for name, known, own in zip(names, lists, labels, strict=True):
        left = []
        for attack in known:
            kept = tables[own[attack["label"]]]["eps"] if attack["label"] in own else ()
            if lost := [eps_text(eps) for eps in attack["eps"] if eps not in kept]:
                left.append(f"{attack['label']} at {', '.join(lost)}")
        if left:
            notes.append(f"Left out of {name}, because not every run has it: {'; '.join(left)}.")
    return SharedAttacks(tables, labels, notes)


def _find_twin(
    attack: Mapping[str, Any], known: Sequence[Mapping[str, Any]], taken: Collection[str]
) -> Mapping[str, Any] | None:
    """Return the attack of a run that does the same as another; one of the same label first.

    Args:
        attack: Of the first run.
        known: Those of the run.
        taken: The labels of those that have a twin already.
    """
    left = [each for each in known if each["label"] not in taken]
    same = [each for each in left if not find_attack_differences(attack, each)]
    return min(same, key=lambda each: each["label"] != attack["label"], default=None)


def _other_meanings(
    names: Sequence[str],
    lists: Sequence[Sequence[Mapping[str, Any]]],
    labels: Sequence[Mapping[str, str]],
) -> list[str]:
    """Say in what an attack of the first run differs from another run's of the same label."""
    notes = []
    for name, known, own in zip(names[1:], lists[1:], labels[1:], strict=True):
        for first, other in ((a, b) for a in lists[0] for b in known):
            if slug(first["label"]) != slug(other["label"]) or other["label"] in own:
                continue
            if differences := find_attack_differences(first, other):
                told = list_differences(differences, names[0], name)
                notes.append(f"{first['label']} is another attack in {name}: {told}.")
    return notes


def _renaming_note(names: Sequence[str], labels: Sequence[Mapping[str, str]]) -> list[str]:
    """Say in one line what is called otherwise than in its run; nothing where nothing is."""
    renamed = [
        f"{old} of {name} is {new}"
        for name, own in zip(names, labels, strict=True)
        for old, new in own.items()
        if old != new
    ]
    return [f"The same by another label: {', '.join(renamed)}."] if renamed else []


def label_cells(runs: Sequence[Run]) -> tuple[list[RunCell], list[str]]:
    """Return the cells of all runs under labels that mean one loss each, and notes on new labels.

    A loss that two runs have gets the label of the first of them, and its seeds stand side by side;
    a cell that two runs have counts once. Where a label means two things, its name would be right
    for neither. Say the run `one` has "L-GM" with alpha 1 and the run `two` has "L-GM" with alpha
    0.5: then the merged run has "L-GM (one)" and "L-GM (two)".

    Raises:
        NotComparableError: Two runs have other weights for the same cell, or two labels would name
            the same files.
        CorruptFile: A cell.json is damaged.
    """
    read = [_read_cells(run) for run in runs]
    labels = _unify_labels(read)
    names = tell_apart(runs)
    notes = _renaming_note(names, labels)
    for cells, own in zip(read, labels, strict=True):
        for cell in cells:
            cell.label = own[cell.label]
    ambiguous = _find_ambiguous(read, names)
    notes += ambiguous.values()
    found: dict[tuple[str, int], RunCell] = {}
    for cells, name in zip(read, names, strict=True):
        for cell in cells:
            if slug(cell.label) in ambiguous:
                cell.label = f"{cell.label} ({name})"
            twin = found.setdefault((cell.label, cell.content["seed"]), cell)
            if twin.content.get("weights") != cell.content.get("weights"):
                raise NotComparableError(
                    f"{twin.run.path} and {cell.run.path} cannot be compared: both have "
                    f"{cell.label!r} with seed {cell.content['seed']}, trained with the same "
                    "settings to other weights (another device or version). Run one of them again "
                    "with another label or other seeds."
                )
            if twin is not cell:
                twin.twins.append(cell.run)
    slugs: dict[str, str] = {}
    for label, _ in found:
        if (other := slugs.setdefault(slug(label), label)) != label:
            raise NotComparableError(
                f"the labels {other!r} and {label!r} name the same files. Run one of the runs "
                "again with another label."
            )
    return list(found.values()), notes


def _read_cells(run: Run) -> list[RunCell]:
    """Return the cells of a run under the labels that they have there."""
    losses = {loss["label"]: loss for loss in spec_of(run).get("losses", [])}
    cells = []
    for cell in run.cells:
        content = read_json(cell.folder / "cell.json", checked=True)
        check_tables(cell.folder / "cell.json", content)
        settings = loss_settings(run, losses.get(cell.label, {"name": cell.loss}))
        cells.append(RunCell(run, cell.folder, content, cell.label, settings))
    return cells


def _find_ambiguous(read: Sequence[Sequence[RunCell]], names: Sequence[str]) -> dict[str, str]:
    """Return the slugs of labels under which the runs have several losses, and a note on each.

    Args:
        read: The cells of each run.
        names: What tells the runs apart.
    """
    notes: dict[str, str] = {}
    first: dict[str, tuple[str, RunCell]] = {}
    for cells, name in zip(read, names, strict=True):
        for cell in cells:
            key = slug(cell.label)
            known_name, known = first.setdefault(key, (name, cell))
            if differences := find_loss_differences(known.settings, cell.settings):
                told = list_differences(differences, known_name, name)
                note = f"{known.label} has other settings, so its labels name the run: {told}."
                notes.setdefault(key, note)
    return notes


def tell_apart(runs: Sequence[Run]) -> list[str]:
    """Return what tells the runs apart: their names, else their folders, else their numbers."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [run.path.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{run.name} {number}" for number, run in enumerate(runs, 1)]
    return names


def _unify_labels(read: Sequence[Sequence[RunCell]]) -> list[dict[str, str]]:
    """Return for each run the labels to have by its own: one loss, one label.

    Two runs that trained a loss with one seed to other weights keep both labels: they were given to
    tell the two apart.

    Args:
        read: The cells of each run.
    """
    labels: list[dict[str, str]] = []
    known: list[tuple[str, RunCell, dict[int, Any]]] = []  # label, a cell, weights by seed
    for cells in read:
        own: dict[str, str] = {}
        weights: dict[str, dict[int, Any]] = {}
        for cell in cells:
            weights.setdefault(cell.label, {})[cell.content["seed"]] = cell.content.get("weights")
        for cell in cells:
            if cell.label in own:
                continue
            trained = weights[cell.label]
            twins = [
                label
                for label, other, theirs in known
                if not find_loss_differences(other.settings, cell.settings)
                and all(trained[seed] == theirs[seed] for seed in trained.keys() & theirs.keys())
                and (label == cell.label or label not in weights)
            ]
            own[cell.label] = cell.label if cell.label in twins or not twins else twins[0]
        known += [(own[c.label], c, weights[c.label]) for c in {c.label: c for c in cells}.values()]
        labels.append(own)
    return labels


def spec_losses(first: Run, cells: Sequence[RunCell]) -> list[dict[str, Any]]:
    """Return the tables [[losses]] of the merged run's spec, in the order of the cells.

    That spec has the tables [train] and [model] of the first run. A loss of another run was trained
    with those of its own run, so its table says in which values these differ. Say the first run has
    [train] lr = 0.1, the second lr = 0.01: then a loss of the second gets train = { lr = 0.01 }.

    Args:
        first: The run whose [train] and [model] the merged run has.
        cells: As `label_cells` returns them.
    """
    base = {"train": fill_training(first, {}), "model": spec_of(first).get("model") or {}}
    losses: dict[str, dict[str, Any]] = {}
    for cell in cells:
        settings = cell.settings
        changed = {
            key: {k: v for k, v in settings[key].items() if base[key].get(k) != v}
            for key in ("train", "model")
            if isinstance(settings[key], dict)
        }
        # A clean training has no key "adversarial", and would get the first run's.
        trained_clean = settings["train"] and "adversarial" not in settings["train"]
        if base["train"].get("adversarial") and trained_clean:
            changed["train"]["adversarial"] = False
        given = {key: value for key, value in settings.items() if value is not None}
        losses.setdefault(cell.label, {**given, "label": cell.label, **changed})
    return list(losses.values())


def training_notes(runs: Sequence[Run], cells: Sequence[RunCell]) -> list[str]:
    """Return what differs in the training of the runs and of their losses: a reader must know.

    Args:
        runs: Those that are compared.
        cells: As `label_cells` returns them.
    """
    notes, names = [], tell_apart(runs)
    base = fill_training(runs[0], {})
    for other, name in zip(runs[1:], names[1:], strict=True):
        train = fill_training(other, {})
        differences = {
            key: (base.get(key), train.get(key))
            for key in sorted(base.keys() | train.keys())
            if base.get(key) != train.get(key)
        }
        if differences:
            told = list_differences(differences, names[0], name)
            notes.append(
                f"{name} was trained otherwise than {names[0]}: {told}. A difference between "
                "their losses may come from that."
            )
    return [*notes, *_own_training_notes(runs, cells)]


def _own_training_notes(runs: Sequence[Run], cells: Sequence[RunCell]) -> list[str]:
    """Return which losses have a table train of their own, of those that not every run has.

    Values that a search has chosen do not count.
    """
    notes: dict[str, str] = {}
    having: dict[str, set[Path]] = {}
    for cell in cells:
        having.setdefault(cell.label, set()).update(run.path for run in (cell.run, *cell.twins))
    for cell in cells:
        train, base = cell.settings["train"], fill_training(cell.run, {})
        tried = find_searches(cell.run.provenance).get(cell.content["label"], {"search": ()})
        differences = {
            key: (train.get(key), base.get(key))
            for key in sorted(train.keys() | base.keys())
            if train.get(key) != base.get(key) and key not in tried["search"]
        }
        if train and differences and len(having[cell.label]) < len(runs):
            each = ", ".join(f"{k} is {a!r} in place of {b!r}" for k, (a, b) in differences.items())
            notes[cell.label] = (
                f"{cell.label} has a training of its own: {each}. A difference to the other losses "
                "may come from that."
            )
    return [*notes.values()]


def version_notes(runs: Sequence[Run]) -> list[str]:
    """Return what differs in the versions and machines of the runs."""
    notes, names = [], tell_apart(runs)
    for key in ("robustloss", "torch", "device", "precision"):
        values = [str(run.provenance.get(key)) for run in runs]
        if len(set(values)) > 1:
            each = ", ".join(f"{name}: {v}" for name, v in zip(names, values, strict=True))
            notes.append(f"The runs differ in {key} ({each}).")
    return notes
