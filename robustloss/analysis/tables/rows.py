"""Table rows: error, posterior, confidence per eps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robustloss.analysis.detection.compute import ROW_SCORE
from robustloss.analysis.detection.separation import number
from robustloss.analysis.tables.classes import balanced_error, top5_error
from robustloss.metrics import rates
from robustloss.metrics.intervals import wilson
from robustloss.results.records import Record
from robustloss.results.schema import PLACE, TABLES, Row

CLEAN_ENTRY = {"attack": "none", "attack_label": "none", "norm": None, "eps": 0.0}


def pass_row(
    cell: Mapping[str, Any],
    entry: Mapping[str, Any],
    record: Record,
    clean: Record | None = None,
    found: Mapping[str, Mapping[str, Any]] | None = None,
) -> Row:
    """The row of one pass; the columns of the attack are null where it has none."""
    wrong = int((~record.correct).sum())
    low, high = wilson(wrong, record.n)
    row = place_of(cell, entry) | {
        "n": record.n,
        "error": wrong / record.n,
        "error_low": low,
        "error_high": high,
        "balanced_error": balanced_error(record),
        "top5_error": top5_error(record),
        "mean_max_posterior": float(np.exp(rates.max_log_posterior(record.logits)).mean()),
    }
    if clean is not None and found is not None:
        row |= _attack_columns(record, clean, found["all"], found["successful"])
        row["auroc_noise"] = found.get("noise", {}).get("auroc")
    return dict.fromkeys(TABLES["rows"].names) | row


def _attack_columns(
    record: Record, clean: Record, all_: Mapping[str, Any], successful: Mapping[str, Any]
) -> Row:
    rate = rates.attack_success_rate(clean.predictions, record.predictions, clean.labels)
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


def some(scores: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named scores, as far as they are there."""
    return {name: scores[name] for name in names if name in scores}


def _share(flags: np.ndarray | None) -> float | None:
    return None if flags is None else float(flags.mean())


def _wrong_8bit(record: Record) -> np.ndarray | None:
    predictions = record.predictions_8bit
    return None if predictions is None else predictions != record.labels


def place_of(cell: Mapping[str, Any], entry: Mapping[str, Any]) -> Row:
    """The columns that say of which cell and pass a row is."""
    return {name: cell[name] for name in PLACE} | {
        "attack": entry["attack"],
        "attack_label": entry["attack_label"],
        "norm": entry["norm"],
        "eps": float(entry["eps"]),
    }


def key_of(entry: Mapping[str, Any]) -> tuple[str, float]:
    """The attack label and eps by which the record of an entry is found."""
    return entry["attack_label"], float(entry["eps"])
