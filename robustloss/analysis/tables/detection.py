"""Tables detection and out_of_distribution."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.analysis.detection.separation import compare_outside
from robustloss.analysis.tables.measured import MeasuredPass
from robustloss.metrics.rates import threshold_at_fpr
from robustloss.results.schema import TABLES, Row, cell_place
from robustloss.results.scores import CLEAN, VALIDATION, StoredScores


def detection_rows(one: MeasuredPass, scores: Sequence[str]) -> list[Row]:
    """Return a row for each score and population of one pass.

    Args:
        one: clean or attacked.
        scores: names; those that the loss does not have are left out.
    """
    aim = one.outcome.aim
    # noise has no success that could go unnoticed, clean images nothing beside them: null
    empty = dict.fromkeys(TABLES["detection"].names)
    return [
        empty
        | one.place
        | {"score": score, "population": population}
        | numbers
        | {"adapted": None if aim is None else score == aim}
        for score in scores
        for population, numbers in one.separation.get(score, {}).items()
    ]


def outside_rows(cell: Mapping[str, Any], stored: StoredScores, scores: Sequence[str]) -> list[Row]:
    """Return a row for each score and set of images that are not of the data.

    Args:
        cell: as cell.json.
        stored: the scores of the cell.
        scores: names; those that the loss does not have are left out.
    """
    names = {e["label"]: e["name"] for e in cell["files"].get("outside", ())}
    return [
        cell_place(cell)
        | {"outside": which.label, "outside_name": names.get(which.label, ""), "score": score}
        | compare_outside(
            stored.get(score, CLEAN),
            stored.get(score, which),
            threshold_at_fpr(stored.get(score, VALIDATION), 0.05),
        )
        for score in scores
        if score in stored.names
        for which in stored.passes("outside")
    ]
