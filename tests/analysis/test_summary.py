"""The summary over seeds: means, intervals, nulls, and the order of a table."""

import numpy as np
import pytest

from robustloss.analysis.tables import summary
from robustloss.metrics.intervals import t_interval
from robustloss.results import schema

METRICS = [column.name for column in schema.TABLES["rows"].columns if column.summarised]


def rows_of(metric: str, values, **more) -> list[dict]:
    """One row per seed; the seeds come in reverse."""
    empty = dict.fromkeys(schema.TABLES["rows"].names)
    place = {"loss": "lgm", "label": "L-GM", "attack": "fgsm", "attack_label": "FGSM"}
    place |= {"norm": "linf", "eps": 0.1, "error_low": 0.1, "error_high": 0.3}
    rows = [empty | place | {"seed": seed, metric: v} | more for seed, v in enumerate(values)]
    return rows[::-1]


def summary_of(rows, metric: str) -> dict:
    (found,) = (row for row in summary.summarise({"rows": rows}) if row["metric"] == metric)
    return found


@pytest.mark.parametrize("metric", METRICS)
def test_each_metric_is_summarised_over_seeds(metric):
    values = [0.25, 0.5, 0.375]
    found = summary_of(rows_of(metric, values), metric)
    assert (found["mean"], found["sd"], found["low"], found["high"]) == t_interval(values)
    assert (found["n_seeds"], found["seeds"], found["values"]) == (3, [0, 1, 2], values)
    assert found["interval"] == "t over seeds"
    assert ", ".join(found) == (
        "loss, label, attack, attack_label, norm, eps, metric, n_seeds, seeds, values, mean, sd, "
        "low, high, interval"
    )


@pytest.mark.parametrize(
    ("values", "low", "high"), [([0.0, 0.5], 0.0, 1.0), ([0.9, 1.0, 0.98], None, 1.0)]
)
def test_an_interval_over_seeds_stays_among_possible_shares(values, low, high):
    found = summary_of(rows_of("error", values), "error")
    assert t_interval(values)[3] > 1
    assert found["low"] == (t_interval(values)[2] if low is None else low)
    assert found["high"] == high


def test_seeds_without_a_value_are_left_out_and_not_counted():
    found = summary_of(rows_of("auroc_successful", [0.8, None, 0.9]), "auroc_successful")
    assert (found["n_seeds"], found["seeds"], found["values"]) == (2, [0, 2], [0.8, 0.9])
    assert found["mean"] == pytest.approx(0.85)


def test_one_seed_has_the_interval_of_its_images():
    found = summary_of(rows_of("error", [0.2]), "error")
    assert (found["mean"], found["sd"], found["low"], found["high"]) == (0.2, None, 0.1, 0.3)
    assert found["interval"] == "Wilson over images"
    more = {"auroc_all_low": 0.15, "auroc_all_high": 0.3}
    found = summary_of(rows_of("auroc_all", [0.2], **more), "auroc_all")
    assert (found["mean"], found["low"], found["high"]) == (0.2, 0.15, 0.3)
    assert found["interval"] == "clustered DeLong over images"
    several = summary_of(rows_of("auroc_all", [0.2, 0.3], **more), "auroc_all")
    assert several["interval"] == "t over seeds"
    found = summary_of(rows_of("auroc_all", [0.2, None]), "auroc_all")
    assert (found["mean"], found["low"], found["interval"], found["n_seeds"]) == (
        0.2,
        None,
        None,
        1,
    )


def test_a_radius_whose_upper_end_was_not_found_has_a_lower_end():
    column = next(c for c in schema.TABLES["radii"].columns if c.name == "median_radius")
    row = {"seed": 0, "median_radius": 0.2, "median_radius_low": 0.1, "median_radius_high": None}
    found = summary.over_seeds([row], column)
    assert (found["mean"], found["low"], found["high"]) == (0.2, 0.1, None)
    assert found["interval"] == "order statistics over images"


def test_a_metric_without_any_value_is_listed_as_null():
    found = summary_of(rows_of("auroc_successful", [None, None]), "auroc_successful")
    assert (found["n_seeds"], found["values"], found["mean"]) == (0, [], None)


