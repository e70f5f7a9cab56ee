"""Rows, detection, flags and summary: numbers by hand, columns, nulls and order."""

from dataclasses import replace

import numpy as np
import pytest

from robustloss import tables
from robustloss.records import Record
from robustloss.statistics import t_interval, wilson

GAP = np.log(3)  # a logit gap with posterior 3/4
LABELS = np.array([0, 0, 1, 1])


def make(predictions, likelihood, zero_gradient=None) -> Record:
    """Two classes: the predicted one leads by GAP and has the given log-likelihood."""
    n = len(predictions)
    logits = np.zeros((n, 2), np.float32)
    logits[np.arange(n), predictions] = GAP
    log_likelihood = np.full((n, 2), -99, np.float32)
    log_likelihood[np.arange(n), predictions] = likelihood
    return Record(
        index=np.arange(n),
        labels=np.resize(LABELS, n),
        logits=logits,
        class_log_likelihood=log_likelihood,
        features=None,
        linf=np.zeros(n, np.float32),
        l2=np.zeros(n, np.float32),
        zero_gradient=None if zero_gradient is None else np.array(zero_gradient),
        radius=None,
        images=np.zeros((0, 1, 1, 1), np.float32),
    )


CLEAN = make([0, 0, 1, 0], [-1, -2, -3, -4])
WEAK = make([0, 0, 1, 0], [-1, -2, -3, -4], [False] * 4)
STRONG = make([1, 0, 0, 0], [-9, -2, -2, -4], [False, True, False, False])
REFERENCE = {
    "validation_index": np.arange(4),
    "validation_labels": LABELS,
    "validation_logits": make([0, 0, 1, 1], 0).logits,
    "validation_class_log_likelihood": make([0, 0, 1, 1], [-5, -3, -2, -1]).class_log_likelihood,
}
CELL = {
    "loss": "lgm",
    "label": "L-GM",
    "seed": 3,
    "files": {
        "records": [
            {"attack": "none", "attack_label": "none", "norm": None, "eps": 0.0},
            {"attack": "fgsm", "attack_label": "FGSM", "norm": "linf", "eps": 0.2},
            {"attack": "fgsm", "attack_label": "FGSM", "norm": "linf", "eps": 0.1},
        ]
    },
}
RECORDS = {("none", 0.0): CLEAN, ("FGSM", 0.1): WEAK, ("FGSM", 0.2): STRONG}


@pytest.fixture
def numbers():
    return tables.cell_numbers(RECORDS, REFERENCE, CELL)


def test_the_attacked_row_by_hand(numbers):
    low, high = wilson(3, 4)
    assert numbers["rows"][1] == {
        "loss": "lgm",
        "label": "L-GM",
        "seed": 3,
        "attack": "fgsm",
        "attack_label": "FGSM",
        "norm": "linf",
        "eps": 0.2,
        "n": 4,
        "error": 0.75,  # images 0, 2 and 3; the last was wrong from the start
        "error_low": low,
        "error_high": high,
        "attack_success_rate": pytest.approx(2 / 3),
        "mean_max_posterior": pytest.approx(0.75),
        "zero_gradient_fraction": 0.25,
        "score": "class_log_likelihood",
        # clean {-1 -2 -3 -4} against {-9 -2 -2 -4}: 4 + 3 + 2 + 1.5 of 16 pairs
        "auroc_all": pytest.approx(10.5 / 16),
        # clean and correct {-1 -2 -3} against the successes {-9 -2}: 2 + 1.5 + 1 of 6
        "auroc_successful": pytest.approx(4.5 / 6),
        "n_successful": 2,
        # the threshold is the lowest clean score, -4 or -3: it rejects the -9 alone
        "tpr_at_1fpr": 0.25,
        "tpr_at_1fpr_successful": 0.5,
        "tpr_at_5fpr": 0.25,
        "tpr_at_5fpr_successful": 0.5,
        # validation threshold -5: of three initially correct, image 2 goes through
        "undetected_success_at_5fpr": pytest.approx(1 / 3),
    }


