"""Rows, detection and flags of a cell: numbers by hand, columns, nulls."""

from dataclasses import replace

import numpy as np
import pytest

from robustloss.analysis.detection import compute
from robustloss.analysis.tables import of_cell
from robustloss.metrics.auroc_interval import auroc_interval
from robustloss.metrics.intervals import wilson
from robustloss.results.records import Record
from robustloss.results.schema import AREAS, TABLES
from tests.evidence import sound_probe

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
    return of_cell.cell_numbers(RECORDS, REFERENCE, CELL)


def test_the_attacked_row_by_hand(numbers):
    low, high = wilson(3, 4)
    area_all = auroc_interval([-1, -2, -3, -4], [-9, -2, -2, -4], range(4), range(4))
    area_successful = auroc_interval([-1, -2, -3], [-9, -2], [0, 1, 2], [0, 2])
    # by falling score -1 right, three -2 of which one is wrong, -3 right, two -4 and a -9 wrong;
    # wrong and accepted at these thresholds are 0 1 1 3 4 of 8
    areas = {name: numbers["rows"][1][name] for name in AREAS}
    assert areas["augrc"] == pytest.approx((1 * 0 + 3 * 0.5 + 1 * 1 + 2 * 2 + 1 * 3.5) / 64)
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
        "error_noise": None,  # no control was given
        "attack_success_rate": pytest.approx(2 / 3),
        "mean_max_posterior": pytest.approx(0.75),
        "zero_gradient_fraction": 0.25,
        "score": "class_log_likelihood",
        # clean {-1 -2 -3 -4} against {-9 -2 -2 -4}: 4 + 3 + 2 + 1.5 of 16 pairs
        "auroc_all": pytest.approx(10.5 / 16),
        "auroc_all_low": pytest.approx(area_all.low),
        "auroc_all_high": pytest.approx(area_all.high),
        # clean and correct {-1 -2 -3} against the successes {-9 -2}: 2 + 1.5 + 1 of 6
        "auroc_successful": pytest.approx(4.5 / 6),
        "auroc_successful_low": pytest.approx(area_successful.low),
        "auroc_successful_high": pytest.approx(area_successful.high),
        "n_successful": 2,
        "auroc_noise": None,  # no control was given
        # the threshold is the lowest clean score, -4 or -3: it rejects the -9 alone
        "tpr_at_1fpr": 0.25,
        "tpr_at_1fpr_successful": 0.5,
        "tpr_at_5fpr": 0.25,
        "tpr_at_5fpr_successful": 0.5,
        # validation threshold -5: of three initially correct, image 2 goes through
        "undetected_success_at_5fpr": pytest.approx(1 / 3),
        "undetected_success_at_5fpr_low": wilson(1, 3)[0],
        "undetected_success_at_5fpr_high": wilson(1, 3)[1],
        **areas,
        "outside_fraction": None,
        "error_8bit": None,
        # of class 0 one of two is wrong, of class 1 both
        "balanced_error": pytest.approx((0.5 + 1.0) / 2),
        "top5_error": None,
    }


def test_errors_class_by_class(numbers):
    (zero, one) = [row for row in numbers["per_class"] if row["eps"] == 0.2]
    assert (zero["class_index"], zero["n"], zero["error"]) == (0, 2, 0.5)
    assert (zero["error_low"], zero["error_high"]) == wilson(1, 2)
    # predicted 1 0 0 0 for 0 0 1 1: class 0 is given to both images of class 1
    assert (zero["predicted"], zero["false_positives"], zero["false_negatives"]) == (3, 2, 1)
    assert zero["false_positive_rate"] == 1.0
    assert (one["predicted"], one["false_positives"], one["false_negatives"]) == (1, 1, 2)


