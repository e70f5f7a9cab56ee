"""Adding losses to a reference: from a run or a baseline file, checked, a file for each loss."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from robustloss.metrics.rates import auroc
from robustloss.results.compact.content import Baseline
from robustloss.results.compact.file import load_baseline, save_baseline
from robustloss.runs.comparable import NotComparableError
from robustloss.runs.judging.against import open_baseline
from robustloss.runs.meaning import spec_of
from robustloss.runs.references.find import SHIPPED
from robustloss.runs.references.match import check_conditions
from robustloss.spec.text import slug
from robustloss.storage import digest_file

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
        new: Whether it was not there before.
        doubts: Checks that doubt its numbers.
    """

    label: str
    seeds: tuple[int, ...]
    file: Path
    size: int
    sha256: str
    new: bool
    doubts: tuple[str, ...]


def add_to_reference(
    source: str | Path, *, name: str | None = None, to: str | Path = SHIPPED, check: bool = False
) -> list[Added]:
    """Write the losses of a finished run into a reference; equal runs give equal bytes.

    Args:
        source: A run folder, or a file that `robustloss baseline` wrote.
        name: Of the reference; that of the data by default.
        to: The folder of all references.
        check: Whether to check only, and write nothing.

    Raises:
        ValueError: Losses that differ in seeds, numbers that do not follow from the outcomes, a
            loss that is there already with other content, or too many bytes; NotComparableError:
            other data, network, training, attacks or test images than the reference has.
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
    for path in sorted(folder.glob("*.npz")):
        other = load_baseline(path)
        check_conditions(baseline.run, other.run)
        if not np.array_equal(baseline.index, other.index):
            raise NotComparableError(f"{baseline.path} and {folder} saw other test images.")
    with TemporaryDirectory() as made:
        added, contents = [], {}
        for label, own in seeds.items():
            file, fresh = folder / f"{slug(label)}.npz", Path(made) / f"{slug(label)}.npz"
            save_baseline(fresh, _take_loss(baseline, label), small=True)
            contents[file], digest = fresh.read_bytes(), digest_file(fresh)
            if file.exists() and digest_file(file) != digest:
                raise ValueError(
                    f"{file} has {label} already, with other numbers. Remove it first, or give the "
                    "loss another label."
                )
            flags = baseline.tables.get("flags", ())
            doubts = dict.fromkeys(row["check"] for row in flags if row["label"] == label)
            size = len(contents[file])
            added.append(Added(label, tuple(sorted(own)), file, size, digest,
                               not file.exists(), tuple(doubts)))  # fmt: skip
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
            file.write_bytes(content)
    return added


def _take_loss(baseline: Baseline, label: str) -> Baseline:
    """Return one loss of a baseline alone."""
    spec = dict(spec_of(baseline.run))
    spec["losses"] = [loss for loss in spec.get("losses") or () if loss["label"] == label]
    return replace(
        baseline,
        provenance={**baseline.provenance, "spec": spec},
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
