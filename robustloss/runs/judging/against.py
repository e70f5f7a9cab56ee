"""A run against a baseline: may they be compared, and is a loss shown worse than it was?"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustloss.analysis.baseline.judge import Finding, judge
from robustloss.analysis.baseline.measures import METRICS
from robustloss.analysis.baseline.reduce import reduce_run
from robustloss.notation import eps_text
from robustloss.results.compact.content import Baseline, CellOutcomes
from robustloss.results.compact.file import load_baseline
from robustloss.results.run import Run, load_run
from robustloss.runs.comparable import (
    NotComparableError,
    check_data,
    shared_attacks,
    tell_apart,
    version_notes,
)
from robustloss.runs.meaning import (
    find_attack_differences,
    find_loss_differences,
    list_differences,
    loss_settings,
    spec_of,
)
from robustloss.runs.references.find import is_reference, open_reference
from robustloss.spec.text import slug


@dataclass(frozen=True)
class Comparison:
    """What came of holding a run against a baseline.

    Attributes:
        run: name of the run.
        baseline: name of the baseline's run.
        findings: every test; they are one family.
        notes: what a reader must know: left out, trained otherwise, of another version.
        lost: losses of the baseline of which a cell has failed in the run, or is gone, and why.
    """

    run: str
    baseline: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    lost: Mapping[str, str]


def open_baseline(source: str | Path) -> Baseline:
    """Open what a run is compared with.

    Args:
        source: a run folder, a file that `robustloss baseline` wrote, a folder of such files, or
            the name of a reference with "-reference".

    Raises:
        ValueError: none of these, or damaged; the text says what and what to do.
    """
    path = Path(source)
    if path.suffix != ".npz" and is_reference(source):
        return open_reference(source).as_baseline()
    return reduce_run(load_run(path)) if path.is_dir() else load_baseline(path)


def compare_with_baseline(
    run: Run,
    baseline: Baseline,
    tolerance: Mapping[str, float] | None = None,
    metrics: Collection[str] = (),
) -> Comparison:
    """Test whether any loss of a run is shown worse than in a baseline.

    Args:
        run: finished.
        baseline: as `open_baseline` gives it.
        tolerance: by how much a number may be worse, by metric, in the unit of results.json: a
            share, or of a radius the unit of its eps.
        metrics: those that are tested, of `METRICS`; all where it is empty.

    Raises:
        NotComparableError: other data, images or attacks, or no loss in common; the text has both
            values. ValueError: an unknown metric, or a tolerance that is no number >= 0.
    """
    tolerance = check_tolerance(tolerance or {})
    metrics = check_metrics(metrics)
    new, old = reduce_run(run), baseline
    check_data(new.run, old.run)
    _check_attacks(new.run, old.run)
    shared = shared_attacks([new.run, old.run])
    if not np.array_equal(new.index, old.index):
        raise NotComparableError(
            f"{new.path} and {old.path} cannot be compared: they attacked other test images "
            f"({_describe_index(new.index)} in the first, {_describe_index(old.index)} in the "
            "second). Run one again with the data of the other."
        )
    kept = [
        {own: label for own, label in labels.items() if label in shared.tables}
        for labels in shared.labels
    ]
    losses, previous = (
        _group([cell.relabel(labels) for cell in side.cells])
        for side, labels in zip((new, old), kept, strict=True)
    )
    order = dict.fromkeys(cell.label for cell in run.cells)  # as tables have the losses
    losses = {label: losses[label] for label in order}
    by_slug = {slug(label): label for label in losses}
    previous = {by_slug.get(slug(label), label): cells for label, cells in previous.items()}
    lost = {
        row["label"]: f"{row['label']} seed {row['seed']} failed ({row['stage']}): {row['reason']}"
        for row in run.failures
        if row.get("label") in previous
    }
    read = {(cell.label, cell.seed) for cell in run.cells}
    for label, seed in dict.fromkeys((row["label"], row["seed"]) for row in run.rows):
        if label in previous and (label, seed) not in read:
            text = f"{label} seed {seed}: its cell is missing or damaged. Run the spec again"
            lost.setdefault(label, text)
    if not (losses.keys() & previous.keys()) and not lost:
        raise NotComparableError(
            f"{new.path} and {old.path} have no loss in common: the first has "
            f"{', '.join(losses)}, the second {', '.join(previous)}. A loss is known by its label: "
            "give the loss its former label."
        )
    notes = [*shared.notes, *_compare_losses(new.run, old.run, losses, previous, lost)]
    notes += [*version_notes([new.run, old.run]), *_tell_doubts(run, losses.keys() & previous)]
    findings = judge(losses, previous, tolerance, metrics)
    return Comparison(run.name, old.name, tuple(findings), tuple(notes), lost)


def check_metrics(metrics: Collection[str]) -> tuple[str, ...]:
    """Return the metrics that are tested, in the order of `METRICS`.

    Args:
        metrics: names; none means all.

    Raises:
        ValueError: an unknown name.
    """
    for name in metrics:
        if name not in METRICS:
            raise ValueError(f"metrics (={name!r}) must be of {', '.join(METRICS)}.")
    return tuple(name for name in METRICS if name in metrics or not metrics)


def check_tolerance(tolerance: Mapping[str, float]) -> dict[str, float]:
    """Return tolerances by metric.

    Args:
        tolerance: by metric, each >= 0; of a share below 1.

    Raises:
        ValueError: an unknown metric or another value.
    """
    for name, value in tolerance.items():
        if name not in METRICS:
            raise ValueError(f"tolerance.{name} (={value}) must name one of {', '.join(METRICS)}.")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        most = float("inf") if name == "median_radius" else 1.0
        if not number or not 0 <= value < most:
            rule = "a number of at least 0" if name == "median_radius" else "a share in [0, 1)"
            raise ValueError(f"tolerance.{name} (={value!r}) must be {rule}: 0.01 is 1 %.")
    return {name: float(value) for name, value in tolerance.items()}


def _check_attacks(new: Run, old: Run) -> None:
    """Refuse runs of which an attack of one label does not do the same."""
    for first in spec_of(new).get("attacks", ()):
        for other in spec_of(old).get("attacks", ()):
            if slug(first["label"]) != slug(other["label"]):
                continue
            if differences := find_attack_differences(first, other):
                told = list_differences(differences, "the first", "the second")
                raise NotComparableError(
                    f"{new.path} and {old.path} cannot be compared: {first['label']} is another "
                    f"attack, {told}. Run one again with the attack of the other, or give the "
                    "attack a label of its own to leave it out."
                )


def _describe_index(index: np.ndarray) -> str:
    return f"{index.size} from number {index[0]} to {index[-1]}"


def _group(cells: Collection[CellOutcomes]) -> dict[str, list[CellOutcomes]]:
    """Return the cells by label, in their order."""
    found: dict[str, list[CellOutcomes]] = {}
    for cell in cells:
        found.setdefault(cell.label, []).append(cell)
    return found


def _compare_losses(
    new: Run,
    old: Run,
    losses: Collection[str],
    previous: Collection[str],
    lost: Collection[str],
) -> list[str]:
    """Say which losses only one side has, and which have other settings than they had."""
    names = tell_apart([new, old])
    if names[0] == names[1]:
        names = ["the run", "the baseline"]
    notes = []
    for name, own, other in ((names[0], losses, previous), (names[1], previous, losses)):
        if alone := [label for label in own if label not in other and label not in lost]:
            notes.append(f"Left out, because only {name} has it: {', '.join(alone)}.")
    tables = [{slug(t["label"]): t for t in spec_of(run).get("losses", ())} for run in (new, old)]
    for label in losses:
        if label in previous and all(slug(label) in own for own in tables):
            settings = [
                loss_settings(run, own[slug(label)])
                for run, own in zip((new, old), tables, strict=True)
            ]
            if differences := find_loss_differences(*settings):
                told = list_differences(differences, *names)
                notes.append(f"{label} has other settings than in the baseline: {told}.")
    return notes


def _tell_doubts(run: Run, labels: Collection[str]) -> list[str]:
    """Say of which losses a check doubts the numbers: a low error may hide a worsening."""
    doubts: dict[str, dict[str, None]] = {}
    for flag in run.flags:
        if flag["label"] in labels:
            doubts.setdefault(flag["label"], {})[flag["check"].replace("_", " ")] = None
    each = [f"{label} ({', '.join(checks)})" for label, checks in doubts.items()]
    why = "Their errors may be too low and hide that they got worse. See the checks in the report."
    return [f"In doubt: {', '.join(each)}. {why}"] if each else []


def list_passes(baseline: Baseline) -> str:
    """Return what a baseline holds, in a line."""
    cells = _group(baseline.cells)
    attacks: dict[str, list[float]] = {}
    for one in baseline.cells[0].passes[1:]:
        attacks.setdefault(one.attack_label, []).append(one.eps)
    each = (f"{label} at {', '.join(map(eps_text, eps))}" for label, eps in attacks.items())
    counts = ", ".join(f"{label} ({len(own)})" for label, own in cells.items())
    return f"{baseline.index.size:,} images; losses (seeds): {counts}; attacks: {'; '.join(each)}"
