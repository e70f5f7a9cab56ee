"""Several runs as one: their losses and seeds side by side, or a clear word why that cannot be."""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustloss.columns import Row
from robustloss.comparisons import comparison_rows
from robustloss.ranks import rank_rows
from robustloss.results import Cell, Run, cell_numbers, load_cell, load_run, write_results
from robustloss.results_shape import check_tables, missing_told
from robustloss.scores import SCORE_NAMES
from robustloss.spec_text import slug
from robustloss.storage import CorruptFile, read_arrays, read_json, write_json

MARK = "merged.json"  # names a folder that may be written anew
# of provenance.data, in the order in which a difference is told
_SAME_DATA = ("name", "train", "validation", "test", "class_counts", "class_names", "checksum")


class NotComparableError(ValueError):
    """Runs whose numbers cannot stand in one table; the text says which value differs."""


@dataclass(frozen=True)
class Merged:
    """What came of it.

    Attributes:
        path: the folder of the merged run.
        notes: what a reader must know: left out, renamed, trained otherwise.
    """

    path: Path
    notes: tuple[str, ...]


@dataclass
class _Cell:
    """A finished cell of one of the runs, under the label that it gets."""

    run: Run
    folder: Path
    content: dict[str, Any]
    label: str


def merge_runs(
    paths: Sequence[str | Path], out: str | Path, *, other_networks: bool = False
) -> Merged:
    """Puts finished runs into one folder that `robustloss report` reads like any run.

    The files of the cells are hard links where the file system has them, else copies: the folder
    stays whole when the runs are moved or deleted. Numbers are not computed anew, but for the
    comparisons of loss with loss. Attacks and budgets that not every run has are left out. A loss
    that two runs have under one label with other settings gets the run's name in its label. The
    same cell in two runs counts once.

    Args:
        paths: two run folders or more.
        out: where to; a folder that does not exist, is empty, or holds an earlier merged run.
        other_networks: also merge runs of different networks.

    Raises:
        NotComparableError: other data, other test images, another network, an attack or outside
            set that means something else, no attack in common, or other weights under one label
            and seed.
        ValueError: fewer than two runs, a folder that is no finished run, or an `out` that
            belongs to something else or to one of the runs; CorruptFile: a damaged file. An
            earlier merged run in `out` is then as it was.
    """
    out = Path(out)
    _check_out(out)
    runs = _opened(paths)
    _check_apart(out, runs)
    for other in runs[1:]:
        _check_data(runs[0], other)
        if not other_networks:
            _check_network(runs[0], other)
    outside = _outside(runs)
    shared, notes = _shared_attacks(runs)
    cells, losses, renamed = _labelled(runs)
    notes += renamed + _training_notes(runs) + _version_notes(runs)
    beside = out.resolve().parent  # of what a link leads to: files are moved, not copied
    beside.mkdir(parents=True, exist_ok=True)
    # Not in `out` itself: a file that turns out to be damaged must not cost an earlier merge.
    with ExitStack() as stack:
        work = stack.enter_context(tempfile.TemporaryDirectory(prefix=".compare-", dir=beside))
        for cell in cells:
            stack.enter_context(missing_told(cell.folder / "cell.json", cell.content))
        fresh = Path(work) / "run"
        fresh.mkdir()
        write_json(fresh / MARK, {"runs": [str(run.path) for run in runs]})
        contents = [_written(cell, fresh, shared) for cell in cells]
        found = [load_cell(fresh / _place(cell) / "cell.json") for cell in cells]
        compared = comparison_rows(found)
        write_results(
            fresh,
            name=" + ".join(dict.fromkeys(run.name for run in runs)),
            provenance=_provenance(runs, losses, shared, outside, notes),
            cells=contents,
            training=_training(cells),
            failures=_failures(runs, cells),
            comparisons=compared,
            ranks=rank_rows(compared),
        )
        _put(fresh, out)
    return Merged(out, tuple(notes))


def _check_out(out: Path) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MARK).is_file():
        raise ValueError(
            f"out (={out}) is not empty and holds no merged run. Name another folder with --out."
        )


def _check_apart(out: Path, runs: Sequence[Run]) -> None:
    """Writing into a run that is merged, or around it, would delete what is to be read."""
    place = out.resolve()
    for run in runs:
        own = run.path.resolve()
        if place.is_relative_to(own) or own.is_relative_to(place):
            raise ValueError(
                f"out (={out}) is the run {run.path}, or one lies in the other. Name another "
                "folder with --out."
            )


