"""Finished cells become results.json."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robustloss.analysis.checks.from_transfer import transfer_beats_white_box
from robustloss.analysis.tables.comparisons import comparison_rows
from robustloss.analysis.tables.ranks import rank_rows
from robustloss.analysis.tables.transfers import transfer_rows
from robustloss.cells.jobs import Failure
from robustloss.results import finished_cell, write
from robustloss.results.transfers import Transfer
from robustloss.spec.spec import CellSpec, Spec
from robustloss.storage import read_json


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
    """Assembles results.json from the finished cells.

    Args:
        folder: Of the run.
        spec: Of the run.
        cells: All of them, finished or failed.
        failures: The cells that failed.
        provenance: See provenance_of.
        transfers: What the second stage found.
        lost: Sources without transfers, trials without numbers.
        trials: Rows of the search for the losses' values.
    """
    failed = {(failure.label, failure.seed) for failure in failures}
    done = [cell for cell in cells if (cell.label, cell.seed) not in failed]
    compared = comparison_rows(
        [finished_cell.load_cell(folder / c.folder / "cell.json") for c in done]
    )
    contents, trainings = deque[dict[str, Any]](), []
    for cell in done:
        contents.append(read_json(folder / cell.folder / "cell.json", checked=True))
        log = read_json(folder / cell.folder / "train.json", checked=True)
        identity = {"loss": cell.loss.name, "label": cell.label, "seed": cell.seed}
        trainings.append({**{k: v for k, v in log.items() if k != "key"}, **identity})
    rows = (row for content in contents for row in content["rows"] if row["attack"] == "none")
    clean = {(row["label"], row["seed"]): row["error"] for row in rows}
    write.write_results(
        folder,
        name=spec.name,
        provenance=provenance,
        cells=(contents.popleft() for _ in done),  # handed over: of many cells they are much
        training=trainings,
        failures=[asdict(failure) for failure in (*failures, *lost)],
        transfer=transfer_rows(transfers, clean),
        comparisons=compared,
        ranks=rank_rows(compared),
        trials=trials,
        flags=transfer_beats_white_box(transfers, {loss.label: loss.name for loss in spec.losses}),
    )
