"""Look-up of a run's numbers, and of the flags on them, by loss, attack and eps.

The result table and the report stand on it, so they show the same numbers with the same marks.
"""

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from robustloss.notation import NORM_NAMES
from robustloss.results.columns import Row
from robustloss.results.schema import BEST_ADAPTIVE, TABLES, WORST_CASE, aims_at_label

# These concern the clean pass too; every other check is about attacks.
CLEAN_CHECKS = ("output_not_repeatable", "output_depends_on_batch", "output_is_probability")
TRANSFER = "transfer_beats_white_box"
BEYOND_GREY = "radius_beyond_grey"
WORST = WORST_CASE["attack"]
# Ends the remark on data whose validation images are the test images: what `evaluate` was given.
NO_VALIDATION = "no validation images were given"
BEST = BEST_ADAPTIVE
# What names a row of some table beside loss, seed, attack and eps: `detection` has one for each
# score and population. The label of what is taken over several attacks says its norm.
_FURTHER = {
    column for table in TABLES.values() if table.of == "cell" for column in table.sorted_by
} - {"label", "seed", "attack_label", "norm", "eps"}


Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Attack:
    """One attack of a run, or the per-image worst case over several; its eps are sorted."""

    label: str
    name: str
    norm: str | None
    eps: tuple[float, ...]

    @property
    def strengths(self) -> tuple[float, ...]:
        """The eps that change anything."""
        return tuple(e for e in self.eps if e > 0)


def is_given(loss: Mapping[str, Any]) -> bool:
    """Return whether the spec's table of a loss names a model from elsewhere."""
    return bool(loss.get("weights")) or isinstance(loss.get("model"), str)


class ResultNumbers:
    """Look-up of what results.json says of each loss, attack and eps.

    Attributes:
        spec: Of the run, as plain tables; empty for a run that stored none.
        names: Built-in or plug-in name of each loss, by label.
        labels: Losses in the order of the spec.
        given: Labels of those that are models from elsewhere.
        baseline: Label of the loss that the others are compared with: the spec's, or the first.
        attacks: Every attack on the label that has a row, in the order of the spec.
        keeping: Likewise those that keep the label and change the confidence.
        worst_cases: The per-image worst case, one for each norm with two attacks or more.
        flag_index: Its flags.
    """

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.spec: Mapping[str, Any] = results["provenance"].get("spec") or {}
        rows, worst = results["rows"], results.get("worst_case", [])
        # a loss of which no cell finished is known from its failures alone
        known = [*results.get("failures", ()), *rows]
        self.names = {row["label"]: row.get("loss") for row in known if row.get("label")}
        listed = (loss["label"] for loss in self.spec.get("losses", ()))
        self.labels = ordered((label for label in listed if label in self.names), self.names)
        self.given = {x["label"] for x in self.spec.get("losses", ()) if is_given(x)}
        named = (self.spec.get("report") or {}).get("baseline")
        self.baseline: str = named if named in self.labels else "".join(self.labels[:1])
        listed = (attack["label"] for attack in self.spec.get("attacks", ()))
        known_attacks = _list_attacks(rows, listed)
        self.attacks: Sequence[Attack] = [a for a in known_attacks if aims_at_label(a.name)]
        self.keeping: Sequence[Attack] = [a for a in known_attacks if not aims_at_label(a.name)]
        self.worst_cases: Sequence[Attack] = _list_worst_cases(worst)
        self._rows = group_rows(
            [*rows, *(row | {"attack": WORST} for row in worst)],
            lambda row: (row["label"], place_of(row), float(row["eps"])),
        )
        self._summary: dict[tuple, Row] = {}
        for row in results.get("summary", ()):
            further = frozenset((key, row[key]) for key in _FURTHER if row.get(key) is not None)
            at = row["label"], place_of(row), number(row["eps"]), row["metric"], further
            self._summary[at] = row
        self.flag_index = FlagIndex(results.get("flags", ()))

    @property
    def nothing_trained(self) -> bool:
        """Whether every loss is a model from elsewhere: such models have no training seed."""
        return bool(self.labels) and self.given >= {*self.labels}

    @property
    def kind(self) -> str:
        """What a row is: "loss", or "model" where nothing was trained."""
        return "model" if self.nothing_trained else "loss"

    @property
    def draws(self) -> int:
        """Calls of a model whose mean each of its numbers is about; 1 where no attack has eot."""
        own = [each for each in self.spec.get("attacks", ()) if ":" not in each.get("name", "")]
        return max((int((each.get("params") or {}).get("eot", 1)) for each in own), default=1)

    @property
    def attacking(self) -> Sequence[Attack]:
        """The attacks that change anything."""
        return [attack for attack in self.attacks if attack.strengths]

    def find(
        self, label: str, attack: str, eps: float | None, metric: str, **further: object
    ) -> Row | None:
        """Return the row of `summary` of one number; None where the run has no such number.

        Args:
            label: Of the loss.
            attack: Label of an attack or of a worst case; "none" at eps 0 is the clean pass.
            eps: None asks for a number of the whole error curve, such as "median_radius".
            metric: As `summary` names it.
            further: What else names a row of the metric's table, such as score and population.
        """
        row = self._summary.get((label, attack, number(eps), metric, frozenset(further.items())))
        return None if row is None or number(row.get("mean")) is None else row

    def rows(self, label: str, attack: str, eps: float) -> list[Row]:
        """Return one row a seed, of `rows` or, for the label of a worst case, of `worst_case`.

        Args:
            label: Of the loss.
            attack: Label of the attack or of the worst case; "none" at eps 0 is the clean pass.
            eps: In the units of the attack's norm.
        """
        return self._rows.get((label, attack, float(eps)), [])

    def of_norm(self, norm: str | None) -> list[Attack]:
        """Return the attacks of one norm that change anything."""
        return [attack for attack in self.attacking if attack.norm == norm]

    def flags_of(self, label: str, attack: Attack, eps: float | None) -> list[Row]:
        """Return the flags that concern one number of an attack, or of a worst case.

        Args:
            label: Of the loss.
            attack: An attack or a worst case.
            eps: None asks for a number of the whole error curve, which every eps concerns.
        """
        if attack.name != WORST:
            return self.flag_index.of_attack(label, attack.label, eps)
        at = attack.strengths if eps is None else (eps,)
        strongest = {row["strongest"] for e in at for row in self.rows(label, attack.label, e)}
        labels = [other.label for other in self.of_norm(attack.norm)]
        return self.flag_index.of_worst_case(label, labels, strongest, eps)


