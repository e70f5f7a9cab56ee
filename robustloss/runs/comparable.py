"""What several runs have in common, and a clear word why they cannot stand in one table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustloss.notation import eps_text
from robustloss.results.checking import check_tables
from robustloss.results.run import Run
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
    """

    run: Run
    folder: Path
    content: dict[str, Any]
    label: str
    settings: dict[str, Any]


def spec_of(run: Run) -> Mapping[str, Any]:
    """Return the resolved spec that a run was made with; {} if it does not say."""
    return run.provenance.get("spec") or {}


def check_data(first: Run, other: Run) -> None:
    """Refuse a run on other images.

    Raises:
        NotComparableError: Names what differs.
    """
    data = [run.provenance.get("data") or {} for run in (first, other)]
    why = "Losses compare only on the same training and test images."
    _check_equal((first, other), data, _SAME_DATA, "data.{}", why)
    why = f"The images, their labels or their order differ. {why}"
    _check_equal((first, other), data, ["checksum"], "data.{}", why)


def check_network(first: Run, other: Run) -> None:
    """Refuse a run of another network.

    Raises:
        NotComparableError: Names what differs.
    """
    models = [spec_of(run).get("model") or {} for run in (first, other)]
    why = (
        "A difference could come from the network and not from the loss; "
        "--other-networks merges them all the same."
    )
    _check_equal((first, other), models, sorted({*models[0], *models[1]}), "model.{}", why)


