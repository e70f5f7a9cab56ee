"""One attack of a run as tables and figures look at it, and which are shown in full."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.reading.views import Shown, View
from robustloss.reports.words import Estimate
from robustloss.results.columns import Row
from robustloss.spec.attack_kinds import attack_kind
from robustloss.spec.detection import LIKELIHOOD

MOST_EPS = 4
FEW = 3  # attacks up to which every one is shown in full
FEW_CLASSES = 12  # classes that fit into a strip of dots


@dataclass(frozen=True)
class Scene:
    """What was attacked, how hard, and what came of it."""

    numbers: Numbers  # of the whole run
    attack: AttackInfo  # an attack, or a worst case

    @property
    def labels(self) -> list[str]:
        """Losses in the order of the spec."""
        return self.numbers.labels

    @property
    def pictured(self) -> list[str]:
        """The losses whose single images are shown."""
        return self.numbers.pictured

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


def list_shown(numbers: Numbers) -> list[AttackInfo]:
    """Return the attacks with tables of their own: all but those on another score.

    What such an attack found stands in the tables of scores and of adaptive attacks.
    """

    def aims_elsewhere(attack: AttackInfo) -> bool:
        adapted = numbers.detected.adapted(attack.label)
        return any(adapted.values()) and not adapted.get(LIKELIHOOD)

    return [attack for attack in numbers.attacks if not aims_elsewhere(attack)]


def featured(numbers: Numbers) -> list[AttackInfo]:
    """Return the attacks whose figures of single images are drawn, in the order of the spec.

    All of up to three. Of more: the first; the one of its norm that makes most mistakes without
    knowing the detector; and the adaptive one that gets most mistakes past it.
    """
    attacks = [attack for attack in list_shown(numbers) if attack.strengths]
    if len(attacks) <= FEW:
        return attacks
    adaptive = [attack for attack in attacks if attack_kind(attack.name) == "adaptive"]
    naive = [a for a in attacks if a not in adaptive and a.norm == attacks[0].norm]
    chosen = [attacks[0], strongest(numbers, naive)]
    if adaptive:
        chosen.append(_highest(numbers, adaptive, "undetected_success_at_5fpr"))
    return [attack for attack in attacks if attack in chosen]


def strongest(numbers: Numbers, attacks: Sequence[AttackInfo]) -> AttackInfo | None:
    """Return the attack with the highest mean error over losses, at the eps that all have.

    An attack that knows the detector is left out where there is another: it seeks other images.
    """
    naive = [attack for attack in attacks if attack_kind(attack.name) != "adaptive"]
    return _highest(numbers, naive or attacks, "error")


def _highest(numbers: Numbers, attacks: Sequence[AttackInfo], metric: str) -> AttackInfo | None:
    """Return the attack with the highest mean over losses, at the eps that all of them have."""
    shared = set.intersection(*(set(a.strengths) for a in attacks)) if attacks else set()

    def mean(attack: AttackInfo) -> float:
        found = [
            value.mean
            for label in numbers.labels
            for eps in shared or attack.strengths
            if (value := numbers.get(label, attack.label, eps, metric))
        ]
        return sum(found) / len(found) if found else -1.0

    return max(attacks, key=mean, default=None)
