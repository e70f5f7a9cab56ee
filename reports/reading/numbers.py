"""The numbers of a run, by loss, attack and eps: what tables, curves and sentences share."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from robustloss.reports.words import NORM_NAMES, NORM_WORDS, Estimate
from robustloss.results.run import Run
from robustloss.spec.text import slug

WORST = "worst_case"  # attack of the per-image minimum, in results.json
# These concern the clean pass too; every other check is about attacks.
CLEAN_CHECKS = ("output_not_repeatable", "output_is_probability")


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


class Numbers:
    """Look-up of one run's numbers.

    Attributes:
        labels: Losses in the order of the spec.
        names: Built-in or plug-in name of each loss, by label.
        attacks: In the order of the spec.
        worst_cases: The per-image worst case, one for each norm with two attacks or more.
        seeds: Every seed that has a row.
        classes: Number of classes, or None when no cell can be read.
        images: Test images a row, or None.
        data: Key of the data set, which published numbers go by.
        data_label: What a reader calls it.
    """

    def __init__(self, run: Run, classes: int | None = None) -> None:
        self.run = run
        spec = run.provenance.get("spec") or {}
        self.spec: Mapping[str, Any] = spec
        failed = [{"label": f.get("label"), "loss": f.get("loss")} for f in run.failures]
        rows = run.rows
        self.names = {r["label"]: r["loss"] for r in [*failed, *rows] if r.get("label")}
        listed = [loss["label"] for loss in spec.get("losses", [])]
        self.labels = _ordered((k for k in listed if k in self.names), self.names)
        self.seeds = sorted({r["seed"] for r in rows})
        self.classes = classes
        self.images = max((r["n"] for r in rows), default=None)
        data = run.provenance.get("data") or {}
        self.data = str(data.get("name") or "")
        self.data_label = str(data.get("label") or self.data)
        self.attacks = _attacks(rows, [a["label"] for a in spec.get("attacks", [])])
        self.worst_cases = _worst_cases(run.worst_case)
        self._rows: dict[tuple, list[dict]] = {}
        for row in [*rows, *(r | {"attack": WORST} for r in run.worst_case)]:
            place = (row["label"], _name(row), float(row["eps"]))
            self._rows.setdefault(place, []).append(row)
        self._radii: dict[tuple[str, str], list[dict]] = {}
        for row in run.radii:
            self._radii.setdefault((row["label"], _name(row)), []).append(row)
        self._summary = {
            (s["label"], _name(s), _eps(s["eps"]), s["metric"]): s for s in run.summary
        }
        self._flags: dict[tuple, list[dict]] = {}
        for flag in run.flags:
            eps = flag.get("eps")
            key = (flag.get("label"), flag.get("attack_label"), None if eps is None else float(eps))
            self._flags.setdefault(key, []).append(flag)

    def get(self, label: str, attack: str, eps: float | None, metric: str) -> Estimate | None:
        """The estimate over seeds, or None where the run has none.

        Attack "none" at eps 0 is the clean pass; the label of a worst case is an attack too. Eps
        None asks for a number of the whole error curve, such as "median_radius".
        """
        found = self._summary.get((label, attack, _eps(eps), metric))
        if found is None or _missing(found.get("mean")):
            return None
        low, high = (None if _missing(found.get(k)) else float(found[k]) for k in ("low", "high"))
        values = tuple(float(v) for v in found.get("values", []) if not _missing(v))
        seeds = int(found.get("n_seeds") or 0)
        return Estimate(float(found["mean"]), low, high, seeds, values, found.get("interval"))

    def error(self, label: str, attack: AttackInfo, eps: float) -> Estimate | None:
        """Error at one eps; at eps 0 the clean pass stands in for an attack that skips it."""
        found = self.get(label, attack.label, eps, "error")
        return self.get(label, "none", 0.0, "error") if found is None and eps == 0 else found

    def error_over_images(self, label: str, attack: str, eps: float) -> tuple[float, float]:
        """Widest Wilson interval of one error over its seeds."""
        rows = self.rows(label, attack, eps)
        return min(r["error_low"] for r in rows), max(r["error_high"] for r in rows)

    def rows(self, label: str, attack: str, eps: float) -> list[dict]:
        """One row a seed, of `rows` or, for the label of a worst case, of `worst_case`."""
        return self._rows.get((label, attack, float(eps)), [])

    def radii(self, label: str, attack: AttackInfo) -> list[dict]:
        """One row a seed of `radii`: one attack's error curve, or a worst case's, in numbers."""
        return self._radii.get((label, attack.label), [])

    def curves(self, norm: str) -> list[AttackInfo]:
        """The error curves that `radii` tells about: the worst case first."""
        known = {name for _, name in self._radii}
        every = [*self.worst_cases, *self.attacks]
        return [attack for attack in every if attack.norm == norm and attack.label in known]

    @property
    def norms(self) -> list[str]:
        """The norms of the attacks, L∞ first."""
        used = {attack.norm for attack in self.attacks if attack.norm and attack.strengths}
        return _ordered((norm for norm in NORM_NAMES if norm in used), sorted(used))

    def of_norm(self, norm: str | None) -> list[AttackInfo]:
        """The attacks of one norm that change anything."""
        return [attack for attack in self.attacks if attack.norm == norm and attack.strengths]

    def error_eps(self, attack: AttackInfo) -> tuple[float, ...]:
        """The eps axis of errors: 0 (the clean pass) and every strength."""
        return (0.0, *attack.strengths)

    def flags(self, label: str, attack: str, eps: float | None) -> list[dict]:
        """Flags that concern one number: of the loss, of loss and attack, or of this eps.

        Eps None asks for a number of the whole error curve, which every eps concerns.
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


def _name(row: Mapping[str, Any]) -> str:
    """The attack's label; worst cases of two norms share theirs, so the norm is added."""
    return worst_label(row["norm"]) if row["attack"] == WORST else row["attack_label"]


def worst_label(norm: str | None) -> str:
    """How the worst case of a norm is called in tables and figures."""
    return f"worst case, {NORM_NAMES.get(norm or '', norm)}"


def _worst_cases(rows: list[dict]) -> list[AttackInfo]:
    out = []
    for norm in _ordered(NORM_NAMES, (r["norm"] for r in rows)):
        own = [r for r in rows if r["norm"] == norm]
        if len({name for r in own for name in r["attacks"]}) > 1:
            eps = tuple(sorted({float(r["eps"]) for r in own}))
            out.append(AttackInfo(worst_label(norm), WORST, norm, eps, f"worst-case-{slug(norm)}"))
    return out


def _eps(value: float | None) -> float | None:
    return None if value is None else float(value)


def _ordered(first: Iterable[str], rest: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*first, *rest]))


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _attacks(rows: list[dict], listed: list[str]) -> list[AttackInfo]:
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["attack"] != "none":
            entry = found.setdefault(row["attack_label"], {"row": row, "eps": set()})
            entry["eps"].add(float(row["eps"]))
    out = []
    for i, label in enumerate(_ordered((k for k in listed if k in found), found)):
        row, eps = found[label]["row"], tuple(sorted(found[label]["eps"]))
        name = slug(label)[:60].strip("-.") or f"attack-{i + 1}"
        out.append(AttackInfo(label, row["attack"], row["norm"], eps, name))
    return out