def test_the_clean_row_has_nulls_where_nothing_was_attacked(numbers):
    row = numbers["rows"][2]
    assert (row["attack"], row["attack_label"], row["eps"], row["n"]) == ("none", "none", 0.0, 4)
    assert row["error"] == 0.25
    assert (row["error_low"], row["error_high"]) == wilson(1, 4)
    assert row["mean_max_posterior"] == pytest.approx(0.75)
    filled = {"loss", "label", "seed", "attack", "attack_label", "eps", "n", "error", "error_low"}
    filled |= {"error_high", "mean_max_posterior"}
    assert {name for name, value in row.items() if value is not None} == filled


def test_an_attack_without_success_has_null_where_nothing_can_be_said(numbers):
    row = numbers["rows"][0]
    assert (row["eps"], row["attack_success_rate"], row["n_successful"]) == (0.1, 0, 0)
    assert row["auroc_successful"] is row["tpr_at_1fpr_successful"] is None
    assert row["tpr_at_5fpr_successful"] is None
    assert row["auroc_all"] == 0.5
    assert row["undetected_success_at_5fpr"] == 0


def test_columns_are_those_of_the_schema_in_their_order(numbers):
    columns = (
        "loss, label, seed, attack, attack_label, norm, eps, n, error, error_low, error_high, "
        "attack_success_rate, mean_max_posterior, zero_gradient_fraction, score, auroc_all, "
        "auroc_successful, n_successful, tpr_at_1fpr, tpr_at_1fpr_successful, tpr_at_5fpr, "
        "tpr_at_5fpr_successful, undetected_success_at_5fpr"
    )
    assert [", ".join(row) for row in numbers["rows"]] == [columns] * 3
    columns = (
        "loss, label, seed, attack, attack_label, norm, eps, score, population, n_clean, "
        "n_attacked, auroc, average_precision, tpr_at_1fpr, tpr_at_5fpr, clean_rejected_at_95tpr, "
        "undetected_success_at_5fpr, threshold_5fpr, clean_rejected_fraction"
    )
    assert {", ".join(row) for row in numbers["detection"]} == {columns}
    columns = "check, loss, label, seed, attack_label, eps, value, threshold, message"
    assert [", ".join(flag) for flag in numbers["flags"]] == [columns]


def test_detection_has_every_score_and_population_per_attack(numbers):
    keys = [(row["eps"], row["score"], row["population"]) for row in numbers["detection"]]
    scores, populations = ("class_log_likelihood", "max_log_posterior"), ("all", "successful")
    assert keys == [(e, s, p) for e in (0.1, 0.2) for s in scores for p in populations]
    row = numbers["detection"][5]
    assert (row["n_clean"], row["n_attacked"], row["threshold_5fpr"]) == (3, 2, -5)
    assert row["auroc"] == numbers["rows"][1]["auroc_successful"]


def test_the_scores_asked_for_decide_the_detection_table_and_not_the_rows(numbers):
    found = tables.cell_numbers(RECORDS, REFERENCE, CELL, ["max_log_posterior"])
    assert {row["score"] for row in found["detection"]} == {"max_log_posterior"}
    assert found["rows"] == numbers["rows"]
    with pytest.raises(ValueError, match=r"score \(='energie'\) must be one of class_log_likeli"):
        tables.cell_numbers(RECORDS, REFERENCE, CELL, ["energie"])


def test_likelihoods_that_float32_exp_would_lose_still_tell(numbers):
    def shifted(record: Record) -> Record:
        return replace(record, class_log_likelihood=record.class_log_likelihood * 100 - 1e5)

    records = {key: shifted(record) for key, record in RECORDS.items()}
    likelihood = REFERENCE["validation_class_log_likelihood"] * 100 - 1e5
    reference = REFERENCE | {"validation_class_log_likelihood": likelihood}
    found = tables.cell_numbers(records, reference, CELL)
    assert found["rows"] == numbers["rows"]