def test_the_clean_row_has_nulls_where_nothing_was_attacked(numbers):
    row = numbers["rows"][2]
    assert (row["attack"], row["attack_label"], row["eps"], row["n"]) == ("none", "none", 0.0, 4)
    assert row["error"] == 0.25
    assert (row["error_low"], row["error_high"]) == wilson(1, 4)
    assert row["mean_max_posterior"] == pytest.approx(0.75)
    filled = {"loss", "label", "seed", "attack", "attack_label", "eps", "n", "error", "error_low"}
    filled |= {"error_high", "mean_max_posterior", "balanced_error", "score", *AREAS}
    # the one wrong image, the last, is accepted at the last of four thresholds
    assert (row["augrc"], row["aurc"]) == (0.5 / 16, 1 / 4 / 2 / 4)
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
        "error_noise, attack_success_rate, mean_max_posterior, zero_gradient_fraction, score, "
        "auroc_all, auroc_all_low, auroc_all_high, auroc_successful, auroc_successful_low, "
        "auroc_successful_high, n_successful, auroc_noise, tpr_at_1fpr, "
        "tpr_at_1fpr_successful, tpr_at_5fpr, "
        "tpr_at_5fpr_successful, undetected_success_at_5fpr, undetected_success_at_5fpr_low, "
        f"undetected_success_at_5fpr_high, {', '.join(AREAS)}, outside_fraction, error_8bit, "
        "balanced_error, top5_error"
    )
    assert [", ".join(row) for row in numbers["rows"]] == [columns] * 3
    columns = (
        "loss, label, seed, attack, attack_label, norm, eps, score, population, n_clean, "
        "n_attacked, auroc, auroc_low, auroc_high, average_precision, tpr_at_1fpr, tpr_at_5fpr, "
        "clean_rejected_at_95tpr, equal_error_rate, "
        "undetected_success_at_1fpr, undetected_success_at_5fpr, "
        "undetected_success_at_1fpr_low, undetected_success_at_1fpr_high, "
        "undetected_success_at_5fpr_low, undetected_success_at_5fpr_high, "
        f"{', '.join(AREAS)}, threshold_5fpr, "
        "clean_rejected_fraction, adapted"
    )
    assert {", ".join(row) for row in numbers["detection"]} == {columns}
    columns = "check, loss, label, seed, attack_label, eps, value, threshold, message"
    assert [", ".join(flag) for flag in numbers["flags"]] == [columns]


def test_detection_has_every_score_and_population_per_attack(numbers):
    keys = [(row["eps"], row["score"], row["population"]) for row in numbers["detection"]]
    # without features and without a density, these scores exist
    scores = ("class_log_likelihood", "energy", "max_log_posterior", "max_logit")
    populations = ("all", "failed", "successful")
    attacked = [(e, s, p) for e in (0.1, 0.2) for s in scores for p in populations]
    assert keys == attacked + [(0.0, score, "clean") for score in scores]
    row = numbers["detection"][len(scores) * 3 + 2]
    assert (row["n_clean"], row["n_attacked"], row["threshold_5fpr"]) == (3, 2, -5)
    assert row["auroc"] == numbers["rows"][1]["auroc_successful"]


def test_the_scores_asked_for_decide_the_detection_table_and_not_the_rows(numbers):
    found = of_cell.cell_numbers(RECORDS, REFERENCE, CELL, ["max_log_posterior"])
    assert {row["score"] for row in found["detection"]} == {"max_log_posterior"}
    assert found["rows"] == numbers["rows"]
    with pytest.raises(ValueError, match=r"score \(='energie'\) must be one of class_log_likeli"):
        of_cell.cell_numbers(RECORDS, REFERENCE, CELL, ["energie"])


def test_likelihoods_that_float32_exp_would_lose_still_tell(numbers):
    def shifted(record: Record) -> Record:
        return replace(record, class_log_likelihood=record.class_log_likelihood * 100 - 1e5)

    records = {key: shifted(record) for key, record in RECORDS.items()}
    likelihood = REFERENCE["validation_class_log_likelihood"] * 100 - 1e5
    reference = REFERENCE | {"validation_class_log_likelihood": likelihood}
    found = of_cell.cell_numbers(records, reference, CELL)
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
    found = of_cell.cell_numbers(
        {("none", 0.0): record, ("FGSM", 0.1): record, ("FGSM", 0.2): record}, REFERENCE, CELL
    )
    assert len(found["flags"]) == 2 * flags


@pytest.mark.parametrize("key", [("none", 0.0), ("FGSM", 0.2)])
def test_nan_is_refused_by_the_name_of_its_record(key):
    broken = RECORDS | {key: replace(RECORDS[key], logits=np.full((4, 2), np.nan, np.float32))}
    name = "clean" if key[0] == "none" else "FGSM at eps 0.2"
    with pytest.raises(ValueError, match=f"record L-GM seed 3, {name}: logits"):
        of_cell.cell_numbers(broken, REFERENCE, CELL)


def test_nan_among_the_validation_images_is_refused():
    reference = REFERENCE | {"validation_class_log_likelihood": np.full((4, 2), np.nan)}
    with pytest.raises(ValueError, match="record L-GM seed 3, validation: class_log_likelihood"):
        of_cell.cell_numbers(RECORDS, reference, CELL)


# ---- several attacks together


def entry_of(attack: str, label: str, eps: float, norm: str = "linf") -> dict:
    return {"attack": attack, "attack_label": label, "norm": norm, "eps": eps}


class Lazy(dict):
    """Records that are made when they are looked up, and may be looked up once."""

    def __getitem__(self, key):
        return self.pop(key)


SEVERAL = CELL | {
    "files": {
        "records": [
            *CELL["files"]["records"],
            entry_of("deepfool", "DeepFool", 0.1),
            entry_of("adaptive_joint", "joint", 0.2),
            entry_of("adaptive_matching", "matching", 0.2),
        ]
    }
}
MINIMUM = replace(STRONG, radius=np.array([0.05, 0.3, np.inf, 0], np.float32), zero_gradient=None)
MANY = RECORDS | {
    ("DeepFool", 0.1): MINIMUM,
    ("joint", 0.2): make([1, 0, 1, 0], [-2, -2, -3, -4], [False] * 4),
    ("matching", 0.2): make([1, 1, 1, 0], [-6, -1, -3, -4], [False] * 4),
}


