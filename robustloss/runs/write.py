"""Finished cells become results.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robustloss.analysis.checks.from_transfer import transfer_beats_white_box
from robustloss.analysis.tables.comparisons import comparison_rows
from robustloss.analysis.tables.of_run import run_tables
from robustloss.analysis.tables.transfers import transfer_rows
from robustloss.cells.jobs import Failure
from robustloss.results.finished_cell import load_cell
from robustloss.results.transfers import Transfer
from robustloss.results.write import seals_of, seals_of_transfers, write_results
from robustloss.spec.spec import CellSpec, Spec


def write_run(
    folder: Path,
    spec: Spec,
    cells: Sequence[CellSpec],
    failures: Sequence[Failure],
    provenance: dict,
    transfers: Sequence[Transfer] = (),
    lost: Sequence[Failure] = (),
    trials: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write results.json from the finished cells.

    Args:
        folder: of the run.
        spec: of the run.
        cells: all of them, finished or failed.
        failures: the cells that failed.
        provenance: see `provenance_of`.
        transfers: what the second stage found.
        lost: sources without transfers, trials without numbers.
        trials: rows of the search for the losses' values.
    """
    failed = {(failure.label, failure.seed) for failure in failures}
    done = [cell for cell in cells if (cell.label, cell.seed) not in failed]
    finished = [load_cell(folder / cell.folder / "cell.json") for cell in done]
    tables = run_tables(
        finished,
        comparison_rows(finished),
        failures=[asdict(failure) for failure in (*failures, *lost)],
        flags=transfer_beats_white_box(transfers, {loss.label: loss.name for loss in spec.losses}),
        trials=trials,
    )
    clean = {(r["label"], r["seed"]): r["error"] for r in tables["rows"] if r["attack"] == "none"}
    tables["transfer"] = transfer_rows(transfers, clean)
    provenance = {**provenance, "cells": seals_of(finished)}
    if transfers:
        provenance["transfers"] = seals_of_transfers(folder, transfers)
    write_results(folder, name=spec.name, provenance=provenance, tables=tables)
