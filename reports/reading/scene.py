"""One attack of a run: what tables and figures about it look at."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.reading.views import Shown, View
from robustloss.reports.words import Estimate
from robustloss.results.columns import Row

MOST_EPS = 4


@dataclass(frozen=True)
class Scene:
    """What was attacked, how hard, and what came of it.

    Attributes:
        numbers: Of the whole run.
        attack: An attack, or a worst case.
    """

    numbers: Numbers
    attack: AttackInfo

    @property
    def labels(self) -> list[str]:
        """Losses in the order of the spec."""
        return self.numbers.labels

    @property
    def shown(self) -> Shown:
        """The models whose single images are shown."""
        return self.numbers.shown

    @property
    def eps(self) -> tuple[float, ...]:
        """At most four strengths, rising, the smallest and the largest among them."""
        return chosen_eps(self.attack)

    @cached_property
    def views(self) -> Mapping[tuple[str, float], View | str]:
        """By (label, eps): the attacked pass, or why there is none; each is read once."""
        return {(k, e): self.shown.attacked(k, self.attack, e)
                for k in self.labels for e in self.eps}  # fmt: skip

    def drawn(self) -> list[View]:
        """Return every attacked pass that could be read."""
        return [v for v in self.views.values() if isinstance(v, View)]

    def words(self) -> str:
        """Return the sentence that says which models the pictures show."""
        return self.shown.words(self.labels)

    def get(self, label: str, eps: float | None, metric: str) -> Estimate | None:
        """Return a number of a loss under the attack, as `Numbers.get` does."""
        return self.numbers.get(label, self.attack.label, eps, metric)

    def error(self, label: str, eps: float) -> Estimate | None:
        """Return the error of a loss; at eps 0 that of the clean pass."""
        return self.numbers.error(label, self.attack, eps)

    def flags(self, label: str, eps: float | None) -> list[Row]:
        """Return the flags that concern a number of a loss under the attack."""
        return self.numbers.flags_of(label, self.attack, eps)


def chosen_eps(attack: AttackInfo) -> tuple[float, ...]:
    """Return at most four strengths, the smallest and the largest among them."""
    eps = attack.strengths
    if len(eps) <= MOST_EPS:
        return eps
    places = np.linspace(0, len(eps) - 1, MOST_EPS).round().astype(int)
    return tuple(eps[i] for i in places)
