"""Does the detector still notice when the attack knows it? Naive beside adaptive attacks.

The detector's worst case is over all of them: an image counts as noticed only if every copy of it
that fools the classifier is noticed, whatever attack made it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from robustloss.analysis.detection.separation import compare
from robustloss.analysis.outcomes import Outcome
from robustloss.metrics.rates import threshold_at_fpr
from robustloss.results.schema import ANY_ATTACK, AREAS, BEST_ADAPTIVE, Row, cell_place
from robustloss.spec.detection import LIKELIHOOD

SCORES = (LIKELIHOOD, "max_log_posterior")  # in the table whatever the attacks aim at
ENDS = ("", "_low", "_high")  # of a number and of its interval


def adaptive_rows(
    cell: Mapping[str, Any],
    clean: Outcome,
    outcomes: Sequence[Outcome],
    validation_scores: Mapping[str, np.ndarray],
) -> list[Row]:
    """Return detection and error with the option to reject, for each budget of an adaptive attack.

    Args:
        cell: "loss", "label" and "seed".
        clean: the clean pass, with its scores.
        outcomes: every attack at every eps, with their scores, of the same images in the same
            order.
        validation_scores: (V,) of clean validation images, by name of the score; they set the
            thresholds.

    Returns:
        Per norm, eps > 0 and score: the attacks that do not know the detector ("naive"), the
        adaptive ones, and image by image the best of the adaptive and of all attacks. Nothing
        without an adaptive attack. An adaptive attack stands under the score that it aims at, one
        on the likelihood under all `SCORES`. The best is over all, whatever they aim at.
    """
    rows = []
    for norm, eps in dict.fromkeys(
        (one.norm, one.eps) for one in outcomes if one.kind == "adaptive" and one.eps > 0
    ):
        here = [one for one in outcomes if (one.norm, one.eps) == (norm, eps)]
        kinds = [(one, "adaptive" if one.kind == "adaptive" else "naive") for one in here]
        adaptive = [one for one, kind in kinds if kind == "adaptive"]
        aims = {one.aim for one in adaptive}
        for score, validation in validation_scores.items():
            listed = [
                (one, kind)
                for one, kind in kinds
                if kind == "naive" or one.aim == score
                or (one.aim == LIKELIHOOD and score in SCORES)
            ]  # fmt: skip
            combined = [
                (find_best(some, score, name), name["attack"])
                for some, name in ((adaptive, BEST_ADAPTIVE), (here, ANY_ATTACK))
            ]
            for one, kind in (*listed, *combined):
                scores = one.scores[score]
                found = compare(~clean.wrong, one.wrong, clean.scores[score], scores, validation)
                all_, successful = found["all"], found["successful"]
                row = cell_place(cell) | {
                    "norm": norm,
                    "eps": eps,
                    "attack": one.attack,
                    "attack_label": one.attack_label,
                    "kind": kind,
                    "score": score,
                    "adapted": kind != "naive" and score in aims,
                    "n": one.wrong.size,
                    **{f"auroc_all{end}": all_[f"auroc{end}"] for end in ENDS},
                    "auroc_successful": successful["auroc"],
                    "n_successful": successful["n_attacked"],
                    **{name: all_[name] for name in AREAS},
                    "error": float(one.wrong.mean()),
                }
                for percent in (1, 5):
                    undetected = f"undetected_success_at_{percent}fpr"
                    row |= {f"{undetected}{end}": all_[f"{undetected}{end}"] for end in ENDS}
                    row[f"error_with_rejection_at_{percent}fpr"] = error_with_rejection(
                        one.wrong, scores, threshold_at_fpr(validation, percent / 100)
                    )
                rows.append(row)
    return rows


def find_best(outcomes: Sequence[Outcome], score: str, name: Mapping[str, str]) -> Outcome:
    """Return for each image what serves the adversary best: wrong, and then the highest score.

    The choice is best at every threshold at once: a wrong image with the highest score is the
    last to be rejected. An image that no attack makes wrong keeps its highest score. So an image
    of the result is wrong and accepted exactly where that of some attack is.

    Args:
        outcomes: A >= 1 attacks at one eps, of the same images in the same order.
        score: by which the detector judges.
        name: attack and attack_label of the result.

    Source: Granese et al., "MEAD: a multi-armed approach for evaluation of adversarial examples
        detectors" (ECML 2022).
    """
    wrong = np.stack([one.wrong for one in outcomes])
    scores = np.stack([one.scores[score] for one in outcomes])
    chosen = np.lexsort((scores, wrong), axis=0)[-1:]  # by wrong, then by score; the last is best
    accepted = [one.accepted for one in outcomes if one.accepted is not None]
    known = len(accepted) == len(outcomes)
    return replace(
        outcomes[0],
        attack=name["attack"],
        attack_label=name["attack_label"],
        wrong=np.take_along_axis(wrong, chosen, axis=0)[0],
        radius=None,
        scores={score: np.take_along_axis(scores, chosen, axis=0)[0]},
        accepted=np.take_along_axis(np.stack(accepted), chosen, axis=0)[0] if known else None,
        confidence=None,
        brier=None,
    )


def error_with_rejection(wrong: np.ndarray, scores: np.ndarray, threshold: float) -> float:
    """Return the share of all images that are classified wrongly and accepted.

    Unlike undetected success it counts clean mistakes too, and is over all images.

    Args:
        wrong: (N,) bool.
        scores: (N,); accepted is what has a score at the threshold or above.
        threshold: chosen on clean validation images.
    """
    return float(np.mean(wrong & (scores >= threshold)))
