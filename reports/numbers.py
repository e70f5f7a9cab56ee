"""The numbers of a run, by loss, attack and eps: what tables, curves and sentences share."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from robustloss.results import Run
from robustloss.spec import slug

NORM_WORDS = {"linf": "L∞, pixel units", "l2": "L2, pixel units"}


@dataclass(frozen=True)
class Estimate:
    """A number over seeds, as ``summary`` of results.json has it; low and high may be missing."""

    mean: float
    low: float | None
    high: float | None
    n_seeds: int
    values: tuple[float, ...]
    interval: str | None

    def overlaps(self, other: "Estimate") -> bool | None:
        """Whether the intervals share a point; None where one of them is missing."""
        if None in (self.low, self.high, other.low, other.high):
            return None
        return bool(self.low <= other.high and other.low <= self.high)  # type: ignore[operator]


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
        seeds: Every seed that has a row.
        classes: Number of classes, or None when no cell can be read.
        images: Test images a row, or None.
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
        self.data = str((run.provenance.get("data") or {}).get("name", ""))
        self.attacks = _attacks(rows, [a["label"] for a in spec.get("attacks", [])])
        self._summary = {
            (s["label"], s["attack_label"], float(s["eps"]), s["metric"]): s
            for s in run.summary
            if s["eps"] is not None  # else it is about the whole error curve
        }
        self._flags: dict[tuple, list[dict]] = {}
        for flag in run.flags:
            eps = flag.get("eps")
            key = (flag.get("label"), flag.get("attack_label"), None if eps is None else float(eps))
            self._flags.setdefault(key, []).append(flag)

    def get(self, label: str, attack: str, eps: float, metric: str) -> Estimate | None:
        """The estimate over seeds, or None where the run has none.

        Attack "none" at eps 0 is the clean pass.
        """
        found = self._summary.get((label, attack, float(eps), metric))
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
        rows = [
            r
            for r in self.run.rows
            if (r["label"], r["attack_label"], float(r["eps"])) == (label, attack, float(eps))
        ]
        return min(r["error_low"] for r in rows), max(r["error_high"] for r in rows)

    def error_eps(self, attack: AttackInfo) -> tuple[float, ...]:
        """The eps axis of errors: 0 (the clean pass) and every strength."""
        return (0.0, *attack.strengths)

    def flags(self, label: str, attack: str, eps: float) -> list[dict]:
        """Marks that concern one number: of the loss, of loss and attack, or of this eps."""
        keys = [(label, None, None), (label, attack, None), (label, attack, float(eps))]
        if eps == 0:
            keys.append((label, "none", 0.0))
        return [flag for key in keys for flag in self._flags.get(key, [])]


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
