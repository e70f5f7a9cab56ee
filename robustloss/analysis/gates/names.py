"""What a gate names in a run: which rows of which table, of which losses.

What a gate leaves out is filled in where only one thing can be meant. What does not exist, or could
mean two things, is a mistake: the message says what there is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from robustloss.analysis.gates.metrics import Metric, find_metric
from robustloss.analysis.tables.summary import BEST
from robustloss.notation import eps_text
from robustloss.results.numbers import (
    WORST,
    Attack,
    ResultNumbers,
    combined_label,
    ordered,
)
from robustloss.results.schema import TABLES, aims_at_label
from robustloss.spec.attack_kinds import attack_kind, attack_norm
from robustloss.spec.errors import SpecError, choice_rule
from robustloss.spec.gates.table import GateSpec
from robustloss.spec.prefixes import canonical_name
from robustloss.spec.text import literal, slug

SCORE = "class_log_likelihood"  # where a gate names none
CLEAN = Attack("none", "none", None, (0.0,))
_COMBINED = {WORST: "worst case", BEST: "best of adaptive"}
_WITH_CLEAN = (
    "rows",
    "calibration",
    "per_class",
    "reliability",
)  # tables with the clean images too


class Known(ResultNumbers):
    """What a gate can name: the losses, attacks and scores of the spec and of the rows.

    Attributes:
        results: The content of results.json; without rows where nothing has been computed yet.
        losses: Names of the losses by label.
        every: Attacks by label, also those of which no cell finished.
        scores: Detection scores.
    """

    def __init__(self, results: Mapping[str, Any]) -> None:
        super().__init__(results)
        self.results = results
        self.losses = {x["label"]: x["name"] for x in self.spec.get("losses", ())} | self.names
        asked = [
            Attack(x["label"], x["name"], attack_norm(x["name"], x.get("params") or {}),
                   tuple(float(eps) for eps in x["eps"]))
            for x in self.spec.get("attacks", ())
        ]  # fmt: skip
        self.every = {attack.label: attack for attack in (*asked, *self.attacks)}
        scores = (self.spec.get("detection") or {}).get("scores") or ()
        self.scores = ordered(scores, (row["score"] for row in results.get("detection", ())))

    def combined(self, name: str) -> list[Attack]:
        """Return the worst case, or the best of the adaptive attacks, of each norm."""
        own = [
            attack
            for attack in self.every.values()
            if attack_kind(attack.name) == "adaptive"
            or (name == WORST and aims_at_label(attack.name))
        ]
        found = []
        for norm in dict.fromkeys(attack.norm for attack in own):
            eps = {eps for attack in own if attack.norm == norm for eps in attack.strengths}
            label = combined_label(_COMBINED[name], norm)
            found += [Attack(label, name, norm, tuple(sorted(eps)))] if eps else []
        return found


@dataclass(frozen=True)
class Asked:
    """A gate with what it names in a run.

    Attributes:
        gate: As it was written.
        key: Its place, such as "gates[0]".
        name: What tables call it.
        metric: In the table in which it is looked up.
        labels: Of the losses.
        attack: None for a number that is about no attack.
        eps: None for a number that is about no single budget.
        where: What the rows have in the columns that tell them apart.
    """

    gate: GateSpec
    key: str
    name: str
    metric: Metric
    labels: tuple[str, ...]
    attack: Attack | None
    eps: float | None
    where: Mapping[str, Any]


def resolve(known: Known, gates: Sequence[GateSpec]) -> list[Asked]:
    """Return what some gates name.

    Args:
        known: What there is.
        gates: As `load_gates` gives them.

    Raises:
        SpecError: A gate names what is not there; a line for each.
    """
    found: list[Asked] = []
    mistakes: list[str] = []
    for i, gate in enumerate(gates):
        try:
            asked = _Finder(known, gate, f"gates[{i}]").find()
        except SpecError as error:
            mistakes.append(str(error))
            continue
        twins = sum(other.name == asked.name for other in found)
        # a test of JUnit is known by its name alone
        found.append(replace(asked, name=f"{asked.name} ({twins + 1})") if twins else asked)
    if mistakes:
        raise SpecError("\n".join(mistakes))
    return found


class _Finder:
    """Finds what one gate names; each method refuses what is not there."""

    def __init__(self, known: Known, gate: GateSpec, key: str) -> None:
        self.known, self.gate, self.key = known, gate, key

    def find(self) -> Asked:
        gate = self.gate
        try:
            metric = find_metric(gate.metric)
        except ValueError as error:
            raise self._refusal("metric", gate.metric, str(error)) from None
        attack = self._attack(metric)
        metric = self._metric_under(attack, metric)
        eps = self._eps(attack, metric)
        where = self._where(attack, eps, metric)
        self._check_bound(metric)
        name = gate.name or self._name(attack, eps, metric)
        return Asked(gate, self.key, name, metric, self._labels(), attack, eps, where)

    def _refusal(self, key: str, value: object, rule: str) -> SpecError:
        return SpecError(f"{self.key}.{key} (={literal(value)}) {rule}")

    def _choice(self, key: str, value: str | None, choices: Sequence[str]) -> SpecError:
        if value is None:
            return SpecError(
                f"{self.key}.{key}: missing. It {choice_rule('', choices, quote=True)}"
            )
        return self._refusal(key, value, choice_rule(value, choices, quote=True))

    def _no(self, key: str, value: object, why: str) -> None:
        """Refuse a key that was given and has no meaning here."""
        if value is not None:
            raise self._refusal(key, value, f"has no meaning here: {why}. Take it out.")

    def _attack(self, metric: Metric) -> Attack | None:
        """Return the attack; None for a number that is about none."""
        gate, text = self.gate, self.gate.attack
        if gate.metric == "clean_error":
            self._no("attack", text, "clean_error is of the images without an attack")
            return CLEAN
        if metric.table == "worst_case":
            if text is not None and not slug(text).startswith("worst-case"):
                rule = f"has no meaning here: {gate.metric} is over all attacks. "
                rule += 'Write metric = "error".'
                raise self._refusal("attack", text, rule)
            return self._combined(WORST, text or "worst case")
        if "attack_label" not in metric.columns:
            self._no("attack", text, f"{gate.metric} is about no attack")
            return None
        attacks = {a.label: a.name for a in self.known.every.values()}
        combined = [word for name, word in _COMBINED.items() if self.known.combined(name)]
        choices = [*attacks, *combined]
        if text is None:
            strong = [a for a in self.known.every.values() if a.strengths]
            if len(strong) == 1:
                return strong[0]
            raise self._choice("attack", None, choices)
        for name, word in _COMBINED.items():
            if slug(text).startswith(slug(word)):
                return self._combined(name, text)
        if slug(text) in ("none", "clean"):
            if metric.table in _WITH_CLEAN:
                return CLEAN
            raise self._choice("attack", text, choices)
        found = match(text, attacks)
        if len(found) != 1:
            raise self._choice("attack", text, found or choices)
        return self.known.every[found[0]]

    def _combined(self, name: str, text: str) -> Attack:
        """Return the worst case, or the best of adaptive, that a text names, norm or no norm."""
        every = self.known.combined(name)
        found = [a for a in every if text.casefold() == a.label.casefold()] or [
            a for a in every if slug(text) == slug(_COMBINED[name])
        ]
        if len(found) > 1 and self.gate.eps is not None:
            found = [a for a in found if _nearest(self.gate.eps, a.eps) is not None] or found
        if not every:
            why = "attack at eps above 0" if name == WORST else "attack that knows the detector"
            raise self._refusal("attack", text, f"needs an {why}, which the run does not have.")
        if len(found) != 1:
            raise self._choice("attack", text, [a.label for a in every])
        return found[0]

    def _metric_under(self, attack: Attack | None, metric: Metric) -> Metric:
        """Return the column that has the metric under an attack: other tables have the combined."""
        if (
            attack is None
            or attack.name not in _COMBINED
            or metric.table in ("worst_case", "radii")
        ):
            return metric
        name, population = metric.column.name, self.gate.population or "all"
        if attack.name == WORST:
            table, column = "worst_case", name if metric.table in ("rows", "detection") else ""
            rule = (
                f"is known for errors and undetected successes, not for {self.gate.metric}. Name "
                'an attack, or write "best of adaptive" for the best of those that know the '
                "detector."
            )
        else:
            table, column = "adaptive", f"auroc_{population}" if name == "auroc" else name
            rule = f"has no {self.gate.metric} of the population {population}. Name an attack."
        for each in TABLES[table].columns:
            if each.name == column and each.kind == "number":
                return Metric(self.gate.metric, table, each)
        raise self._refusal("attack", self.gate.attack, rule)

    def _eps(self, attack: Attack | None, metric: Metric) -> float | None:
        """Return the budget as the rows have it; None for a number that is about no single one."""
        eps = self.gate.eps
        if "eps" not in metric.columns or attack is None:
            self._no("eps", eps, f"{self.gate.metric} is of the whole error curve"
                     if attack else f"{self.gate.metric} is about no attack")  # fmt: skip
            return None
        if attack.name == "none":
            self._no("eps", eps or None, f"{self.gate.metric} is of the images without an attack")
            return 0.0
        texts = [*map(eps_text, attack.eps)]
        if eps is None:
            if len(attack.strengths) == 1:
                return attack.strengths[0]
            listed = ", ".join(map(eps_text, attack.strengths)) or "none above 0"
            raise SpecError(f"{self.key}.eps: missing. {attack.label} has {listed}. Write one.")
        if (found := _nearest(eps, attack.eps)) is not None:
            return found
        rule = f"is not an eps of {attack.label}, which has {', '.join(texts)}."
        if eps == 0:
            rule += ' For the clean images write metric = "clean_error".'
        elif _nearest(eps / 255, attack.eps) is not None:
            rule += f' Write "{eps:g}/255".'
        raise SpecError(f"{self.key}.eps (={eps_text(eps)}) {rule}")

    def _where(self, attack: Attack | None, eps: float | None, metric: Metric) -> dict[str, Any]:
        """Return what the rows have in the columns that tell them apart, but for label and seed."""
        gate, apart = self.gate, TABLES[metric.table].sorted_by
        where: dict[str, Any] = {} if eps is None else {"eps": eps}
        if attack is not None and attack.name in _COMBINED:
            where["norm"] = attack.norm
            if metric.table == "radii":
                where["attack"] = attack.name
            if metric.table == "adaptive":
                where |= {"kind": attack.name, "adapted": True}
        elif attack is not None:
            where["attack_label"] = attack.label
        if "score" in apart:
            where["score"] = self._score()
        else:
            self._no("score", gate.score, f"{gate.metric} is about no score")
        if "population" in apart:
            where["population"] = gate.population or "all"
        elif metric.table != "adaptive" or not metric.column.name.startswith("auroc"):
            self._no("population", gate.population, f"{gate.metric} has one population")
        free = [name for name in apart if name not in {*where, "label", "seed", "target", "norm"}]
        for key, value in gate.where.items():
            if key not in free:
                if not free:
                    self._no("where", gate.where, "one row of each seed is left without it")
                raise self._refusal(
                    "where", gate.where, f"names {key}: it {choice_rule(key, free)}"
                )
            where[key] = value
        return where

    def _score(self) -> str:
        """Return the detection score as the run has it."""
        scores, asked = self.known.scores, self.gate.score
        if asked is None:
            return SCORE if SCORE in scores or not scores else scores[0]
        found = canonical_name(asked, scores)
        if found not in scores:
            raise self._choice("score", asked, scores)
        return found

    def _check_bound(self, metric: Metric) -> None:
        """Refuse a bound that no share can reach, such as one in percent."""
        key, bound = ("max", self.gate.max) if self.gate.max is not None else ("min", self.gate.min)
        if metric.is_share and bound is not None and not 0 <= bound <= 1:
            hint = f" Write {bound / 100:g} for {bound:g} %." if 1 < bound <= 100 else ""
            rule = f"must lie in [0, 1]: {self.gate.metric} is a share.{hint}"
            raise self._refusal(key, bound, rule)

    def _labels(self) -> tuple[str, ...]:
        """Return the losses: one, all of one name, or every loss."""
        text, losses = self.gate.label, self.known.losses
        if text is None:
            return tuple(losses)
        found = match(text, losses)
        if not found and text.casefold() == "all":
            return tuple(losses)
        if not found:
            raise self._choice("label", text, [*losses])
        return tuple(found)

    def _name(self, attack: Attack | None, eps: float | None, metric: Metric) -> str:
        """Return what tables call a gate without a name: "auroc, FGSM at eps 0.1, successful"."""
        gate, place = self.gate, ""
        if attack == CLEAN and gate.metric != "clean_error":
            place = "clean images"
        elif attack is not None and attack != CLEAN and metric.table != "worst_case":
            place = attack.label
        text = ", ".join(filter(None, [gate.metric, place])) + (
            f" at eps {eps_text(eps)}" if eps else ""
        )
        further = filter(None, [gate.score, gate.population, *map(str, gate.where.values())])
        return ", ".join([text, *further])


def match(text: str, names: Mapping[str, str]) -> list[str]:
    """Return the labels that a text means: the one of these words, else all of that name.

    Args:
        text: A label or a name, in any case.
        names: Of losses or of attacks, by label.
    """
    if text in names:
        return [text]
    short = slug(text)
    own = [label for label in names if short and slug(label) == short]
    return own or [label for label, name in names.items() if short and slug(str(name)) == short]


def _nearest(eps: float, known: Sequence[float]) -> float | None:
    """Return the budget that equals another but for rounding."""
    return next((each for each in known if math.isclose(each, eps, rel_tol=1e-9)), None)