def _check_equal(
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


def outside_sets(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the sets of images that are not of the data, of all runs; one label means one set."""
    known: dict[str, tuple[Run, Mapping[str, Any]]] = {}
    for run in runs:
        for table in spec_of(run).get("outside") or ():
            first, own = known.setdefault(table["label"], (run, table))
            name = f"{{}} of the outside set {table['label']!r}"
            why = "One label must mean one set. Run one again with another label."
            _check_equal((first, run), (own, table), ("name", "images", "folder"), name, why)
    return [dict(table) for _, table in known.values()]


def shared_attacks(runs: Sequence[Run]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the attacks of all runs by label, with the eps of all, and notes on what is left out.

    Raises:
        NotComparableError: One label means two attacks, or no attack has an eps in every run.
    """
    shared = {label: dict(attack) for label, attack in _attacks(runs[0]).items()}
    for other in runs[1:]:
        theirs = _attacks(other)
        shared = {label: attack for label, attack in shared.items() if label in theirs}
        for label, attack in shared.items():
            name = f"{{}} of the attack {label!r}"
            why = "One label must mean one attack. Run one again with another label."
            pair = attack, theirs[label]
            _check_equal((runs[0], other), pair, ("name", "params", "eight_bit"), name, why)
            attack["eps"] = [eps for eps in attack["eps"] if eps in theirs[label]["eps"]]
    shared = {label: attack for label, attack in shared.items() if attack["eps"]}
    if not shared:
        lists = []
        for run in runs:
            budgets = {
                label: ", ".join(eps_text(eps) for eps in attack["eps"])
                for label, attack in _attacks(run).items()
            }
            each = ", ".join(f"{label} at {eps}" for label, eps in budgets.items())
            lists.append(f"{run.path} has {each}")
        raise NotComparableError(
            f"The runs have no attack with an eps in common: {'; '.join(lists)}. Run one of them "
            "again with an attack of the other."
        )
    notes = []
    for run in runs:
        left = [
            f"{label} at {eps_text(eps)}"
            for label, attack in _attacks(run).items()
            for eps in attack["eps"]
            if label not in shared or eps not in shared[label]["eps"]
        ]
        if left:
            notes.append(
                f"Left out of {run.name}, because not every run has it: {', '.join(left)}."
            )
    return shared, notes


def _attacks(run: Run) -> dict[str, Mapping[str, Any]]:
    return {attack["label"]: attack for attack in spec_of(run).get("attacks", [])}


def label_cells(runs: Sequence[Run]) -> tuple[list[RunCell], list[str]]:
    """Return the cells of all runs under labels that mean one loss each, and notes on new labels.

    A label keeps its name where it means the same in every run; its seeds then stand side by side,
    and a cell that two runs have counts once. Where it means two things, its name would be right
    for neither. Say the run `one` has "L-GM" with alpha 1 and the run `two` has "L-GM" with alpha
    0.5: then the merged run has "L-GM (one)" and "L-GM (two)".

    Raises:
        NotComparableError: Two runs have other weights for the same cell, or two labels would name
            the same files.
        CorruptFile: A cell.json is damaged.
    """
    ambiguous = _find_ambiguous(runs)
    # What tells the runs apart: their names, else their folders, else their numbers.
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [run.path.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{run.name} {number}" for number, run in enumerate(runs, 1)]
    notes = [
        f"{label} has other settings in {', '.join(names)}, so its labels name the run."
        for label in sorted(ambiguous)
    ]
    cells: dict[tuple[str, int], RunCell] = {}
    for run, name in zip(runs, names, strict=True):
        losses = {loss["label"]: loss for loss in spec_of(run).get("losses", [])}
        for cell in run.cells:
            settings = _settings(run, losses.get(cell.label, {"name": cell.loss}))
            label = f"{cell.label} ({name})" if cell.label in ambiguous else cell.label
            content = read_json(cell.folder / "cell.json", checked=True)
            check_tables(cell.folder / "cell.json", content)
            made = RunCell(run, cell.folder, content, label, settings)
            first = cells.setdefault((label, cell.seed), made)
            if first.content.get("weights") != content.get("weights"):
                raise NotComparableError(
                    f"{first.run.path} and {run.path} cannot be compared: both have {label!r} with "
                    f"seed {cell.seed}, trained with the same settings to other weights (another "
                    "device or version). Run one of them again with another label or other seeds."
                )
    slugs: dict[str, str] = {}
    for label, _ in cells:
        if (other := slugs.setdefault(slug(label), label)) != label:
            raise NotComparableError(
                f"the labels {other!r} and {label!r} name the same files. Run one of the runs "
                "again with another label."
            )
    return list(cells.values()), notes


def _find_ambiguous(runs: Sequence[Run]) -> set[str]:
    """Return the labels under which the runs trained with different settings."""
    meanings: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for loss in spec_of(run).get("losses", []):
            known = meanings.setdefault(loss["label"], [])
            if (settings := _settings(run, loss)) not in known:
                known.append(settings)
    return {label for label, known in meanings.items() if len(known) > 1}


def _settings(run: Run, loss: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides a loss's training beside seed and data."""
    spec = spec_of(run)
    own = {"name": loss["name"], "params": loss.get("params") or {}}
    if isinstance(loss.get("model"), str):  # a whole model from elsewhere
        return {**own, "model": loss["model"], "weights": loss.get("weights"), "train": {}}
    train = (spec.get("train") or {}) | (loss.get("train") or {})
    if not train.get("adversarial"):  # false and absent both mean clean training
        train.pop("adversarial", None)
    return {
        **own,
        "train": train,
        "model": (spec.get("model") or {}) | (loss.get("model") or {}),
        "weights": loss.get("weights"),
    }


def spec_losses(first: Run, cells: Sequence[RunCell]) -> list[dict[str, Any]]:
    """Return the tables [[losses]] of the merged run's spec, in the order of the cells.

    That spec has the tables [train] and [model] of the first run. A loss of another run was trained
    with those of its own run, so its table says in which values these differ. Say the first run has
    [train] lr = 0.1, the second lr = 0.01: then a loss of the second gets train = { lr = 0.01 }.

    Args:
        first: The run whose [train] and [model] the merged run has.
        cells: As `label_cells` returns them.
    """
    base = {key: spec_of(first).get(key) or {} for key in ("train", "model")}
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


def training_notes(runs: Sequence[Run]) -> list[str]:
    """Return what differs in the training of the runs, which a reader must know."""
    first, notes = runs[0], []
    for other in runs[1:]:
        a, b = (spec_of(run).get("train") or {} for run in (first, other))
        differences = ", ".join(
            f"{key} {a.get(key)} against {b.get(key)}"
            for key in sorted(a.keys() | b.keys())
            if a.get(key) != b.get(key)
        )
        if differences:
            notes.append(
                f"{other.name} was trained otherwise than {first.name}: {differences}. A "
                "difference between their losses may come from that."
            )
    return notes


def version_notes(runs: Sequence[Run]) -> list[str]:
    """Return what differs in the versions and machines of the runs."""
    notes = []
    for key in ("robustloss", "torch", "device", "precision"):
        values = [str(run.provenance.get(key)) for run in runs]
        if len(set(values)) > 1:
            each = ", ".join(f"{r.name}: {v}" for r, v in zip(runs, values, strict=True))
            notes.append(f"The runs differ in {key} ({each}).")
    return notes