def test_losses_attacks_and_budgets_are_summarised_apart():
    rows = rows_of("error", [0.0, 0.2]) + rows_of("error", [0.4, 0.6], eps=0.2)
    rows += rows_of("error", [1.0, 1.0], label="GM") + rows_of("error", [0.5], attack_label="PGD")
    found = [row for row in summary.summarise({"rows": rows}) if row["metric"] == "error"]
    assert [(row["label"], row["attack_label"], row["eps"]) for row in found] == [
        ("GM", "FGSM", 0.1),
        ("L-GM", "FGSM", 0.1),
        ("L-GM", "FGSM", 0.2),
        ("L-GM", "PGD", 0.1),
    ]
    assert [row["mean"] for row in found] == pytest.approx([1, 0.1, 0.5, 0.5])


# ---- worst case and curves


def test_the_worst_case_is_summarised_like_an_attack_for_each_norm():
    place = {"loss": "lgm", "label": "L-GM", "eps": 0.1}
    rows = [
        place | {"seed": seed, "norm": norm, "error": error, "error_low": 0.1, "error_high": 0.9}
        for norm, errors in (("linf", [0.3, 0.5]), ("l2", [0.6]))
        for seed, error in enumerate(errors)
    ]
    found = summary.summarise({"worst_case": rows[::-1]})
    found = [row for row in found if row["metric"] == "error"]
    assert [(row["norm"], row["mean"], row["interval"]) for row in found] == [
        ("l2", 0.6, "Wilson over images"),
        ("linf", 0.4, "t over seeds"),
    ]
    for row in found:
        assert (row["attack"], row["attack_label"]) == ("worst_case", "worst case")
        assert (row["eps"], row["metric"]) == (0.1, "error")


def test_curves_are_summarised_without_an_eps():
    place = {"loss": "lgm", "label": "L-GM", "attack": "cw", "attack_label": "CW", "norm": "l2"}
    values = {"median_radius": [1.5, 2.5, None], "eps_at_50_error": [1.4, 2.4, None]}
    values["area_under_error_curve"] = [0.9, 1.0, 0.98]
    rows = [
        place | {"seed": seed} | {name: column[seed] for name, column in values.items()}
        for seed in range(3)
    ]
    found = {row["metric"]: row for row in summary.summarise({"radii": rows})}
    assert set(found) == {*values, "smallest_share", "mean_excess", "optimality"}
    assert {row["eps"] for row in found.values()} == {None}
    median = found["median_radius"]
    assert (median["mean"], median["n_seeds"], median["values"]) == (2.0, 2, [1.5, 2.5])
    # a length may be longer than 1, and is never below 0; an area is a share
    low, high = t_interval([1.5, 2.5])[2:]
    assert low < 0
    assert (median["low"], median["high"]) == (0, high)
    assert t_interval([0.9, 1.0, 0.98])[3] > 1 == found["area_under_error_curve"]["high"]


def test_a_metric_that_an_older_row_lacks_is_null():
    rows = rows_of("error", [0.2, 0.3])
    for row in rows:
        del row["error_8bit"]
    found = summary_of(rows, "error_8bit")
    assert (found["mean"], found["n_seeds"], found["seeds"]) == (None, 0, [])


def test_the_order_of_a_table_does_not_depend_on_the_order_of_its_rows():
    rows = [
        {"label": label, "seed": seed, "attack_label": attack, "eps": eps, "score": score}
        for label in ("A", "B")
        for seed in (2, 10)
        for attack in ("FGSM", "none")
        for eps in (0.0, 8 / 255, 0.1)
        for score in ("a", "b")
    ]
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    assert schema.TABLES["detection"].arrange(shuffled) == rows


@pytest.mark.parametrize("metric", ["error", "undetected_success_at_5fpr"])
def test_seeds_that_agree_to_the_image_keep_the_interval_over_images(metric):
    ends = {f"{metric}_low": 0.2, f"{metric}_high": 0.31}
    found = summary_of(rows_of(metric, [0.25] * 3, **ends), metric)
    assert (found["mean"], found["sd"], found["n_seeds"]) == (0.25, 0.0, 3)
    assert (found["low"], found["high"], found["interval"]) == (0.2, 0.31, "Wilson over images")
