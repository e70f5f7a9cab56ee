"""Adaptive beside naive attacks: best per image by a slow loop, rejection by hand, nulls."""

from dataclasses import replace

import numpy as np
import pytest

from robustloss.analysis.detection.adaptive import adaptive_rows, error_with_rejection, find_best
from robustloss.analysis.tables.worst_case import worst_case_rows
from robustloss.metrics import rates
from robustloss.metrics.auroc_interval import auroc_interval
from robustloss.metrics.intervals import wilson
from robustloss.results.schema import AREAS, BEST_ADAPTIVE, TABLES
from tests.outcomes import CELL, made

SCORE = "class_log_likelihood"
COMBINED = ("best of adaptive", "any attack")


def slow_best(outcomes, score):
    """Image by image: among the wrong the highest score, and without any among all."""
    wrong, scores = [], []
    for i in range(len(outcomes[0].wrong)):
        choice = None
        for one in outcomes:
            here = bool(one.wrong[i]), float(one.scores[score][i])
            if choice is None or here > choice:
                choice = here
        wrong.append(choice[0])
        scores.append(choice[1])
    return wrong, scores


@pytest.mark.parametrize("count", [1, 2, 4])
def test_best_of_adaptive_is_that_of_a_slow_loop(count):
    rng = np.random.default_rng(count)
    outcomes = [
        made(f"adaptive_{k}", 0.1, rng.random(60) < 0.5, scores={SCORE: rng.integers(-4, 4, 60)})
        for k in range(count)
    ]
    outcomes[0].scores[SCORE][:5] = -np.inf  # a likelihood may be
    best = find_best(outcomes, SCORE, BEST_ADAPTIVE)
    wrong, scores = slow_best(outcomes, SCORE)
    np.testing.assert_array_equal(best.wrong, wrong)
    np.testing.assert_array_equal(best.scores[SCORE], scores)
    assert (best.attack, best.attack_label) == ("best_of_adaptive", "best of adaptive")


def test_best_of_adaptive_is_at_least_each_at_every_threshold():
    rng = np.random.default_rng(0)
    outcomes = [
        made(f"adaptive_{k}", 0.1, rng.random(80) < 0.4, scores={SCORE: rng.normal(size=80)})
        for k in range(3)
    ]
    best = find_best(outcomes, SCORE, BEST_ADAPTIVE)
    for threshold in np.linspace(-3, 3, 25):
        passed = error_with_rejection(best.wrong, best.scores[SCORE], threshold)
        assert passed >= max(
            error_with_rejection(one.wrong, one.scores[SCORE], threshold) for one in outcomes
        )


def test_error_with_rejection_by_hand():
    wrong = np.array([True, True, True, False])
    scores = np.array([3.0, 2.0, 1.0, 9.0])
    assert error_with_rejection(wrong, scores, 2.0) == 0.5  # a score at the threshold is accepted
    assert error_with_rejection(wrong, scores, -np.inf) == wrong.mean()  # rejecting nothing
    assert error_with_rejection(wrong, scores, np.inf) == 0


# three images correct, the last wrong from the start
CLEAN = made(wrong=[False, False, False, True], scores={SCORE: [4, 3, 2, 1], "other": [4, 3, 2, 1]})
NAIVE = made(
    "fgsm", 0.1, [True, True, False, True], label="FGSM",
    scores={SCORE: [-9, -9, 2, 1], "other": [5, 5, 5, 5]},
)  # fmt: skip
JOINT = made(
    "adaptive_joint", 0.1, [True, False, False, True], label="joint",
    scores={SCORE: [3.5, 3, 2, 1], "other": [0, 0, 0, 0]},
)  # fmt: skip
MATCHING = made(
    "adaptive_matching", 0.1, [True, True, False, True], label="matching",
    scores={SCORE: [3, 2.5, 2, -9], "other": [1, 1, 1, 1]},
)  # fmt: skip
VALIDATION = {SCORE: np.arange(200.0) / 100, "other": np.arange(200.0)}


def found(outcomes, validation=VALIDATION):
    rows = adaptive_rows(CELL, CLEAN, outcomes, validation)
    return {(row["norm"], row["eps"], row["score"], row["attack_label"]): row for row in rows}