class FlagIndex:
    """Look-up of the table `flags` of one run."""

    def __init__(self, flags: Iterable[Mapping[str, Any]]) -> None:
        self._flags: dict[tuple, list[Row]] = {}
        for flag in flags:
            eps = flag.get("eps")
            eps = None if eps is None or math.isnan(eps) else float(eps)
            key = (flag.get("label"), flag.get("attack_label"), eps)
            self._flags.setdefault(key, []).append(dict(flag))

    def of_attack(self, label: str, attack: str, eps: float | None) -> list[Row]:
        """Return the flags that concern one number: of the loss, of loss and attack, or of its eps.

        Args:
            label: Of the loss.
            attack: Label of the attack.
            eps: None asks for a number of the whole error curve, which every eps concerns.
        """
        if eps is None:
            known = (f for (k, a, _), flags in self._flags.items()
                     if k == label and a in (None, attack) for f in flags)  # fmt: skip
            return [flag for flag in known if flag.get("eps") != 0]
        keys = [(label, None, None), (label, attack, None), (label, attack, float(eps))]
        found = [flag for key in keys for flag in self._flags.get(key, [])]
        if eps == 0:
            found = [f for f in found if f.get("eps") == 0 or f.get("check") in CLEAN_CHECKS]
            found += self._flags.get((label, "none", 0.0), [])
        return found

    def of_worst_case(
        self, label: str, attacks: Sequence[str], strongest: Collection[str], eps: float | None
    ) -> list[Row]:
        """Return the flags that concern the worst case over some attacks.

        A weak attack's flaw does not reach the worst case when another attack is stronger: it
        carries the flags of the loss, those of the attack that is strongest alone at this eps,
        every sign that an attack from outside (a transfer) does better than what it holds, and
        radii that are too large, which no attack at an eps mends.

        Args:
            label: Of the loss.
            attacks: Labels of the attacks of the norm.
            strongest: Labels of those that are strongest alone, one for each seed.
            eps: None for a number of the whole error curve.
        """
        found: list[Row] = []
        for attack in attacks:
            for flag in self.of_attack(label, attack, eps):
                own = flag.get("attack_label") is None or attack in strongest
                if (own or flag.get("check") in (TRANSFER, BEYOND_GREY)) and flag not in found:
                    found.append(flag)
        return found


def _list_attacks(rows: Iterable[Row], listed: Iterable[str]) -> list[Attack]:
    """Return every attack that has a row; those that the spec lists come first, in its order."""
    attacked = (row for row in rows if row["attack"] != "none")
    own = group_rows(attacked, lambda row: row["attack_label"])
    return [
        Attack(label, own[label][0]["attack"], own[label][0]["norm"], _eps_of(own[label]))
        for label in ordered((label for label in listed if label in own), own)
    ]


def _list_worst_cases(rows: Iterable[Row]) -> list[Attack]:
    by_norm = group_rows(rows, lambda row: row["norm"])
    return [
        Attack(combined_label("worst case", norm), WORST, norm, _eps_of(by_norm[norm]))
        for norm in ordered((norm for norm in NORM_NAMES if norm in by_norm), by_norm)
        if len({attack for row in by_norm[norm] for attack in row["attacks"]}) > 1
    ]


def _eps_of(rows: Iterable[Row]) -> tuple[float, ...]:
    return tuple(sorted({float(row["eps"]) for row in rows}))


def place_of(row: Mapping[str, Any]) -> str:
    """Return the label of a row's attack; that of what is taken over several says its norm."""
    if row["attack"] == WORST:
        return combined_label("worst case", row["norm"])
    if row["attack"] == BEST["attack"]:
        return combined_label(row["attack_label"], row["norm"])
    return row["attack_label"]


def combined_label(label: str, norm: str | None) -> str:
    """Return what is taken over several attacks with their norm: "worst case, L∞"."""
    return f"{label}, {NORM_NAMES.get(norm or '', norm)}"


def group_rows(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    """Return the rows by what ``key`` takes from each, all in the order in which they come.

    Args:
        rows: Of any table.
        key: From a row to what it is told apart by.
    """
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def number(value: float | None) -> float | None:
    """Return a float, or None for what is missing: null, or NaN of a file of before."""
    return None if value is None or math.isnan(value) else float(value)


def ordered(first: Iterable[str], rest: Iterable[str]) -> list[str]:
    """Return each name once, those of ``first`` before the others."""
    return list(dict.fromkeys([*first, *rest]))
