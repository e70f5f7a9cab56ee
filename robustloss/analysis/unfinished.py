"""A run that has not finished: its finished cells, put together as the run will do it at its end.

A run may compute in the folder meanwhile. So nothing is locked or written here, and each file is
read once: what the run replaces later does not mix with what was read before.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from robustloss.analysis.tables.comparisons import comparison_rows
from robustloss.analysis.tables.of_run import run_tables
from robustloss.analysis.tables.trials import trial_rows
from robustloss.notation import eps_text
from robustloss.results.cell_notes import read_costs, read_reused, read_trial
from robustloss.results.checking import check_tables, refuse, refuse_missing
from robustloss.results.finished_cell import Cell, read_cell
from robustloss.results.run import STARTED, Run, from_folder_on, load_run, read_started
from robustloss.results.schema import SCHEMA_VERSION, TABLES, Row
from robustloss.results.write import seals_of
from robustloss.run_files import check_file
from robustloss.spec.load import MOST_BYTES, load_spec
from robustloss.spec.losses import read_normalize
from robustloss.spec.plugins import plugins_of
from robustloss.spec.prefixes import names_weights
from robustloss.spec.spec import CellSpec, Spec

MOST_NAMED = 8  # missing cells that a sentence names
GO_ON = "If nothing is computing now, start the run again: it goes on where it stopped."
# Of provenance: what the numbers rest on, beside code of the user's.
_DECIDING = (
    *("spec", "seeds", "data", "device", "precision", "threads"),
    *("robustloss", "torch", "torchvision", "numpy"),
)
_UNUSABLE = (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError)


def open_run(folder: str | Path) -> Run:
    """Open a run folder, finished or not.

    Without results.json the tables are those that the finished cells have now. With one that an
    earlier run left, they are that run's, and `Run.unfinished` says what has been asked for since.

    Args:
        folder: That `robustloss run` wrote, or writes at the moment.

    Raises:
        ValueError: No run folder, or one that cannot be read.
    """
    folder = Path(folder)
    started = os.path.lexists(folder / "spec.toml")
    if not os.path.lexists(folder / "results.json") and started:
        return _assemble(folder, _read_asked(folder))
    run = load_run(folder)
    return run if not started or "merged" in run.provenance else _note_growth(run)


def open_seed(folder: Path, seed: int) -> Run:
    """Return what the finished cells of one seed say, while the run computes those of others.

    The losses are not compared, which takes longer than all other tables.

    Args:
        folder: Of a run that noted what it was asked for.
        seed: One of its seeds.

    Raises:
        ValueError: As `open_run`.
    """
    asked = _read_asked(folder)
    cells = tuple(cell for cell in asked.cells if cell.seed == seed)
    return _assemble(folder, replace(asked, cells=cells), compare=False)


@dataclass(frozen=True)
class _Asked:
    """What a run was asked for.

    Attributes:
        spec: Its spec. Of a search, the values that were chosen stand in it if they are known.
        cells: The cells that it has to compute.
        provenance: What it noted as it began; empty where it noted nothing.
        problems: What could not be read of this.
        trials: The rows of its searches.
        open_trials: How many trials are not finished.
    """

    spec: Spec
    cells: tuple[CellSpec, ...]
    provenance: Mapping[str, Any]
    problems: list[str]
    trials: list[Row]
    open_trials: int


def _read_asked(folder: Path, seeds: Sequence[int] | None = None) -> _Asked:
    """Return what the run in a folder was asked for.

    Args:
        folder: Of the run.
        seeds: The seeds to expect where the run noted none.

    Raises:
        ValueError: Neither its note nor its spec.toml can be read.
    """
    problems: list[str] = []
    started: dict[str, Any] = {}
    try:
        started = read_started(folder) or {}
        # Notes of older versions have no "asked"; in them every label names files.
        spec = load_spec(started.get("asked") or started["spec"]) if started else None
        noted = started["seeds"] if started else seeds
        if not all(type(seed) is int for seed in noted or ()):
            raise ValueError(f"seeds (={noted!r}) are no whole numbers.")
        seeds = noted
    except (ValueError, KeyError, TypeError) as error:
        problems.append(f"{STARTED} cannot be used: {error}")
        started, spec = {}, None
    if spec is None:
        try:
            check_file(folder / "spec.toml", MOST_BYTES)
        except OSError as error:
            raise ValueError(f"{folder / 'spec.toml'} cannot be read: {error.strerror}.") from error
        spec = load_spec(folder / "spec.toml")
    spec, trials, open_trials = _choose_values(folder, spec)
    return _Asked(
        spec,
        spec.cells(seeds or _seeds_of_folders(folder, spec)),
        started,
        problems,
        trials,
        open_trials,
    )


def _seeds_of_folders(folder: Path, spec: Spec) -> tuple[int, ...]:
    """Return the spec's seeds; those of the folders where the run was given others.

    Only runs of older versions, and evaluations of models in memory, leave no note of their seeds.
    """
    names = [path.name for path in folder.glob("cells/*/seed-*")]
    digits = [name.removeprefix("seed-") for name in names]
    found = {int(text) for text in digits if text.isdecimal() and len(text) < 11}
    return spec.seeds if found <= {*spec.seeds} else tuple(sorted(found))


def _choose_values(folder: Path, spec: Spec) -> tuple[Spec, list[Row], int]:
    """Return the spec with the values of the searches that are done, their rows, and what is open.

    Args:
        folder: Of the run.
        spec: As it was loaded.
    """
    trials = spec.trials()
    contents = [read_trial(folder / trial.folder) for trial in trials]
    done = [(t, c) for t, c in zip(trials, contents, strict=True) if c is not None]
    waiting = {t.label for t, c in zip(trials, contents, strict=True) if c is None}
    rows, chosen = trial_rows(
        [trial for trial, _ in done], [content for _, content in done], spec.tuning.choose
    )
    chosen = {label: values for label, values in chosen.items() if label not in waiting}
    for row in rows:
        row["chosen"] = row["chosen"] and row["label"] not in waiting
    return spec.substitute(chosen) if trials else spec, rows, len(trials) - len(done)


@dataclass(frozen=True)
class _HeldCell(Cell):
    """A cell whose tables and training are in memory: the run may replace the files meanwhile."""

    content: dict[str, Any] = field(default_factory=dict, repr=False)
    log: dict[str, Any] = field(default_factory=dict, repr=False)

    def tables(self) -> dict[str, list[Row]]:
        """Return the cell's tables of results.json."""
        return {name: self.content[name] for name in TABLES if name in self.content}

    def training(self) -> dict[str, Any]:
        """Return the learning curve and its times."""
        return dict(self.log)


