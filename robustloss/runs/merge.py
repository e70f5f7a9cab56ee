"""Several runs as one: their losses and seeds side by side, or a clear word why that cannot be."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustloss.analysis.checks.from_probe import trace_name
from robustloss.analysis.tables.comparisons import comparison_rows
from robustloss.analysis.tables.of_run import run_tables
from robustloss.array_files import read_arrays, write_arrays
from robustloss.results.checking import naming_missing_columns
from robustloss.results.compact.file import BESIDE, load_beside, save_baseline
from robustloss.results.finished_cell import Cell, list_files, load_cell
from robustloss.results.numbers import is_given
from robustloss.results.provenance import VERSIONS, find_searches
from robustloss.results.run import Run, load_run
from robustloss.results.schema import TABLES
from robustloss.results.scores import load_scores, save_scores
from robustloss.results.write import seals_of, write_results
from robustloss.run_files import is_file
from robustloss.runs.comparable import (
    NotComparableError,
    RunCell,
    check_data,
    check_network,
    label_cells,
    other_images,
    shared_attacks,
    spec_losses,
    training_notes,
    version_notes,
)
from robustloss.runs.folder import RunFolderError
from robustloss.runs.meaning import spec_of
from robustloss.runs.proof.rebuild import make_cell_tables
from robustloss.runs.references.find import Reference
from robustloss.runs.references.match import check_conditions, check_images
from robustloss.spec.text import slug
from robustloss.storage import CorruptFile, digest_file, write_json
from robustloss.work_folders import making_folder, put_in_place

MARK = "merged.json"  # names a folder that may be written anew


@dataclass(frozen=True)
class Merged:
    """What came of it.

    Attributes:
        path: the folder of the merged run.
        notes: what a reader must know: left out, renamed, trained otherwise.
    """

    path: Path
    notes: tuple[str, ...]


def merge_runs(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    other_networks: bool = False,
    highlight: Sequence[str] = (),
    beside: Reference | None = None,
) -> Merged:
    """Put finished runs into one folder that `robustloss report` reads like any run.

    The files of the cells are hard links where the file system has them, else copies: the folder
    stays whole when the runs are moved or deleted. Numbers are not computed anew, but for the
    comparisons of loss with loss. Attacks, losses and trainings are compared by what they are,
    defaults filled in. One that two runs have gets the label of the first of them. Attacks and
    budgets that not every run has are left out. A loss that two runs have under one label with
    other settings gets the run's name in its label. The same cell in two runs counts once.

    Args:
        paths: two run folders or more; one is enough beside a reference.
        out: where to; a folder that does not exist, holds an earlier merged run, or holds nothing
            but runs that are merged. Such a run stays where it is.
        other_networks: also merge runs of different networks.
        highlight: labels of losses that stand out in the report, as in the table [report].
        beside: a reference, whose losses come last; the runs must have its data, network,
            training, attacks and test images. By default that of the first run that has one, if
            all runs may stand beside it.

    Raises:
        NotComparableError: other data, other test images, another network, an outside set that
            means something else, no attack in common, or other weights under one label and seed.
        ValueError: fewer than two runs, a folder that is no finished run, or an `out` that
            belongs to something else or to one of the runs; CorruptFile: a damaged file. An
            earlier merged run in `out` is then as it was.
    """
    out, runs = Path(out), _open_runs(paths, least=1 if beside else 2)
    check_out(out, [run.path for run in runs])
    beside, dropped = _choose_reference(runs, beside)
    others = beside.rows if beside else None
    for other in runs[1:]:
        check_data(runs[0], other)
        if not other_networks:
            check_network(runs[0], other)
    images = {
        "outside": other_images(runs, "outside", "the outside set"),
        "shifts": other_images(runs, "shifts", "the shift"),
    }
    attacks = shared_attacks(runs)
    shared = attacks.tables
    cells, renamed = label_cells(runs)
    own_labels = {run.path: own for run, own in zip(runs, attacks.labels, strict=True)}
    for cell in cells:
        cell.attacks = own_labels[cell.run.path]
    notes = dropped + attacks.notes + renamed + training_notes(runs, cells)
    notes += version_notes(runs if others is None else [*runs, others.run])
    notes += [f"{run.path.resolve().name}: {doubt}" for run in runs for doubt in run.doubts]
    done = {(cell.content["label"], cell.content["seed"]) for cell in cells}
    failures = {(row["label"], row["seed"]): row for run in runs for row in run.failures}
    place = out.resolve()  # what a link leads to: files are moved, not copied
    place.parent.mkdir(parents=True, exist_ok=True)
    # Not in `out` itself: a file that turns out to be damaged must not cost an earlier merge.
    with ExitStack() as stack:
        work = stack.enter_context(making_folder(place, f".compare-{place.name}-"))
        for cell in cells:
            stack.enter_context(naming_missing_columns(cell.folder / "cell.json", cell.content))
        fresh = work / "run"
        fresh.mkdir()
        write_json(fresh / MARK, {"runs": [str(run.path) for run in runs]})
        merged = [_write_cell(cell, fresh, shared) for cell in cells]
        lost = [row for failed, row in failures.items() if failed not in done]
        provenance = _provenance(runs, cells, shared, images, notes, highlight)
        if beside:
            provenance |= _add_reference(beside, provenance, fresh)
        provenance["notes"] += _note_tuning(provenance)
        write_results(
            fresh,
            name=" + ".join(dict.fromkeys(run.name for run in runs)),
            provenance={**provenance, "cells": seals_of(merged)},
            tables=run_tables(
                merged, comparison_rows(merged, beside=others), others, failures=lost
            ),
        )
        put_in_place(fresh, place, (MARK, "cells", "results.json", BESIDE))
    return Merged(out, tuple(provenance["notes"]))


def _open_runs(paths: Sequence[str | Path], least: int) -> list[Run]:
    if len(paths) < least:
        raise ValueError(
            "compare: name two runs or more, such as robustloss compare runs/mnist runs/mine. "
            "robustloss report shows one."
        )
    places = [Path(path).resolve() for path in paths]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise ValueError(f"run (={paths[i]}) is named twice.")
    for path in (one for one in map(Path, paths) if one.suffix == ".npz" and one.is_file()):
        raise ValueError(
            f"run (={path}) is a file. The losses in a file of `robustloss baseline` stand beside "
            f"those of a run: robustloss compare RUN --beside {path}."
        )
    runs = [load_run(path) for path in paths]
    for run in runs:
        if not run.rows:
            raise ValueError(f"run (={run.path}) has no finished cell: there is nothing to merge.")
        if lost := run.readable_cells[1]:
            raise CorruptFile(f"{run.path}: {lost[0]} Run `robustloss run` again for {run.path}.")
    return runs


def _choose_reference(
    runs: Sequence[Run], asked: Reference | None
) -> tuple[Reference | None, list[str]]:
    """Return the reference whose rows the merged run has, and which rows of a run it has not.

    Args:
        runs: Of which some may have the rows of a reference.
        asked: The one that was asked for; None takes that of the first run that has one.

    Raises:
        NotComparableError: A run may not stand beside the one that was asked for.
    """
    having = [(run.path, rows) for run in runs if (rows := load_beside(run))]
    chosen, why = asked, "the merged run has those of another."
    if asked is None and having:
        rows = having[0][1]
        chosen = Reference(rows.name, rows, {cell.label: cell.label for cell in rows.cells})
    try:
        if chosen:
            for run in runs:
                check_conditions(run, chosen.rows.run)
                check_images(run, chosen.rows)
    except NotComparableError as error:
        if asked is not None:
            raise
        chosen, why = None, str(error)
    return chosen, [
        f"The rows of the reference {rows.name} in {path} are left out: {why}"
        for path, rows in having
        if chosen is None or rows.tables != chosen.rows.tables
    ]


def check_out(out: Path, runs: Sequence[Path]) -> None:
    """Refuse a folder in which something would be lost by merging runs into it.

    Args:
        out: where to.
        runs: the folders of the runs, of which some may not exist yet.

    Raises:
        RunFolderError: it belongs to something else, or to one of the runs.
    """
    place, owned = out.resolve(), [run.resolve() for run in runs]
    # What a merged run consists of is replaced; whatever else lies beside it stays.
    beside = [run for run in owned if run.parent == place and run.name not in ("cells", "report")]
    empty = not out.exists() or (out.is_dir() and {*place.iterdir()} <= {*beside})
    if not empty and not (out / MARK).is_file():
        raise RunFolderError(
            f"out (={out}) is not empty and holds no merged run. Name another folder with --out."
        )
    # Writing into a run that is merged, or around it, would delete what is to be read.
    for run, own in zip(runs, owned, strict=True):
        nested = place.is_relative_to(own) or own.is_relative_to(place)
        if nested and own not in beside:
            raise RunFolderError(
                f"out (={out}) is the run {run}, or one lies in the other. Name another folder "
                "with --out."
            )


def _write_cell(cell: RunCell, out: Path, shared: Mapping[str, Mapping[str, Any]]) -> Cell:
    """Put one cell into the merged folder and return it as it stands there."""
    renamed = any(old != new for old, new in cell.attacks.items())
    own = {entry["attack_label"] for entry in cell.content["files"]["records"]} - {"none"}

    def is_shared(entry: Mapping[str, Any]) -> bool:
        """Whether a row or a record is of no single attack, or of one that all runs have."""
        label, eps = str(entry.get("attack_label")), entry.get("eps")
        if label not in own:  # the clean pass, or what is over several attacks
            return True
        if label not in cell.attacks:
            return False
        return eps is None or eps in shared[cell.attacks[label]]["eps"]

    def rename(entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row or a record under the label that its attack has in the merged run."""
        label = entry.get("attack_label")
        new = cell.attacks.get(label, label) if isinstance(label, str) else label
        return {**entry, "attack_label": new} if new != label else dict(entry)

    content = cell.content | {"label": cell.label, "slug": slug(cell.label)}
    for name in TABLES.keys() & content.keys():
        content[name] = [
            rename(row) | ({"label": cell.label} if "label" in row else {})
            for row in content[name]
            if is_shared(row)
        ]
    files = dict(content["files"])
    files["records"] = [rename(entry) for entry in files["records"] if is_shared(entry)]
    fewer = len(files["records"]) < len(cell.content["files"]["records"])
    if fewer:  # the worst case over all of them is none of those that are left
        files.pop("worst", None)
    content["files"] = files
    target = out / "cells" / content["slug"] / f"seed-{content['seed']}"
    target.mkdir(parents=True)
    _link_files(cell, files, target)
    changed = _rename_arrays(target, files, cell.attacks) if renamed else []
    if digests := content.get("digests"):
        digests = {name: digests[name] for name in list_files(files) if name in digests}
        content["digests"] = digests | {name: digest_file(target / name) for name in changed}
    write_json(target / "cell.json", content, checked=True)
    written = load_cell(target / "cell.json")
    if renamed or fewer:
        # What is over all attacks, as the worst case, must be over those that are left; and the
        # texts of marks hold the labels of attacks.
        write_json(
            target / "cell.json",
            content | make_cell_tables(written, content, cell.run),
            checked=True,
        )
        written = load_cell(target / "cell.json")
    return written


