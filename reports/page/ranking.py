"""Losses from best to worst on one number, and how far the intervals carry the order."""

from collections.abc import Iterator, Mapping, Sequence
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
    """Losses from best to worst on one number; iterating gives label and number."""

    labels: Sequence[str]
    values: Sequence[Estimate]

    def __iter__(self) -> Iterator[tuple[str, Estimate]]:
        return zip(self.labels, self.values, strict=True)

    @property
    def tied(self) -> bool:
        """Whether every loss has the very same mean."""
        return self.values[0].mean == self.values[-1].mean

    def best(self) -> str:
        """Return in words who shares the first place."""
        return few([label for label, value in self if value.mean == self.values[0].mean])

    def worst(self) -> str:
        """Return in words who shares the last place."""
        return few([label for label, value in self if value.mean == self.values[-1].mean])

    def verdict(self) -> str:
        """Return what the intervals allow to say about best and worst."""
        if len(self.labels) < 2 or self.tied:
            return ""
        best = self.values[0]
        apart = best.overlaps(self.values[-1])
        if apart is None:
            return "No difference shown: one training seed gives no interval here."
        if apart:
            return "No difference shown: the 95 % intervals of best and worst overlap."
        near = [label for label, value in [*self][1:] if best.overlaps(value) is not False]
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


def rank(found: Mapping[str, Estimate | None], *, lower_is_better: bool) -> Ranking | None:
    """Sort the losses that have a number; None when none has.

    Args:
        found: A number for each label.
        lower_is_better: Whether the smallest number comes first.
    """
    known = [(label, value) for label, value in found.items() if value is not None]
    if not known:
        return None
    known.sort(key=lambda pair: pair[1].mean if lower_is_better else -pair[1].mean)
    return Ranking([label for label, _ in known], [value for _, value in known])
