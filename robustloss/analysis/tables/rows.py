"""Table rows: error, posterior, confidence and detection of one pass."""

import numpy as np

from robustloss.analysis.detection.adaptive import ENDS
from robustloss.analysis.detection.compute import ROW_SCORE
from robustloss.analysis.outcomes import error_columns, flagged_share
from robustloss.analysis.tables.classes import balanced_error, top5_error
from robustloss.analysis.tables.measured import MeasuredPass
from robustloss.metrics import rates
from robustloss.results.schema import AREAS, TABLES, Row, finite_or_null


def pass_row(one: MeasuredPass, clean: MeasuredPass) -> Row:
    """Return the row of one pass; for the clean pass the columns about an attack are null.

    Args:
        one: clean or attacked.
        clean: the clean pass of the same images.
    """
    record, separation = one.record, one.separation[ROW_SCORE]
    row = dict.fromkeys(TABLES["rows"].names) | one.place | error_columns(one.outcome.wrong)
    row |= {
        "balanced_error": balanced_error(record),
        "top5_error": top5_error(record),
        "mean_max_posterior": float(np.exp(rates.max_log_posterior(record.logits)).mean()),
    }
    areas = separation["clean" if one is clean else "all"]
    row |= {"score": ROW_SCORE} | {name: areas[name] for name in AREAS}
    if one is clean:
        return row
    all_, successful = separation["all"], separation["successful"]
    success = rates.attack_success_rate(clean.record.predictions, record.predictions, record.labels)
    rounded = record.predictions_8bit
    row |= {
        "error_noise": flagged_share(one.outcome.noise_wrong),
        "attack_success_rate": finite_or_null(success),
        "zero_gradient_fraction": one.outcome.zero_gradient_fraction,
        "outside_fraction": one.outcome.outside_fraction,
        "error_8bit": flagged_share(None if rounded is None else rounded != record.labels),
        "n_successful": successful["n_attacked"],
        "auroc_noise": separation.get("noise", {}).get("auroc"),
    }
    for end in ENDS:
        undetected = f"undetected_success_at_5fpr{end}"
        row |= {undetected: all_[undetected]}
        row |= {f"auroc_all{end}": all_[f"auroc{end}"]}
        row |= {f"auroc_successful{end}": successful[f"auroc{end}"]}
    for rate in ("tpr_at_1fpr", "tpr_at_5fpr"):
        row |= {rate: all_[rate], f"{rate}_successful": successful[rate]}
    return row
