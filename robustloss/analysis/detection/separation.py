"""Does a score tell attacked images from clean ones? Every number names its population."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from robustloss.analysis.detection.scores import FITTED, PLAIN
from robustloss.metrics import rates
from robustloss.metrics.auroc_interval import auroc_interval
from robustloss.results.records import Record
from robustloss.spec.detection import SCORE_NAMES

POPULATIONS = ("all", "successful", "failed")
SCORES: dict[str, Callable[..., Any]] = {name: (PLAIN | FITTED)[name] for name in SCORE_NAMES}


def detect(
    clean: Record,
    attacked: Record,
    validation_scores: np.ndarray,
    score: Callable[[Record], np.ndarray],
) -> dict[str, dict[str, int | float | None]]:
    """Detection numbers of one score, for each population.

    "all" sets every attacked image against every clean one; failed attacks look clean and
    lower it, so a robust model looks worse. "successful" sets the images that were correct and
    now are wrong against all that were initially correct; "failed" the images that were correct and
    still are, against the same: what of an attack is seen even where it fooled nobody.

    AUROC, average precision and the points of the ROC curve use no threshold; the numbers of a
    deployed detector, `undetected_success_at_1fpr`, `undetected_success_at_5fpr` and
    `clean_rejected_fraction` (at 5 %), use thresholds chosen on clean validation scores.

    Args:
        clean: the images before the attack.
        attacked: the same images, in the same order, after it.
        validation_scores: (V,) of clean validation images.
        score: a function of a Record, such as `scores.build_scores` gives.

    Returns:
        By population, by name; None where a side is empty (no attack succeeded).
        `undetected_success_at_*` is over the initially correct images, hence the same for
        both, and 0 where nothing succeeded.

    Raises:
        ValueError: the records are not of the same images, or a score is NaN.
    """
    check_same_images(clean, attacked)
    return compare(
        clean.correct, ~attacked.correct, score(clean), score(attacked), validation_scores
    )


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
) -> dict[str, dict[str, int | float | None]]:
    """`detect` from scores that are there already.

    Args:
        correct: (N,) bool, the clean image is classified correctly.
        wrong: (N,) bool, the attacked image is classified wrongly.
        clean_scores: (N,).
        attacked_scores: (N,) of the same images in the same order.
        validation_scores: (V,) of clean validation images.
    """
    successful = correct & wrong
    threshold = rates.threshold_at_fpr(validation_scores, 0.05)
    deployed = {"threshold_5fpr": number(threshold)}
    for percent in (1, 5):
        deployed[f"undetected_success_at_{percent}fpr"] = number(
            rates.undetected_success(
                correct,
                wrong,
                attacked_scores,
                rates.threshold_at_fpr(validation_scores, percent / 100),
            )
        )
    everybody = np.ones_like(correct)
    sides = {
        "all": (everybody, everybody),
        "successful": (correct, successful),
        "failed": (correct, correct & ~wrong),
    }
    return {
        population: separation(clean_scores, attacked_scores, *sides[population], threshold)
        | deployed
        for population in POPULATIONS
    }


def separation(
    clean_scores: np.ndarray,
    attacked_scores: np.ndarray,
    clean_side: np.ndarray,
    attacked_side: np.ndarray,
    threshold: float,
) -> dict[str, int | float | None]:
    """How well a score separates two sets of passes over the same N images.

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
    area = auroc_interval(clean, attacked, on_clean, on_attacked)
    return {
        "n_clean": clean.size,
        "n_attacked": attacked.size,
        "auroc": number(area.auroc),
        "auroc_low": number(area.low),
        "auroc_high": number(area.high),
        "average_precision": number(rates.average_precision(clean, attacked)),
        "tpr_at_1fpr": number(rates.tpr_at_fpr(clean, attacked, 0.01)),
        "tpr_at_5fpr": number(rates.tpr_at_fpr(clean, attacked, 0.05)),
        "clean_rejected_at_95tpr": number(rates.clean_rejected_at_tpr(clean, attacked, 0.95)),
        "equal_error_rate": number(rates.equal_error_rate(clean, attacked)),
        "clean_rejected_fraction": number(rates.rejected_fraction(clean, threshold)),
    }


def against(
    clean_scores: np.ndarray, other_scores: np.ndarray, threshold: float
) -> dict[str, int | float | None]:
    """How well a score separates other images, which nobody attacked, from clean ones.

    Args:
        clean_scores: (N,).
        other_scores: (M,) of images that are not of the data; higher is more typical of clean.
        threshold: scores below it are rejected.

    Returns:
        By name; no image is in both sets, so the AUROC's interval takes all as independent.
    """
    area = auroc_interval(clean_scores, other_scores)
    points = (clean_scores, other_scores)
    return {
        "n_clean": clean_scores.size,
        "n_outside": other_scores.size,
        "auroc": number(area.auroc),
        "auroc_low": number(area.low),
        "auroc_high": number(area.high),
        "average_precision": number(rates.average_precision(*points)),
        "tpr_at_1fpr": number(rates.tpr_at_fpr(*points, 0.01)),
        "tpr_at_5fpr": number(rates.tpr_at_fpr(*points, 0.05)),
        "clean_rejected_at_95tpr": number(rates.clean_rejected_at_tpr(*points, 0.95)),
        "equal_error_rate": number(rates.equal_error_rate(*points)),
        "caught_at_5fpr": number(rates.rejected_fraction(other_scores, threshold)),
    }


def number(value: float) -> float | None:
    """A number as results.json holds it: null for what does not exist or is not finite."""
    return value if math.isfinite(value) else None
