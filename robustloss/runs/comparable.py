"""What several runs have in common, and a clear word why they cannot stand in one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustloss.results.checking import check_tables
from robustloss.results.run import Run
from robustloss.spec.text import slug
from robustloss.storage import read_json

# of provenance.data, in the order in which a difference is told
_SAME_DATA = ("name", "train", "validation", "test", "class_counts", "class_names", "checksum")


class NotComparableError(ValueError):
    """Runs whose numbers cannot stand in one table; the text says which value differs."""


@dataclass
class RunCell:
    """A finished cell of one of the runs, under the label that it gets."""

    run: Run
    folder: Path
    content: dict[str, Any]
    label: str


def _differs(
    first: Run, other: Run, key: str, a: object, b: object, why: str
) -> NotComparableError:
    return NotComparableError(
        f"{first.path} and {other.path} cannot be compared: {key} is {_brief(a)} in the first and "
        f"{_brief(b)} in the second. {why}"
    )


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_data(first: Run, other: Run) -> None:
    """Refuses a run on other images.

    Raises:
        NotComparableError: naming what differs.
    """
    a, b = (run.provenance.get("data") or {} for run in (first, other))
    for key in _SAME_DATA:
        if a.get(key) != b.get(key):
            why = "Losses compare only on the same training and test images."
            if key == "checksum":
                why = "The images, their labels or their order differ. " + why
            raise _differs(first, other, f"data.{key}", a.get(key), b.get(key), why)


def check_network(first: Run, other: Run) -> None:
    """Refuses a run of another network.

    Raises:
        NotComparableError: naming what differs.
    """
    a, b = (spec_of(run).get("model") or {} for run in (first, other))
    for key in sorted(a.keys() | b.keys()):
        if a.get(key) != b.get(key):
            why = (
                "A difference could come from the network and not from the loss; "
                "--other-networks merges them all the same."
            )
            raise _differs(first, other, f"model.{key}", a.get(key), b.get(key), why)


def spec_of(run: Run) -> Mapping[str, Any]:
    """Returns the resolved spec that a run was made with; {} if it tells none."""
    return run.provenance.get("spec") or {}


def _attacks(run: Run) -> dict[str, Mapping[str, Any]]:
    return {attack["label"]: attack for attack in spec_of(run).get("attacks", [])}


def outside_sets(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The sets of images that are not of the data, of all runs; one label means one set."""
    known: dict[str, tuple[Run, Mapping[str, Any]]] = {}
    for run in runs:
        for table in spec_of(run).get("outside") or ():
            first, own = known.setdefault(table["label"], (run, table))
            for key in ("name", "images", "folder"):
                if own.get(key) != table.get(key):
                    name = f"{key} of the outside set {table['label']!r}"
                    why = "One label must mean one set. Run one again with another label."
                    raise _differs(first, run, name, own.get(key), table.get(key), why)
    return [dict(table) for _, table in known.values()]


