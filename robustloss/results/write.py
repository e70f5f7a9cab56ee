"""Results.json from the tables of the cells."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from robustloss.analysis.tables.summary import summarise
from robustloss.results.finished_cell import SCHEMA_VERSION
from robustloss.results.schema import (
    ADAPTIVE_COLUMNS,
    CALIBRATION_COLUMNS,
    CENTER_COLUMNS,
    CLASS_COLUMNS,
    CROPS_COLUMNS,
    DETECTION_COLUMNS,
    FLAG_COLUMNS,
    GEOMETRY_COLUMNS,
    MARGIN_COLUMNS,
    OUTSIDE_COLUMNS,
    PLACE,
    RADII_COLUMNS,
    RELIABILITY_COLUMNS,
    ROW_COLUMNS,
    TRANSFER_COLUMNS,
    WORST_CASE_COLUMNS,
    sort,
)
from robustloss.storage import write_json


def write_results(
    run_dir: str | Path,
    *,
    name: str,
    provenance: Mapping[str, Any],
    cells: Iterable[Mapping[str, Any]],
    training: Iterable[Mapping[str, Any]],
    failures: Iterable[Mapping[str, Any]],
    worst_case: Iterable[Mapping[str, Any]] = (),
    radii: Iterable[Mapping[str, Any]] = (),
    adaptive: Iterable[Mapping[str, Any]] = (),
    transfer: Iterable[Mapping[str, Any]] = (),
    flags: Iterable[Mapping[str, Any]] = (),
    comparisons: Iterable[Mapping[str, Any]] = (),
    ranks: Iterable[Mapping[str, Any]] = (),
    trials: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Assemble results.json in a run folder: sorted, so that equal runs give equal bytes.

    Args:
        run_dir: the run folder.
        name: of the run.
        provenance: see DESIGN 4.6; times belong here and in training, nowhere else.
        cells: the content of each finished cell.json: what `cell_numbers` gives. One that was
            written before a table existed may lack it.
        training: one per finished cell: loss, label, seed and train.json without its key.
        failures: loss, label, seed, stage, reason.
        worst_case: rows beside those of the cells; likewise radii, adaptive and flags.
        radii: see worst_case.
        adaptive: see worst_case.
        transfer: the transfer matrix, which is computed between the cells.
        flags: see worst_case; those of the transfer matrix.
        comparisons: loss against loss, in their own order.
        ranks: of the losses, in their own order.
        trials: of the search for their values, likewise; a run without a search has no such table.

    Returns:
        What was written.
    """
    tables = [dict(cell) for cell in cells]

    def table(key: str, columns: Sequence[str], more: Iterable[Mapping[str, Any]] = ()) -> list:
        # taken out: of many cells the rows of the one order and of the other need not be held both
        own = (row for cell in tables for row in cell.pop(key, ()))
        return sort([*own, *more], columns)

    rows = table("rows", ROW_COLUMNS)
    worst = table("worst_case", WORST_CASE_COLUMNS, worst_case)
    curves = table("radii", RADII_COLUMNS, radii)
    results = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "provenance": dict(provenance),
        "rows": rows,
        "summary": summarise(rows, worst, curves),
        "detection": table("detection", DETECTION_COLUMNS),
        "training": sort(training, PLACE),
        "worst_case": worst,
        "radii": curves,
        "adaptive": table("adaptive", ADAPTIVE_COLUMNS, adaptive),
        "transfer": sort(transfer, TRANSFER_COLUMNS),
        "per_class": table("per_class", CLASS_COLUMNS),
        "geometry": table("geometry", GEOMETRY_COLUMNS),
        "margins": table("margins", MARGIN_COLUMNS),
        "center_estimates": table("center_estimates", CENTER_COLUMNS),
        "out_of_distribution": table("out_of_distribution", OUTSIDE_COLUMNS),
        "calibration": table("calibration", CALIBRATION_COLUMNS),
        "reliability": table("reliability", RELIABILITY_COLUMNS),
        "crops": sorted(table("crops", CROPS_COLUMNS), key=_by_crops),
        "comparisons": [dict(row) for row in comparisons],
        "ranks": [dict(row) for row in ranks],
        "flags": table("flags", FLAG_COLUMNS, flags),
        "failures": sort(failures, (*PLACE, "stage", "reason")),
    }
    if tried := [dict(row) for row in trials]:
        results["trials"] = tried
    write_json(Path(run_dir) / "results.json", results, sort_keys=False)
    return results


def _by_crops(row: Mapping[str, Any]) -> tuple[str, int, int]:
    return row["label"], row["seed"], row["crops"]
