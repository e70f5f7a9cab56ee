"""The tables of one cell, from its records: what cell.json holds beside the names of files.

Begin reading at the two dictionaries: they say which tables there are and what each is made from.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from robustloss.analysis.checks.catalogue import Evidence
from robustloss.analysis.checks.from_probe import PROBE_CHECKS, check_probe
from robustloss.analysis.checks.from_records import RECORD_CHECKS
from robustloss.analysis.checks.unit_tests import unit_test_rows
from robustloss.analysis.detection.adaptive import adaptive_rows
from robustloss.analysis.detection.compute import (
    ROW_SCORE,
    compute_scores,
    passes_of,
    score_names,
)
from robustloss.analysis.tables.calibration import calibration_rows, reliability_rows
from robustloss.analysis.tables.classes import class_rows
from robustloss.analysis.tables.detection import detection_rows, outside_rows
from robustloss.analysis.tables.feature_space import (
    center_rows,
    collapse_rows,
    geometry_rows,
    margin_rows,
)
from robustloss.analysis.tables.measured import (
    MeasuredCell,
    MeasuredPass,
    Records,
    measure_cell,
    measure_passes,
)
from robustloss.analysis.tables.rows import pass_row
from robustloss.analysis.tables.worst_case import radii_rows, worst_case_rows
from robustloss.results.schema import TABLES, Row, aims_at_label
from robustloss.results.scores import VALIDATION, StoredScores
from robustloss.spec.detection import SCORE_NAMES

# Tables about single passes: rows of one pass, made while its record is in memory.
OF_PASS: dict[str, Callable[[MeasuredCell, MeasuredPass], list[Row]]] = {
    "rows": lambda cell, one: [pass_row(one, cell.clean)],
    "detection": lambda cell, one: detection_rows(one, cell.detection_scores),
    "per_class": lambda cell, one: class_rows(one.record, one.place),
    "calibration": lambda cell, one: calibration_rows(one, cell.resamples, cell.temperature),
    "reliability": lambda cell, one: reliability_rows(one),
    "collapse": lambda cell, one: collapse_rows(one, cell.reference),
}
# Tables about the whole cell: made from what is kept of all passes.
OF_CELL: dict[str, Callable[[MeasuredCell], list[Row]]] = {
    "worst_case": lambda cell: worst_case_rows(
        cell.facts, cell.clean.outcome, cell.outcomes, cell.stored.get(ROW_SCORE, VALIDATION)
    ),
    "radii": lambda cell: radii_rows(cell.facts, cell.clean.outcome, cell.outcomes),
    "adaptive": lambda cell: adaptive_rows(
        cell.facts,
        cell.clean.outcome,
        cell.outcomes,
        {name: cell.stored.get(name, VALIDATION) for name in cell.kept_scores},
    ),
    "geometry": lambda cell: geometry_rows(cell.facts, cell.reference, cell.clean.record),
    "margins": lambda cell: margin_rows(cell.facts, cell.reference),
    "center_estimates": lambda cell: center_rows(cell.facts, cell.reference),
    "out_of_distribution": lambda cell: outside_rows(
        cell.facts, cell.stored, cell.detection_scores
    ),
    "unit_tests": lambda cell: unit_test_rows(cell.facts, cell.outcomes, cell.probe),
    "flags": lambda cell: flag_rows(
        Evidence(
            cell.facts,
            cell.clean.outcome,
            cell.outcomes,
            cell.probe,
            cell.training,
            {ROW_SCORE: cell.stored.get(ROW_SCORE, VALIDATION)},
            cell.clean.record.labels,
        )
    ),
}


def flag_rows(evidence: Evidence) -> list[Row]:
    """Return what the checks of one cell find."""
    checks = (*RECORD_CHECKS, *(PROBE_CHECKS if evidence.probe else ()))
    return [flag for check in checks for flag in check(evidence)]


def cell_numbers(
    records: Records,
    reference: Mapping[str, np.ndarray],
    cell: Mapping[str, Any],
    scores: Sequence[str] = SCORE_NAMES,
    probe: Mapping[str, np.ndarray] | None = None,
    *,
    stored: StoredScores | None = None,
    temperature: bool = False,
    training: Mapping[str, Any] | None = None,
) -> dict[str, list[Row]]:
    """Return the tables of one cell, arranged, from its records alone.

    Args:
        records: by (attack_label, eps); ("none", 0.0) is the clean pass. Each is looked up
            once, so the mapping may load them lazily.
        reference: the arrays of reference-KEY.npz; the clean validation pass sets the thresholds.
        cell: as cell.json: "loss", "label", "seed" and "files" with the list "records".
        scores: names of the scores of the tables of detection; the other tables have theirs.
        probe: the arrays of probe-KEY.npz, see `checks.from_probe`; without it its checks are not
            made.
        stored: the scores of the records, of their noise controls and of the outside images;
            without it those of the records are computed.
        temperature: also say how calibrated the logits are when they are divided by the
            temperature that is best for the validation images.
        training: the line of the learning curve at which the weights stood.

    Raises:
        ValueError: an unknown score, a record with NaN, records of different images, or a probe
            that lacks an array.
    """
    if probe is not None:
        check_probe(probe)
    if stored is None:
        records = {key: records[key] for key in list(records)}  # each is loaded once
        passes = passes_of(records, reference, {}, {})
        stored = compute_scores(
            score_names(scores),
            reference,
            passes,
            density=bool(cell.get("density")),
            name=f"{cell['label']} seed {cell['seed']}",
        )
    measured = measure_cell(
        records, reference, cell, stored, scores, probe, training, temperature=temperature
    )
    tables = {name: rows(measured, measured.clean) for name, rows in OF_PASS.items()}
    for one in measure_passes(measured, records):
        for name, rows in OF_PASS.items():
            tables[name] += rows(measured, one)
        if aims_at_label(one.outcome.attack):
            measured.outcomes.append(one.outcome)
    tables |= {name: rows_of(measured) for name, rows_of in OF_CELL.items()}
    return {name: TABLES[name].arrange(rows) for name, rows in tables.items()}
