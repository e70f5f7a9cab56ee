"""Errors, successes and posteriors: by hand, against scipy, and at both ends of the scale."""

import numpy as np
import pytest
from scipy import special

from robustloss.metrics import rates

INF = np.inf


# ---- errors and successes


def test_errors_and_successes_by_hand():
    labels = np.array([0, 1, 2, 3, 4])
    before = np.array([0, 1, 2, 3, 0])  # the last is wrong from the start
    after = np.array([0, 2, 0, 0, 4])  # and is right after the attack
    assert rates.error(before, labels) == 0.2
    assert rates.error(after, labels) == 0.6
    assert rates.attack_success_rate(before, after, labels) == 0.75
    scores = np.array([9.0, 5.0, 4.9, 7.0, 9.0])
    value = rates.undetected_success(before == labels, after != labels, scores, 5.0)
    assert value == 0.5  # images 1 (at the threshold) and 3, of four initially correct


def test_no_images_and_none_correct_give_nan():
    none = np.array([], dtype=int)
    assert np.isnan(rates.error(none, none))
    wrong = np.array([1, 1])
    assert np.isnan(rates.attack_success_rate(wrong, wrong, wrong * 0))
    yes, no = np.array([True]), np.array([False])
    assert np.isnan(rates.undetected_success(no, yes, np.zeros(1), 0.0))


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="'predictions': 2, 'labels': 3} must be equal"):
        rates.error(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="'attacked_predictions': 1"):
        rates.attack_success_rate(np.zeros(2), np.zeros(1), np.zeros(2))
    with pytest.raises(ValueError, match="'attacked_scores': 1"):
        rates.undetected_success(np.zeros(2, bool), np.zeros(2, bool), np.zeros(1), 0)


# ---- posterior


def test_log_posterior_equals_scipy_and_sums_to_one():
    logits = np.random.default_rng(0).normal(0, 8, (200, 10)).astype(np.float32)
    value = rates.log_posterior(logits)
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, special.log_softmax(logits.astype(float), 1), atol=1e-12)
    np.testing.assert_allclose(np.exp(value).sum(axis=1), 1, atol=1e-14)


@pytest.mark.parametrize("gap", [0.0, 1.0, 17.0, 40.0, 104.0, 700.0])
def test_log_posterior_of_two_classes_is_accurate_at_both_ends(gap):
    # closed form: log p = -log(1 + e^-gap), log(1 - p) = -gap + log p
    top = -np.log1p(np.exp(-gap))
    value = rates.log_posterior(np.array([[gap, 0.0], [-3.0, gap - 3.0]], np.float64))
    np.testing.assert_allclose(value, [[top, top - gap], [top - gap, top]], rtol=1e-14)


def test_confident_posteriors_stay_distinct_where_float32_saturates():
    gaps = np.arange(20.0, 700.0, 5.0)
    logits = np.stack([gaps, np.zeros_like(gaps)], axis=1).astype(np.float32)
    assert (special.softmax(logits, axis=1)[:, 0] == 1).all()  # the trap
    assert (np.diff(rates.max_log_posterior(logits)) > 0).all()


def test_log_posterior_moves_with_its_classes_and_not_with_a_shift():
    logits = np.random.default_rng(1).normal(0, 30, (50, 7))
    order = np.random.default_rng(2).permutation(7)
    value = rates.log_posterior(logits)
    np.testing.assert_allclose(rates.log_posterior(logits[:, order]), value[:, order], 1e-12)
    np.testing.assert_allclose(rates.log_posterior(logits - 1e5), value, rtol=1e-9, atol=1e-12)


def test_impossible_classes_have_no_share():
    value = rates.log_posterior(np.array([[0.0, -INF, 0.0]]))
    np.testing.assert_allclose(value, [[-np.log(2), -INF, -np.log(2)]])


@pytest.mark.parametrize("row", [[np.nan, 0], [INF, 0], [-INF, -INF]])
def test_logits_without_a_posterior_are_refused(row):
    with pytest.raises(ValueError, match="logits of 1 of 2 rows have no finite maximum"):
        rates.log_posterior(np.array([[0.0, 1.0], row]))
