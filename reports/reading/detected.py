"""The table `detection` by loss, attack, eps, score and population, over seeds."""

from collections.abc import Iterable, Sequence

from robustloss.reports.words import Estimate, over_rows
from robustloss.results.columns import Row
from robustloss.results.numbers import group_rows
from robustloss.spec.detection import SCORE_WORDS

POPULATION_WORDS = {
    "all": "all attacked images",
    "successful": "attack successful",
    "failed": "attack failed",
    "noise": "noise of the same size",
}
_OVER_IMAGES = {
    "auroc": "clustered DeLong over images",
    "augrc": "jackknife over images",
    "aurc": "jackknife over images",
}
EARLY = "undetected_success_at_1fpr"


def in_order(scores: Iterable[str]) -> list[str]:
    """Return built-in scores in their order, then plug-ins by name."""
    found = set(scores)
    return [k for k in SCORE_WORDS if k in found] + sorted(found - SCORE_WORDS.keys())


class Detected:
    """Look-up of `detection`.

    Attributes:
        scores: Every score with a row, in order.
        populations: Every population with a row, in order.
        attacked: The scores that an adaptive attack of the run aims at, in order.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        shown = (row for row in rows if row["eps"] > 0 or row["population"] == "clean")
        self._rows = group_rows(shown, _place)
        self.scores = in_order(key[3] for key in self._rows)
        self._aims = {(k[1], k[3]) for k, found in self._rows.items() if found[0].get("adapted")}
        self.attacked = in_order(score for _, score in self._aims)
        self.populations = [k for k in POPULATION_WORDS if any(r[4] == k for r in self._rows)]

    def rows(
        self, label: str, attack: str, eps: float, score: str, population: str
    ) -> Sequence[Row]:
        """Return one row a seed."""
        return self._rows.get((label, attack, float(eps), score, population), [])

    def get(
        self, label: str, attack: str, eps: float, score: str, population: str,
        metric: str = "auroc",
    ) -> Estimate | None:  # fmt: skip
        """Return a number over seeds; None where there is none, as without a successful attack."""
        return area_or_rate(self.rows(label, attack, eps, score, population), metric)

    def at(
        self, attack: str, score: str, population: str, label: str, eps: float
    ) -> Estimate | None:
        """Return the AUROC; the arguments come in the order in which curves fix them."""
        return self.get(label, attack, eps, score, population)

    def count(self, label: str, attack: str, eps: float, score: str, population: str) -> int | None:
        """Return the attacked images of a population, summed over seeds."""
        found = self.rows(label, attack, eps, score, population)
        return sum(int(row["n_attacked"]) for row in found) if found else None

    def scores_of(self, label: str, attack: str) -> list[str]:
        """Return the scores that a loss has under an attack, in order."""
        return in_order(key[3] for key in self._rows if key[:2] == (label, attack))

    def adapted(self, attack: str) -> dict[str, bool | None]:
        """Return whether an attack aimed at each score; None for one that aims at none."""
        return {k[3]: found[0].get("adapted") for k, found in self._rows.items() if k[1] == attack}

    @property
    def spared(self) -> list[str]:
        """The scores that no adaptive attack aims at, in order."""
        return [score for score in self.scores if score not in self.attacked]

    def last_attacked(self, strengths: Sequence[float]) -> float | None:
        """Return the largest of some eps at which an attack aims at a score; None if none does."""
        aimed = {eps for (_, attack, eps, score, _) in self._rows if (attack, score) in self._aims}
        return max((eps for eps in strengths if float(eps) in aimed), default=None)

    def own_attack(self, label: str, score: str, eps: float) -> tuple[str, Estimate] | None:
        """Return the attack on this very score with the lowest AUROC over all images, and that.

        None where none aims at the score at this eps.
        """
        attacks = sorted(attack for attack, aim in self._aims if aim == score)
        areas = {attack: self.get(label, attack, eps, score, "all") for attack in attacks}
        known = [(attack, area) for attack, area in areas.items() if area]
        return min(known, key=lambda pair: pair[1].mean, default=None)


def sum_over(rows: Iterable[Row], key: str) -> int | None:
    """Return a count summed over seeds; None where no seed has one.

    Args:
        rows: One a seed; those without the count are left out.
        key: The column.
    """
    known = [int(row[key]) for row in rows if row[key] is not None]
    return sum(known) if known else None


def area_or_rate(rows: Sequence[Row], metric: str) -> Estimate | None:
    """Return one column over seeds; an area of one seed keeps its interval over images.

    Args:
        rows: One a seed; those without the number are left out.
        metric: The column.
    """
    ends = (f"{metric}_low", f"{metric}_high")
    return over_rows(rows, metric, ends=ends, interval=_OVER_IMAGES.get(metric))


def _place(row: Row) -> tuple[str, str, float, str, str]:
    place = row["label"], row["attack_label"], float(row["eps"])
    return *place, row["score"], row["population"]