def test_each_record_is_looked_up_once():
    records = Lazy(MANY)
    found = of_cell.cell_numbers(records, REFERENCE, SEVERAL)
    assert not records
    made = {name for name, table in TABLES.items() if table.of == "cell"}
    assert found.keys() == made - {"crops", "shifts"}  # which are not of the records
    assert found == of_cell.cell_numbers(MANY, REFERENCE, SEVERAL)


def test_worst_case_and_radii_of_a_cell():
    found = of_cell.cell_numbers(MANY, REFERENCE, SEVERAL)
    # at 0.1 FGSM does nothing and DeepFool's record has images 0, 2 and 3
    assert [(row["eps"], row["error"], row["strongest"]) for row in found["worst_case"]] == [
        (0.1, 0.75, "DeepFool"),
        (0.2, 1.0, "FGSM"),
    ]
    assert found["worst_case"][1]["attacks"] == ["FGSM", "DeepFool", "joint", "matching"]
    labels = [row["attack_label"] for row in found["radii"]]
    assert labels == ["DeepFool", "FGSM", "joint", "matching", "worst case"]
    row = found["radii"][0]
    assert (row["n_found"], row["eps_at_50_error"]) == (3, pytest.approx(0.05))
    # images 0 and 3 by DeepFool's radii, image 2 by its record, image 1 by an attack at 0.2
    worst = found["radii"][-1]
    assert (worst["n_found"], worst["median_radius"]) == (4, pytest.approx((0.05 + 0.1) / 2))


def test_adaptive_rows_of_a_cell():
    found = of_cell.cell_numbers(MANY, REFERENCE, SEVERAL)
    rows = [row for row in found["adaptive"] if row["score"] == compute.ROW_SCORE]
    assert [(row["attack_label"], row["kind"]) for row in rows] == [
        ("FGSM", "naive"),
        ("any attack", "best_of_all"),
        ("best of adaptive", "best_of_adaptive"),
        ("joint", "adaptive"),
        ("matching", "adaptive"),
    ]
    best = rows[2]
    # joint makes image 0 wrong at -2, matching image 1 at -1; the threshold is -5
    assert (best["error"], best["undetected_success_at_5fpr"]) == (0.75, pytest.approx(2 / 3))
    assert rows[4]["error_with_rejection_at_5fpr"] == 0.5  # its image 0, at -6, is rejected
    assert of_cell.cell_numbers(RECORDS, REFERENCE, CELL)["adaptive"] == []


def test_the_likelihood_is_always_among_the_adaptive_rows():
    found = of_cell.cell_numbers(MANY, REFERENCE, SEVERAL, ["max_log_posterior"])
    assert {row["score"] for row in found["adaptive"]} == {
        "class_log_likelihood",
        "max_log_posterior",
    }
    assert {row["score"] for row in found["detection"]} == {"max_log_posterior"}


def test_detection_says_which_score_the_attack_adapted_to():
    rows = of_cell.cell_numbers(MANY, REFERENCE, SEVERAL)["detection"]
    adapted = {(row["attack_label"], row["score"]): row["adapted"] for row in rows}
    for score in ("class_log_likelihood", "energy", "max_log_posterior", "max_logit"):
        assert adapted["FGSM", score] is adapted["DeepFool", score] is None
        assert adapted["joint", score] is (score == "class_log_likelihood")


def test_what_left_the_ball_and_what_8_bits_leave_are_columns():
    strong = replace(
        STRONG,
        outside=np.array([True, False, False, False]),
        predictions_8bit=np.array([0, 0, 0, 0]),
    )
    found = of_cell.cell_numbers(RECORDS | {("FGSM", 0.2): strong}, REFERENCE, CELL)
    row = found["rows"][1]
    assert (row["error"], row["error_8bit"], row["outside_fraction"]) == (0.75, 0.5, 0.25)
    checks = [(flag["check"], flag["eps"]) for flag in found["flags"]]
    assert checks == [("outside_ball_or_box", 0.2), ("zero_gradient", 0.2)]


def test_a_probe_adds_its_checks():
    probe = sound_probe() | {"wrong_unbounded": np.zeros(100, bool)}
    found = of_cell.cell_numbers(RECORDS, REFERENCE, CELL, probe=probe)
    (flag,) = (flag for flag in found["flags"] if flag["check"] != "zero_gradient")
    assert (flag["check"], flag["attack_label"], flag["eps"]) == (
        "unbounded_attack_fails",
        None,
        None,
    )
    with pytest.raises(ValueError, match="probe has no 'eps'"):
        of_cell.cell_numbers(RECORDS, REFERENCE, CELL, probe={"labels": LABELS})
