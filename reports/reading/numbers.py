"""The numbers of a run, by loss, attack and eps: what tables, curves and sentences share."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from robustloss.reports.words import NORM_NAMES, NORM_WORDS, Estimate
from robustloss.results.flags import FlagIndex
from robustloss.results.run import Run
from robustloss.results.schema import TABLES
from robustloss.spec.text import slug

WORST = "worst_case"  # attack of the per-image minimum, in results.json
# What names a row of some table beside loss, seed, attack and eps: `detection` has one for each
# score and population. The label of an attack, or of a worst case, says its norm.
_FURTHER = {
    column for table in TABLES.values() if table.of == "cell" for column in table.sorted_by
} - {"label", "seed", "attack_label", "norm", "eps"}


@dataclass(frozen=True)
class AttackInfo:
    """One attack of the run: its eps are sorted; ``strengths`` leaves out 0."""

    label: str
    name: str
    norm: str | None
    eps: tuple[float, ...]
    slug: str

    @property
    def strengths(self) -> tuple[float, ...]:
        """The eps that change anything."""
        return tuple(e for e in self.eps if e > 0)

    @property
    def axis(self) -> str:
        """Name of the eps axis."""
        return f"eps ({NORM_WORDS.get(self.norm or '', 'own units')})"

    @property
    def norm_name(self) -> str:
        """Its norm in words."""
        return NORM_NAMES.get(self.norm or "", str(self.norm))


class Numbers:
    """Look-up of one run's numbers.

    Attributes:
        run: Its files.
        spec: Its spec as plain tables; empty for a run that stored none.
        data: What its provenance says of the data.
        labels: Losses in the order of the spec.
        baseline: Label of the loss that the others are compared with: the spec's, or the first.
        names: Built-in or plug-in name of each loss, by label.
        attacks: In the order of the spec.
        worst_cases: The per-image worst case, one for each norm with two attacks or more.
        seeds: Every seed that has a row.
        classes: Number of classes, or None when no cell can be read.
        images: Test images a row, or None.
        data_label: What a reader calls the data set.
    """

    def __init__(self, run: Run, classes: int | None = None) -> None:
        self.run = run
        self.spec: Mapping[str, Any] = run.provenance.get("spec") or {}
        self.data: Mapping[str, Any] = run.provenance.get("data") or {}
        self.data_label = str(self.data.get("label") or self.data.get("name") or "")
        # a loss of which no cell finished is known from its failures alone
        failed = [{"label": f.get("label"), "loss": f.get("loss")} for f in run.failures]
        self.names = {
            r["label"]: r["loss"] for r in [*failed, *run.rows] if r.get("label") is not None
        }
        listed = [loss["label"] for loss in self.spec.get("losses", [])]
        self.labels = _ordered((k for k in listed if k in self.names), self.names)
        named = (self.spec.get("report") or {}).get("baseline")
        self.baseline: str = named if named in self.labels else "".join(self.labels[:1])
        self.seeds = sorted({r["seed"] for r in run.rows})
        self.classes = classes
        self.images = max((r["n"] for r in run.rows), default=None)
        self.attacks = _attacks(run.rows, [a["label"] for a in self.spec.get("attacks", [])])
        # the worst case of each norm as an attack, where more than one attack is in it
        self.worst_cases: list[AttackInfo] = []
        for norm in _ordered(NORM_NAMES, (r["norm"] for r in run.worst_case)):
            own = [r for r in run.worst_case if r["norm"] == norm]
            if len({attack for r in own for attack in r["attacks"]}) > 1:
                eps = tuple(sorted({float(r["eps"]) for r in own}))
                name = f"worst-case-{slug(norm)}"
                self.worst_cases.append(AttackInfo(_worst_label(norm), WORST, norm, eps, name))
        self._rows: dict[tuple, list[dict]] = {}
        for row in [*run.rows, *(r | {"attack": WORST} for r in run.worst_case)]:
            place = (row["label"], _attack_label(row), float(row["eps"]))
            self._rows.setdefault(place, []).append(row)
        self._radii: dict[tuple[str, str], list[dict]] = {}
        for row in run.radii:
            self._radii.setdefault((row["label"], _attack_label(row)), []).append(row)
        self._summary: dict[tuple, dict] = {}
        for row in run.summary:
            further = frozenset((k, row[k]) for k in _FURTHER if row.get(k) is not None)
            at = (row["label"], _attack_label(row), _number(row["eps"]))
            self._summary[*at, row["metric"], further] = row
        self.flag_index = FlagIndex(run.flags)

    def get(
        self, label: str, attack: str, eps: float | None, metric: str, **further: object
    ) -> Estimate | None:
        """Return the estimate over seeds, or None where the run has none.

        Args:
            label: Of the loss.
            attack: Label of an attack or of a worst case; "none" at eps 0 is the clean pass.
            eps: None asks for a number of the whole error curve, such as "median_radius".
            metric: As ``summary`` of results.json names it.
            further: What else names a row of the metric's table, such as score and population.
        """
        key = (label, attack, _number(eps), metric, frozenset(further.items()))
        found = self._summary.get(key)
        if found is None or _number(found.get("mean")) is None:
            return None
        values = tuple(float(v) for v in found.get("values", []) if _number(v) is not None)
        return Estimate(
            float(found["mean"]),
            _number(found.get("low")),
            _number(found.get("high")),
            int(found.get("n_seeds") or 0),
            values,
            found.get("interval"),
        )

    def error(self, label: str, attack: AttackInfo, eps: float) -> Estimate | None:
        """Return the error at one eps; at eps 0 the clean pass stands in where an attack skips it.

        Args:
            label: Of the loss.
            attack: An attack or a worst case.
            eps: One of its eps, or 0.
        """
        found = self.get(label, attack.label, eps, "error")
        return self.get(label, "none", 0.0, "error") if found is None and eps == 0 else found

    def rows(self, label: str, attack: str, eps: float) -> list[dict]:
        """Return one row a seed, of `rows` or, for the label of a worst case, of `worst_case`.

        Args:
            label: Of the loss.
            attack: Label of the attack or of the worst case; "none" at eps 0 is the clean pass.
            eps: In the units of the attack's norm.
        """
        return self._rows.get((label, attack, float(eps)), [])

    def radii(self, label: str, attack: AttackInfo) -> list[dict]:
        """Return one row a seed of `radii`: the error curve of an attack or worst case in numbers.

        Args:
            label: Of the loss.
            attack: An attack or a worst case.
        """
        return self._radii.get((label, attack.label), [])

    def curves(self, norm: str) -> list[AttackInfo]:
        """Return the attacks of a norm whose error curves `radii` has: the worst case first."""
        known = {name for _, name in self._radii}
        every = [*self.worst_cases, *self.attacks]
        return [attack for attack in every if attack.norm == norm and attack.label in known]

    @property
    def norms(self) -> list[str]:
        """The norms of the attacks, L∞ first."""
        used = {attack.norm for attack in self.attacks if attack.norm and attack.strengths}
        return _ordered((norm for norm in NORM_NAMES if norm in used), sorted(used))

    def of_norm(self, norm: str | None) -> list[AttackInfo]:
        """Return the attacks of one norm that change anything."""
        return [attack for attack in self.attacks if attack.norm == norm and attack.strengths]

    def error_eps(self, attack: AttackInfo) -> tuple[float, ...]:
        """Return the eps axis of errors: 0 (the clean pass) and every strength."""
        return (0.0, *attack.strengths)

    def flags(self, label: str, attack: str, eps: float | None) -> list[dict]:
        """Return the flags that concern one number: of the loss, of loss and attack, or of its eps.

        Args:
            label: Of the loss.
            attack: Label of the attack.
            eps: None asks for a number of the whole error curve, which every eps concerns.
        """
        return self.flag_index.of_attack(label, attack, eps)


def _attacks(rows: list[dict], listed: list[str]) -> list[AttackInfo]:
    """Return every attack that has a row; those that the spec lists come first, in its order."""
    own: dict[str, list[dict]] = {}
    for row in rows:
        if row["attack"] != "none":
            own.setdefault(row["attack_label"], []).append(row)
    out = []
    for i, label in enumerate(_ordered((k for k in listed if k in own), own)):
        first, eps = own[label][0], tuple(sorted({float(row["eps"]) for row in own[label]}))
        name = slug(label)[:60].strip("-.") or f"attack-{i + 1}"
        out.append(AttackInfo(label, first["attack"], first["norm"], eps, name))
    return out


def _attack_label(row: Mapping[str, Any]) -> str:
    """Return the attack's label; worst cases of two norms share theirs, so the norm is added."""
    return _worst_label(row["norm"]) if row["attack"] == WORST else row["attack_label"]


def _worst_label(norm: str | None) -> str:
    return f"worst case, {NORM_NAMES.get(norm or '', norm)}"


def _number(value: float | None) -> float | None:
    """Return a float, or None for what is missing: null, or NaN of a file of before."""
    return None if value is None or math.isnan(value) else float(value)


def _ordered(first: Iterable[str], rest: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*first, *rest]))
