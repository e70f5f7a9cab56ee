"""Worst case against a literal oracle; error curves against closed forms and numpy."""

import math

import numpy as np
import pytest

from robustloss.analysis.tables.worst_case import (
    curve_numbers,
    radii_rows,
    radius_numbers,
    worst_case_rows,
)
from robustloss.metrics.intervals import wilson
from robustloss.results.schema import TABLES
from tests.outcomes import CELL, first, made


def random_outcomes(seed: int, n: int = 30):
    """Two attacks with fixed eps, one of them at one eps only, two with radii, over two norms."""
    rng = np.random.default_rng(seed)
    clean = made(wrong=rng.random(n) < 0.1)
    radius = np.where(rng.random(n) < 0.7, rng.random(n) * 0.4, np.inf)
    length = np.where(rng.random(n) < 0.5, rng.random(n) * 4, np.inf)
    outcomes = [
        made("pgd", eps, rng.random(n) < 2 * eps, label="PGD") for eps in (0.3, 0.1, 0.2)
    ] + [
        made("fgsm", 0.2, rng.random(n) < 0.3, label="FGSM"),
        made("deepfool", 0.2, clean.wrong | (radius <= 0.2), label="DeepFool", radius=radius),
        made("pgd", 1.0, rng.random(n) < 0.4, label="PGD L2", norm="l2"),
        made("cw", 2.0, clean.wrong | (length <= 2), label="CW", norm="l2", radius=length),
    ]
    return clean, outcomes


def slow_worst_case(clean, outcomes, norm, eps):
    """Image by image and attack by attack."""
    wrong = []
    for i in range(len(clean.wrong)):
        fooled = bool(clean.wrong[i])
        for one in outcomes:
            if one.norm != norm:
                continue
            if one.eps == eps and one.wrong[i]:
                fooled = True
            if one.radius is not None and one.radius[i] <= np.float32(eps):
                fooled = True
        wrong.append(fooled)
    return wrong


@pytest.mark.parametrize("seed", range(5))
def test_worst_case_is_that_of_a_slow_loop(seed):
    clean, outcomes = random_outcomes(seed)
    rows = worst_case_rows(CELL, clean, outcomes)
    assert [(row["norm"], row["eps"]) for row in rows] == [
        ("l2", 1.0), ("l2", 2.0), ("linf", 0.1), ("linf", 0.2), ("linf", 0.3)
    ]  # fmt: skip
    for row in rows:
        wrong = slow_worst_case(clean, outcomes, row["norm"], row["eps"])
        assert row["error"] == sum(wrong) / len(wrong)
        assert (row["error_low"], row["error_high"]) == wilson(sum(wrong), len(wrong))
        assert row["error"] >= row["strongest_error"]


def test_worst_case_names_who_took_part_and_who_was_strongest():
    clean, outcomes = random_outcomes(0)
    rows = {(row["norm"], row["eps"]): row for row in worst_case_rows(CELL, clean, outcomes)}
    # DeepFool has a radius, so it counts where it has no record; FGSM does not
    assert rows["linf", 0.1]["attacks"] == ["PGD", "DeepFool"]
    assert rows["linf", 0.2]["attacks"] == ["PGD", "FGSM", "DeepFool"]
    assert rows["l2", 1.0]["attacks"] == ["PGD L2", "CW"]
    assert rows["l2", 2.0]["attacks"] == ["CW"]
    row = rows["linf", 0.2]
    alone = {o.attack_label: o.wrong.mean() for o in outcomes if (o.norm, o.eps) == ("linf", 0.2)}
    assert row["strongest_error"] == max(alone.values()) == alone[row["strongest"]]
    (arranged,) = TABLES["worst_case"].arrange([row])
    assert ", ".join(arranged) == (
        "loss, label, seed, norm, eps, n, attacks, error, error_low, error_high, strongest, "
        "strongest_error"
    )


def test_attacks_that_split_the_images_are_stronger_together():
    # each fools another half: the mean of either is 1/2, no image stands both
    halves = first(100), ~first(100)
    outcomes = [made(name, 0.1, half) for name, half in zip(("pgd", "square"), halves, strict=True)]
    (row,) = worst_case_rows(CELL, made(wrong=first(0)), outcomes)
    assert (row["error"], row["strongest_error"], row["strongest"]) == (1, 0.5, "pgd")


def test_a_clean_mistake_stays_one_whatever_an_attack_returns():
    (row,) = worst_case_rows(CELL, made(wrong=[True, False]), [made("pgd", 0.1, [False, False])])
    assert (row["error"], row["strongest_error"]) == (0.5, 0)


