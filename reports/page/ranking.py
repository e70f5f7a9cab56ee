"""Losses from best to worst on one number, and how far the intervals carry the order."""

from collections.abc import Sequence
from dataclasses import dataclass

from robustloss.reports.words import Estimate, few


@dataclass(frozen=True)
class Finding:
    """One answer: what was asked, what the numbers say, and how far that carries."""

    question: str
    answer: str
    limit: str = ""


@dataclass(frozen=True)
class Ranking:
    """Losses from best to worst on one number."""

    labels: Sequence[str]
    values: Sequence[Estimate]

    @property
    def tied(self) -> bool:
        """Whether every loss has the very same mean."""
        return self.values[0].mean == self.values[-1].mean

    def best(self) -> str:
        """Whoever shares the first place, in words."""
        return self._at(self.values[0])

    def worst(self) -> str:
        """Whoever shares the last place, in words."""
        return self._at(self.values[-1])

    def _at(self, place: Estimate) -> str:
        return few(
            [
                label
                for label, value in zip(self.labels, self.values, strict=True)
                if value.mean == place.mean
            ]
        )

    def verdict(self) -> str:
        """What the intervals allow to say about best and worst."""
        if len(self.labels) < 2 or self.tied:
            return ""
        best = self.values[0]
        apart = best.overlaps(self.values[-1])
        if apart is None:
            return "No difference shown: one training seed gives no interval here."
        if apart:
            return "No difference shown: the 95 % intervals of best and worst overlap."
        near = [
            label
            for label, value in zip(self.labels[1:], self.values[1:], strict=True)
            if best.overlaps(value) is not False
        ]
        if near:
            text = (
                "Best and worst differ: their 95 % intervals do not overlap. "
                f"{few(near)} {'are' if len(near) > 1 else 'is'} not told apart from "
                f"{self.labels[0]}."
            )
        else:
            text = f"The 95 % interval of {self.labels[0]} overlaps no other."
        if min(value.n_seeds for value in self.values) < 2:
            text += " With one training seed this is about these models, not yet about the losses."
        return text


def ranking(found: dict[str, Estimate | None], *, lower_is_better: bool) -> Ranking | None:
    """Sort the losses that have a number; None when none has."""
    known = [(label, value) for label, value in found.items() if value is not None]
    if not known:
        return None
    known.sort(key=lambda pair: pair[1].mean if lower_is_better else -pair[1].mean)
    return Ranking([k for k, _ in known], [v for _, v in known])
