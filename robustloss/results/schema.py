"""The tables of results.json: their columns, and the one order of their rows.

A table is a list of flat dicts with the columns below, in this order; None is null.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]

PLACE = ("loss", "label", "seed")  # of a cell
ROW_COLUMNS = (
    *(*PLACE, "attack", "attack_label", "norm", "eps", "n"),
    *("error", "error_low", "error_high", "attack_success_rate", "mean_max_posterior"),
    *("zero_gradient_fraction", "score", "auroc_all", "auroc_all_low", "auroc_all_high"),
    *(
        "auroc_successful",
        "auroc_successful_low",
        "auroc_successful_high",
        "n_successful",
        "auroc_noise",
    ),
    *("tpr_at_1fpr", "tpr_at_1fpr_successful", "tpr_at_5fpr", "tpr_at_5fpr_successful"),
    *("undetected_success_at_5fpr", "outside_fraction", "error_8bit"),
    *("balanced_error", "top5_error"),
)
DETECTION_COLUMNS = (
    *(*PLACE, "attack", "attack_label", "norm", "eps", "score", "population"),
    *("n_clean", "n_attacked", "auroc", "auroc_low", "auroc_high", "average_precision"),
    *("tpr_at_1fpr", "tpr_at_5fpr"),
    *("clean_rejected_at_95tpr", "equal_error_rate", "undetected_success_at_1fpr"),
    *("undetected_success_at_5fpr", "threshold_5fpr", "clean_rejected_fraction", "adapted"),
)
CALIBRATION_COLUMNS = (
    *(*PLACE, "attack", "attack_label", "norm", "eps", "n", "accuracy", "mean_confidence"),
    *("ece_equal_width", "ece_low", "ece_high", "ece_floor", "ece_floor_high", "ece_equal_mass"),
    *("brier", "nll", "temperature", "ece_after", "nll_after"),
)
RELIABILITY_COLUMNS = (
    *(*PLACE, "attack", "attack_label", "norm", "eps", "binning", "bin", "low", "high", "count"),
    *("mean_confidence", "accuracy"),
)
OUTSIDE_COLUMNS = (
    *(*PLACE, "outside", "outside_name", "score", "n_clean", "n_outside"),
    *("auroc", "auroc_low", "auroc_high", "average_precision", "tpr_at_1fpr", "tpr_at_5fpr"),
    *("clean_rejected_at_95tpr", "equal_error_rate", "caught_at_5fpr"),
)
WORST_CASE_COLUMNS = (
    *(*PLACE, "norm", "eps", "n", "attacks", "error", "error_low", "error_high"),
    *("strongest", "strongest_error"),
)
RADII_COLUMNS = (
    *(*PLACE, "attack", "attack_label", "norm", "n", "n_found", "median_radius"),
    *("eps_at_50_error", "area_under_error_curve", "eps_max"),
)
ADAPTIVE_COLUMNS = (
    *(*PLACE, "norm", "eps", "attack", "attack_label", "kind", "score", "adapted", "n"),
    *("auroc_all", "auroc_successful", "n_successful"),
    *("undetected_success_at_1fpr", "undetected_success_at_5fpr"),
    *("error", "error_with_rejection_at_1fpr", "error_with_rejection_at_5fpr"),
)
TRANSFER_COLUMNS = (
    *("seed", "source", "target", "attack", "attack_label", "norm", "eps", "n"),
    *("error", "error_low", "error_high", "target_clean_error"),
)
CROPS_COLUMNS = (
    *(*PLACE, "crops", "n", "top1_error", "top1_low", "top1_high"),
    *("top5_error", "top5_low", "top5_high"),
)
CLASS_COLUMNS = (
    *(*PLACE, "attack", "attack_label", "norm", "eps", "class_index", "n"),
    *("error", "error_low", "error_high", "predicted", "false_positives", "false_negatives"),
    "false_positive_rate",
)
GEOMETRY_COLUMNS = (
    *(*PLACE, "split", "n", "feature_dim", "norm_mean", "norm_p5", "norm_p95"),
    *("within_distance", "between_distance", "between_distance_min", "nearest_a", "nearest_b"),
    *("fisher_ratio", "within_angle_deg", "between_angle_deg", "between_angle_min_deg"),
    *("gradient_norm_mean", "gradient_norm_correlation"),
)
MARGIN_COLUMNS = (
    *(*PLACE, "class_a", "class_b", "length"),
    *("boundary", "boundary_a", "boundary_b", "margin"),
    *("closed_boundary", "closed_boundary_a", "closed_boundary_b", "closed_margin", "difference"),
)
CENTER_COLUMNS = (
    *(*PLACE, "batch_size", "images_per_class", "batch_mean_error", "expected_error"),
    *("centers_error", "within_distance"),
)
COMPARISON_COLUMNS = (
    *("unit", "seed", "label_a", "label_b", "attack", "attack_label", "norm", "eps", "metric"),
    *("n", "n_seeds", "value_a", "value_b", "difference", "low", "high", "test"),
    *("p_value", "p_adjusted", "shown", "minimum_detectable"),
)
RANK_COLUMNS = (
    *("unit", "seed", "attack", "attack_label", "norm", "eps", "metric", "label", "value"),
    *("rank", "rank_low", "rank_high", "n_losses"),
)
TRIAL_COLUMNS = (
    *(*PLACE, "trial", "settings", "chosen", "validation_error", "validation_loss", "n"),
    *("eps", "fgsm_error", "reason"),
)
FLAG_COLUMNS = ("check", *PLACE, "attack_label", "eps", "value", "threshold", "message")
SUMMARY_COLUMNS = (
    *("loss", "label", "attack", "attack_label", "norm", "eps", "metric", "n_seeds", "seeds"),
    *("values", "mean", "sd", "low", "high", "interval"),
)
_REST = (
    *("norm", "score", "population", "metric", "check", "stage", "reason", "source", "target"),
    *("split", "outside", "binning"),
)
_CLASSES = ("class_index", "class_a", "class_b", "bin")

WORST_CASE = {"attack": "worst_case", "attack_label": "worst case"}


def sort(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> list[Row]:
    """Rows of any table in their one order: label, seed, attack_label, eps, then the rest.

    Args:
        rows: flat dicts; a row read back from a checked file has its columns by alphabet.
        columns: that come first, in this order; further ones follow by alphabet.
    """

    def key(row: Mapping[str, Any]) -> tuple:
        texts = (str(row.get(name) or "") for name in _REST)
        classes = (row.get(name) or 0 for name in _CLASSES)
        label, seed, eps = row.get("label") or "", row.get("seed", 0), row.get("eps") or 0.0
        return label, seed, row.get("attack_label") or "", eps, *texts, *classes

    def ordered(row: Mapping[str, Any]) -> Row:
        first = [name for name in columns if name in row]
        return {name: row[name] for name in (*first, *sorted(row.keys() - set(first)))}

    return [ordered(row) for row in sorted(rows, key=key)]


RESULT_KEYS = {
    "name": str,
    "provenance": dict,
    "rows": list,
    "summary": list,
    "detection": list,
    "training": list,
    "worst_case": list,
    "flags": list,
    "failures": list,
}
LATER_KEYS = {
    "radii": list,
    "adaptive": list,
    "transfer": list,
    "crops": list,
    "per_class": list,
    "geometry": list,
    "margins": list,
    "center_estimates": list,
    "comparisons": list,
    "ranks": list,
    "trials": list,
    "out_of_distribution": list,
    "calibration": list,
    "reliability": list,
}  # older results lack them
ROW_KEYS = {"label", "seed", "attack", "attack_label", "eps", "n", "error"}

TABLES: dict[str, tuple[str, ...]] = {
    "rows": ROW_COLUMNS,
    "summary": SUMMARY_COLUMNS,
    "detection": DETECTION_COLUMNS,
    "worst_case": WORST_CASE_COLUMNS,
    "radii": RADII_COLUMNS,
    "adaptive": ADAPTIVE_COLUMNS,
    "transfer": TRANSFER_COLUMNS,
    "crops": CROPS_COLUMNS,
    "per_class": CLASS_COLUMNS,
    "geometry": GEOMETRY_COLUMNS,
    "margins": MARGIN_COLUMNS,
    "center_estimates": CENTER_COLUMNS,
    "out_of_distribution": OUTSIDE_COLUMNS,
    "calibration": CALIBRATION_COLUMNS,
    "reliability": RELIABILITY_COLUMNS,
    "comparisons": COMPARISON_COLUMNS,
    "ranks": RANK_COLUMNS,
    "trials": TRIAL_COLUMNS,
    "flags": FLAG_COLUMNS,
    "failures": (*PLACE, "stage", "reason"),
    "training": (*PLACE, "curve", "epochs", "seconds"),
}
# Columns that came to a table later: an older run lacks them.
LATER = frozenset(
    (
        *("auroc_all_low", "auroc_all_high", "auroc_successful_low", "auroc_successful_high"),
        *("auroc_noise", "auroc_low", "auroc_high", "equal_error_rate", "balanced_error"),
        *("top5_error", "error_8bit", "outside_fraction", "curve", "epochs", "seconds"),
    )
)
TEXT = frozenset(
    (
        *("loss", "label", "attack", "attack_label", "norm", "metric", "score", "population"),
        *("check", "message", "unit", "label_a", "label_b", "test", "outside", "outside_name"),
        *("binning", "split", "kind", "strongest", "interval", "stage", "reason", "source"),
        *("target", "precision", "note", "adversarial"),
    )
)
COUNTS = frozenset(
    (
        *("seed", "n", "n_seeds", "n_clean", "n_attacked", "n_outside", "n_found", "n_losses"),
        *("n_successful", "bin", "count", "class_index", "class_a", "class_b", "crops", "rank"),
        *("rank_low", "rank_high", "predicted", "false_positives", "false_negatives", "epochs"),
        *("steps", "parameters", "chosen_epoch", "trial", "peak_bytes", "processes"),
    )
)
FLAGS = frozenset(("shown", "adapted", "chosen"))
LISTS = frozenset(("seeds", "values", "attacks", "curve"))
# Whatever else stands in a table is a number; of these none may be null.
NEVER_NULL = frozenset(
    (
        *("loss", "label", "metric", "population", "check", "message", "unit", "label_a"),
        *("label_b", "outside", "binning", "split", "kind", "error", "error_low", "error_high"),
        *("n_seeds", "n_clean", "n_attacked", "n_outside", "n_losses", "bin", "count"),
        *("class_index", "class_a", "class_b", "crops", "rank", "rank_low", "rank_high"),
        *("seeds", "values", "attacks", "value_a", "value_b", "accuracy", "mean_confidence"),
        *("ece_equal_width", "ece_low", "ece_high", "ece_equal_mass", "brier", "nll", "length"),
        *("mean_max_posterior", "target_clean_error", "source", "target", "curve"),
    )
)
# null in one table, never in the others
MAY_BE_NULL = {
    ("flags", "label"), ("flags", "loss"), ("per_class", "error"), ("per_class", "error_low"),
    ("per_class", "error_high"), ("adaptive", "error"), ("failures", "loss"),
}  # fmt: skip
ALWAYS = {
    "rows": ("seed", "n", "eps", "attack", "attack_label"),
    "detection": ("seed", "eps", "attack", "attack_label", "score"),
    "worst_case": ("seed", "n", "eps"),
    "calibration": ("seed", "n", "eps", "attack_label"),
    "reliability": ("seed", "eps", "attack_label"),
    "comparisons": ("difference", "eps", "attack", "attack_label", "shown"),
    "ranks": ("eps", "attack", "attack_label", "value"),
    "out_of_distribution": ("seed", "score"),
    "per_class": ("seed", "n", "eps", "attack_label"),
    "geometry": ("seed",),
    "training": ("seed",),
    "trials": ("seed", "trial", "settings", "chosen"),
}
