"""What several attacks on the same images did, side by side: right or wrong, radius, scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robustloss.metrics.intervals import wilson
from robustloss.results.records import Record
from robustloss.results.schema import Row
from robustloss.spec.attack_kinds import Kind, attack_kind


@dataclass(frozen=True, eq=False)
class Outcome:
    """What is kept of one record, so that all attacks of a cell fit in memory at once.

    Attributes:
        attack: name of the attack; "none" for the clean pass.
        attack_label: its name in tables.
        norm: of eps and radius; None for the clean pass.
        eps: budget.
        wrong: (N,) bool, the attacked image is classified wrongly.
        radius: (N,) smallest perturbation found, of minimum-norm attacks; inf where none.
        scores: (N,) float64 each, by name of the score.
        zero_gradient_fraction: share of the images whose first gradient is exactly 0; None where
            the attack does not say.
        outside_fraction: share of the images that the attack returned outside ball or box; None
            where it was not looked at.
    """

    attack: str
    attack_label: str
    norm: str | None
    eps: float
    wrong: np.ndarray
    radius: np.ndarray | None
    scores: Mapping[str, np.ndarray]
    zero_gradient_fraction: float | None = None
    outside_fraction: float | None = None

    @property
    def kind(self) -> Kind:
        """Kind of the attack, by its name."""
        return attack_kind(self.attack)


def reduce_record(
    entry: Mapping[str, Any], record: Record, scores: Mapping[str, np.ndarray]
) -> Outcome:
    """Return what is kept of a record.

    Args:
        entry: "attack", "attack_label", "norm" and "eps", as in the list of cell.json.
        record: with finite numbers.
        scores: (N,) of the record, by name, to keep.
    """
    return Outcome(
        attack=entry["attack"],
        attack_label=entry["attack_label"],
        norm=entry["norm"],
        eps=float(entry["eps"]),
        wrong=~record.correct,
        radius=record.radius,
        scores=dict(scores),
        zero_gradient_fraction=flagged_share(record.zero_gradient),
        outside_fraction=flagged_share(record.outside),
    )


def flagged_share(flags: np.ndarray | None) -> float | None:
    """Return the share of images (N,) that are flagged, or None without flags."""
    return None if flags is None else float(flags.mean())


def error_columns(wrong: np.ndarray) -> Row:
    """Return the columns n, error, error_low and error_high from which images (N,) are wrong."""
    count = int(wrong.sum())
    low, high = wilson(count, wrong.size)
    return {"n": wrong.size, "error": count / wrong.size, "error_low": low, "error_high": high}


def group_by_attack(outcomes: Sequence[Outcome], norm: str | None) -> dict[str, list[Outcome]]:
    """Return the outcomes of a norm by attack label, those of each attack sorted by eps.

    Args:
        outcomes: of any attacks; the labels keep their order.
        norm: "linf" or "l2".
    """
    found: dict[str, list[Outcome]] = {}
    for one in outcomes:
        if one.norm == norm:
            found.setdefault(one.attack_label, []).append(one)
    return {label: sorted(own, key=lambda one: one.eps) for label, own in found.items()}


def find_radius(outcomes: Sequence[Outcome]) -> np.ndarray | None:
    """Return the radii (N,) of one attack, the same in all its records; None where it has none."""
    return next((one.radius for one in outcomes if one.radius is not None), None)


def list_budgets(outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
    """Return the eps > 0 of every norm that has an attack, sorted; a norm may have none."""
    norms = sorted({one.norm for one in outcomes if one.norm is not None})
    return {
        norm: sorted({one.eps for one in outcomes if one.norm == norm and one.eps > 0})
        for norm in norms
    }


def find_wrong(
    clean: Outcome, outcomes: Sequence[Outcome], norm: str | None, eps: float
) -> dict[str, np.ndarray]:
    """Return which images each attack of a norm makes wrong within a budget.

    Args:
        clean: the clean pass; its mistakes are within every budget of a minimum-norm attack.
        outcomes: every attack at every eps.
        norm: of the budget.
        eps: the budget, > 0.

    Returns:
        (N,) bool by attack label: its record at this eps, or else radius <= eps. An attack with
        neither is left out.
    """
    found = {}
    for label, own in group_by_attack(outcomes, norm).items():
        recorded = [one.wrong for one in own if one.eps == eps]
        radius = find_radius(own)
        if recorded:
            found[label] = recorded[0]
        elif radius is not None:
            # a radius is a float32, and so is the eps that the attack's images are held to
            found[label] = clean.wrong | (radius <= radius.dtype.type(eps))
    return found
