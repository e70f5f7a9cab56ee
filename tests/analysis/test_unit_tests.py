"""What the tests of attacks on breakable networks say: rows, the correction for chance, marks."""

import numpy as np

from robustloss.analysis.checks.unit_tests import LEAST, unit_test_rows
from robustloss.metrics.intervals import wilson
from robustloss.results.schema import TABLES
from tests.evidence import M, evidence, fired, sound_probe
from tests.outcomes import CELL, first, made

PGD, JOINT = made("pgd", 0.1, first(50)), made("adaptive_joint", 0.1, first(50), label="joint")
CHANCE = first(60, M)[::-1]  # networks that random points break too


def rows_of(**arrays):
    return unit_test_rows(CELL, [PGD, JOINT], arrays | {
        "unit_pgd_0_eps": np.array(0.1), "unit_joint_0_eps": np.array(0.05)
    })  # fmt: skip


def test_networks_that_chance_breaks_do_not_count():
    (row,) = rows_of(unit_pgd_0=np.stack([first(38, M), CHANCE]))
    (row,) = TABLES["unit_tests"].arrange([row])
    low, high = wilson(38, 40)
    assert row == CELL | {
        "attack": "pgd", "attack_label": "pgd", "norm": "linf", "eps": 0.1, "test": "classifier",
        "n_networks": M, "random_success": 0.6, "n": 40, "success": 0.95, "success_low": low,
        "success_high": high,
    }  # fmt: skip
    assert list(row) == list(TABLES["unit_tests"].names)


def test_too_few_networks_say_nothing():
    easy = first(M - LEAST + 1, M)
    (row,) = rows_of(unit_pgd_0=np.stack([first(0, M), easy]))
    assert (row["n"], row["success"], row["success_low"]) == (LEAST - 1, None, None)
    (row,) = rows_of(unit_pgd_0=np.zeros((2, 0), bool))
    assert (row["n_networks"], row["random_success"], row["success"]) == (0, None, None)
    assert rows_of() == []


def test_the_worse_of_both_detector_tests_decides():
    sound = np.stack([first(M, M), first(0, M)])
    weak = np.stack([first(80, M), first(0, M)])
    (one, other) = rows_of(unit_joint_0=sound, unit_joint_0_inverted=weak)
    assert [(row["test"], row["success"]) for row in (one, other)] == [
        ("detector", 1), ("inverted", 0.8)
    ]  # fmt: skip
    probe = {
        "unit_joint_0": sound,
        "unit_joint_0_inverted": weak,
        "unit_joint_0_eps": np.array(0.05),
    }
    (flag,) = fired(evidence([JOINT], sound_probe() | probe))["unit_test_failed"]
    assert (flag["attack_label"], flag["eps"], round(flag["value"], 9)) == ("joint", 0.05, 0.2)
    assert "breakable by an image that the inverted detector accepts: it is" in flag["message"]


def test_ninety_five_percent_is_enough():
    probe = {"unit_pgd_0": np.stack([first(95, M), first(0, M)]), "unit_pgd_0_eps": np.array(0.1)}
    assert fired(evidence([PGD], sound_probe() | probe)) == {}


def test_every_budget_is_judged_by_itself():
    good, bad = np.stack([first(M, M), first(0, M)]), np.stack([first(9, M), first(0, M)])
    probe = {"unit_pgd_0": good, "unit_pgd_0_eps": np.array(0.1),
             "unit_pgd_1_eps": np.array(0.2),  # the attack did not come back
             "unit_pgd_2": bad, "unit_pgd_2_eps": np.array(0.3)}  # fmt: skip
    rows = unit_test_rows(CELL, [PGD], probe)
    assert [(row["eps"], row["success"]) for row in rows] == [(0.1, 1), (0.3, 0.09)]
    (flag,) = fired(evidence([PGD], sound_probe() | probe))["unit_test_failed"]
    assert flag["eps"] == 0.3
