"""Numbers that others published, matched to the losses of a run and never mixed with ours."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from reports.numbers import AttackInfo, Numbers
from reports.words import listed

FOLDER = Path(__file__).parent / "published"


@dataclass(frozen=True)
class Published:
    """One published table as far as it concerns this run.

    Attributes:
        short: How tables call it.
        source: The full reference.
        caveat: What the source leaves open.
        error: Fractions, by label and eps.
    """

    short: str
    source: str
    caveat: str
    error: Mapping[str, Mapping[float, float]]


@cache
def _tables() -> tuple[dict, ...]:
    return tuple(
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))
    )


def published_errors(numbers: Numbers, attack: AttackInfo) -> list[Published]:
    """Published errors for the same data set, attack and losses; empty when nothing matches."""
    found = []
    for table in _tables():
        kind = (table["data"], table["attack"], table["norm"])
        if kind != (numbers.data, attack.name, attack.norm):
            continue
        error: dict[str, dict[float, float]] = {}
        for loss in numbers.spec.get("losses", []):
            for row in table["rows"]:
                if loss["label"] in numbers.labels and _same(row, loss):
                    error[loss["label"]] = {float(e): v for e, v in row["error"].items()}
        if error:
            found.append(Published(table["short"], table["source"], table["caveat"], error))
    return found


def _same(row: Mapping, loss: Mapping) -> bool:
    # a parameter that the spec leaves out has its default, which is the published value
    given = loss.get("params") or {}
    return row["loss"] == loss["name"] and all(
        given.get(k, v) == v for k, v in row["params"].items()
    )


def agreement(numbers: Numbers, attack: AttackInfo, table: Published) -> str:
    """A plain sentence: which published values lie outside our intervals, and what that means."""
    apart, compared, outside = [], 0, 0
    for label, by_eps in table.error.items():
        places = []
        for eps, value in by_eps.items():
            ours = numbers.error(label, attack, eps)
            if ours is None or ours.low is None or ours.high is None:
                continue
            compared += 1
            if not ours.low <= value <= ours.high:
                places.append(f"{100 * ours.mean:.2f} here and {100 * value:.2f} there at {eps:g}")
        if places:
            apart.append(f"{label} ({', '.join(places)})")
            outside += len(places)
    if not compared:
        return f"Published numbers: {table.source}. Nothing of it can be compared."
    if not apart:
        return (
            f"Published numbers: {table.source}. All {compared} published values lie within our "
            f"95 % intervals. {table.caveat}"
        )
    return (
        f"Published numbers: {table.source}. {outside} of {compared} published values lie "
        f"outside our 95 % intervals; error in percent at eps: {listed(apart)}. "
        f"{table.caveat} Network, training and attack details can move these numbers by many "
        "points, so neither row corrects the other."
    )
