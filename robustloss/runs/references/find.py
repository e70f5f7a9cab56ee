"""Opening a reference by its name or its files, and the labels that mark its rows."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import robustloss
from robustloss.results.compact.content import REFERENCE_MARK, Baseline
from robustloss.results.compact.file import load_baseline
from robustloss.results.provenance import find_searches
from robustloss.results.schema import Row
from robustloss.runs.meaning import spec_of
from robustloss.runs.references.match import check_conditions, check_index
from robustloss.spec.errors import choice_rule
from robustloss.spec.losses import LOSS_LABELS
from robustloss.storage import CorruptFile

SHIPPED = Path(robustloss.__file__).parent / "reference"
ENDING = "-reference"  # tells the reference NAME from a spec or a run of that name


class NoReferenceError(ValueError):
    """What was named is no reference, or a damaged one; the text says what to do."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Losses that were computed elsewhere.

    Attributes:
        name: What it is called.
        rows: Its losses, under labels that mark them.
        labels: The labels that the losses had, by those that they have here.
    """

    name: str
    rows: Baseline
    labels: Mapping[str, str]

    def as_baseline(self) -> Baseline:
        """Return its losses under the labels that they had."""
        return _rename(self.rows, self.labels)


def list_references() -> dict[str, list[Path]]:
    """Return the files of every reference that ships, by its name."""
    found: dict[str, list[Path]] = {}
    for path in sorted(SHIPPED.glob("*/*.npz")):
        found.setdefault(path.parent.name, []).append(path)
    return found


def is_reference(word: str | Path) -> bool:
    """Return whether a word that may also name a spec or a run names a reference."""
    name, path = str(word).casefold(), Path(os.path.expanduser(word))
    shipped = name.endswith(ENDING) and name.removesuffix(ENDING) in list_references()
    is_run = (path / "results.json").exists() or (path / "spec.toml").exists()
    return shipped or name.endswith(".npz") or (not is_run and any(path.glob("*.npz")))


def describe_references() -> dict[str, str]:
    """Return a line on each reference that ships: images, seeds, losses, attacks, version."""
    found = {}
    for name in list_references():
        reference = open_reference(name)
        rows, of = reference.rows, reference.rows.provenance
        passes = [each for cell in rows.cells for each in cell.passes if each.eps > 0]
        found[name] = (
            f"{len(rows.index)} test images of {of['data']['label']}, {len(of['seeds'])} seeds, "
            f"robustloss {of['robustloss']}: {'; '.join(reference.labels.values())}; under "
            f"{', '.join(dict.fromkeys(each.attack_label for each in passes))}"
        )
    return found


def open_reference(source: str | Path, near: Path | None = None) -> Reference:
    """Open a reference.

    Args:
        source: The name of one that ships, with or without "-reference"; a file that `robustloss
            baseline` wrote; or a folder of such files.
        near: Where a relative path begins; the working folder by default.

    Raises:
        NoReferenceError: None of these, a damaged file, or files of other data, networks, trainings
            or attacks.
    """
    try:
        return _open(source, near)
    except ValueError as error:
        raise NoReferenceError(str(error)) from error


def _open(source: str | Path, near: Path | None) -> Reference:
    """Return a reference as `open_reference` does, without turning errors into NoReferenceError."""
    known, path = list_references(), (near or Path()) / os.path.expanduser(source)
    name = str(source).casefold().removesuffix(ENDING)
    if name in known:
        return _join(name, SHIPPED / name, known[name])
    if path.is_file():
        return _join(path.stem, path, [path])
    if (path / "results.json").exists():
        raise ValueError(
            f"reference (={source}) is a run folder. Name it among the runs that are compared, or "
            f"write it into a file first: robustloss baseline {source} --out FILE."
        )
    if files := sorted(path.glob("*.npz")):
        return _join(path.resolve().name, path, files)
    rule = choice_rule(str(source), list(known)) if known else "must be a file: none ships."
    raise ValueError(
        f"reference (={source}) {rule} A file that `robustloss baseline` wrote, or a folder of "
        f"such files, can be named too; {path} is neither."
    )


def _join(name: str, place: Path, files: Sequence[Path]) -> Reference:
    """Return the losses of several files, in the order in which tables name losses."""
    order = list(LOSS_LABELS)

    def rank(part: Baseline) -> tuple:
        first = part.cells[0]
        known = order.index(first.loss) if first.loss in order else len(order)
        return known, len(first.label), first.label

    parts = sorted((load_baseline(file) for file in files), key=rank)
    labels: dict[str, str] = {}
    marked = []
    for part in parts:
        if not part.tables.get("training"):
            raise ValueError(
                f"{part.path} was written by an older version, which kept less. Write it again: "
                "robustloss baseline RUN --out FILE."
            )
        check_conditions(part.run, parts[0].run)
        check_index(part.path, part.index, parts[0])
        version = part.provenance.get("robustloss", "unknown version")
        new = {c.label: f"{c.label}{REFERENCE_MARK}{version})" for c in part.cells}
        if twice := sorted(new.keys() & labels.values()):
            raise CorruptFile(f"{part.path}: another file of {place} has {twice[0]} too.")
        labels |= {marked: label for label, marked in new.items()}
        marked.append(_rename(part, new))
    spec = dict(spec_of(marked[0].run))
    new = {label: marked for marked, label in labels.items()}
    spec["losses"] = [
        {**loss, "of": new.get(loss["of"], loss["of"])} if loss.get("of") else loss
        for part in marked
        for loss in spec_of(part.run)["losses"]
    ]
    spec["seeds"] = sorted({cell.seed for part in marked for cell in part.cells})
    places = {loss["label"]: number for number, loss in enumerate(spec["losses"])}
    cells = [cell for part in marked for cell in part.cells]
    searches: dict[str, Any] = {}
    for part in marked:
        searches |= part.provenance["searches"]
    rows = Baseline(
        path=place,
        name=name,
        provenance={
            **marked[0].provenance,
            "spec": spec,
            "seeds": spec["seeds"],
            "searches": searches,
        },
        index=marked[0].index,
        cells=tuple(sorted(cells, key=lambda cell: (places.get(cell.label, 0), cell.seed))),
        tables={
            table: [row for part in marked for row in part.tables.get(table, ())]
            for table in marked[0].tables
        },
    )
    return Reference(name, rows, labels)


def _rename(part: Baseline, labels: Mapping[str, str]) -> Baseline:
    """Return a baseline with other labels of losses; a loss without cells is left out.

    Args:
        part: The baseline.
        labels: New ones by old ones.
    """

    def rename(row: Mapping[str, Any]) -> Row:
        return {
            key: labels.get(value, value) if key in ("label", "of") else value
            for key, value in row.items()
        }

    spec = dict(spec_of(part.run))
    losses = spec.get("losses") or ()
    spec["losses"] = [rename(loss) for loss in losses if loss["label"] in labels]
    tried = find_searches(part.provenance)
    searches = {labels[label]: own for label, own in tried.items() if label in labels}
    return replace(
        part,
        provenance={**part.provenance, "spec": spec, "searches": searches},
        cells=tuple(replace(cell, label=labels[cell.label]) for cell in part.cells),
        tables={
            name: [rename(row) for row in rows if row["label"] in labels]
            for name, rows in part.tables.items()
        },
    )
