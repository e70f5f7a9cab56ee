"""Numbers that others published, matched to the losses of a run and never mixed with ours."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
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
        spread: What the source prints after ±, as fractions, likewise; empty where it prints none.
    """

    short: str
    source: str
    caveat: str
    error: Mapping[str, Mapping[float, float]]
    spread: Mapping[str, Mapping[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class PublishedCrops:
    """One published table of clean errors from one crop and from ten.

    Attributes:
        short: How tables call it.
        source: The full reference.
        caveat: What the source leaves open.
        error: (top-1, top-5) as fractions, by label and number of crops.
    """

    short: str
    source: str
    caveat: str
    error: Mapping[str, Mapping[int, tuple[float, float]]]


@cache
def _tables() -> tuple[dict, ...]:
    return tuple(
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))
    )


def published_errors(numbers: Numbers, attack: AttackInfo) -> list[Published]:
    """Published errors for the same data set, attack and losses; empty when nothing matches.

    Tables of clean errors alone stand with the first attack, whose error table has a clean column.
    """
    found = []
    first = numbers.attacks and attack.label == numbers.attacks[0].label
    for table in _tables():
        kind = (table["attack"], table["norm"])
        clean = table["attack"] == "none" and first
        if not (clean or kind == (attack.name, attack.norm)) or not _fits(table, numbers):
            continue
        error, spread = (
            {
                label: {float(e): v for e, v in row.get(what, {}).items()}
                for label, row in _rows(table, numbers)
            }
            for what in ("error", "spread")
        )
        if error:
            found.append(Published(table["short"], table["source"], table["caveat"], error, spread))
    return found


def published_crops(numbers: Numbers) -> PublishedCrops | None:
    """Published errors from one crop and ten, for the same data; None when nothing matches."""
    for table in _tables():
        if table["attack"] == "crops" and _fits(table, numbers):
            error = {
                label: {int(n): (pair[0], pair[1]) for n, pair in row["crops"].items()}
                for label, row in _rows(table, numbers)
            }
            if error:
                return PublishedCrops(table["short"], table["source"], table["caveat"], error)
    return None


def _fits(table: Mapping, numbers: Numbers) -> bool:
    """Whether data set, network and training are those that the table is about."""
    data = numbers.run.provenance.get("data") or {}
    wanted = table.get("spec", {})
    return table["data"] in (data.get("name"), data.get("label")) and all(
        (numbers.spec.get(part) or {}).get(key) == value
        for part, keys in wanted.items()
        for key, value in keys.items()
    )


def _rows(table: Mapping, numbers: Numbers) -> list[tuple[str, Mapping]]:
    """The table's rows that are about a loss of the run, by the loss's label."""
    return [
        (loss["label"], row)
        for loss in numbers.spec.get("losses", [])
        for row in table["rows"]
        if loss["label"] in numbers.labels and _same(row, loss)
    ]


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
