"""Look-up of the table `adaptive`: detection under attacks that know the detector."""

from dataclasses import dataclass

from robustloss.analysis.tables.summary import name_ends
from robustloss.reports.reading.marks import Flag
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import NORM_NAMES, Estimate, over_rows
from robustloss.results.columns import Row
from robustloss.results.numbers import combined_label, group_rows
from robustloss.results.schema import ANY_ATTACK, BEST_ADAPTIVE
from robustloss.spec.detection import LIKELIHOOD

BEST, ANY = BEST_ADAPTIVE["attack"], ANY_ATTACK["attack"]
SCORE = LIKELIHOOD  # of every number but those asked of another score
TOO_GOOD = "detector_too_good"  # the check that doubts a detector


@dataclass(frozen=True)
class Rival:
    """One attack in the comparison, or what is taken over several; its kind as in the table."""

    label: str
    kind: str


class Guarded:
    """The table `adaptive` of one norm, by loss, attack, eps and score.

    Attributes:
        norm: Of every number in it.
        eps: Strengths that have an adaptive attack.
        rivals: Naive attacks in the order of the spec, the adaptive ones, their best, any attack.
        scores: The likelihood, then the others.
        aimed: Whether an adaptive attack aims at the likelihood.
    """

    def __init__(self, numbers: Numbers, norm: str) -> None:
        self.numbers, self.norm = numbers, norm
        rows = [row for row in numbers.run.adaptive if row["norm"] == norm]
        self._rows = group_rows(
            rows,
            lambda r: (r["label"], r["attack_label"], r["kind"], float(r["eps"]), r["score"]),
        )
        self.eps = sorted({float(row["eps"]) for row in rows})
        self.aimed = any(row["adapted"] for row in rows if row["score"] == SCORE)
        self.scores = sorted({row["score"] for row in rows}, key=lambda s: (s != SCORE, s))
        place = {attack.label: i for i, attack in enumerate(numbers.attacks)}
        order = ("naive", "adaptive", BEST, ANY)
        found = {Rival(row["attack_label"], row["kind"]) for row in rows}
        self.rivals = sorted(
            found, key=lambda r: (order.index(r.kind), place.get(r.label, len(place)), r.label)
        )

    @property
    def worst(self) -> list[Rival]:
        """The detector's worst case: any attack, or in older runs the best adaptive."""
        return self.of_kind(ANY) or self.of_kind(BEST)

    def of_kind(self, kind: str) -> list[Rival]:
        """Return the attacks of one kind that stand under the likelihood."""
        return [rival for rival in self.of_likelihood if rival.kind == kind]

    @property
    def of_likelihood(self) -> list[Rival]:
        """The rivals that stand under the likelihood: an attack on another score does not."""
        known = {key[1:3] for key in self._rows if key[4] == SCORE}
        return [rival for rival in self.rivals if (rival.label, rival.kind) in known]

    def get(
        self, label: str, rival: Rival, eps: float, metric: str, score: str = SCORE
    ) -> Estimate | None:
        """Return the estimate over seeds; one seed keeps its own interval, where it has one."""
        rows = self.rows(label, rival, eps, score)
        return over_rows(rows, metric, ends=name_ends(metric), interval="over images")

    def rows(self, label: str, rival: Rival, eps: float, score: str = SCORE) -> list[dict]:
        """Return one row a seed."""
        return self._rows.get((label, rival.label, rival.kind, float(eps), score), [])

    @property
    def start(self) -> Rival | None:
        """The naive attack that the adaptive ones are set beside: the first with most eps."""

        def count(rival: Rival) -> int:
            return len({key[3] for key in self._rows if key[1:3] == (rival.label, rival.kind)})

        return max(self.of_kind("naive"), key=count, default=None)

    def flags(self, label: str, rival: Rival, eps: float) -> list[Flag]:
        """Return the flags of one attack; the best of several carries those of each of them."""
        concerned = [rival]
        if rival.kind in (BEST, ANY):
            concerned = self.of_kind("adaptive")
        if rival.kind == ANY:
            concerned = [*self.of_kind("naive"), *concerned]
        known = {attack.label: attack for attack in self.numbers.attacks}
        found: list[Flag] = []
        for one in concerned:
            if one.label in known:
                some = self.numbers.flags_of(label, known[one.label], eps)
                found += [flag for flag in some if flag not in found]
        return found + (doubts(self.numbers, label, self.norm, eps) if rival.kind == ANY else [])

    @property
    def norm_name(self) -> str:
        """The norm in words."""
        return NORM_NAMES.get(self.norm, self.norm)


def guarded(numbers: Numbers) -> list[Guarded]:
    """Return one comparison for each norm that has an adaptive attack."""
    found = [Guarded(numbers, norm) for norm in numbers.norms]
    return [one for one in found if one.eps and numbers.labels]


def doubts(numbers: Numbers, label: str, norm: str | None, eps: float) -> list[Row]:
    """Return the flags that doubt how much a detector notices under any attack."""
    place = combined_label(ANY_ATTACK["attack_label"], norm)
    found = numbers.flag_index.of_attack(label, place, eps)
    return [flag for flag in found if flag.get("check") == TOO_GOOD]