def test_zero_gradients_are_flagged_with_a_remedy(numbers):
    (flag,) = numbers["flags"]
    assert (flag["check"], flag["label"], flag["seed"], flag["eps"]) == (
        "zero_gradient",
        "L-GM",
        3,
        0.2,
    )
    assert (flag["value"], flag["threshold"]) == (0.25, 0.01)
    assert "exactly 0 for 25.0 % of the images" in flag["message"]
    assert 'objective = "margin"' in flag["message"]


@pytest.mark.parametrize(("zeros", "flags"), [(2, 0), (3, 1)])
def test_one_percent_of_zero_gradients_is_the_limit(zeros, flags):
    n = 200
    record = make([0] * n, [-1] * n, np.arange(n) < zeros)
    found = tables.cell_numbers(
        {("none", 0.0): record, ("FGSM", 0.1): record, ("FGSM", 0.2): record}, REFERENCE, CELL
    )
    assert len(found["flags"]) == 2 * flags


@pytest.mark.parametrize("key", [("none", 0.0), ("FGSM", 0.2)])
def test_nan_is_refused_by_the_name_of_its_record(key):
    broken = RECORDS | {key: replace(RECORDS[key], logits=np.full((4, 2), np.nan, np.float32))}
    with pytest.raises(ValueError, match=f"record L-GM seed 3, {key[0]} at eps {key[1]:g}: logits"):
        tables.cell_numbers(broken, REFERENCE, CELL)


def test_nan_among_the_validation_images_is_refused():
    reference = REFERENCE | {"validation_class_log_likelihood": np.full((4, 2), np.nan)}
    with pytest.raises(ValueError, match="record L-GM seed 3, validation: class_log_likelihood"):
        tables.cell_numbers(RECORDS, reference, CELL)


# ---- summary


def rows_of(metric: str, values, **more) -> list[dict]:
    """One row per seed; the seeds come in reverse."""
    empty = dict.fromkeys(tables.ROW_COLUMNS)
    place = {"loss": "lgm", "label": "L-GM", "attack": "fgsm", "attack_label": "FGSM"}
    place |= {"norm": "linf", "eps": 0.1, "error_low": 0.1, "error_high": 0.3}
    rows = [empty | place | {"seed": seed, metric: v} | more for seed, v in enumerate(values)]
    return rows[::-1]


def summary_of(rows, metric: str) -> dict:
    (found,) = (row for row in tables.summarise(rows) if row["metric"] == metric)
    return found


@pytest.mark.parametrize("metric", tables.SUMMARY_METRICS)
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


def test_one_seed_has_the_interval_of_its_images_for_the_error_only():
    found = summary_of(rows_of("error", [0.2]), "error")
    assert (found["mean"], found["sd"], found["low"], found["high"]) == (0.2, None, 0.1, 0.3)
    assert found["interval"] == "Wilson over images"
    found = summary_of(rows_of("auroc_all", [0.2, None]), "auroc_all")
    assert (found["mean"], found["low"], found["interval"], found["n_seeds"]) == (
        0.2,
        None,
        None,
        1,
    )


def test_a_metric_without_any_value_is_listed_as_null():
    found = summary_of(rows_of("auroc_successful", [None, None]), "auroc_successful")
    assert (found["n_seeds"], found["values"], found["mean"]) == (0, [], None)


def test_losses_attacks_and_budgets_are_summarised_apart():
    rows = rows_of("error", [0.0, 0.2]) + rows_of("error", [0.4, 0.6], eps=0.2)
    rows += rows_of("error", [1.0, 1.0], label="GM") + rows_of("error", [0.5], attack_label="PGD")
    found = [row for row in tables.summarise(rows) if row["metric"] == "error"]
    assert [(row["label"], row["attack_label"], row["eps"]) for row in found] == [
        ("GM", "FGSM", 0.1),
        ("L-GM", "FGSM", 0.1),
        ("L-GM", "FGSM", 0.2),
        ("L-GM", "PGD", 0.1),
    ]
    assert [row["mean"] for row in found] == pytest.approx([1, 0.1, 0.5, 0.5])


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
    assert tables.sort(shuffled) == rows
