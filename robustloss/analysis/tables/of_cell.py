"""The numbers of one cell, from its records: the tables that cell.json carries."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robustloss.analysis.checks.catalogue import Evidence
from robustloss.analysis.checks.from_probe import PROBE_CHECKS, check_probe
from robustloss.analysis.checks.from_records import RECORD_CHECKS
from robustloss.analysis.detection.adaptive import adaptive_rows
from robustloss.analysis.detection.compute import CLEAN_KEY, ROW_SCORE, scored
from robustloss.analysis.detection.separation import SCORES, check_same_images, compare, separation
from robustloss.analysis.outcomes import outcome
from robustloss.analysis.tables.calibration import calibration_rows
from robustloss.analysis.tables.classes import class_rows
from robustloss.analysis.tables.detection import detection_rows, outside_rows
from robustloss.analysis.tables.feature_space import center_rows, geometry_rows, margin_rows
from robustloss.analysis.tables.rows import CLEAN_ENTRY, key_of, pass_row, place_of, some
from robustloss.analysis.tables.worst_case import radii_rows, worst_case_rows
from robustloss.metrics.bootstrap import draw_resamples
from robustloss.metrics.calibration import RESAMPLES, fit_temperature
from robustloss.metrics.rates import threshold_at_fpr
from robustloss.results.records import Record, clean_pass
from robustloss.results.schema import TABLES, Row
from robustloss.results.scores import CLEAN, VALIDATION, Pass, StoredScores
from robustloss.spec.attack_kinds import attack_kind

ADAPTIVE_SCORES = (ROW_SCORE, "max_log_posterior")  # of the table of adaptive attacks


def cell_numbers(
    records: Mapping[tuple[str, float], Record],
    reference: Mapping[str, np.ndarray],
    cell: Mapping[str, Any],
    scores: Sequence[str] = tuple(SCORES),
    probe: Mapping[str, np.ndarray] | None = None,
    *,
    noise: Mapping[tuple[str, float], Record] | None = None,
    outside: Mapping[str, Record] | None = None,
    stored: StoredScores | None = None,
    temperature: bool = False,
    training: Mapping[str, Any] | None = None,
) -> dict[str, list[Row]]:
    """Every number of one cell, from its records alone.

    Args:
        records: by (attack_label, eps); ("none", 0.0) is the clean pass. Each is looked up
            once, so the mapping may load them lazily.
        reference: the arrays of scores-KEY.npz; the clean validation pass sets the thresholds.
        cell: as cell.json: "loss", "label", "seed" and "files" with the list "records".
        scores: keys of `SCORES` for the detection table; the first row score is always there.
        noise: the controls of the attacked records, see `controls`; population "noise" sets them
            against the clean images.
        outside: records of images that are not of the data, by label.
        probe: the arrays of probe-KEY.npz, see `checks_probe`; without it its checks are not made.
        stored: the scores of these records and controls, where they are known already.
        temperature: also say how calibrated the logits are when they are divided by the
            temperature that is best for the validation images.
        training: the line of the learning curve at which the weights stood.

    Returns:
        "rows", "detection", "worst_case", "radii", "adaptive", "flags", "per_class", "geometry",
        "margins", "center_estimates", "out_of_distribution", "calibration" and "reliability",
        sorted.

    Raises:
        ValueError: an unknown score, a record with NaN, records of different images, or a probe
            that lacks an array.
    """
    if probe is not None:
        check_probe(probe)
    if stored is None:
        records = {key: records[key] for key in list(records)}  # each is loaded once
        stored = scored(records, reference, cell, scores, noise or {}, outside or {})
    fitted = stored.names
    validation_scores = {name: stored.get(name, VALIDATION) for name in fitted}
    clean_scores = {name: stored.get(name, CLEAN) for name in fitted}
    clean = records[CLEAN_KEY]
    entries = [e for e in cell["files"]["records"] if key_of(e) != CLEAN_KEY]
    adaptive = any(attack_kind(entry["attack"]) == "adaptive" for entry in entries)
    kept = ADAPTIVE_SCORES if adaptive else ()  # the scores of every record take room
    rows, detection = [pass_row(cell, CLEAN_ENTRY, clean)], []
    per_class = class_rows(clean, place_of(cell, CLEAN_ENTRY))
    outcomes = []
    known = clean_pass(reference)
    cooled = fit_temperature(known.logits, known.labels) if temperature else None
    drawn = draw_resamples(clean.n, RESAMPLES)
    calibrated = [
        calibration_rows(place_of(cell, CLEAN_ENTRY), clean, resamples=drawn, temperature=cooled)
    ]
    for entry in entries:
        record = records[key_of(entry)]
        check_same_images(clean, record)
        own = {name: stored.get(name, Pass("attacked", *key_of(entry))) for name in fitted}
        found = {
            name: compare(
                clean.correct,
                ~record.correct,
                clean_scores[name],
                own[name],
                validation_scores[name],
            )
            for name in fitted
        }
        control = Pass("noise", *key_of(entry))
        everybody = np.ones(clean.n, bool)
        for name in fitted:
            if stored.has(name, control):
                found[name]["noise"] = separation(
                    clean_scores[name],
                    stored.get(name, control),
                    everybody,
                    everybody,
                    threshold_at_fpr(validation_scores[name], 0.05),
                )
        rows.append(pass_row(cell, entry, record, clean, found[ROW_SCORE]))
        detection += detection_rows(
            cell, entry, {name: found[name] for name in scores if name in found}
        )
        per_class += class_rows(record, place_of(cell, entry))
        if entry["eps"] > 0:  # at 0 it is the clean pass
            calibrated.append(
                calibration_rows(place_of(cell, entry), record, resamples=drawn, temperature=cooled)
            )
        outcomes.append(outcome(entry, record, some(own, kept)))
    clean_outcome = outcome(CLEAN_ENTRY, clean, some(clean_scores, kept))
    several = {
        "worst_case": worst_case_rows(cell, clean_outcome, outcomes),
        "radii": radii_rows(cell, clean_outcome, outcomes),
        "adaptive": adaptive_rows(
            cell, clean_outcome, outcomes, some(validation_scores, ADAPTIVE_SCORES)
        ),
        "flags": _flags(
            Evidence(cell, rows[1:], clean_outcome, outcomes, probe or {}, training or {})
        ),
    }
    space = {
        "per_class": per_class,
        "geometry": geometry_rows(cell, reference, clean),
        "margins": margin_rows(cell, reference),
        "center_estimates": center_rows(cell, reference),
        "out_of_distribution": outside_rows(cell, stored, scores),
        "calibration": [row for row, _ in calibrated],
        "reliability": [each for _, bins in calibrated for each in bins],
    }
    tables = {"rows": rows, "detection": detection} | several | space
    return {name: TABLES[name].arrange(table) for name, table in tables.items()}


def _flags(evidence: Evidence) -> list[Row]:
    checks = (*RECORD_CHECKS, *(PROBE_CHECKS if evidence.probe else ()))
    return [found for check in checks for found in check(evidence)]
