"""Adding losses to a reference: from a run or a baseline file, checked, a file for each loss."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from robustloss.metrics.rates import auroc
from robustloss.results.compact.content import Baseline, CellOutcomes
from robustloss.results.compact.file import load_baseline, save_baseline
from robustloss.runs.judging.against import open_baseline
from robustloss.runs.meaning import spec_of
from robustloss.runs.references.find import SHIPPED
from robustloss.runs.references.match import check_conditions, check_index
from robustloss.spec.text import slug
from robustloss.storage import digest_file, write_bytes

MOST_OF_ONE, MOST_OF_ALL = 8_000_000, 20_000_000  # bytes
_AUROC_SLACK = 1e-3


@dataclass(frozen=True)
class Added:
    """One loss of a reference.

    Attributes:
        label: What tables call it.
        seeds: Of its trainings.
        file: Where it lies, or would lie.
        size: Bytes.
        sha256: Of the file.
        before: The seeds that the reference had of it; none where it is new.
        changed: Whether its file becomes another one.
        doubts: Checks that doubt its numbers.
    """

    label: str
    seeds: tuple[int, ...]
    file: Path
    size: int
    sha256: str
    before: tuple[int, ...]
    changed: bool
    doubts: tuple[str, ...]


def add_to_reference(
    source: str | Path, *, name: str | None = None, to: str | Path = SHIPPED, check: bool = False
) -> list[Added]:
    """Write the losses of a finished run into a reference; equal runs give equal bytes.

    A loss that is there already is replaced by one with further seeds, if the seeds that it had
    have the same outcomes. Losses that the run does not have stay as they are.

    Args:
        source: A run folder, or a file that `robustloss baseline` wrote.
        name: Of the reference; that of the data by default.
        to: The folder of all references.
        check: Whether to check only, and write nothing.

    Raises:
        ValueError: Losses that differ in seeds, numbers that do not follow from the outcomes, a
            loss that is there already with other outcomes or with seeds that the run lacks, or
            too many bytes; NotComparableError: other data, network, training, attacks or test
            images than the reference has.
    """
    baseline = open_baseline(source)
    if name is not None and name != slug(name):
        raise ValueError(
            f"name (={name}) must be a file name of small letters, digits, '.' and '-', "
            f"as {slug(name)}."
        )
    folder = Path(to) / (name or slug(str((baseline.provenance.get("data") or {}).get("name"))))
    seeds = {label: {c.seed for c in baseline.cells if c.label == label}
             for label in dict.fromkeys(cell.label for cell in baseline.cells)}  # fmt: skip
    if len({frozenset(own) for own in seeds.values()}) > 1:
        each = "; ".join(f"{label}: {', '.join(map(str, sorted(s)))}" for label, s in seeds.items())
        raise ValueError(
            f"{baseline.path}: its losses differ in seeds ({each}). Run the missing ones."
        )
    if wrong := next(_find_wrong_numbers(baseline), None):
        raise ValueError(f"{baseline.path}: {wrong}. Write it again: robustloss baseline RUN.")
    there = {path: load_baseline(path) for path in sorted(folder.glob("*.npz"))}
    for other in there.values():
        check_conditions(baseline.run, other.run)
        check_index(baseline.path, baseline.index, other)
    with TemporaryDirectory() as made:
        added, contents = [], {}
        for label, own in seeds.items():
            file, fresh = folder / f"{slug(label)}.npz", Path(made) / f"{slug(label)}.npz"
            save_baseline(fresh, _take_loss(baseline, label), small=True)
            contents[file], digest = fresh.read_bytes(), digest_file(fresh)
            before: tuple[int, ...] = ()
            if file in there:
                before = tuple(sorted(cell.seed for cell in there[file].cells))
                _check_growth(there[file], load_baseline(fresh), baseline.path)
            flags = baseline.tables.get("flags", ())
            doubts = dict.fromkeys(row["check"] for row in flags if row["label"] == label)
            size = len(contents[file])
            added.append(Added(label, tuple(sorted(own)), file, size, digest,
                               before, not before or digest_file(file) != digest,
                               tuple(doubts)))  # fmt: skip
    for where, pattern, most in ((folder, "*", MOST_OF_ONE), (Path(to), "*/*", MOST_OF_ALL)):
        sizes = {path: path.stat().st_size for path in where.glob(f"{pattern}.npz")}
        total = sum((sizes | {each.file: each.size for each in added}).values())
        if total > most:
            raise ValueError(
                f"{where} would have {total / 1e6:.1f} MB, and may have {most / 1e6:.0f}. Leave "
                "out test images, budgets or seeds."
            )
    if not check:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            write_bytes(file, content)
    return added


def _check_growth(old: Baseline, new: Baseline, source: Path) -> None:
    """Refuse a loss that has not all seeds of the one that it replaces, with the same outcomes.

    Args:
        old: The loss as the reference has it.
        new: The loss as it would become.
        source: Where that comes from, for the message.
    """
    before, after = ({cell.seed: cell for cell in side.cells} for side in (old, new))
    label = new.cells[0].label
    if before.keys() - after.keys():
        one, two = (", ".join(map(str, sorted(each))) for each in (before, after))
        raise ValueError(
            f"{old.path} has {label} with the seeds {one}, and {source} with {two}. A loss only "
            "gains seeds: run the missing ones, or remove the file first."
        )
    if other := [seed for seed, cell in before.items() if not _is_same(cell, after[seed])]:
        raise ValueError(
            f"{old.path} has {label} already, and its seed {other[0]} has other outcomes in "
            f"{source}. Remove the file first, or give the loss another label."
        )


def _is_same(one: CellOutcomes, other: CellOutcomes) -> bool:
    """Return whether two cells are of the same weights with the same outcomes."""
    plain, arrays = [], []
    for cell in (one, other):
        plain.append([cell.weights, cell.threshold, *cell.radii, *(p.place for p in cell.passes)])
        outcomes = (x for p in cell.passes for x in (p.wrong, p.accepted, p.scores))
        arrays.append([*cell.radii.values(), *outcomes])
    return plain[0] == plain[1] and all(map(np.array_equal, *arrays))


def _take_loss(baseline: Baseline, label: str) -> Baseline:
    """Return one loss of a baseline alone."""
    spec = dict(spec_of(baseline.run))
    spec["losses"] = [loss for loss in spec.get("losses") or () if loss["label"] == label]
    provenance = {**baseline.provenance, "spec": spec}
    if "searches" in provenance:
        tried = provenance["searches"]
        provenance["searches"] = {label: tried[label]} if label in tried else {}
    return replace(
        baseline,
        provenance=provenance,
        cells=tuple(cell for cell in baseline.cells if cell.label == label),
        tables={
            name: [row for row in rows if row["label"] == label]
            for name, rows in baseline.tables.items()
        },
    )


def _find_wrong_numbers(baseline: Baseline) -> Iterator[str]:
    """Yield where the rows of a baseline contradict its outcomes."""
    if not baseline.tables.get("training"):
        yield "an older version wrote it, which kept less"
    rows = {
        (r["label"], r["seed"], r["attack_label"], r["eps"]): r for r in baseline.tables["rows"]
    }
    for cell in baseline.cells:
        clean = cell.clean.scores
        for one in cell.passes:
            if one.scores is None or clean is None:
                continue
            row = rows.get((cell.label, cell.seed, one.attack_label, one.eps))
            name = f"{cell.label} seed {cell.seed}, {one.attack_label} at eps {one.eps:g}"
            if row is None:
                yield f"{name} has no row"
                continue
            error = float(one.wrong.mean())
            if abs(error - row["error"]) > 1e-9:
                yield f"{name}: its error is {row['error']:.6g}, its outcomes give {error:.6g}"
            if one is not cell.clean:
                area = auroc(clean, one.scores)
                if abs(area - row["auroc_all"]) > _AUROC_SLACK:
                    yield f"{name}: its AUROC is {row['auroc_all']:.4f}, its scores give {area:.4f}"
