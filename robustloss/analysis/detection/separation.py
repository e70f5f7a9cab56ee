"""Does a score separate attacked images from clean ones? Every number names its population."""

import math

import numpy as np

from robustloss.metrics import intervals, rates
from robustloss.metrics.auroc_interval import auroc_interval
from robustloss.metrics.risk_coverage import estimate_areas
from robustloss.results.records import Record
from robustloss.results.schema import finite_or_null

Numbers = dict[str, int | float | None]


def check_same_images(clean: Record, attacked: Record) -> None:
    """Refuse two records that are not of the same images in the same order."""
    for name in ("index", "labels"):
        if not np.array_equal(getattr(clean, name), getattr(attacked, name)):
            raise ValueError(
                f"{name} of the clean and of the attacked record differ: both must hold the same "
                "images in the same order."
            )


def compare(
    correct: np.ndarray,
    wrong: np.ndarray,
    clean_scores: np.ndarray,
    attacked_scores: np.ndarray,
    validation_scores: np.ndarray,
) -> dict[str, Numbers]:
    """Return the detection numbers of one score, for each population.

    "all" sets every attacked image against every clean one; failed attacks look clean and
    lower it, so a robust model looks worse. "successful" sets the images that were correct and
    now are wrong against all that were initially correct; "failed" the images that were correct and
    still are, against the same: what of an attack is seen even where it fooled nobody.

    AUROC, average precision and the points of the ROC curve use no threshold; the numbers of a
    deployed detector, `undetected_success_at_1fpr`, `undetected_success_at_5fpr` and
    `clean_rejected_fraction` (at 5 %), use thresholds chosen on clean validation scores.

    "all" has the areas under risk against coverage too, over the clean and the attacked images
    together. Of the attacked images alone they would say nothing of a score where an attack fools
    the model on every image: what a detector is for is to rank the clean ones before them.

    Args:
        correct: (N,) bool, the clean image is classified correctly.
        wrong: (N,) bool, the attacked image is classified wrongly.
        clean_scores: (N,).
        attacked_scores: (N,) of the same images in the same order.
        validation_scores: (V,) of clean validation images.

    Returns:
        By population, by name; None where a side is empty (no attack succeeded).
        `undetected_success_at_*` is over the initially correct images, hence the same for
        all, and 0 where nothing succeeded.

    Raises:
        ValueError: a score is NaN.
    """
    threshold = rates.threshold_at_fpr(validation_scores, 0.05)
    deployed = {"threshold_5fpr": finite_or_null(threshold)}
    n = int(correct.sum())
    for percent in (1, 5):
        limit = rates.threshold_at_fpr(validation_scores, percent / 100)
        share = rates.undetected_success(correct, wrong, attacked_scores, limit)
        low, high = intervals.wilson(round(share * n), n) if n else (math.nan, math.nan)
        for end, value in (("", share), ("_low", low), ("_high", high)):
            deployed[f"undetected_success_at_{percent}fpr{end}"] = finite_or_null(value)
    everybody = np.ones_like(correct)
    sides = {
        "all": (everybody, everybody),
        "successful": (correct, correct & wrong),
        "failed": (correct, correct & ~wrong),
    }
    found = {
        population: compare_sides(clean_scores, attacked_scores, *side, threshold) | deployed
        for population, side in sides.items()
    }
    found["all"] |= area_columns(
        np.concatenate([clean_scores, attacked_scores]),
        np.concatenate([~correct, wrong]),
        np.tile(np.arange(correct.size), 2),
    )
    return found


def area_columns(scores: np.ndarray, wrong: np.ndarray, index: np.ndarray | None = None) -> Numbers:
    """Return AUGRC and AURC with their intervals, by name of the column.

    Args:
        scores: (M,) higher is accepted earlier.
        wrong: (M,) bool.
        index: (M,) of which image each is; None where each is of another image.
    """
    return {
        f"{name}{end}": value
        for name, estimate in estimate_areas(scores, wrong, index)._asdict().items()
        for end, value in zip(("", "_low", "_high"), estimate[:3], strict=True)
    }


def compare_sides(
    clean_scores: np.ndarray,
    attacked_scores: np.ndarray,
    clean_side: np.ndarray,
    attacked_side: np.ndarray,
    threshold: float,
) -> Numbers:
    """Return how well a score separates two sets of passes over the same N images.

    Args:
        clean_scores: (N,).
        attacked_scores: (N,) of the same images, attacked or with noise.
        clean_side: (N,) bool, images that count on the clean side.
        attacked_side: (N,) bool, likewise.
        threshold: scores below it are rejected.

    Returns:
        By name; the AUROC's interval has the image as its unit, see `auroc_interval`.
    """
    on_clean, on_attacked = np.flatnonzero(clean_side), np.flatnonzero(attacked_side)
    clean, attacked = clean_scores[on_clean], attacked_scores[on_attacked]
    rejected = rates.rejected_fraction(clean, threshold)
    return {
        "n_clean": clean.size,
        "n_attacked": attacked.size,
        **_curve_numbers(clean, attacked, on_clean, on_attacked),
        "clean_rejected_fraction": finite_or_null(rejected),
    }


def compare_outside(
    clean_scores: np.ndarray, other_scores: np.ndarray, threshold: float
) -> Numbers:
    """Return how well a score separates other images, which nobody attacked, from clean ones.

    Args:
        clean_scores: (N,).
        other_scores: (M,) of images that are not of the data; higher is more typical of clean.
        threshold: scores below it are rejected.

    Returns:
        By name; no image is in both sets, so the AUROC's interval takes all as independent.
    """
    caught = rates.rejected_fraction(other_scores, threshold)
    return {
        "n_clean": clean_scores.size,
        "n_outside": other_scores.size,
        **_curve_numbers(clean_scores, other_scores),
        "caught_at_5fpr": finite_or_null(caught),
    }


def _curve_numbers(
    clean: np.ndarray,
    others: np.ndarray,
    clean_index: np.ndarray | None = None,
    others_index: np.ndarray | None = None,
) -> Numbers:
    """Return what the ROC curve says; the index of a score says which image it is of."""
    area = auroc_interval(clean, others, clean_index, others_index)
    numbers = {
        "auroc": area.auroc,
        "auroc_low": area.low,
        "auroc_high": area.high,
        "average_precision": rates.average_precision(clean, others),
        "tpr_at_1fpr": rates.tpr_at_fpr(clean, others, 0.01),
        "tpr_at_5fpr": rates.tpr_at_fpr(clean, others, 0.05),
        "clean_rejected_at_95tpr": rates.clean_rejected_at_tpr(clean, others, 0.95),
        "equal_error_rate": rates.equal_error_rate(clean, others),
    }
    return {name: finite_or_null(value) for name, value in numbers.items()}
