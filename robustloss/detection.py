"""Does a score tell attacked images from clean ones? Every number names its population."""

import math
from collections.abc import Callable

import numpy as np

from robustloss import metrics
from robustloss.records import Record

POPULATIONS = ("all", "successful")


def class_log_likelihood(record: Record) -> np.ndarray:
    """(N,) float64 log-likelihood of the features under the *predicted* class, nats.

    The paper plots its exp; the logarithm has the same ranks and does not underflow. A loss
    without a density gives the logit of the predicted class.

    Source: Wan et al. 2018, Figure 4.
    """
    values = np.asarray(record.class_log_likelihood, dtype=np.float64)
    return np.take_along_axis(values, record.predictions[:, None], axis=1)[:, 0]


def max_log_posterior(record: Record) -> np.ndarray:
    """(N,) float64 log of the largest posterior, nats.

    Source: maximum softmax probability (Hendrycks and Gimpel 2017), kept in the log domain
    because float32 posteriors are exactly 1 from a logit gap of about 17.
    """
    return metrics.max_log_posterior(record.logits)


SCORES: dict[str, Callable[[Record], np.ndarray]] = {
    "class_log_likelihood": class_log_likelihood,
    "max_log_posterior": max_log_posterior,
}


def detect(
    clean: Record,
    attacked: Record,
    validation_scores: np.ndarray,
    score: Callable[[Record], np.ndarray],
) -> dict[str, dict[str, int | float | None]]:
    """Detection numbers of one score, for each population.

    "all" sets every attacked image against every clean one; failed attacks look clean and
    lower it, so a robust model looks worse. "successful" sets the images that were correct and
    now are wrong against all that were initially correct. AUROC, average precision and the
    points of the ROC curve use no threshold; the numbers of a deployed detector,
    `undetected_success_at_1fpr`, `undetected_success_at_5fpr` and `clean_rejected_fraction` (at
    5 %), use thresholds chosen on clean validation scores.

    Args:
        clean: the images before the attack.
        attacked: the same images, in the same order, after it.
        validation_scores: (V,) of clean validation images.
        score: a value of `SCORES`.

    Returns:
        By population, by name; None where a side is empty (no attack succeeded).
        `undetected_success_at_*` is over the initially correct images, hence the same for
        both, and 0 where nothing succeeded.

    Raises:
        ValueError: the records are not of the same images, or a score is NaN.
    """
    for name in ("index", "labels"):
        if not np.array_equal(getattr(clean, name), getattr(attacked, name)):
            raise ValueError(
                f"{name} of the clean and of the attacked record differ: both must hold the same "
                "images in the same order."
            )
    return compare(
        clean.correct, ~attacked.correct, score(clean), score(attacked), validation_scores
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
    threshold = metrics.threshold_at_fpr(validation_scores, 0.05)
    deployed = {"threshold_5fpr": number(threshold)}
    for percent in (1, 5):
        deployed[f"undetected_success_at_{percent}fpr"] = number(
            metrics.undetected_success(
                correct,
                wrong,
                attacked_scores,
                metrics.threshold_at_fpr(validation_scores, percent / 100),
            )
        )
    sides = {
        "all": (clean_scores, attacked_scores),
        "successful": (clean_scores[correct], attacked_scores[successful]),
    }
    return {
        population: _numbers(*sides[population], threshold) | deployed for population in POPULATIONS
    }


def _numbers(
    clean: np.ndarray, attacked: np.ndarray, threshold: float
) -> dict[str, int | float | None]:
    return {
        "n_clean": clean.size,
        "n_attacked": attacked.size,
        "auroc": number(metrics.auroc(clean, attacked)),
        "average_precision": number(metrics.average_precision(clean, attacked)),
        "tpr_at_1fpr": number(metrics.tpr_at_fpr(clean, attacked, 0.01)),
        "tpr_at_5fpr": number(metrics.tpr_at_fpr(clean, attacked, 0.05)),
        "clean_rejected_at_95tpr": number(metrics.clean_rejected_at_tpr(clean, attacked, 0.95)),
        "clean_rejected_fraction": number(metrics.rejected_fraction(clean, threshold)),
    }


def number(value: float) -> float | None:
    """A number as results.json holds it: null for what does not exist or is not finite."""
    return value if math.isfinite(value) else None