def _link_files(cell: RunCell, files: Mapping[str, Any], target: Path) -> None:
    """Put the files of a cell into the merged one, as hard links where the file system has them.

    Args:
        cell: The cell in its run.
        files: Their names by kind, as in cell.json.
        target: The folder of the merged cell.
    """
    for name in list_files(files):
        source = cell.folder / name
        if Path(name).name != name or not is_file(source):
            what = "is a link or no file" if os.path.lexists(source) else "is missing"
            raise CorruptFile(f"{source} {what}. Run `robustloss run` again for {cell.run.path}.")
        try:
            os.link(source, target / name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, target / name)


def _rename_arrays(folder: Path, files: Mapping[str, Any], attacks: Mapping[str, str]) -> list[str]:
    """Write scores and probe of a cell anew, with the labels that the attacks have now.

    Args:
        folder: Of the merged cell; its files are links to those of the run, which stay as they are.
        files: The names of its files by kind.
        attacks: Labels in the merged run by those in the cell's run; others are left out.

    Returns:
        The names of the files that are other ones now.
    """
    changed = []
    if "reference" in files:  # else an older version wrote the cell, without stored scores
        path = folder / files["scores"]
        save_scores(path, load_scores(path).relabel(attacks))
        changed.append(path.name)
    if "probe" in files:
        path = folder / files["probe"]
        arrays, meta = read_arrays(path)
        kept = {name: array for name, array in arrays.items() if not name.startswith("trace_")}
        for old, new in attacks.items():
            for end in ("", "_eps"):
                if (name := trace_name(old) + end) in arrays:
                    kept[trace_name(new) + end] = arrays[name]
        write_arrays(path, kept, meta)
        changed.append(path.name)
    return changed