def test_rows_by_hand():
    row = found([NAIVE, JOINT, MATCHING])["linf", 0.1, SCORE, "best of adaptive"]
    # image 0 from joint (3.5), image 1 from matching (2.5), image 3 from joint (1)
    area = auroc_interval([4, 3, 2, 1], [3.5, 2.5, 2, 1], range(4), range(4))
    assert row == {
        **CELL,
        "norm": "linf",
        "eps": 0.1,
        "attack": "best_of_adaptive",
        "attack_label": "best of adaptive",
        "kind": "best_of_adaptive",
        "score": SCORE,
        "adapted": True,
        "n": 4,
        # clean {4 3 2 1} against {3.5 2.5 2 1}: 4 + 3 + 1.5 + .5 of 16
        "auroc_all": pytest.approx(9 / 16),
        "auroc_all_low": pytest.approx(area.low),
        "auroc_all_high": pytest.approx(area.high),
        # clean and correct {4 3 2} against {3.5 2.5}: 2 + 1 + 0 of 6
        "auroc_successful": pytest.approx(3 / 6),
        "n_successful": 2,
        # the thresholds are 0.02 and 0.1: everything passes
        "undetected_success_at_1fpr": pytest.approx(2 / 3),
        "undetected_success_at_1fpr_low": wilson(2, 3)[0],
        "undetected_success_at_1fpr_high": wilson(2, 3)[1],
        "undetected_success_at_5fpr": pytest.approx(2 / 3),
        "undetected_success_at_5fpr_low": wilson(2, 3)[0],
        "undetected_success_at_5fpr_high": wilson(2, 3)[1],
        **{name: row[name] for name in AREAS},  # see below
        "error": 0.75,
        "error_with_rejection_at_1fpr": 0.75,
        "error_with_rejection_at_5fpr": 0.75,
    }
    assert row.keys() == {*TABLES["adaptive"].names}
    # by falling score 4 right, 3.5 wrong, 3 right, 2.5 wrong, 2 and 2 right, 1 and 1 wrong: wrong
    # and accepted are 0 1 1 2 2 2 3 4 of 8, the mean of each step .5 less where a wrong one enters
    assert row["augrc"] == pytest.approx(13 / 64)
    naive = found([NAIVE, JOINT, MATCHING])["linf", 0.1, SCORE, "FGSM"]
    assert (naive["kind"], naive["adapted"]) == ("naive", False)
    # its two successes are rejected, the clean mistake passes
    assert (naive["error"], naive["error_with_rejection_at_5fpr"]) == (0.75, 0.25)
    assert naive["undetected_success_at_5fpr"] == 0


def test_an_image_is_noticed_only_if_every_copy_that_fools_the_classifier_is():
    # 0: the naive copy passes, 1: the adaptive one, 2: what passes does not fool, 3: none passes
    clean = made(wrong=[False] * 4, scores={SCORE: [1, 1, 1, 1]})
    naive = made("fgsm", 0.1, [True, True, False, True], label="FGSM",
                 scores={SCORE: [2, -2, 2, -2]})  # fmt: skip
    knowing = made("adaptive_joint", 0.1, [True, True, True, True], label="joint",
                   scores={SCORE: [-2, 2, -2, -2]})  # fmt: skip
    validation = {SCORE: np.zeros(100)}
    rows = adaptive_rows(CELL, clean, [naive, knowing], validation)
    by_kind = {row["kind"]: row["undetected_success_at_5fpr"] for row in rows}
    assert by_kind == {
        "naive": 0.25, "adaptive": 0.25, "best_of_adaptive": 0.25, "best_of_all": 0.5,
    }  # fmt: skip
    (worst,) = worst_case_rows(CELL, clean, [naive, knowing], validation[SCORE])
    assert worst["undetected_success_at_5fpr"] == worst["undetected_success_at_1fpr"] == 0.5
    low, high = (worst[f"undetected_success_at_5fpr_{end}"] for end in ("low", "high"))
    assert (low, high) == wilson(2, 4)


def test_the_worst_case_of_the_likelihood_is_that_of_the_adaptive_rows():
    every = adaptive_rows(CELL, CLEAN, [NAIVE, JOINT, MATCHING], VALIDATION)
    (worst,) = worst_case_rows(CELL, CLEAN, [NAIVE, JOINT, MATCHING], VALIDATION[SCORE])
    (same,) = (r for r in every if (r["kind"], r["score"]) == ("best_of_all", SCORE))
    for percent in (1, 5):
        name = f"undetected_success_at_{percent}fpr"
        assert worst[name] == same[name]


