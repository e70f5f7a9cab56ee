"""One attack as the figures of single images see it: chosen eps, one model per loss."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.reading.views import Shown, View

MOST_EPS = 4


@dataclass(frozen=True)
class Scene:
    """What was attacked, how hard, and what came of it.

    Attributes:
        numbers: Of the whole run.
        shown: The models whose images are shown.
        attack: The attack.
        eps: At most four strengths, rising.
        views: By (label, eps): the attacked pass, or why there is none.
    """

    numbers: Numbers
    shown: Shown
    attack: AttackInfo
    eps: tuple[float, ...]
    views: Mapping[tuple[str, float], View | str]

    @property
    def labels(self) -> list[str]:
        """Losses in the order of the spec."""
        return self.numbers.labels

    def drawn(self) -> list[View]:
        """Return every attacked pass that could be read."""
        return [v for v in self.views.values() if isinstance(v, View)]

    def words(self) -> str:
        """Return the sentence that says which models the pictures show."""
        return self.shown.words(self.labels)


class Scenes:
    """The attacks as scenes; the last one that was asked for is kept in memory, no other."""

    def __init__(self, numbers: Numbers, shown: Shown) -> None:
        self._numbers, self._shown = numbers, shown
        self._last: Scene | None = None

    def of(self, attack: AttackInfo) -> Scene:
        """Read the records of one attack, each once, reduced to what is drawn."""
        if self._last is None or self._last.attack != attack:
            self._last = None
            labels, eps = self._numbers.labels, chosen_eps(attack)
            views = {(k, e): self._shown.attacked(k, attack, e) for k in labels for e in eps}
            self._last = Scene(self._numbers, self._shown, attack, eps, views)
        return self._last


def chosen_eps(attack: AttackInfo) -> tuple[float, ...]:
    """Return at most four strengths, the smallest and the largest among them."""
    eps = attack.strengths
    if len(eps) <= MOST_EPS:
        return eps
    places = np.linspace(0, len(eps) - 1, MOST_EPS).round().astype(int)
    return tuple(eps[i] for i in places)
