"""Detection and rejection under attacks that know the detector, over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

from robustloss.reports.marks import Flag, flags_of
from robustloss.reports.numbers import NORM_NAMES, Estimate, Numbers, over_seeds

BEST = "best_of_adaptive"
SCORE = "class_log_likelihood"  # what the adaptive attacks aim at


@dataclass(frozen=True)
class Rival:
    """One attack in the comparison: kind "naive", "adaptive" or "best_of_adaptive"."""

    label: str
    kind: str


class Guarded:
    """The table `adaptive` of one norm, by loss, attack, eps and score.

    Attributes:
        norm: Of every number in it.
        eps: Strengths that have an adaptive attack.
        rivals: Naive attacks in the order of the spec, then the adaptive ones, then their best.
        scores: The score that the attacks aim at, then the others.
    """

    def __init__(self, numbers: Numbers, norm: str) -> None:
        self.numbers, self.norm = numbers, norm
        rows = [row for row in numbers.run.adaptive if row["norm"] == norm]
        self._rows: dict[tuple, list[dict]] = {}
        for row in rows:
            key = (row["label"], row["attack_label"], row["kind"], float(row["eps"]), row["score"])
            self._rows.setdefault(key, []).append(row)
        self.eps = sorted({float(row["eps"]) for row in rows})
        self.scores = sorted({row["score"] for row in rows}, key=lambda s: (s != SCORE, s))
        place = {attack.label: i for i, attack in enumerate(numbers.attacks)}
        order = ("naive", "adaptive", BEST)
        found = {Rival(row["attack_label"], row["kind"]) for row in rows}
        self.rivals = sorted(
            found, key=lambda r: (order.index(r.kind), place.get(r.label, len(place)), r.label)
        )

    def of_kind(self, kind: str) -> list[Rival]:
        """The attacks of one kind."""
        return [rival for rival in self.rivals if rival.kind == kind]

    def get(
        self, label: str, rival: Rival, eps: float, metric: str, score: str = SCORE
    ) -> Estimate | None:
        """The estimate over seeds; seeds without the number are left out."""
        rows = self.rows(label, rival, eps, score)
        return over_seeds([float(r[metric]) for r in rows if r[metric] is not None])

    def rows(self, label: str, rival: Rival, eps: float, score: str = SCORE) -> list[dict]:
        """One row a seed."""
        return self._rows.get((label, rival.label, rival.kind, float(eps), score), [])

    def extreme(
        self, label: str, rivals: Sequence[Rival], eps: float, metric: str, *, lowest: bool
    ) -> Rival | None:
        """The attack with the lowest or highest number; the first of equals, None of nothing."""
        found = [(r, v.mean) for r in rivals if (v := self.get(label, r, eps, metric))]
        if not found:
            return None
        return (min if lowest else max)(found, key=lambda pair: pair[1])[0]

    def flags(self, label: str, rival: Rival, eps: float) -> list[Flag]:
        """Flags of one attack; the best of the adaptive carries those of each of them."""
        concerned = self.of_kind("adaptive") if rival.kind == BEST else [rival]
        known = {attack.label: attack for attack in self.numbers.attacks}
        found: list[Flag] = []
        for one in concerned:
            if one.label in known:
                some = flags_of(self.numbers, label, known[one.label], eps)
                found += [flag for flag in some if flag not in found]
        return found

    @property
    def norm_name(self) -> str:
        """The norm in words."""
        return NORM_NAMES.get(self.norm, self.norm)


def guarded(numbers: Numbers) -> list[Guarded]:
    """One comparison for each norm that has an adaptive attack."""
    found = [Guarded(numbers, norm) for norm in numbers.norms]
    return [one for one in found if one.eps and numbers.labels]