def _put(fresh: Path, out: Path) -> None:
    """Makes the finished folder `out`; of an earlier merge it replaces what a merge writes."""
    if not out.exists():
        fresh.rename(out)
        return
    (fresh / MARK).replace(out / MARK)
    if (out / "cells").exists():
        (out / "cells").rename(fresh / "earlier")  # goes with the temporary folder
    (fresh / "cells").rename(out / "cells")
    (fresh / "results.json").replace(out / "results.json")


def _opened(paths: Sequence[str | Path]) -> list[Run]:
    if len(paths) < 2:
        raise ValueError("compare needs two run folders or more.")
    places = [Path(path).resolve() for path in paths]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise ValueError(f"run (={paths[i]}) is named twice.")
    runs = [load_run(path) for path in paths]
    for run in runs:
        if not run.rows:
            raise ValueError(f"run (={run.path}) has no finished cell: there is nothing to merge.")
    return runs


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


def _check_data(first: Run, other: Run) -> None:
    a, b = (run.provenance.get("data") or {} for run in (first, other))
    for key in _SAME_DATA:
        if a.get(key) != b.get(key):
            why = "Losses compare only on the same training and test images."
            if key == "checksum":
                why = "The images, their labels or their order differ. " + why
            raise _differs(first, other, f"data.{key}", a.get(key), b.get(key), why)


def _check_network(first: Run, other: Run) -> None:
    a, b = (_spec(run).get("model") or {} for run in (first, other))
    for key in sorted(a.keys() | b.keys()):
        if a.get(key) != b.get(key):
            why = (
                "A difference could come from the network and not from the loss; "
                "--other-networks merges them all the same."
            )
            raise _differs(first, other, f"model.{key}", a.get(key), b.get(key), why)


def _spec(run: Run) -> Mapping[str, Any]:
    return run.provenance.get("spec") or {}


def _attacks(run: Run) -> dict[str, Mapping[str, Any]]:
    return {attack["label"]: attack for attack in _spec(run).get("attacks", [])}