def test_a_radius_is_compared_as_the_float32_that_it_is():
    # float32(0.1) > 0.1: the harness calls the image fooled at eps 0.1, and so must we
    cw = made("cw", 0.3, [True], radius=[0.1])
    fgsm = made("fgsm", 0.1, [False])
    assert float(cw.radius[0]) > 0.1
    rows = worst_case_rows(CELL, made(wrong=[False]), [cw, fgsm])
    assert [row["error"] for row in rows] == [1, 1]


def test_without_a_budget_there_is_no_worst_case():
    assert worst_case_rows(CELL, made(wrong=[True]), []) == []
    assert worst_case_rows(CELL, made(wrong=[True]), [made("fgsm", 0.0, [True])]) == []


# ---- radii


def test_evenly_spread_radii_have_their_closed_form():
    # radii evenly over (0, R]: error(eps) = eps / R, half at R/2, area eps_max / (2 R)
    n, reach = 2000, 0.4
    radius = reach * (np.arange(n) + 0.5) / n
    found = radius_numbers(np.random.default_rng(0).permutation(radius), 0.3)
    assert found["median_radius"] == pytest.approx(reach / 2, abs=1e-12)
    assert found["eps_at_50_error"] == pytest.approx(reach / 2, abs=reach / n)
    assert found["area_under_error_curve"] == pytest.approx(0.3 / (2 * reach), abs=1e-6)
    # beyond the last radius the error is 1: area (R/2 + (eps_max - R)) / eps_max
    wide = radius_numbers(radius, 1.0)["area_under_error_curve"]
    assert wide == pytest.approx(1 - reach / 2, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 11])
@pytest.mark.parametrize("lost", [0, 1, 5])
def test_radii_agree_with_numpy_and_with_a_fine_grid(n, lost):
    rng = np.random.default_rng(n)
    radius = np.sort(rng.random(n))
    radius[max(0, n - lost) :] = np.inf
    found = radius_numbers(radius, 0.7)
    assert found["n_found"] == n - min(n, lost)
    median = np.median(radius)
    assert found["median_radius"] == (None if math.isinf(median) else median)
    lower = np.percentile(radius, 50, method="inverted_cdf")
    assert found["eps_at_50_error"] == (None if math.isinf(lower) else lower)
    grid = (np.arange(20_000) + 0.5) / 20_000 * 0.7
    errors = (radius[:, None] <= grid).mean()
    assert found["area_under_error_curve"] == pytest.approx(errors, abs=1e-4)


def test_no_radius_at_all_and_no_budget_at_all():
    none = radius_numbers(np.full(4, np.inf), 0.3)
    assert none == {
        "n_found": 0, "median_radius": None, "eps_at_50_error": None, "area_under_error_curve": 0
    }  # fmt: skip
    assert radius_numbers(np.array([0.0, 0.2]), 0.0)["area_under_error_curve"] is None


def test_exactly_half_found_reaches_half_but_has_no_median():
    found = radius_numbers(np.array([0.1, 0.2, np.inf, np.inf]), 0.3)
    assert (found["median_radius"], found["eps_at_50_error"]) == (None, 0.2)


# ---- curves of attacks with fixed eps


@pytest.mark.parametrize(
    ("eps", "errors", "half"),
    [
        ([0, 0.1, 0.3], [0.1, 0.3, 0.7], 0.2),  # in the middle of the second piece
        ([0, 0.1], [0.0, 1.0], 0.05),
        ([0, 0.1, 0.2], [0.1, 0.5, 0.9], 0.1),  # at an eps exactly
        ([0, 0.1, 0.2], [0.1, 0.2, 0.49], None),  # never
        ([0, 0.1], [0.5, 0.4], 0.0),  # without an attack already
        ([0, 0.1], [0.9, 1.0], 0.0),
        ([0], [0.2], None),
        ([0, 0.1, 0.2, 0.3], [0.0, 1.0, 0.2, 1.0], 0.05),  # the first time counts
    ],
)
def test_eps_at_half_by_straight_lines(eps, errors, half):
    found = curve_numbers(eps, errors, 0.3)["eps_at_50_error"]
    assert found == (half if half is None else pytest.approx(half))


def test_area_of_a_curve_by_hand_and_by_numpy():
    eps, errors = [0, 0.1, 0.3], [0.1, 0.3, 0.7]
    found = curve_numbers(eps, errors, 0.3)
    assert found["area_under_error_curve"] == pytest.approx((0.2 * 0.1 + 0.5 * 0.2) / 0.3)
    assert found["median_radius"] is None
    # level after the last eps: a larger ball holds the smaller one
    longer = curve_numbers(eps, errors, 0.5)["area_under_error_curve"]
    assert longer == pytest.approx((0.12 + 0.7 * 0.2) / 0.5)
    grid = (np.arange(10_000) + 0.5) / 10_000 * 0.5
    assert longer == pytest.approx(np.interp(grid, eps, errors).mean(), abs=1e-6)
    assert curve_numbers([0], [0.2], 0.0)["area_under_error_curve"] is None
    assert curve_numbers([0], [0.2], 0.4)["area_under_error_curve"] == pytest.approx(0.2)