def _provenance(
    runs: Sequence[Run],
    cells: Sequence[RunCell],
    shared: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, Sequence[Mapping[str, Any]]],
    notes: Sequence[str],
    highlight: Sequence[str],
) -> dict[str, Any]:
    """Return where the numbers come from, as the first run says it, and which runs were merged."""
    first = runs[0].provenance
    seeds = sorted({seed for run in runs for seed in run.provenance.get("seeds") or []})
    spec = dict(spec_of(runs[0])) | {
        "losses": spec_losses(runs[0], cells), "attacks": list(shared.values()), "seeds": seeds,
        **images, "gates": [],  # those of one run need not fit them all
    }  # fmt: skip
    if highlight:
        spec["report"] = {**(spec.get("report") or {}), "highlight": list(highlight)}
    keys = (*VERSIONS, "platform", "instruction_set", "cores", "device", "precision", "data",
            "threads")  # fmt: skip
    merged = [
        {"name": run.name, "folder": run.path.resolve().name,
         "finished": run.provenance.get("finished"), "command": run.provenance.get("command")}
        for run in runs
    ]  # fmt: skip
    searches = {
        cell.label: tried
        for cell in cells
        if (tried := find_searches(cell.run.provenance).get(cell.content["label"]))
    }
    published: list[Any] = []
    for run in runs:
        published += [t for t in run.provenance.get("published") or [] if t not in published]
    return {
        **{key: first[key] for key in keys if key in first},
        **({"published": published} if published else {}),
        **({"searches": searches} if searches else {}),
        "seeds": seeds,
        "spec": spec,
        "merged": merged,
        "notes": list(notes),
    }