@dataclass(frozen=True)
class _State:
    """How far a cell is: finished, not there (neither), left out for a reason, or damaged."""

    name: str
    cell: _HeldCell | None = None
    other: str = ""  # how what is there differs from what the run was asked for
    damage: str = ""


def _look_at(folder: Path, spec: Spec, wanted: CellSpec) -> _State:
    """Read one cell.

    Args:
        folder: Of the run.
        spec: What the run was asked for.
        wanted: The cell.
    """
    name, file = f"{wanted.label} seed {wanted.seed}", folder / wanted.folder / "cell.json"
    if not os.path.lexists(file):
        return _State(name)
    try:
        cell, content = read_cell(file)
        check_tables(file, content)
        refuse_missing(file, content)
        place = {"label": wanted.label, "seed": wanted.seed}
        rows = (row for table in TABLES for row in content.get(table, ()))
        if any(row.get(key, place[key]) != place[key] for row in (content, *rows) for key in place):
            refuse(file, f"is of another cell than {name}")
        log = cell.training()
    except (OSError, ValueError) as error:
        if not os.path.lexists(file):  # the run has just removed it
            return _State(name)
        return _State(name, damage=f"{wanted.folder}: {error}")
    if other := _compare_settings(spec, wanted, content, log):
        return _State(name, other=other)
    fields = {key: getattr(cell, key) for key in Cell.__dataclass_fields__}
    return _State(name, _HeldCell(**fields, content=content, log=log))


def _compare_settings(
    spec: Spec, wanted: CellSpec, content: Mapping[str, Any], log: Mapping[str, Any]
) -> str:
    """Return how a cell differs from what was asked for, as far as it tells; "" where it does not.

    An earlier state of the run may have computed it. Beside the others its numbers would mislead: a
    worst case over fewer attacks is lower.

    Args:
        spec: What the run was asked for.
        wanted: The cell as it was asked for.
        content: Of its cell.json.
        log: Of its training.
    """
    built = content.get("build")
    known = dict(built) if isinstance(built, dict) else {}
    asked: dict[str, Any] = {"loss": wanted.loss.name, "loss_params": wanted.loss.params}
    if wanted.loss.factory:
        known["normalize"] = known.get("normalize") or "none"
        asked["normalize"] = read_normalize(wanted.loss.normalize) or "none"
        named = names_weights(wanted.loss.factory, wanted.loss.weights)
        known["weights"] = known.get("weights") or "none"
        asked["weights"] = wanted.loss.weights if named else "none"
    else:
        asked |= {"backbone": wanted.model.backbone, "feature_dim": wanted.model.feature_dim}
    if not wanted.loss.given:
        known |= {"batch_size": content.get("batch_size"), "epochs": log.get("epochs")}
        asked |= {"batch_size": wanted.train.batch_size, "epochs": wanted.train.epochs}
    for key, value in json.loads(json.dumps(asked, default=str)).items():
        if known.get(key) is not None and known[key] != value:
            return f"{key} {json.dumps(known[key])}, not {json.dumps(value)}"
    records = content["files"]["records"]
    have = {(entry["attack_label"], entry["eps"]) for entry in records} - {("none", 0.0)}
    want = {(attack.label, eps) for attack in spec.attacks for eps in attack.eps}
    for word, difference in (("without", want - have), ("with", have - want)):
        if difference:
            label, eps = min(difference)
            return f"{word} {label} at eps {eps_text(eps)}"
    return ""


