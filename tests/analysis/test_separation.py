"""Scores of records, and the detection numbers of both populations."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from robustloss.analysis.detection.scores import PLAIN, SCORES
from robustloss.analysis.detection.separation import check_same_images, compare
from robustloss.metrics import rates
from robustloss.results.records import Record


def make(logits, labels, log_likelihood=None) -> Record:
    logits = np.asarray(logits, np.float32)
    n = len(logits)
    return Record(
        index=np.arange(n),
        labels=np.asarray(labels),
        logits=logits,
        class_log_likelihood=logits if log_likelihood is None else np.asarray(log_likelihood),
        features=logits[:, :2] / 3,
        linf=np.zeros(n, np.float32),
        l2=np.zeros(n, np.float32),
        zero_gradient=None,
        radius=None,
        images=np.zeros((0, 1, 1, 1), np.float32),
    )


def predicted(wrong, likelihood) -> Record:
    """Two classes, label 0; class 1 is predicted where wrong; the likelihood as given."""
    wrong, likelihood = np.asarray(wrong), np.asarray(likelihood, float)
    logits = np.stack([~wrong, wrong], axis=1).astype(np.float32)
    return make(logits, np.zeros(len(wrong), int), np.stack([likelihood] * 2, axis=1))


SCORE = SCORES["class_log_likelihood"]


def detect(clean, attacked, validation_scores, score):
    """The detection numbers of a score from the records."""
    check_same_images(clean, attacked)
    return compare(
        clean.correct, ~attacked.correct, score(clean), score(attacked), validation_scores
    )


def hostile(seed: int = 0, n: int = 40, classes: int = 5) -> Record:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 10.0 ** rng.integers(-3, 6, (n, 1))
    return make(logits, rng.integers(0, classes, n), -np.abs(logits) * 7)


# ---- every score


@pytest.mark.parametrize("score", PLAIN.values(), ids=PLAIN)
class TestEveryPlainScore:
    def test_gives_one_float64_without_nan_per_image(self, score):
        values = score(hostile())
        assert values.dtype == np.float64
        assert values.shape == (40,)
        assert not np.isnan(values).any()

    def test_depends_on_no_other_image(self, score):
        record = hostile()
        some = np.array([7, 3, 3, 30])
        names = ("index", "labels", "logits", "class_log_likelihood", "features", "linf", "l2")
        parts = {name: getattr(record, name)[some] for name in names}
        np.testing.assert_array_equal(score(replace(record, **parts)), score(record)[some])

    def test_does_not_know_the_label_nor_the_order_of_classes(self, score):
        record = hostile()
        order = np.random.default_rng(1).permutation(5)
        changed = make(
            record.logits[:, order], record.labels * 0, record.class_log_likelihood[:, order]
        )
        changed = replace(changed, features=record.features)
        np.testing.assert_allclose(score(changed), score(record), rtol=1e-12)


def test_the_likelihood_is_that_of_the_predicted_class():
    record = make([[0, 3, 1], [5, 1, 1]], [2, 2], [[-1.0, -2, -3], [-4, -5, -6]])
    np.testing.assert_array_equal(SCORE(record), [-2, -4])


def test_the_posterior_score_is_the_largest_log_posterior():
    record = make([[0, np.log(3)], [50, 0]], [0, 0])
    value = SCORES["max_log_posterior"](record)
    np.testing.assert_allclose(value, [np.log(0.75), -np.exp(-50)], rtol=1e-6)


# ---- detect


def test_both_populations_by_hand():
    # images:           0      1      2      3      4 (wrong from the start)
    clean = predicted([False, False, False, False, True], [4, 3, 2, 1, 0])
    attacked = predicted([True, True, False, True, False], [3, 0, 9, 2, 9])
    validation = np.arange(20.0) / 8 + 2  # 20 scores, one may be rejected: threshold 2.125
    found = detect(clean, attacked, validation, SCORE)
    all_, successful = found["all"], found["successful"]
    assert (all_["n_clean"], all_["n_attacked"]) == (5, 5)
    assert (successful["n_clean"], successful["n_attacked"]) == (4, 3)
    # all: clean {4 3 2 1 0} against {3 0 9 2 9}: 3, 2.5, 1.5, 1 and 0.5 of 5 pairs
    assert all_["auroc"] == pytest.approx(8.5 / 25)
    # successful: clean {4 3 2 1} against {3 0 2}: 3, 2.5, 1.5 and 1 of 3 pairs
    assert successful["auroc"] == pytest.approx(8 / 12)
    assert all_["threshold_5fpr"] == successful["threshold_5fpr"] == 2.125
    # below 2.125: clean 2, 1, 0 of all; 2, 1 of the correct
    assert all_["clean_rejected_fraction"] == 0.6
    assert successful["clean_rejected_fraction"] == 0.5
    # image 0 alone is wrong afterwards and at or above 2.125, of four initially correct
    assert all_["undetected_success_at_5fpr"] == 0.25
    assert successful["undetected_success_at_5fpr"] == 0.25
    # at 1 % FPR no validation score may be rejected: threshold 2, images 0 and 3 pass
    assert all_["undetected_success_at_1fpr"] == 0.5
    assert successful["undetected_success_at_1fpr"] == 0.5
    # no clean image may be rejected of 5: threshold 0 rejects nothing; of 4: 1 rejects the 0
    assert all_["tpr_at_5fpr"] == 0
    assert successful["tpr_at_5fpr"] == pytest.approx(1 / 3)
    assert successful["tpr_at_1fpr"] == pytest.approx(1 / 3)
    # to reject all three successes, everything up to 3 goes: 3 of 4 clean
    assert successful["clean_rejected_at_95tpr"] == 0.75


def test_each_number_is_that_of_its_metric():
    rng = np.random.default_rng(0)
    clean = predicted(rng.random(400) < 0.1, rng.normal(2, 1, 400))
    attacked = predicted(rng.random(400) < 0.6, rng.normal(0, 1, 400))
    found = detect(clean, attacked, rng.normal(2, 1, 100), SCORE)
    ok = clean.correct
    sides = {
        "all": (SCORE(clean), SCORE(attacked)),
        "successful": (SCORE(clean)[ok], SCORE(attacked)[ok & ~attacked.correct]),
        "failed": (SCORE(clean)[ok], SCORE(attacked)[ok & attacked.correct]),
    }
    for population, side in sides.items():
        numbers = found[population]
        assert numbers["auroc"] == pytest.approx(rates.auroc(*side), abs=1e-12)
        assert numbers["auroc_low"] < numbers["auroc"] < numbers["auroc_high"]
        assert numbers["equal_error_rate"] == rates.equal_error_rate(*side)
        assert numbers["average_precision"] == rates.average_precision(*side)
        assert numbers["tpr_at_1fpr"] == rates.tpr_at_fpr(*side, 0.01)
        assert numbers["tpr_at_5fpr"] == rates.tpr_at_fpr(*side, 0.05)
        assert numbers["clean_rejected_at_95tpr"] == rates.clean_rejected_at_tpr(*side, 0.95)


def test_a_stricter_threshold_lets_more_successes_through():
    rng = np.random.default_rng(3)
    clean = predicted(rng.random(50) < 0.1, rng.normal(2, 1, 50))
    attacked = predicted(rng.random(50) < 0.6, rng.normal(0, 1, 50))
    validation = rng.normal(2, 1, 100)
    found = detect(clean, attacked, validation, SCORE)
    passed = SCORE(attacked) >= rates.threshold_at_fpr(validation, 0.01)
    counted = (clean.correct & ~attacked.correct & passed).sum() / clean.correct.sum()
    assert found["all"]["undetected_success_at_1fpr"] == counted
    assert counted >= found["all"]["undetected_success_at_5fpr"]


def test_no_success_is_null_and_not_zero():
    clean = predicted([False, False, True], [3, 2, 1])
    found = detect(clean, clean, np.arange(5.0), SCORE)
    successful = found["successful"]
    assert successful["n_attacked"] == 0
    for name in ("auroc", "average_precision", "tpr_at_1fpr", "equal_error_rate"):
        assert successful[name] is None
    # of the two initially correct images none went through: that is a zero, and a good one
    assert successful["undetected_success_at_5fpr"] == 0
    assert found["all"]["auroc"] == 0.5
    assert found["failed"]["n_attacked"] == 2


def test_none_correct_leaves_all_and_nothing_else():
    clean = predicted([True, True], [3, 2])
    found = detect(clean, predicted([True, True], [1, 0]), np.arange(5.0), SCORE)
    assert found["all"]["auroc"] == 1
    assert found["all"]["undetected_success_at_5fpr"] is None
    assert found["successful"]["clean_rejected_fraction"] is None


def test_a_resisting_model_is_judged_by_what_goes_undetected():
    # two models whose successes look alike; one gives way to 90 %, the other to 30 %
    n = 1000
    quantiles = stats.norm.ppf((np.arange(n) + 0.5) / n)
    shuffled = np.random.default_rng(0).permutation(quantiles)
    validation = quantiles + 2
    clean = predicted(np.zeros(n, bool), quantiles + 2)
    found = {}
    for rate in (0.9, 0.3):
        wrong = np.random.default_rng(1).permutation(n) < rate * n
        # failed attacks look like clean images
        found[rate] = detect(
            clean, predicted(wrong, shuffled + np.where(wrong, 0, 2)), validation, SCORE
        )
    auroc = {rate: numbers["successful"]["auroc"] for rate, numbers in found.items()}
    expected = stats.norm.cdf(2 / np.sqrt(2))
    assert auroc[0.9] == pytest.approx(auroc[0.3], abs=0.02) == pytest.approx(expected, abs=0.02)
    assert found[0.3]["all"]["auroc"] < found[0.9]["all"]["auroc"] - 0.15  # the safer looks worse
    undetected = {r: numbers["all"]["undetected_success_at_5fpr"] for r, numbers in found.items()}
    passing = stats.norm.sf(2 + stats.norm.ppf(0.05))
    assert undetected == pytest.approx({0.9: 0.9 * passing, 0.3: 0.3 * passing}, abs=0.03)


def test_infinitely_unlikely_images_are_rejected_first():
    clean = predicted([False] * 3, [-1, -2, -3])
    attacked = predicted([True] * 3, [-np.inf] * 3)
    found = detect(clean, attacked, np.array([-1.0, -2, -3]), SCORE)
    assert found["successful"]["auroc"] == found["successful"]["tpr_at_1fpr"] == 1
    assert found["all"]["undetected_success_at_5fpr"] == 0


def test_records_of_other_images_are_refused():
    clean = predicted([False, False], [1, 2])
    with pytest.raises(ValueError, match="index of the clean and of the attacked record differ"):
        detect(clean, replace(clean, index=np.array([1, 0])), np.zeros(3), SCORE)
    with pytest.raises(ValueError, match="labels of the clean and of the attacked record differ"):
        detect(clean, replace(clean, labels=np.array([0, 1])), np.zeros(3), SCORE)
