"""The tables of a run made anew from its records, and compared with those that it states."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from robustloss.analysis.checks.from_transfer import transfer_beats_white_box
from robustloss.analysis.tables.classes import crop_rows
from robustloss.analysis.tables.comparisons import comparison_rows
from robustloss.analysis.tables.of_cell import cell_numbers
from robustloss.analysis.tables.of_run import run_tables
from robustloss.analysis.tables.shifts import shift_rows
from robustloss.analysis.tables.transfers import transfer_rows
from robustloss.analysis.tables.trials import trial_rows
from robustloss.array_files import MOST_ARRAYS, read_arrays
from robustloss.results.cell_notes import read_trial
from robustloss.results.columns import Row
from robustloss.results.compact.file import load_beside
from robustloss.results.finished_cell import Cell, read_cell
from robustloss.results.numbers import TRANSFER
from robustloss.results.provenance import find_reference_labels
from robustloss.results.records import LazyRecords
from robustloss.results.run import Run, from_folder_on
from robustloss.results.schema import TABLES
from robustloss.results.transfers import Transfer, load_transfer
from robustloss.run_files import check_file
from robustloss.runs.meaning import spec_of
from robustloss.runs.proof.files import name_cell
from robustloss.runs.proof.findings import Finding, name_some
from robustloss.spec.detection import SCORE_NAMES
from robustloss.spec.load import MOST_BYTES, load_spec
from robustloss.storage import CorruptFile, as_plain, digest_file
from robustloss.training.log import find_chosen_line

# Tables that had fewer kinds of rows in older versions, and the columns that tell the kinds apart.
_GREW = {
    "summary": ("attack_label", "metric"),
    "detection": ("population",),
    "adaptive": ("kind",),
}
TOLERANCE = 1e-6  # relative: what another processor or version of NumPy may change in a number
Tables = Mapping[str, Sequence[Row]]


def make_cell_tables(cell: Cell, content: Mapping[str, Any], run: Run) -> dict[str, list[Row]]:
    """Return the tables of a cell, made anew from its records.

    Args:
        cell: As it was read.
        content: Its cell.json.
        run: Whose spec says how.
    """
    keys = [(entry["attack_label"], float(entry["eps"])) for entry in cell.files["records"]]
    detection = spec_of(run).get("detection") or {}
    records = LazyRecords({key: partial(cell.record, *key) for key in keys})
    tables = cell_numbers(
        records,
        cell.reference(),
        content,
        tuple(detection.get("scores") or SCORE_NAMES),
        read_arrays(cell.path_of(cell.files["probe"]))[0] if "probe" in cell.files else None,
        stored=cell.scores() if "reference" in cell.files else None,
        temperature=bool(detection.get("temperature")),
        training=find_chosen_line(cell.training()),
    )
    if "crops" in cell.files:
        ranks = read_arrays(cell.path_of(cell.files["crops"]))[0]["rank_10"]
        tables["crops"] = crop_rows(content, records["none", 0.0], ranks)
    if shifts := cell.files.get("shifts"):
        names = [(entry["label"], entry["severity"]) for entry in shifts]
        shifted = LazyRecords({name: partial(cell.shifted, *name) for name in names})
        tables["shifts"] = shift_rows(content, shifted, cell.scores())
    return tables


def check_cell_tables(run: Run, cell: Cell) -> Iterator[Finding]:
    """Compare the tables of a cell.json with those that its records give.

    Args:
        run: Of the cell.
        cell: As it was read.
    """
    what = f"{name_cell(cell)}, numbers"
    try:
        _, content = read_cell(cell.folder / "cell.json")
        found = find_differences(content, make_cell_tables(cell, content, run))
    except Exception as error:  # whatever forged records make the tables do
        yield _tell_failure(run, what, error)
        return
    if found:
        yield Finding(what, "fail", f"cell.json is not what its records give: {name_some(found)}")
    else:
        n = len(cell.files["records"])
        yield Finding(what, "pass", f"cell.json is what its {n} records give", name_cell(cell))


def check_run_tables(run: Run) -> Iterator[Finding]:
    """Compare results.json with what its cells and its transfers give.

    Args:
        run: All of whose cells can be read.
    """
    transfers: list[Transfer] = []
    sealed = run.provenance.get("transfers")
    told = run.transfer and sealed is None
    if told:
        yield Finding("transfer", "open", "an older version stored no digests of its files")
    for seal in sealed or ():
        try:
            transfers.append(_read_transfer(run.path, seal))
        except CorruptFile as error:
            yield Finding("transfer", "fail", from_folder_on(run.path, error))
            told = True
    try:
        found = find_differences(run.results, _make_run_tables(run, transfers, skip=bool(told)))
    except Exception as error:  # whatever forged records make the tables do
        yield _tell_failure(run, "results.json, numbers", error)
        return
    if found:
        text = f"results.json is not what its cells give: {name_some(found)}"
        elsewhere = find_reference_labels(run.provenance)
        if any({row["label_a"], row["label_b"]} <= elsewhere for row in run.comparisons):
            text += (
                ". It has tests of losses of the reference against one another, as an earlier "
                "version made them. Merge again: robustloss compare RUN --beside REFERENCE"
            )
        yield Finding("results.json, numbers", "fail", text)
    else:
        n = len(run.readable_cells[0])
        cells = f"{n} cells give" if n != 1 else "cell gives"
        yield Finding("results.json, numbers", "pass", f"they are what its {cells}")


def _make_run_tables(run: Run, transfers: Sequence[Transfer], *, skip: bool) -> dict[str, Any]:
    """Return the tables that follow from cells and transfers.

    Args:
        run: With its cells; failures are taken as they stand.
        transfers: As they are stored.
        skip: Leave out what transfers say, which cannot all be read.
    """
    cells = list(run.cells)
    names = {cell.label: cell.loss for cell in cells}
    flags = transfer_beats_white_box(transfers, names)
    if skip:
        flags = [flag for flag in run.flags if flag["check"] == TRANSFER]
    beside = load_beside(run)
    tables: dict[str, Any] = run_tables(
        cells,
        comparison_rows(cells, beside=beside),
        beside,
        failures=run.failures,
        flags=flags,
        trials=_make_trials(run),
    )
    clean = {(r["label"], r["seed"]): r["error"] for r in tables["rows"] if r["attack"] == "none"}
    tables["transfer"] = run.transfer if skip else transfer_rows(transfers, clean)
    return tables


def _make_trials(run: Run) -> list[Row]:
    """Return the rows of the searches, from what each trial left in its folder."""
    if not run.trials:
        return []
    check_file(run.path / "spec.toml", MOST_BYTES)
    spec = load_spec(run.path / "spec.toml")
    trials = spec.trials()
    reasons = {(row["label"], row["trial"]): row["reason"] for row in run.trials}
    contents = [
        read_trial(run.path / trial.folder)
        or {"reason": reasons.get((trial.label, trial.number), "it left no result.")}
        for trial in trials
    ]
    return trial_rows(trials, contents, spec.tuning.choose)[0]


def _read_transfer(folder: Path, seal: Mapping[str, Any]) -> Transfer:
    """Return a transfer under the labels that results.json gives it.

    Raises:
        CorruptFile: Its file is missing, or another one.
    """
    parts = Path(seal["file"]).parts
    if len(parts) != 3 or parts[0] != "transfer" or ".." in parts:
        raise CorruptFile(f"{seal['file']!r} is no file of a transfer.")
    path = folder / seal["file"]
    if digest_file(path, MOST_ARRAYS) != seal["sha256"]:
        raise CorruptFile(f"{path} is another file than results.json states (sha256).")
    found = load_transfer(path)
    try:
        return replace(
            found,
            source=seal["source"],
            targets=tuple(seal["targets"]),
            attack_label=seal["attack_label"],
        )
    except ValueError as error:
        raise CorruptFile(f"{path} does not fit what results.json says of it: {error}") from error


def _tell_failure(run: Run, what: str, error: Exception) -> Finding:
    """Return what it means that tables cannot be made: a damaged file, or an older version."""
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, ValueError | OSError):
        text = f"they cannot be made ({type(error).__name__}: {text})"
    older = not isinstance(error, CorruptFile) and "an older version wrote it" in text
    return Finding(what, "open" if older else "fail", from_folder_on(run.path, text))


def find_differences(stated: Mapping[str, Any], made: Tables) -> list[str]:
    """Return where tables differ, in the tables and columns that both have.

    Args:
        stated: The content of results.json or of a cell.json.
        made: The tables made anew.
    """
    found = []
    for name in TABLES:
        if name not in stated or name not in made:
            continue
        before, after = stated[name], json.loads(json.dumps(as_plain(list(made[name]))))
        if kinds := _GREW.get(name):
            known = {tuple(row.get(kind) for kind in kinds) for row in before}
            after = [row for row in after if tuple(row[kind] for kind in kinds) in known]
        if len(before) != len(after):
            found.append(f"{name} has {len(before)} rows and should have {len(after)}")
            continue
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            for column in old.keys() & new.keys():
                if not _same(old[column], new[column]):
                    place = f"{name}[{number}].{column}"
                    found.append(f"{place} is {_brief(old[column])}, not {_brief(new[column])}")
    return found


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        numbers = all(type(each) in (int, float) for each in (one, other))
        return numbers and math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=1e-9)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