def _note_tuning(provenance: Mapping[str, Any]) -> list[str]:
    """Say which losses were tuned and which were not, if some were and some were not."""
    losses, searches = provenance["spec"]["losses"], find_searches(provenance)
    trained = [loss["label"] for loss in losses if not is_given(loss) and not loss.get("of")]
    tuned = [label for label in trained if label in searches]
    others = [label for label in trained if label not in searches]
    if not tuned or not others:
        return []
    keys = ", ".join(dict.fromkeys(key for label in tuned for key in searches[label]["search"]))
    told = f"{', '.join(others)} had no trials; the other losses chose {keys} by trials."
    if len(tuned) < len(others):
        told = f"{', '.join(tuned)} chose {keys} by trials; the other losses had none."
    return [f"{told} A difference between tuned and untuned losses may come from that."]


def _add_reference(
    beside: Reference, provenance: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Put a reference into the folder of a merged run; return what that adds to its provenance.

    Args:
        beside: The reference.
        provenance: Of the merged run without it.
        folder: Of the merged run.
    """
    rows, spec = beside.rows, provenance["spec"]
    save_baseline(folder / BESIDE, rows)
    # Those of the runs first: where few losses have room, it is these that a reader looks for.
    losses = [*spec["losses"], *(spec_of(rows.run).get("losses") or ())]
    report = dict(spec.get("report") or {})
    report["highlight"] = report.get("highlight") or [loss["label"] for loss in spec["losses"]]
    seeds = sorted({cell.seed for cell in rows.cells})
    told = (
        f"Rows marked (reference, VERSION) come from the reference {beside.name}, seeds "
        f"{', '.join(map(str, seeds))}. They were not computed here; tests compare them image by "
        "image with the losses that were, and not with one another."
    )
    searches = {**find_searches(rows.provenance), **provenance.get("searches", {})}
    return {
        **({"searches": searches} if searches else {}),
        "spec": {**spec, "losses": losses, "report": report},
        "notes": [told, *provenance["notes"]],
        "reference": {
            "name": beside.name,
            "labels": list(beside.labels),
            "sha256": digest_file(folder / BESIDE),
        },
    }