# ---- rows


def rows_by_attack(clean, outcomes):
    rows = radii_rows(CELL, clean, outcomes)
    return {(row["attack_label"], row["norm"]): row for row in rows}


def test_each_attack_and_each_norm_has_a_row_of_its_curve():
    clean, outcomes = random_outcomes(1)
    rows = rows_by_attack(clean, outcomes)
    assert set(rows) == {
        *(("PGD", "linf"), ("FGSM", "linf"), ("DeepFool", "linf"), ("worst case", "linf")),
        *(("PGD L2", "l2"), ("CW", "l2"), ("worst case", "l2")),
    }
    assert {row["eps_max"] for row in rows.values() if row["norm"] == "linf"} == {0.3}
    assert {row["eps_max"] for row in rows.values() if row["norm"] == "l2"} == {2.0}
    assert {row["attack"] for row in rows.values()} >= {"worst_case", "deepfool"}
    assert ", ".join(rows["PGD", "linf"]) == (
        "loss, label, seed, attack, attack_label, norm, n, n_found, median_radius, "
        "median_radius_low, median_radius_high, eps_at_50_error, eps_at_50_error_low, "
        "eps_at_50_error_high, area_under_error_curve, eps_max, "
        "n_compared, smallest_share, mean_excess, optimality"
    )


def test_the_row_of_an_attack_is_made_of_its_errors_and_of_the_clean_pass():
    clean = made(wrong=first(20))
    outcomes = [
        made("pgd", 0.4, first(150)),
        made("pgd", 0.2, first(60)),
        made("pgd", 0, clean.wrong),
    ]
    row = rows_by_attack(clean, outcomes)["pgd", "linf"]
    expected = curve_numbers([0, 0.2, 0.4], [0.1, 0.3, 0.75], 0.4)
    assert {name: row[name] for name in expected} == expected
    assert (row["n"], row["n_found"]) == (200, 150)
    assert row["median_radius_low"] is row["median_radius_high"] is None
    assert row["eps_at_50_error_low"] < row["eps_at_50_error"] < row["eps_at_50_error_high"]


def test_clean_mistakes_have_radius_0():
    clean = made(wrong=[True, False, False])
    cw = made("cw", 1.0, [True, True, False], norm="l2", radius=[0.9, 0.5, 2.0])
    row = rows_by_attack(clean, [cw])["cw", "l2"]
    assert row["median_radius"] == 0.5
    assert row["area_under_error_curve"] == pytest.approx((1 + 0.5 + 0) / 3)
    worst = rows_by_attack(clean, [cw])["worst case", "l2"]
    names = ("n_found", "median_radius", "eps_at_50_error", "area_under_error_curve", "eps_max")
    assert [worst[name] for name in names] == [row[name] for name in names]


def test_the_worst_case_of_fixed_eps_is_the_curve_of_the_worst_case():
    rng = np.random.default_rng(2)
    clean = made(wrong=first(4))
    outcomes = [made(name, eps, rng.random(200) < eps * 2)
                for name in ("pgd", "square") for eps in (0.1, 0.2)]  # fmt: skip
    errors = [row["error"] for row in worst_case_rows(CELL, clean, outcomes)]
    row = rows_by_attack(clean, outcomes)["worst case", "linf"]
    expected = curve_numbers([0, 0.1, 0.2], [0.02, *errors], 0.2)
    assert {name: row[name] for name in expected} == expected


@pytest.mark.parametrize("seed", range(5))
def test_with_a_minimum_norm_attack_the_worst_case_is_the_smallest_perturbation_found(seed):
    clean, outcomes = random_outcomes(seed)
    rows = rows_by_attack(clean, outcomes)
    for norm, minimum in (("linf", "DeepFool"), ("l2", "CW")):
        smallest = []
        for i, wrong in enumerate(clean.wrong):
            found = [0.0] if wrong else []
            for one in (one for one in outcomes if one.norm == norm):
                found += [one.eps] if one.wrong[i] else []
                found += [float(one.radius[i])] if one.radius is not None else []
            smallest.append(min(found, default=math.inf))
        worst, alone = rows["worst case", norm], rows[minimum, norm]
        expected = radius_numbers(np.array(smallest), worst["eps_max"])
        assert {name: worst[name] for name in expected} == expected
        # nothing that a minimum-norm attack found is lost
        assert worst["n_found"] >= alone["n_found"]
        assert worst["area_under_error_curve"] >= alone["area_under_error_curve"]
        for name in ("median_radius", "eps_at_50_error"):
            if alone[name] is not None:
                assert worst[name] <= alone[name]
