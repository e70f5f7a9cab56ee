"""Which attack comes nearest: by hand, against AttackBench's own formula, and what is fair."""

import numpy as np
import pytest

from robustloss.analysis.tables.optimality import NAMES, optimality_columns
from robustloss.analysis.tables.worst_case import radii_rows
from tests.outcomes import CELL, first, made

NONE = np.zeros(4, bool)


def nearest(**radii):
    """Attacks that look for the smallest change, by label."""
    return {name: [made("cw", 1.0, NONE, radius=each)] for name, each in radii.items()}


def compare(attacks, clean=None):
    clean = np.zeros(len(next(iter(attacks.values()))[0].wrong), bool) if clean is None else clean
    return optimality_columns(clean, attacks)


def test_shares_and_excess_by_hand():
    inf = np.inf
    found = compare(nearest(a=[0.1, 0.2, 0.4, inf], b=[0.2, 0.2, inf, inf]))
    # the fourth image fell to nobody; b found nothing for the third, and areas end at 0.4
    assert found["a"] == {
        "n_compared": 3, "smallest_share": 1, "mean_excess": 0, "optimality": 1
    }  # fmt: skip
    assert found["b"] == {
        "n_compared": 3,
        "smallest_share": pytest.approx(1 / 3),  # the tie
        "mean_excess": pytest.approx(0.1 / 3),
        "optimality": pytest.approx(1 - 0.1 / (0.3 + 0.2 + 0)),
    }


def test_clean_mistakes_say_nothing_of_an_attack():
    clean = np.array([True, True, False, False])
    found = compare(nearest(a=[9, 9, 0.1, 0.3], b=[0, 0, 0.2, 0.2]), clean)
    assert [found[name]["n_compared"] for name in "ab"] == [2, 2]
    assert [found[name]["smallest_share"] for name in "ab"] == [0.5, 0.5]
    assert found["b"]["mean_excess"] == pytest.approx(0.05)


def test_radii_that_agree_to_a_thousandth_are_a_tie():
    found = compare(nearest(a=[0.1] * 4, b=[0.10005] * 4, c=[0.1002] * 4))
    assert [found[name]["smallest_share"] for name in "abc"] == [1, 1, 0]


def test_an_attack_is_held_to_the_eps_that_it_was_tried_at():
    steps = np.array([0.05, 0.15, 0.25, 0.6])  # radii of the best attack
    attacks = {
        "all": [made("pgd", eps, steps <= eps) for eps in (0.1, 0.2, 0.3)],
        "late": [made("fgsm", 0.3, steps <= 0.3)],
        "weak": [made("fgsm", eps, (steps <= eps) & (steps < 0.1)) for eps in (0.1, 0.2, 0.3)],
        "exact": nearest(x=steps)["x"],
    }
    found = compare(attacks)
    # at each of its eps "all" fools what can be fooled there, and "late" was tried at one alone
    assert [found[name]["smallest_share"] for name in ("all", "late", "exact")] == [1, 1, 1]
    assert [found[name]["mean_excess"] for name in ("all", "late", "exact")] == [0, 0, 0]
    # "weak" misses the second image at 0.2 and the third at 0.3; curves end at 0.6
    assert found["weak"]["smallest_share"] == 0.5
    assert found["weak"]["mean_excess"] == pytest.approx((0.4 + 0.3) / 4, abs=1e-7)


def test_an_eps_is_the_float32_that_radii_are():
    attacks = {"grid": [made("pgd", 0.1, [True])], **nearest(x=np.float32([0.1]))}
    assert {each["mean_excess"] for each in compare(attacks).values()} == {0}


def attackbench(radii, best):
    """Optimality in AttackBench's words, areas by the trapezoids of their analysis/utils.py."""

    def area(distances):
        values, counts = np.unique(distances, return_counts=True)
        return np.trapezoid(1 - counts.cumsum() / len(distances), values)

    most, clean = best.max(), np.count_nonzero(best) / len(best)
    return 1 - (area(radii.clip(max=most)) - area(best)) / (clean * most - area(best))


def test_optimality_is_that_of_attackbench():
    rng = np.random.default_rng(0)
    n = 20_000  # their trapezoids meet the exact steps as images grow many
    clean = rng.random(n) < 0.1
    truth = rng.gamma(4, 0.1, n)
    radii = {
        "good": truth * (1 + 0.2 * rng.random(n)),
        "poor": np.where(rng.random(n) < 0.2, np.inf, truth * (1 + rng.random(n))),
    }
    radii = {name: np.where(clean, 0, r).astype(np.float32) for name, r in radii.items()}
    best = np.minimum(*radii.values())
    best[np.isinf(best)] = 1.0
    found = optimality_columns(
        clean, {name: [made("cw", 1.0, clean, radius=r)] for name, r in radii.items()}
    )
    for name, own in radii.items():
        assert found[name]["optimality"] == pytest.approx(attackbench(own, best), abs=2e-3)
    assert found["good"]["optimality"] > found["poor"]["optimality"] > 0


def test_one_attack_or_no_image_gives_nothing():
    nothing = dict.fromkeys(NAMES)
    assert compare(nearest(a=[0.1] * 4)) == {"a": nothing}
    assert compare(nearest(a=[np.inf] * 4, b=[np.inf] * 4)) == {"a": nothing, "b": nothing}


def test_the_rows_of_radii_have_the_columns_and_the_worst_case_has_none():
    outcomes = [made(name, 0.1, first(k)) for name, k in (("pgd", 100), ("fgsm", 50))]
    outcomes += [made("cw", 1.0, first(9), norm="l2", radius=np.where(first(9), 0.5, np.inf))]
    rows = {
        (row["attack_label"], row["norm"]): row
        for row in radii_rows(CELL, made(wrong=first(10)), outcomes)
    }
    assert [rows[name, "linf"]["n_compared"] for name in ("pgd", "fgsm", "worst case")] == [
        90, 90, None
    ]  # fmt: skip
    assert rows["pgd", "linf"]["smallest_share"] == 1
    assert rows["fgsm", "linf"]["smallest_share"] == pytest.approx(40 / 90)
    assert rows["cw", "l2"]["optimality"] is None
