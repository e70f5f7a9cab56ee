"""The robust error with detection, the classifier that theory makes of it, and who is doubted."""

from dataclasses import replace

import numpy as np
import pytest

from robustloss.analysis.measures import combine, measure
from robustloss.analysis.outcomes import find_half, find_undefended, find_unnoticed
from robustloss.analysis.tables.worst_case import worst_case_rows
from robustloss.metrics.intervals import wilson
from tests.evidence import claimed, fired
from tests.outcomes import CELL, made

SCORE = "class_log_likelihood"


def random_outcomes(seed, n=60):
    rng = np.random.default_rng(seed)

    def one(attack="none", eps=0.0, share=0.1, norm="linf"):
        scores = {SCORE: rng.integers(-3, 4, n)}
        return made(attack, eps, rng.random(n) < share, norm=norm, scores=scores)

    attacks = [one("fgsm", 0.1, 0.3), one("fgsm", 0.2, 0.6), one("adaptive_joint", 0.2, 0.5)]
    return one(), [*attacks, one("pgd", 0.4, 0.9), one("pgd", 0.1, 0.9, "l2")]


@pytest.mark.parametrize("seed", range(3))
def test_both_shares_are_those_of_a_slow_loop(seed):
    clean, outcomes = random_outcomes(seed)
    unnoticed, undefended = [], []
    for i in range(60):
        passes = {
            (one.norm, one.eps) for one in outcomes if one.wrong[i] and one.scores[SCORE][i] >= -1
        }
        unnoticed.append(("linf", 0.2) in passes)
        undefended.append(
            bool(clean.wrong[i])
            or bool(clean.scores[SCORE][i] < -1)
            or bool(passes & {("linf", 0.1), ("linf", 0.2)})
        )
    found = find_unnoticed(outcomes, "linf", 0.2, SCORE, -1)
    np.testing.assert_array_equal(found, unnoticed)
    found = find_undefended(clean, outcomes, "linf", 0.2, SCORE, -1)
    np.testing.assert_array_equal(found, undefended)


def test_the_columns_of_the_worst_case():
    clean, outcomes = random_outcomes(3)
    validation = np.concatenate([np.full(5, -9.0), np.full(95, -1.0)])  # 5 % lie below -1
    rows = worst_case_rows(CELL, clean, outcomes, validation)
    (row,) = (r for r in rows if (r["norm"], r["eps"]) == ("linf", 0.2))
    undefended = find_undefended(clean, outcomes, "linf", 0.2, SCORE, -1)
    name = "robust_error_with_detection_at_5fpr"
    assert row[name] == undefended.mean()
    assert (row[f"{name}_low"], row[f"{name}_high"]) == wilson(int(undefended.sum()), 60)
    hits = find_unnoticed(outcomes, "linf", 0.2, SCORE, -1)[~clean.wrong]
    name = "undetected_success_at_5fpr"
    assert row[name] == hits.mean()
    assert (row[f"{name}_low"], row[f"{name}_high"]) == wilson(int(hits.sum()), hits.size)
    # at a larger eps the ball holds more copies
    larger = next(r for r in rows if (r["norm"], r["eps"]) == ("linf", 0.4))
    name = "robust_error_with_detection_at_5fpr"
    assert larger[name] >= row[name] >= row["undetected_success_at_5fpr"] * (~clean.wrong).mean()
    wrong = made(wrong=np.ones(60, bool), scores=clean.scores)
    nothing = worst_case_rows(CELL, wrong, outcomes, validation)[0]
    assert nothing["undetected_success_at_5fpr"] is None
    assert nothing[name] == 1


@pytest.mark.parametrize("seed", range(20))
def test_theory_by_brute_force(seed):
    """A line of places, any classifier and detector on it, every attack there is.

    The classifier that Tramèr builds has at most this robust error at half the eps.
    """
    rng = np.random.default_rng(seed)
    n, eps = 40, 4
    truth = np.repeat(rng.integers(0, 3, n // 5), 5)
    told = np.where(rng.random(n) < 0.8, truth, rng.integers(0, 3, n))
    accepted = rng.random(n) < 0.7

    def reached(step):
        return np.clip(np.arange(n) + step, 0, n - 1)

    scores = accepted.astype(float)
    clean = made(wrong=told != truth, scores={SCORE: scores})
    outcomes = [
        made(f"step {step}", float(abs(step)), told[reached(step)] != truth,
             scores={SCORE: scores[reached(step)]})
        for step in range(-eps, eps + 1) if step
    ]  # fmt: skip
    undefended = find_undefended(clean, outcomes, "linf", float(eps), SCORE, 0.5)

    def implied(place):
        near = [p for p in range(n) if abs(p - place) <= eps // 2 and accepted[p]]
        return told[near[0]] if near else 0

    fooled = [
        any(implied(p) != truth[i] for p in range(n) if abs(p - i) <= eps // 2) for i in range(n)
    ]
    assert not (np.array(fooled) & ~undefended).any()


def test_the_comparisons_see_the_same_worst_case():
    clean, outcomes = random_outcomes(4)
    outcomes = [replace(one, accepted=one.scores[SCORE] >= -1) for one in outcomes]
    hits = find_unnoticed(outcomes, "linf", 0.2, SCORE, -1)[~clean.wrong]
    every = combine(clean, outcomes)
    (worst,) = (one for one in every if (one.attack, one.eps) == ("worst_case", 0.2))
    assert measure(clean, worst)["undetected_success_at_5fpr"].value == hits.mean()


def test_half_of_an_eps_is_found_but_for_rounding():
    assert find_half(0.3, [0.1, 0.15000000000000002, 0.3]) == 0.15000000000000002
    assert find_half(0.3, [0.1, 0.3]) is None


def test_a_detector_that_implies_a_far_better_classifier_is_doubted():
    (flag,) = fired(claimed(20, 100))["detector_too_good"]
    assert (flag["attack_label"], flag["eps"]) == ("any attack, L∞", 0.2)
    assert (flag["value"], flag["threshold"]) == (0.4, 0.1)
    assert "at eps 0.2 is 10.0 %" in flag["message"]
    assert "half the eps is 50.0 %, higher by 40.0 % of the images" in flag["message"]
    assert "detector_too_good" not in fired(claimed(20, 40))  # the limit
    assert "detector_too_good" not in fired(claimed(120, 100))
    assert "detector_too_good" not in fired(replace(claimed(20, 100), validation_scores={}))
