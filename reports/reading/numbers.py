"""The numbers of a run, by loss, attack and eps: what tables, curves and sentences share."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from robustloss.reports.reading.detected import Detected
from robustloss.reports.reading.views import Shown
from robustloss.reports.words import NORM_NAMES, NORM_WORDS, Estimate
from robustloss.results.columns import Row
from robustloss.results.compact.content import REFERENCE_MARK
from robustloss.results.numbers import Attack, ResultNumbers, group_rows, number, ordered, place_of
from robustloss.results.provenance import find_reference_labels
from robustloss.results.result_table import ResultTable
from robustloss.results.run import Run
from robustloss.spec.text import slug


@dataclass(frozen=True)
class AttackInfo(Attack):
    """One attack of the run, or a worst case, with its name in the names of files."""

    slug: str

    @property
    def with_clean(self) -> tuple[float, ...]:
        """The eps axis of errors: 0 (the clean pass) and every strength."""
        return (0.0, *self.strengths)

    @property
    def axis(self) -> str:
        """Name of the eps axis."""
        return f"eps ({NORM_WORDS.get(self.norm or '', 'own units')})"

    @property
    def norm_name(self) -> str:
        """Its norm in words."""
        return NORM_NAMES.get(self.norm or "", str(self.norm))


class Numbers(ResultNumbers):
    """Look-up of one run's numbers.

    Attributes:
        run: Its files.
        data: What its provenance says of the data.
        seeds: Every seed that has a row.
        images: Test images a row, or None.
        data_label: What a reader calls the data set.
    """

    attacks: Sequence[AttackInfo]
    keeping: Sequence[AttackInfo]
    worst_cases: Sequence[AttackInfo]

    def __init__(self, run: Run, classes: int | None = None) -> None:
        super().__init__(run.results)
        self.run = run
        self.data: Mapping[str, Any] = run.provenance.get("data") or {}
        self.data_label = str(self.data.get("label") or self.data.get("name") or "")
        self.seeds = sorted({row["seed"] for row in run.rows})
        self.images = max((row["n"] for row in run.rows), default=None)
        self._classes = classes
        self.attacks, self.keeping = (
            [
                AttackInfo(**vars(a), slug=slug(a.label)[:60].strip("-.") or f"attack-{i + 1}")
                for i, a in enumerate(attacks)
            ]
            for attacks in (self.attacks, self.keeping)
        )
        self.worst_cases = [
            AttackInfo(**vars(case), slug=f"worst-case-{slug(case.norm or '')}")
            for case in self.worst_cases
        ]
        self._radii = group_rows(run.radii, lambda row: (row["label"], place_of(row)))

    @property
    def elsewhere(self) -> list[str]:
        """The losses of a reference, which has numbers alone: no images, no scores."""
        known = find_reference_labels(self.run.provenance)
        return [label for label in self.labels if label in known]

    @property
    def pictured(self) -> list[str]:
        """The losses but those of a reference."""
        elsewhere = self.elsewhere
        return [label for label in self.labels if label not in elsewhere]

    def speak(self, text: str) -> str:
        """Return a text that names losses of a reference without the mark of their rows.

        Args:
            text: That names losses; one stays as it is if a loss of the run has its plain name.
        """
        plain = {label: label.partition(REFERENCE_MARK)[0] for label in self.elsewhere}
        plain = {label: name for label, name in plain.items() if name not in self.labels}
        longest_first = sorted(plain, key=len, reverse=True)
        found = re.compile("|".join(map(re.escape, longest_first)))
        return found.sub(lambda each: plain[each[0]], text) if plain else text

    @property
    def attacking(self) -> Sequence[AttackInfo]:
        """The attacks that change anything."""
        return [attack for attack in self.attacks if attack.strengths]

    @cached_property
    def result(self) -> ResultTable:
        """The result by loss, which page, terminal and summary begin with."""
        found: ResultTable = self.run.table()
        return found

    @cached_property
    def shown(self) -> Shown:
        """The models whose single images are shown."""
        return Shown(self.run)

    @property
    def classes(self) -> int | None:
        """Number of classes, or None when no cell can be read."""
        return self.shown.classes if self._classes is None else self._classes

    @cached_property
    def detected(self) -> Detected:
        """Look-up of the table `detection`."""
        return Detected(self.run.detection)

    @cached_property
    def compared(self) -> list[Row]:
        """The rows of `comparisons` over seeds, else those over the images of the first seed."""
        return of_one_unit(self.run.comparisons)

    @cached_property
    def _apart(self) -> set[tuple]:
        """The numbers and pairs of losses that are shown to differ."""
        names = ("metric", "attack_label", "norm", "eps")
        return {
            (*(row[name] for name in names), frozenset((row["label_a"], row["label_b"])))
            for row in self.compared
            if row["shown"]
        }

    def differ(
        self, a: str, b: str, metric: str, attack: str, norm: str | None, eps: float | None
    ) -> bool:
        """Return whether two losses are shown to differ in a number.

        Args:
            a, b: Labels of the losses.
            metric, attack, norm, eps: As in `comparisons`; the attack by its label.
        """
        return (metric, attack, norm, eps, frozenset((a, b))) in self._apart

    def get(self, label: str, attack: str, eps: float | None, metric: str) -> Estimate | None:
        """Return the estimate over seeds of what `find` finds, or None where the run has none."""
        found = self.find(label, attack, eps, metric)
        if found is None:
            return None
        values = tuple(float(v) for v in found.get("values", []) if number(v) is not None)
        mean, low, high = (number(found.get(key)) for key in ("mean", "low", "high"))
        seeds = int(found.get("n_seeds") or 0)
        return Estimate(mean or 0.0, low, high, seeds, values, found.get("interval"))

    def error(self, label: str, attack: AttackInfo, eps: float) -> Estimate | None:
        """Return the error at one eps; at eps 0 the clean pass stands in where an attack skips it.

        Args:
            label: Of the loss.
            attack: An attack or a worst case.
            eps: One of its eps, or 0.
        """
        found = self.get(label, attack.label, eps, "error")
        return self.get(label, "none", 0.0, "error") if found is None and eps == 0 else found

    def radii(self, label: str, attack: AttackInfo) -> list[dict]:
        """Return one row a seed of `radii`: the error curve of an attack or worst case."""
        return self._radii.get((label, attack.label), [])

    def curves(self, norm: str) -> list[AttackInfo]:
        """Return the attacks of a norm whose error curves `radii` has: the worst case first."""
        known = {name for _, name in self._radii}
        every = [*self.worst_cases, *self.attacks]
        return [attack for attack in every if attack.norm == norm and attack.label in known]

    @property
    def norms(self) -> list[str]:
        """The norms of the attacks, L∞ first."""
        used = {attack.norm for attack in self.attacking if attack.norm}
        return ordered((norm for norm in NORM_NAMES if norm in used), sorted(used))


def of_one_unit(rows: Sequence[Row]) -> list[Row]:
    """Return the rows over seeds, or those over images of the first seed.

    Args:
        rows: Of `comparisons` or `ranks`.
    """
    own = [row for row in rows if row["unit"] == "seeds"]
    if not own and rows:
        first = min(row["seed"] for row in rows)
        own = [row for row in rows if row["seed"] == first]
    return own
