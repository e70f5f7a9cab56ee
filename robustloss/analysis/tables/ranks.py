"""Ranks of the losses with what is known of them: a rank is a claim about every other loss."""

from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.results.schema import TABLES, Row

HIGHER_IS_BETTER = {
    "error": False,
    "auroc_all": True,
    "auroc_successful": True,
    "undetected_success_at_5fpr": False,
}


def rank_rows(comparisons: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rank of every loss under each attack, eps and metric, with the ranks that it may have.

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
        if row["unit"] == "images" and row["metric"] in several:
            continue
        key = (row["unit"], row["seed"], row["attack"], row["attack_label"], row["norm"],
               row["eps"], row["metric"])  # fmt: skip
        groups.setdefault(key, []).append(row)
    rows = [row for key, own in groups.items() for row in _ranked(key, own)]
    return TABLES["ranks"].arrange(rows)


def _ranked(key: tuple, rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    unit, seed, attack, attack_label, norm, eps, metric = key
    sign = 1.0 if HIGHER_IS_BETTER[metric] else -1.0
    values: dict[str, float] = {}
    better: dict[str, int] = {}
    worse: dict[str, int] = {}
    for row in rows:
        a, b = row["label_a"], row["label_b"]
        values |= {a: row["value_a"], b: row["value_b"]}
        if row["shown"]:
            first, last = (a, b) if sign * row["difference"] > 0 else (b, a)
            better[last] = better.get(last, 0) + 1
            worse[first] = worse.get(first, 0) + 1
    place = {"unit": unit, "seed": seed, "attack": attack, "attack_label": attack_label,
             "norm": norm, "eps": eps, "metric": metric}  # fmt: skip
    found = []
    for label, value in values.items():
        row = place | {
            "label": label,
            "value": value,
            "rank": 1 + sum(sign * other > sign * value for other in values.values()),
            "rank_low": 1 + better.get(label, 0),
            "rank_high": len(values) - worse.get(label, 0),
            "n_losses": len(values),
        }
        found.append(row)
    return found