def shared_attacks(runs: Sequence[Run]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Attacks of all runs, with the budgets of all, and what is left out."""
    shared = {label: dict(attack) for label, attack in _attacks(runs[0]).items()}
    for other in runs[1:]:
        theirs = _attacks(other)
        for label in shared.keys() & theirs.keys():
            for key in ("name", "params", "eight_bit"):
                a, b = shared[label].get(key), theirs[label].get(key)
                if a != b:
                    name = f"{key} of the attack {label!r}"
                    why = "One label must mean one attack. Run one again with another label."
                    raise _differs(runs[0], other, name, a, b, why)
        shared = {
            label: attack | {"eps": [e for e in attack["eps"] if e in theirs[label]["eps"]]}
            for label, attack in shared.items()
            if label in theirs
        }
    shared = {label: attack for label, attack in shared.items() if attack["eps"]}
    if not shared:
        lists = "; ".join(f"{run.path} has {_attack_list(run)}" for run in runs)
        raise NotComparableError(
            f"The runs have no attack with an eps in common: {lists}. Run one of them again with "
            "an attack of the other."
        )
    notes = []
    for run in runs:
        left = [
            f"{label} at {eps:g}"
            for label, attack in _attacks(run).items()
            for eps in attack["eps"]
            if label not in shared or eps not in shared[label]["eps"]
        ]
        if left:
            notes.append(
                f"Left out of {run.name}, because not every run has it: {', '.join(left)}."
            )
    return shared, notes


def _attack_list(run: Run) -> str:
    return ", ".join(
        f"{label} at {', '.join(f'{e:g}' for e in attack['eps'])}"
        for label, attack in _attacks(run).items()
    )


def _settings(run: Run, loss: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a loss's training beside seed and data."""
    spec = spec_of(run)
    own = {"name": loss["name"], "params": loss.get("params") or {}}
    if isinstance(loss.get("model"), str):  # a whole model from elsewhere
        return {**own, "model": loss["model"], "weights": loss.get("weights"), "train": {}}
    train = (spec.get("train") or {}) | (loss.get("train") or {})
    if not train.get("adversarial"):  # said, or left out: clean training either way
        train.pop("adversarial", None)
    return {
        **own,
        "train": train,
        "model": (spec.get("model") or {}) | (loss.get("model") or {}),
        "weights": loss.get("weights"),
    }


def labelled(runs: Sequence[Run]) -> tuple[list[RunCell], list[dict[str, Any]], list[str]]:
    """The cells under labels that mean one loss each, their losses for the spec, and notes."""
    names = _run_names(runs)
    meanings: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for loss in spec_of(run).get("losses", []):
            known = meanings.setdefault(loss["label"], [])
            if (settings := _settings(run, loss)) not in known:
                known.append(settings)
    several = {label for label, known in meanings.items() if len(known) > 1}
    losses: dict[str, dict[str, Any]] = {}
    cells: dict[tuple[str, int], RunCell] = {}
    base = {key: spec_of(runs[0]).get(key) or {} for key in ("train", "model")}
    for run, name in zip(runs, names, strict=True):
        own = {loss["label"]: loss for loss in spec_of(run).get("losses", [])}
        for cell in run.cells:
            settings = _settings(run, own.get(cell.label, {"name": cell.loss}))
            label = f"{cell.label} ({name})" if cell.label in several else cell.label
            content = read_json(cell.folder / "cell.json", checked=True)
            check_tables(cell.folder / "cell.json", content)
            made = RunCell(run, cell.folder, content, label)
            twin = cells.get((label, cell.seed))
            if twin and twin.content.get("weights") != content.get("weights"):
                raise NotComparableError(
                    f"{twin.run.path} and {run.path} cannot be compared: both have {label!r} with "
                    f"seed {cell.seed}, trained with the same settings to other weights (another "
                    "device or version). Run one of them again with another label or other seeds."
                )
            cells.setdefault((label, cell.seed), made)
            changed = {
                key: {k: v for k, v in settings[key].items() if base[key].get(k) != v}
                for key in ("train", "model")
                if isinstance(settings[key], dict)
            }
            inherits = settings["train"] and "adversarial" not in settings["train"]
            if base["train"].get("adversarial") and inherits:
                changed["train"]["adversarial"] = False
            kept = {key: value for key, value in settings.items() if value is not None}
            losses.setdefault(label, {**kept, "label": label, **changed})
    slugs: dict[str, str] = {}
    for label in losses:
        if (twin_label := slugs.setdefault(slug(label), label)) != label:
            raise NotComparableError(
                f"the labels {twin_label!r} and {label!r} name the same files. Run one of the runs "
                "again with another label."
            )
    notes = [
        f"{label} has other settings in {', '.join(names)}, so its labels name the run."
        for label in sorted(several)
    ]
    return list(cells.values()), list(losses.values()), notes


def _run_names(runs: Sequence[Run]) -> list[str]:
    """What tells the runs apart: their names, else their folders."""
    for names in ([run.name for run in runs], [run.path.resolve().name for run in runs]):
        if len(set(names)) == len(names):
            return names
    return [f"{run.name} {number}" for number, run in enumerate(runs, 1)]


def training_notes(runs: Sequence[Run]) -> list[str]:
    """Returns what differs in the training of the runs, which a reader must know."""
    first, notes = runs[0], []
    for other in runs[1:]:
        a, b = (spec_of(run).get("train") or {} for run in (first, other))
        keys = [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
        if keys:
            told = ", ".join(f"{key} {a.get(key)} against {b.get(key)}" for key in keys)
            notes.append(
                f"{other.name} was trained otherwise than {first.name}: {told}. A difference "
                "between their losses may come from that."
            )
    return notes


def version_notes(runs: Sequence[Run]) -> list[str]:
    """Returns what differs in the versions and machines of the runs."""
    notes = []
    for key in ("robustloss", "torch", "device", "precision"):
        values = [str(run.provenance.get(key)) for run in runs]
        if len(set(values)) > 1:
            each = ", ".join(f"{r.name}: {v}" for r, v in zip(runs, values, strict=True))
            notes.append(f"The runs differ in {key} ({each}).")
    return notes
