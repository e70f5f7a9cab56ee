"""Ranks: by hand, in either direction, and what they say where nothing is shown."""

import itertools

import pytest

from robustloss.analysis.tables.ranks import rank_rows
from robustloss.results.schema import TABLES


def compared(values, shown, metric="error", unit="seeds", seed=None):
    """Rows of comparisons of labelled values; pairs in `shown` are shown to differ."""
    return [
        {
            **{"unit": unit, "seed": seed, "attack": "fgsm", "attack_label": "FGSM"},
            **{"norm": "linf", "eps": 0.1, "metric": metric, "label_a": a, "label_b": b},
            **{"value_a": values[a], "value_b": values[b]},
            **{"difference": values[a] - values[b], "shown": a + b in shown},
        }
        for a, b in itertools.combinations(values, 2)
    ]


def ranges(rows):
    return {row["label"]: (row["rank"], row["rank_low"], row["rank_high"]) for row in rows}


VALUES = {"a": 0.5, "b": 0.3, "c": 0.31, "d": 0.1}


def test_everything_shown_leaves_one_rank_each():
    rows = rank_rows(compared(VALUES, {"ab", "ac", "ad", "bc", "bd", "cd"}))
    assert ranges(rows) == {"d": (1, 1, 1), "b": (2, 2, 2), "c": (3, 3, 3), "a": (4, 4, 4)}
    assert all(tuple(row) == TABLES["ranks"].names for row in rows)


def test_nothing_shown_leaves_every_rank():
    rows = rank_rows(compared(VALUES, set()))
    assert {(row["rank_low"], row["rank_high"]) for row in rows} == {(1, 4)}
    assert [row["rank"] for row in rows] == [4, 2, 3, 1]


def test_what_is_shown_of_some_bounds_them():
    rows = rank_rows(compared(VALUES, {"ad", "bd", "ab"}))
    assert ranges(rows) == {"d": (1, 1, 2), "b": (2, 2, 3), "c": (3, 1, 4), "a": (4, 3, 4)}


@pytest.mark.parametrize("metric", ["auroc_all", "auroc_successful"])
def test_a_high_auroc_is_good(metric):
    rows = rank_rows(compared(VALUES, {"ab", "ac", "ad", "bc", "bd", "cd"}, metric))
    assert {label: rank for label, (rank, *_) in ranges(rows).items()} == {
        "a": 1, "c": 2, "b": 3, "d": 4,
    }  # fmt: skip


def test_a_median_radius_beyond_what_was_found_is_the_largest():
    rows = rank_rows(compared({"a": 0.2, "b": 0.3}, {"ab"}, "median_radius"))
    assert ranges(rows) == {"b": (1, 1, 1), "a": (2, 2, 2)}
    (row,) = compared({"a": 0.2, "b": 0.1}, {"ab"}, "median_radius")
    rows = rank_rows([row | {"value_b": None, "difference": None}])
    assert ranges(rows) == {"b": (1, 1, 1), "a": (2, 2, 2)}
    assert [row["value"] for row in rows if row["label"] == "b"] == [None]


def test_equal_values_share_a_rank():
    rows = rank_rows(compared({"a": 0.2, "b": 0.2, "c": 0.4}, set()))
    assert [row["rank"] for row in rows] == [1, 1, 3]


def test_over_seeds_where_there_are_several_else_of_each_seed():
    images = compared(VALUES, set(), unit="images", seed=0)
    assert {row["unit"] for row in rank_rows([*images, *compared(VALUES, set())])} == {"seeds"}
    two = [*images, *compared(VALUES, set(), unit="images", seed=1)]
    assert {row["seed"] for row in rank_rows(two)} == {0, 1}
    assert len(rank_rows(two)) == 8


def test_no_comparisons_no_ranks():
    assert rank_rows([]) == []