def _assemble(folder: Path, asked: _Asked, *, compare: bool = True) -> Run:
    """Return the run as its finished cells have it now.

    Args:
        folder: Of the run.
        asked: What the run was asked for.
        compare: Whether the losses are compared.
    """
    states = [_look_at(folder, asked.spec, cell) for cell in asked.cells]
    cells = [state.cell for state in states if state.cell is not None]
    words = [_count_words(states)]
    if asked.open_trials:
        trials = len({(row["label"], row["trial"]) for row in asked.trials})
        total = trials + asked.open_trials
        words.append(f"{trials} of {total} trials of the search are finished.")
    if len(asked.spec.losses) > 1 and any(attack.transfer for attack in asked.spec.attacks):
        words.append("Images made on one loss are shown to the others at the end of the run.")
    comparisons: list[Row] = []
    try:
        comparisons = comparison_rows(cells) if compare else []
    except _UNUSABLE as error:
        words.append(f"The losses are not compared: {from_folder_on(folder, error)}")
    try:
        tables = run_tables(cells, comparisons, trials=asked.trials)
    except _UNUSABLE as error:
        raise ValueError(f"{folder}: its cells do not fit together: {error}") from error
    places = [(cell.label, cell.seed, cell.folder) for cell in cells]
    provenance = {
        "data": {"name": asked.spec.data.name},
        "seeds": sorted({cell.seed for cell in asked.cells}),
        **asked.provenance,
        "spec": asked.spec.plain(),
        "attack_cost": read_costs(
            places, {attack.slug: attack.label for attack in asked.spec.attacks}
        ),
        "cells": seals_of(cells),
    }
    if reused := read_reused(places):
        provenance["reused"] = reused
    results = {"schema_version": SCHEMA_VERSION, "name": asked.spec.name, "provenance": provenance}
    results |= {name: rows for name, rows in tables.items() if rows or name != "trials"}
    damages = [state.damage for state in states if state.damage]
    return Run(
        folder,
        results,
        unfinished=(*words, GO_ON),
        missing=tuple(state.name for state in states if state.cell is None),
        asked=len(states),
        read=([*cells], [from_folder_on(folder, text) for text in [*asked.problems, *damages]]),
    )


def _note_growth(run: Run) -> Run:
    """Return a finished run with what it has been asked for since, where that can be known.

    A run that was started again and changes nothing is finished: it has all its numbers.
    """
    had, seeds = run.provenance.get("spec") or {}, run.provenance.get("seeds") or []
    try:
        asked = _read_asked(run.path, [seed for seed in seeds if type(seed) is int])
    except ValueError:
        return run
    began = asked.provenance.get("started")
    if not had or (began is not None and began == run.provenance.get("started")):
        return run
    losses = {loss["label"] for loss in had.get("losses") or ()}
    attacks = {(a["label"], eps) for a in had.get("attacks") or () for eps in a.get("eps") or ()}
    more = [f"loss {loss.label}" for loss in asked.spec.losses if loss.label not in losses]
    for attack in asked.spec.attacks:
        new = [eps_text(eps) for eps in attack.eps if (attack.label, eps) not in attacks]
        more += [f"{attack.label} at eps {', '.join(new)}"] if new else []
    if began is not None:  # else the seeds of the spec say nothing: the run may have had others
        new = [str(seed) for seed in asked.provenance.get("seeds", ()) if seed not in seeds]
        more += [f"seed {', '.join(new)}"] if new else []
    if began is None and not more:
        return run
    states = [_look_at(run.path, asked.spec, cell) for cell in asked.cells]
    missing = tuple(state.name for state in states if state.cell is None)
    same = all(run.provenance.get(key) == asked.provenance.get(key) for key in _DECIDING)
    if same and not missing and not plugins_of(asked.spec):
        return run
    since = "started again" if same else "started again with other settings"
    if more:
        since = f"asked for more: {_name_some(more)}"
    words = _count_words(states)
    if not missing:
        words = (
            f"All {len(states)} cells are there, but the folder does not tell whether they are of "
            "the earlier state or of the later one."
        )
    return replace(
        run,
        unfinished=(
            f"The numbers are of an earlier, finished state of this run, which was then {since}.",
            words,
            GO_ON,
        ),
        missing=missing,
        asked=len(states),
    )


def _count_words(states: Sequence[_State]) -> str:
    """Return how many cells are finished, and which are not."""
    done = sum(state.cell is not None for state in states)
    if done == len(states):
        return f"All {done} cells are finished, but the run has not put them together yet."
    words = f"{done} of {len(states)} cells are finished"
    parts = {
        "missing": [s.name for s in states if not (s.cell or s.other or s.damage)],
        "of other settings": [f"{s.name} ({s.other})" for s in states if s.other],
        "damaged": [s.name for s in states if s.damage],
    }
    return "; ".join([words, *(f"{k}: {_name_some(v)}" for k, v in parts.items() if v)]) + "."


def _name_some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