def _outside(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The sets of images that are not of the data, of all runs; one label means one set."""
    known: dict[str, tuple[Run, Mapping[str, Any]]] = {}
    for run in runs:
        for table in _spec(run).get("outside") or ():
            first, own = known.setdefault(table["label"], (run, table))
            for key in ("name", "images", "folder"):
                if own.get(key) != table.get(key):
                    name = f"{key} of the outside set {table['label']!r}"
                    why = "One label must mean one set. Run one again with another label."
                    raise _differs(first, run, name, own.get(key), table.get(key), why)
    return [dict(table) for _, table in known.values()]


def _shared_attacks(runs: Sequence[Run]) -> tuple[dict[str, dict[str, Any]], list[str]]:
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
    spec = _spec(run)
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


def _labelled(runs: Sequence[Run]) -> tuple[list[_Cell], list[dict[str, Any]], list[str]]:
    """The cells under labels that mean one loss each, their losses for the spec, and notes."""
    names = _run_names(runs)
    meanings: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for loss in _spec(run).get("losses", []):
            known = meanings.setdefault(loss["label"], [])
            if (settings := _settings(run, loss)) not in known:
                known.append(settings)
    several = {label for label, known in meanings.items() if len(known) > 1}
    losses: dict[str, dict[str, Any]] = {}
    cells: dict[tuple[str, int], _Cell] = {}
    base = {key: _spec(runs[0]).get(key) or {} for key in ("train", "model")}
    for run, name in zip(runs, names, strict=True):
        own = {loss["label"]: loss for loss in _spec(run).get("losses", [])}
        for cell in run.cells:
            settings = _settings(run, own.get(cell.label, {"name": cell.loss}))
            label = f"{cell.label} ({name})" if cell.label in several else cell.label
            content = read_json(cell.folder / "cell.json", checked=True)
            check_tables(cell.folder / "cell.json", content)
            made = _Cell(run, cell.folder, content, label)
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


def _training_notes(runs: Sequence[Run]) -> list[str]:
    first, notes = runs[0], []
    for other in runs[1:]:
        a, b = (_spec(run).get("train") or {} for run in (first, other))
        keys = [key for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
        if keys:
            told = ", ".join(f"{key} {a.get(key)} against {b.get(key)}" for key in keys)
            notes.append(
                f"{other.name} was trained otherwise than {first.name}: {told}. A difference "
                "between their losses may come from that."
            )
    return notes


def _version_notes(runs: Sequence[Run]) -> list[str]:
    notes = []
    for key in ("robustloss", "torch", "device", "precision"):
        values = [str(run.provenance.get(key)) for run in runs]
        if len(set(values)) > 1:
            each = ", ".join(f"{r.name}: {v}" for r, v in zip(runs, values, strict=True))
            notes.append(f"The runs differ in {key} ({each}).")
    return notes


def _place(cell: _Cell) -> Path:
    return Path("cells") / slug(cell.label) / f"seed-{cell.content['seed']}"


def _kept(entry: Mapping[str, Any], shared: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a row or a record belongs to the clean pass or to an attack that all runs have."""
    label = entry.get("attack_label")
    if label in (None, "", "none") or entry.get("attack") == "none":
        return True
    eps = entry.get("eps")
    return label in shared and (eps is None or eps in shared[label]["eps"])


def _written(cell: _Cell, out: Path, shared: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Puts one cell into the merged folder and returns its content as it stands there."""
    content = dict(cell.content)
    content |= {"label": cell.label, "slug": slug(cell.label)}
    for table, rows in cell.content.items():
        if isinstance(rows, list) and table not in ("weights",):
            content[table] = [
                {**row, "label": cell.label} if "label" in row else row
                for row in rows
                if not isinstance(row, dict) or _kept(row, shared)
            ]
    files = dict(content["files"])
    files["records"] = [entry for entry in files["records"] if _kept(entry, shared)]
    content["files"] = files
    target = out / _place(cell)
    target.mkdir(parents=True)
    for name in sorted(_names(files)):
        source = cell.folder / name
        if Path(name).name != name or not source.is_file():
            raise CorruptFile(
                f"{source} is missing. Run `robustloss run` again for {cell.run.path}."
            )
        _linked(source, target / name)
    write_json(target / "cell.json", content, checked=True)
    if len(files["records"]) < len(cell.content["files"]["records"]):
        # What is over all attacks, as the worst case, must be over those that are left.
        content |= _numbers(load_cell(target / "cell.json"), content, cell.run)
        write_json(target / "cell.json", content, checked=True)
    return content


def _numbers(cell: Cell, content: Mapping[str, Any], run: Run) -> dict[str, list[Row]]:
    records = {
        (entry["attack_label"], float(entry["eps"])): cell.record(
            entry["attack_label"], entry["eps"]
        )
        for entry in cell.files["records"]
    }
    detection = _spec(run).get("detection") or {}
    return cell_numbers(
        records,
        cell.reference(),
        content,
        tuple(detection.get("scores") or SCORE_NAMES),
        read_arrays(cell.folder / cell.files["probe"])[0] if "probe" in cell.files else None,
        stored=cell.scores() if "reference" in cell.files else None,
        temperature=bool(detection.get("temperature")),
    )


def _names(value: object) -> set[str]:
    """The file names that the entry "files" of a cell.json holds."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, list):
        keys = ("file", "noise")
        return {entry[key] for entry in value for key in keys if entry.get(key)}
    assert isinstance(value, dict)
    return set().union(*(_names(each) for each in value.values()))


def _linked(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _training(cells: Sequence[_Cell]) -> list[dict[str, Any]]:
    found = []
    for cell in cells:
        path = cell.folder / cell.content["files"]["training"]
        log = read_json(path, checked=True)
        check_tables(path, {"training": [log]})
        identity = {"loss": cell.content["loss"], "label": cell.label, "seed": cell.content["seed"]}
        found.append({**{k: v for k, v in log.items() if k != "key"}, **identity})
    return found


def _failures(runs: Sequence[Run], cells: Sequence[_Cell]) -> list[dict[str, Any]]:
    """Cells that no run finished."""
    done = {(cell.content["label"], cell.content["seed"]) for cell in cells}
    lost = {(f["label"], f["seed"]): f for run in runs for f in run.failures}
    return [dict(failure) for place, failure in lost.items() if place not in done]


def _provenance(
    runs: Sequence[Run],
    losses: Sequence[Mapping[str, Any]],
    shared: Mapping[str, Mapping[str, Any]],
    outside: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> dict[str, Any]:
    first = runs[0].provenance
    seeds = sorted({seed for run in runs for seed in run.provenance.get("seeds") or []})
    spec = dict(_spec(runs[0])) | {
        "losses": list(losses), "attacks": list(shared.values()), "seeds": seeds,
        "outside": list(outside),
    }  # fmt: skip
    keys = ("robustloss", "torch", "torchvision", "numpy", "python", "platform", "cores", "device",
            "precision", "data", "threads")  # fmt: skip
    merged = [
        {"name": run.name, "folder": run.path.resolve().name,
         "finished": run.provenance.get("finished"), "command": run.provenance.get("command")}
        for run in runs
    ]  # fmt: skip
    return {
        **{key: first[key] for key in keys if key in first},
        "seeds": seeds,
        "spec": spec,
        "merged": merged,
        "notes": list(notes),
    }
