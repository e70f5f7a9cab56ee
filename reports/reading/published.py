"""Numbers that others published, matched to the losses of a run and never mixed with ours.

Some tables ship with robustloss; a spec can name others (see `spec.report.read_published`).
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import Estimate
from robustloss.results.numbers import is_given
from robustloss.results.published import quote_percent

FOLDER = Path(__file__).parent.parent / "published"


@dataclass(frozen=True)
class Published:
    """One published table as far as it concerns this run."""

    short: str  # how tables call it
    source: str  # the full reference
    caveat: str  # what the source leaves open
    # fractions, by label and eps; of crops (top-1, top-5), by label and number of crops
    error: Mapping[str, Mapping[Any, Any]]
    # the same in percent as the source prints it, with its ± or its interval
    quotes: Mapping[str, Mapping[Any, Any]]
    auroc: Mapping[str, Mapping[float, float]] = field(default_factory=dict)  # over all images

    def name_among(self, others: "Sequence[Published]") -> str:
        """Return the name of its rows, with the source where the table has rows of others too."""
        return "published" if len(others) == 1 else f"published ({self.short})"


@cache
def _tables() -> tuple[dict, ...]:
    return tuple(
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))
    )


def published_errors(numbers: Numbers, attack: AttackInfo) -> list[Published]:
    """Return published numbers of the same losses under an attack: the reader's, then shipped ones.

    Tables of clean errors alone stand with the first attack, whose error table has a clean column.
    Shipped ones are about the same data set, and those of clean errors come last.

    Args:
        numbers: Of the run.
        attack: Whose tables the published numbers stand in.
    """
    first = bool(numbers.attacks) and attack.label == numbers.attacks[0].label
    own = [_of_reader(table, attack.label, alone=first) for table in own_tables(numbers)]
    tables = [t for t in _tables() if (t["attack"], t["norm"]) == (attack.name, attack.norm)]
    if first:
        tables += [t for t in _tables() if t["attack"] == "none"]
    shipped = (_of_run(table, numbers, "error", _budget, float) for table in tables)
    return [each for each in (*own, *shipped) if each.error or each.auroc]


def own_tables(numbers: Numbers) -> Sequence[Mapping[str, Any]]:
    """Return the tables that the spec of a run names, as its provenance holds them."""
    return numbers.run.provenance.get("published") or ()


def _of_reader(table: Mapping, attack: str, *, alone: bool) -> Published:
    """Return what a table that the spec names says under an attack, and of clean images.

    ``alone``: also where it says nothing under the attack.
    """
    found: dict[str, dict[str, dict]] = {key: {} for key in ("error", "quotes", "auroc")}
    if alone or any(row["attack_label"] == attack for row in table["rows"]):
        for row in (row for row in table["rows"] if row["attack_label"] in (attack, "none")):
            error = row["error"]
            quote = None if error is None else quote_percent(error, row["low"], row["high"])
            for key, value in (("error", error), ("quotes", quote), ("auroc", row["auroc"])):
                if value is not None:
                    found[key].setdefault(row["label"], {})[row["eps"]] = value
    return Published(table["short"], table["source"], table["caveat"], **found)


def _budget(text: str) -> float:
    return float(Fraction(text))


def published_crops(numbers: Numbers) -> Published | None:
    """Return published errors from one crop and ten, for the same data; None without a match."""
    tables = [table for table in _tables() if table["attack"] == "crops"]
    found = (_of_run(table, numbers, "crops", int, tuple) for table in tables)
    return next((each for each in found if each.error), None)


def _of_run(
    table: Mapping, numbers: Numbers, key: str, by: Callable[[str], Any], of: Callable[[Any], Any]
) -> Published:
    """Return a table as far as it concerns the run: what its rows have under ``key``.

    ``by`` and ``of`` make a key and a value out of those of JSON.
    """
    error: dict[str, dict] = {}
    quotes: dict[str, dict] = {}
    for label, row in _rows(table, numbers):
        error[label] = {by(k): of(v) for k, v in row.get(key, {}).items()}
        quotes[label] = {by(k): _quote(v, row.get("spread", {}).get(k))
                         for k, v in row.get(key, {}).items()}  # fmt: skip
    return Published(table["short"], table["source"], table["caveat"], error, quotes)


def _quote(value: Any, spread: Any) -> Any:
    """Return an error with what stands after ±, or those of top-1 and top-5."""
    if isinstance(value, list):
        return [*map(_quote, value, spread)]
    return quote_percent(value) + ("" if spread is None else f" ± {100 * spread:.2f}")


def _rows(table: Mapping, numbers: Numbers) -> list[tuple[str, Mapping]]:
    """Return the table's rows that are about a loss of the run, by the loss's label."""
    # An image folder has no other name than the one that its user gave it.
    folder = numbers.data.get("name") == "image_folder"
    called = numbers.data.get("label" if folder else "name")
    classes = len(numbers.data.get("class_names") or [])
    some = (numbers.spec.get("data") or {}).get("classes")  # the others are held out
    if table["data"] != called or table.get("classes", classes) != classes or some:
        return []
    found = []
    for loss in numbers.spec.get("losses", []):
        if loss["label"] not in numbers.labels or not _fits(
            table.get("spec", {}), numbers.spec, loss
        ):
            continue
        given = loss.get("params") or {}
        for row in table["rows"]:
            usual = row.get("defaults", ())  # parameters of which our default is the row's
            same = all(
                given[key] == value if key in given else key in usual
                for key, value in row["params"].items()
            )
            if row["loss"] == loss["name"] and same:
                found.append((loss["label"], row))
    return found


def _fits(wanted: Mapping, spec: Mapping, loss: Mapping) -> bool:
    """Return whether images, network and training of a loss are those that the table is about."""
    if is_given(loss):
        return False  # trained elsewhere, nobody knows how
    train = {**(spec.get("train") or {}), **(loss.get("train") or {})}
    if train.get("adversarial") and not wanted.get("train", {}).get("adversarial"):
        return False  # the table is about training on clean images
    for part, keys in wanted.items():
        own = {**(spec.get(part) or {}), **(loss.get(part) or {})}  # a loss may override keys
        if not _has(own, keys):
            return False
    return True


def _has(own: Any, wanted: Any) -> bool:
    """Return whether a value is the wanted one; a table may have more keys than the wanted one."""
    if isinstance(wanted, Mapping):
        return isinstance(own, Mapping) and all(_has(own.get(k), v) for k, v in wanted.items())
    return bool(own == wanted)


def count_outside(pairs: Iterable[tuple[Estimate | None, float]]) -> str:
    """Return how many published values lie outside our intervals: pairs of ours and theirs."""
    known = [
        ours.low <= value <= ours.high
        for ours, value in pairs
        if ours and ours.low is not None and ours.high is not None
    ]
    outside = known.count(False)
    if not known:
        return "None of the published values can be compared."
    if len(known) == 1:
        place = "outside" if outside else "within"
        return f"The one published value lies {place} our 95 % interval."
    if not outside:
        return f"All {len(known)} published values lie within our 95 % intervals."
    verb = "lies" if outside == 1 else "lie"
    return f"{outside} of {len(known)} published values {verb} outside our 95 % intervals."
