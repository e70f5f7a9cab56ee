"""The numbers of one cell, from its records: the tables that cell.json carries."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from robustloss import metrics
from robustloss.adaptive import ADAPTED_SCORE, adaptive_rows
from robustloss.attack_kinds import attack_kind
from robustloss.bootstrap import draw_resamples
from robustloss.calibration import RESAMPLES, calibration_rows, fit_temperature
from robustloss.checks import Evidence
from robustloss.checks_probe import PROBE_CHECKS, check_probe
from robustloss.checks_records import RECORD_CHECKS
from robustloss.classes import balanced_error, class_rows, top5_error
from robustloss.columns import (
    ADAPTIVE_COLUMNS,
    CALIBRATION_COLUMNS,
    CENTER_COLUMNS,
    CLASS_COLUMNS,
    DETECTION_COLUMNS,
    FLAG_COLUMNS,
    GEOMETRY_COLUMNS,
    MARGIN_COLUMNS,
    OUTSIDE_COLUMNS,
    PLACE,
    RADII_COLUMNS,
    RELIABILITY_COLUMNS,
    ROW_COLUMNS,
    WORST_CASE_COLUMNS,
    Row,
    sort,
)
from robustloss.detection import (
    SCORES,
    against,
    check_same_images,
    compare,
    number,
    separation,
)
from robustloss.geometry import center_rows, geometry_rows, margin_rows
from robustloss.metrics import threshold_at_fpr
from robustloss.outcomes import outcome
from robustloss.records import LazyRecords, Record, clean_pass
from robustloss.scored import CLEAN, VALIDATION, Pass, StoredScores, compute_scores
from robustloss.statistics import wilson
from robustloss.worst_case import radii_rows, worst_case_rows

ROW_SCORE = "class_log_likelihood"  # the score of the detection columns of `rows`: the paper's
ADAPTIVE_SCORES = (ROW_SCORE, "max_log_posterior")  # of the table of adaptive attacks
_CLEAN = ("none", 0.0)  # attack_label and eps of the clean pass


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
        stored = _scored(records, reference, cell, scores, noise or {}, outside or {})
    fitted = stored.names
    validation_scores = {name: stored.get(name, VALIDATION) for name in fitted}
    clean_scores = {name: stored.get(name, CLEAN) for name in fitted}
    clean = records[_CLEAN]
    entries = [e for e in cell["files"]["records"] if _key(e) != _CLEAN]
    adaptive = any(attack_kind(entry["attack"]) == "adaptive" for entry in entries)
    kept = ADAPTIVE_SCORES if adaptive else ()  # the scores of every record take room
    rows, detection = [_row(cell, _CLEAN_ENTRY, clean)], []
    per_class = class_rows(clean, _place(cell, _CLEAN_ENTRY))
    outcomes = []
    known = clean_pass(reference)
    cooled = fit_temperature(known.logits, known.labels) if temperature else None
    drawn = draw_resamples(clean.n, RESAMPLES)
    calibrated = [
        calibration_rows(_place(cell, _CLEAN_ENTRY), clean, resamples=drawn, temperature=cooled)
    ]
    for entry in entries:
        record = records[_key(entry)]
        check_same_images(clean, record)
        own = {name: stored.get(name, Pass("attacked", *_key(entry))) for name in fitted}
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
        control = Pass("noise", *_key(entry))
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
        rows.append(_row(cell, entry, record, clean, found[ROW_SCORE]))
        detection += _detection_rows(
            cell, entry, {name: found[name] for name in scores if name in found}
        )
        per_class += class_rows(record, _place(cell, entry))
        if entry["eps"] > 0:  # at 0 it is the clean pass
            calibrated.append(
                calibration_rows(_place(cell, entry), record, resamples=drawn, temperature=cooled)
            )
        outcomes.append(outcome(entry, record, _some(own, kept)))
    clean_outcome = outcome(_CLEAN_ENTRY, clean, _some(clean_scores, kept))
    several = {
        "worst_case": worst_case_rows(cell, clean_outcome, outcomes),
        "radii": radii_rows(cell, clean_outcome, outcomes),
        "adaptive": adaptive_rows(
            cell, clean_outcome, outcomes, _some(validation_scores, ADAPTIVE_SCORES)
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
        "out_of_distribution": _outside_rows(cell, stored, scores),
        "calibration": [row for row, _ in calibrated],
        "reliability": [each for _, bins in calibrated for each in bins],
    }
    tables = {"rows": rows, "detection": detection} | several | space
    return {name: sort(table, _COLUMNS[name]) for name, table in tables.items()}


_COLUMNS = {
    "rows": ROW_COLUMNS,
    "detection": DETECTION_COLUMNS,
    "worst_case": WORST_CASE_COLUMNS,
    "radii": RADII_COLUMNS,
    "adaptive": ADAPTIVE_COLUMNS,
    "flags": FLAG_COLUMNS,
    "per_class": CLASS_COLUMNS,
    "geometry": GEOMETRY_COLUMNS,
    "margins": MARGIN_COLUMNS,
    "center_estimates": CENTER_COLUMNS,
    "out_of_distribution": OUTSIDE_COLUMNS,
    "calibration": CALIBRATION_COLUMNS,
    "reliability": RELIABILITY_COLUMNS,
}

_CLEAN_ENTRY = {"attack": "none", "attack_label": "none", "norm": None, "eps": 0.0}


def _row(
    cell: Mapping[str, Any],
    entry: Mapping[str, Any],
    record: Record,
    clean: Record | None = None,
    found: Mapping[str, Mapping[str, Any]] | None = None,
) -> Row:
    wrong = int((~record.correct).sum())
    low, high = wilson(wrong, record.n)
    row = _place(cell, entry) | {
        "n": record.n,
        "error": wrong / record.n,
        "error_low": low,
        "error_high": high,
        "balanced_error": balanced_error(record),
        "top5_error": top5_error(record),
        "mean_max_posterior": float(np.exp(metrics.max_log_posterior(record.logits)).mean()),
    }
    if clean is not None and found is not None:
        row |= _attack_columns(record, clean, found["all"], found["successful"])
        row["auroc_noise"] = found.get("noise", {}).get("auroc")
    return dict.fromkeys(ROW_COLUMNS) | row


def _attack_columns(
    record: Record, clean: Record, all_: Mapping[str, Any], successful: Mapping[str, Any]
) -> Row:
    rate = metrics.attack_success_rate(clean.predictions, record.predictions, clean.labels)
    return {
        "attack_success_rate": number(rate),
        "zero_gradient_fraction": _share(record.zero_gradient),
        "score": ROW_SCORE,
        "auroc_all": all_["auroc"],
        "auroc_all_low": all_["auroc_low"],
        "auroc_all_high": all_["auroc_high"],
        "auroc_successful": successful["auroc"],
        "auroc_successful_low": successful["auroc_low"],
        "auroc_successful_high": successful["auroc_high"],
        "n_successful": successful["n_attacked"],
        "tpr_at_1fpr": all_["tpr_at_1fpr"],
        "tpr_at_1fpr_successful": successful["tpr_at_1fpr"],
        "tpr_at_5fpr": all_["tpr_at_5fpr"],
        "tpr_at_5fpr_successful": successful["tpr_at_5fpr"],
        "undetected_success_at_5fpr": all_["undetected_success_at_5fpr"],
        "outside_fraction": _share(record.outside),
        "error_8bit": _share(_wrong_8bit(record)),
    }


# Of a deployed detector and successful attacks: noise has no success that could go unnoticed.
_DEPLOYED = ("undetected_success_at_1fpr", "undetected_success_at_5fpr", "threshold_5fpr")


def score_names(scores: Sequence[str]) -> tuple[str, ...]:
    """The scores that a cell needs for a spec's: the row score comes first."""
    return (ROW_SCORE, *(score for score in scores if score != ROW_SCORE))


