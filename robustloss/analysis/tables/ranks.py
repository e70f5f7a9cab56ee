"""Ranks of the losses with what is known of them: a rank is a claim about every other loss."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.analysis.measures import MEASURES
from robustloss.results.schema import TABLES, Row, finite_or_null

_PLACE = ("unit", "seed", "attack", "attack_label", "norm", "eps", "metric")


def rank_rows(comparisons: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the rank of every loss in each comparison, with the ranks that it may have.

    Its lowest possible number is 1 + how many losses are shown to be better, its highest the number
    of losses less how many are shown to be worse. Where nothing is shown, every loss may have every
    rank. The differences are those of `comparisons`, whose p-values are adjusted for their number,
    so of the differences that these ranks rest on at most about 5 % are expected to be chance; it
    is no simultaneous confidence set.

    Args:
        comparisons: rows of `comparisons.comparison_rows`.

    Returns:
        Rows of the table `ranks`. Over seeds where there are several, else of each seed.

    Source: Mogstad, Romano, Shaikh and Wilhelm 2024, "Inference for ranks", whose marginal ranks
        these are, with Benjamini and Hochberg's adjustment in place of simultaneous intervals.
    """
    several = {row["metric"] for row in comparisons if row["unit"] == "seeds"}
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for row in comparisons:
        if row["unit"] == "seeds" or row["metric"] not in several:
            groups.setdefault(tuple(row[name] for name in _PLACE), []).append(row)
    rows: list[Row] = []
    for key, group in groups.items():
        place = dict(zip(_PLACE, key, strict=True))
        sign = 1.0 if MEASURES[place["metric"]].higher_is_better else -1.0
        values: dict[str, float] = {}  # a radius beyond what was found is the largest of all
        better, worse = Counter[str](), Counter[str]()  # losses shown to be so, by label
        for row in group:
            a, b = row["label_a"], row["label_b"]
            own = {
                label: math.inf if row[end] is None else row[end]
                for label, end in ((a, "value_a"), (b, "value_b"))
            }
            values |= own
            if row["shown"]:
                first, last = (a, b) if sign * own[a] > sign * own[b] else (b, a)
                better[last] += 1
                worse[first] += 1
        for label, value in values.items():
            ranks = {
                "label": label,
                "value": finite_or_null(value),
                "rank": 1 + sum(sign * other > sign * value for other in values.values()),
                "rank_low": 1 + better[label],
                "rank_high": len(values) - worse[label],
                "n_losses": len(values),
            }
            rows.append(place | ranks)
    return TABLES["ranks"].arrange(rows)