def test_the_two_thresholds_are_those_of_the_validation_scores():
    validation = {SCORE: np.arange(100) / 10}
    scores = [0.05, 0.1, 0.4, 0.5]  # 1 % rejects below 0.1, 5 % below 0.5
    one = made("adaptive_joint", 0.1, [True] * 4, scores={SCORE: scores})
    row = found([one], validation)["linf", 0.1, SCORE, "adaptive_joint"]
    assert row["error_with_rejection_at_1fpr"] == 0.75
    assert row["error_with_rejection_at_5fpr"] == 0.25
    # over the three initially correct images
    assert row["undetected_success_at_1fpr"] == pytest.approx(2 / 3)
    assert row["undetected_success_at_5fpr"] == 0
    for percent in (1, 5):
        threshold = rates.threshold_at_fpr(validation[SCORE], percent / 100)
        assert row[f"undetected_success_at_{percent}fpr"] == rates.undetected_success(
            ~CLEAN.wrong, one.wrong, np.array(scores), threshold
        )


def test_an_attack_is_adapted_to_the_score_that_it_aims_at():
    rows = found([NAIVE, JOINT, MATCHING]).values()
    adapted = {(row["kind"], row["score"]): row["adapted"] for row in rows}
    assert adapted == {
        ("naive", SCORE): False, ("adaptive", SCORE): True, ("best_of_adaptive", SCORE): True,
        ("best_of_all", SCORE): True, ("naive", "other"): False,
        ("best_of_adaptive", "other"): False, ("best_of_all", "other"): False,
    }  # fmt: skip
    assert len(rows) == 5 + 3
    # An attack on another score stands under that score, and serves the best under every one.
    aware = replace(MATCHING, aim="other")
    rows = found([NAIVE, JOINT, aware])
    adapted = {(score, label): row["adapted"] for (_, _, score, label), row in rows.items()}
    assert adapted == {
        (SCORE, "FGSM"): False, (SCORE, "joint"): True, (SCORE, "best of adaptive"): True,
        (SCORE, "any attack"): True, ("other", "any attack"): True,
        ("other", "FGSM"): False, ("other", "matching"): True, ("other", "best of adaptive"): True,
    }  # fmt: skip
    best = found([NAIVE, JOINT, MATCHING])["linf", 0.1, SCORE, "best of adaptive"]
    assert rows["linf", 0.1, SCORE, "best of adaptive"] == best
    # the best by another score is chosen by that score
    best = found([JOINT, MATCHING])["linf", 0.1, "other", "best of adaptive"]
    assert best["auroc_all"] == rates.auroc([4, 3, 2, 1], [1, 1, 1, 1])


def test_each_budget_of_an_adaptive_attack_is_told_with_the_naive_ones_beside_it():
    scores = {SCORE: [1, 1, 1, 1], "other": [1, 1, 1, 1]}
    wrong = [True, False, False, True]
    outcomes = [
        NAIVE,
        JOINT,
        made("fgsm", 0.2, wrong, label="FGSM", scores=scores),  # no adaptive attack there
        made("adaptive_joint", 1.0, wrong, label="joint L2", norm="l2", scores=scores),
        made("pgd", 1.0, wrong, label="PGD L2", norm="l2", scores=scores),
        made("cw", 0.1, wrong, label="CW", norm="l2", scores=scores),  # same eps, other norm
        made("adaptive_joint", 0.0, CLEAN.wrong, label="joint", scores=scores),
    ]
    places = {(norm, eps, label) for norm, eps, _, label in found(outcomes)}
    assert places == {
        *(("linf", 0.1, label) for label in ("FGSM", "joint", *COMBINED)),
        *(("l2", 1.0, label) for label in ("joint L2", "PGD L2", *COMBINED)),
    }


def test_no_adaptive_attack_no_rows():
    assert found([NAIVE, made("pgd", 0.2, [True] * 4, scores=NAIVE.scores)]) == {}


def test_no_success_is_null_and_not_zero():
    one = made("adaptive_joint", 0.1, CLEAN.wrong, scores=CLEAN.scores)
    row = found([one])["linf", 0.1, SCORE, "best of adaptive"]
    assert (row["n_successful"], row["auroc_successful"]) == (0, None)
    assert (row["auroc_all"], row["undetected_success_at_5fpr"]) == (0.5, 0)
    assert row["error_with_rejection_at_5fpr"] == 0.25  # the clean mistake