def passes_of(
    records: Mapping[tuple[str, float], Record],
    reference: Mapping[str, np.ndarray],
    noise: Mapping[tuple[str, float], Record],
    outside: Mapping[str, Record],
) -> Mapping[Pass, Record]:
    """The records of a cell by what they are passes of, its validation images first.

    Each is looked up when it is asked for; a control that is not of the test images is refused
    then, with a ValueError.
    """
    clean = records[_CLEAN]

    def control(key: tuple[str, float]) -> Record:
        found = noise[key]
        check_same_images(clean, found)
        return found

    makers: dict[Pass, Callable[[], Record]] = {
        VALIDATION: partial(clean_pass, reference),
        CLEAN: lambda: clean,
    }
    makers |= {
        Pass("attacked", *k): partial(records.__getitem__, k) for k in records if k != _CLEAN
    }
    makers |= {Pass("noise", *key): partial(control, key) for key in noise}
    makers |= {Pass("outside", label): partial(outside.__getitem__, label) for label in outside}
    return LazyRecords(makers)


def _scored(
    records: Mapping[tuple[str, float], Record],
    reference: Mapping[str, np.ndarray],
    cell: Mapping[str, Any],
    scores: Sequence[str],
    noise: Mapping[tuple[str, float], Record],
    outside: Mapping[str, Record],
) -> StoredScores:
    return compute_scores(
        score_names(scores),
        reference,
        passes_of(records, reference, noise, outside),
        density=bool(cell.get("density")),
        name=f"{cell['label']} seed {cell['seed']}",
    )


def _some(scores: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: scores[name] for name in names if name in scores}


def _share(flags: np.ndarray | None) -> float | None:
    return None if flags is None else float(flags.mean())


def _wrong_8bit(record: Record) -> np.ndarray | None:
    predictions = record.predictions_8bit
    return None if predictions is None else predictions != record.labels


def _detection_rows(
    cell: Mapping[str, Any], entry: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]
) -> list[Row]:
    adaptive = attack_kind(entry["attack"]) == "adaptive"
    return [
        _place(cell, entry)
        | {"score": score, "population": population}
        | dict.fromkeys(_DEPLOYED)
        | numbers[population]
        | {"adapted": score == ADAPTED_SCORE if adaptive else None}
        for score, numbers in found.items()
        for population in numbers
    ]


def _outside_rows(
    cell: Mapping[str, Any], stored: StoredScores, scores: Sequence[str]
) -> list[Row]:
    names = {e["label"]: e["name"] for e in cell["files"].get("outside", ())}
    place = {name: cell[name] for name in PLACE}
    return [
        place
        | {"outside": which.label, "outside_name": names.get(which.label, ""), "score": score}
        | against(
            stored.get(score, CLEAN),
            stored.get(score, which),
            threshold_at_fpr(stored.get(score, VALIDATION), 0.05),
        )
        for score in scores
        if score in stored.names
        for which in stored.passes("outside")
    ]


def _flags(evidence: Evidence) -> list[Row]:
    checks = (*RECORD_CHECKS, *(PROBE_CHECKS if evidence.probe else ()))
    return [found for check in checks for found in check(evidence)]


def _place(cell: Mapping[str, Any], entry: Mapping[str, Any]) -> Row:
    return {name: cell[name] for name in PLACE} | {
        "attack": entry["attack"],
        "attack_label": entry["attack_label"],
        "norm": entry["norm"],
        "eps": float(entry["eps"]),
    }


def _key(entry: Mapping[str, Any]) -> tuple[str, float]:
    return entry["attack_label"], float(entry["eps"])
