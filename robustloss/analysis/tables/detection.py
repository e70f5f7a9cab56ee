"""Tables detection and out_of_distribution."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.analysis.detection.adaptive import ADAPTED_SCORE
from robustloss.analysis.detection.separation import against
from robustloss.analysis.tables.rows import place_of
from robustloss.metrics.rates import threshold_at_fpr
from robustloss.results.schema import PLACE, Row
from robustloss.results.scores import CLEAN, VALIDATION, StoredScores
from robustloss.spec.attack_kinds import attack_kind

# Of a deployed detector and successful attacks: noise has no success that could go unnoticed.
_DEPLOYED = ("undetected_success_at_1fpr", "undetected_success_at_5fpr", "threshold_5fpr")


def detection_rows(
    cell: Mapping[str, Any], entry: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]
) -> list[Row]:
    """Rows of the table `detection` for one attacked set, by score and population."""
    adaptive = attack_kind(entry["attack"]) == "adaptive"
    return [
        place_of(cell, entry)
        | {"score": score, "population": population}
        | dict.fromkeys(_DEPLOYED)
        | numbers[population]
        | {"adapted": score == ADAPTED_SCORE if adaptive else None}
        for score, numbers in found.items()
        for population in numbers
    ]


def outside_rows(cell: Mapping[str, Any], stored: StoredScores, scores: Sequence[str]) -> list[Row]:
    """Rows of the table `out_of_distribution` for one cell."""
    names = {e["label"]: e["name"] for e in cell["files"].get("outside", ())}
    place = {name: cell[name] for name in PLACE}
    return [
        place
        | {"outside": which.label, "outside_name": names.get(which.label, ""), "score": score}
        | against(
            stored.get(score, CLEAN),
            stored.get(score, which),
            threshold_at_fpr(stored.get(score, VALIDATION), 0.05),
        )
        for score in scores
        if score in stored.names
        for which in stored.passes("outside")
    ]
