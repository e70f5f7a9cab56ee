"""Attacks that proved themselves, or did not, on networks that are known to be breakable.

The probe holds, for budget number I of each attack that was tested, unit_SLUG_I_eps (), the budget,
and unit_SLUG_I (2,R) bool over R networks, one for each image: broken by the attack; broken by as
many random points. An attack on a detector has unit_SLUG_I_inverted too. `evaluation.unit_test`
makes them.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from robustloss.analysis.checks.catalogue import CHECKS, Evidence, make_flag
from robustloss.analysis.outcomes import Outcome
from robustloss.metrics.intervals import wilson
from robustloss.results.schema import Row, cell_place
from robustloss.spec.text import identifier

LEAST = 20  # networks, below which a share of broken ones says nothing
CHECK = "unit_test_failed"
_HOW = {
    "classifier": "",
    "detector": " by an image that the detector accepts",
    "inverted": " by an image that the inverted detector accepts",
}


def unit_name(attack_label: str, number: int) -> str:
    """Return the name of the array that holds the test of an attack at one of its budgets."""
    return f"unit_{identifier(attack_label)}_{number}"


def unit_test_rows(
    cell: Mapping[str, Any], outcomes: Sequence[Outcome], probe: Mapping[str, np.ndarray]
) -> list[Row]:
    """Return how many of the breakable networks each attack broke.

    Networks that random points break as well are too easy, and are left out of `success`.

    Args:
        cell: "loss", "label" and "seed".
        outcomes: every attack at every eps.
        probe: with the arrays of the attacks that were tested; others have no row.
    """
    rows = []
    for label, one in {one.attack_label: one for one in outcomes}.items():
        place = {"attack": one.attack, "attack_label": label, "norm": one.norm}
        for number in itertools.count():
            name = unit_name(label, number)
            if f"{name}_eps" not in probe:
                break
            own = cell_place(cell) | place | {"eps": float(probe[f"{name}_eps"])}
            inverted = f"{name}_inverted"
            kinds = {"detector" if inverted in probe else "classifier": name, "inverted": inverted}
            rows += [
                own | {"test": kind} | _count(*probe[array])
                for kind, array in kinds.items()
                if array in probe
            ]
    return rows


def _count(broken: np.ndarray, random: np.ndarray) -> Row:
    """Return the numbers of a row from the networks (R,) that attack and random points broke."""
    hard = broken[~random]
    judged, count = hard.size >= LEAST, int(hard.sum())
    low, high = wilson(count, hard.size) if judged else (None, None)
    return {
        "n_networks": broken.size,
        "random_success": float(random.mean()) if broken.size else None,
        "n": hard.size,
        "success": count / hard.size if judged else None,
        "success_low": low,
        "success_high": high,
    }


def unit_test_failed(evidence: Evidence) -> list[Row]:
    """Flag attacks that leave more than 5 % of the breakable networks whole, by the worse test.

    Source: Zimmermann et al. 2022, who ask a success of 0.95 of an attack.
    """
    worst: dict[tuple[str, float], Row] = {}
    for row in unit_test_rows(evidence.cell, evidence.outcomes, evidence.probe):
        place = row["attack_label"], row["eps"]
        if row["success"] is not None and (
            place not in worst or row["success"] < worst[place]["success"]
        ):
            worst[place] = row
    return [
        make_flag(CHECK, evidence.cell, 1 - row["success"], *place, how=_HOW[row["test"]])
        for place, row in worst.items()
        if row["success"] < 1 - CHECKS[CHECK].threshold
    ]
