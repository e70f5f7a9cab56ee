"""The image bootstrap against literal resampling, its p-value under no difference."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from robustloss.metrics.auroc_interval import auroc_interval, influence, placements
from robustloss.metrics.bootstrap import (
    Resamples,
    bootstrap_auroc,
    bootstrap_mean,
    degrees_of_freedom,
    draw_resamples,
    p_value,
    percentile_interval,
)
from robustloss.metrics.rates import auroc


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    return np.round(rng.normal(1, 1, 60), 1), np.round(rng.normal(0, 1, 60), 1)


def test_a_resample_is_the_auroc_of_the_repeated_images(scores):
    clean, attacked = scores
    kept = np.arange(60) % 3 > 0
    drawn = draw_resamples(60, 70, seed=3)
    found = bootstrap_auroc(drawn, clean, attacked)
    some = bootstrap_auroc(drawn, clean, attacked, kept, ~kept)
    for row in range(70):
        images = np.repeat(np.arange(60), drawn.counts[row])
        assert found[row] == pytest.approx(auroc(clean[images], attacked[images]), abs=1e-12)
        own = auroc(clean[images[kept[images]]], attacked[images[~kept[images]]])
        assert some[row] == pytest.approx(own, abs=1e-12)


def test_every_resample_has_as_many_images_as_there_are():
    drawn = draw_resamples(123, 40)
    assert (drawn.counts.sum(1) == 123).all()
    assert np.array_equal(drawn.counts, draw_resamples(123, 40).counts)
    assert not np.array_equal(drawn.counts, draw_resamples(123, 40, seed=1).counts)


def test_the_spread_is_that_of_the_clustered_variance():
    rng = np.random.default_rng(1)
    clean = rng.normal(1, 1, 800)
    attacked, index = 0.8 * clean + 0.6 * rng.normal(size=800) - 1, np.arange(800)
    found = bootstrap_auroc(draw_resamples(800, 2000), clean, attacked)
    known = auroc_interval(clean, attacked, index, index)
    assert found.std() == pytest.approx(math.sqrt(known.variance), rel=0.06)
    low, high = percentile_interval(found)
    assert (low, high) == pytest.approx((known.low, known.high), abs=0.3 * (known.high - known.low))


def test_infinite_scores_and_large_offsets_keep_their_ranks(scores):
    clean, attacked = scores
    drawn = draw_resamples(60, 20)
    moved = bootstrap_auroc(drawn, clean - 1e5, attacked - 1e5)
    assert moved == pytest.approx(bootstrap_auroc(drawn, clean, attacked), abs=0.02)
    clean[0], attacked[0] = np.inf, -np.inf
    assert np.isfinite(bootstrap_auroc(drawn, clean, attacked)).all()


def test_a_resample_without_attacked_images_has_no_auroc(scores):
    only = np.zeros(60, bool)
    only[0] = True
    found = bootstrap_auroc(draw_resamples(60, 50), *scores, attacked_keep=only)
    assert np.isnan(found).any()
    assert np.isfinite(found).any()
    nobody = bootstrap_auroc(draw_resamples(60, 50), *scores, attacked_keep=~np.ones(60, bool))
    assert np.isnan(nobody).all()
    assert all(math.isnan(end) for end in percentile_interval(nobody))
    assert math.isnan(p_value(nobody))


def test_the_mean_of_each_resample():
    wrong = np.arange(50) % 4 == 0
    drawn = draw_resamples(50, 30)
    found = bootstrap_mean(drawn, wrong, keep=np.arange(50) < 40)
    for row in range(30):
        images = np.repeat(np.arange(50), drawn.counts[row])
        assert found[row] == pytest.approx(wrong[images[images < 40]].mean(), abs=1e-12)


def test_one_image():
    found = bootstrap_auroc(draw_resamples(1, 10), np.array([1.0]), np.array([0.0]))
    assert (found == 1).all()


def test_p_value_counts_both_sides():
    assert p_value(np.zeros(99)) == 1
    assert p_value(np.ones(99)) == pytest.approx(2 / 100)
    assert p_value(-np.ones(999)) == pytest.approx(2 / 1000)
    assert p_value(np.array([-1.0, 1.0] * 50)) == 1


def test_two_equal_losses_differ_in_at_most_five_percent_of_samples():
    rng = np.random.default_rng(2)
    samples, n = 4000, 60
    drawn = draw_resamples(n, 199)
    found = []
    for _ in range(samples):
        common = rng.normal(size=n)
        sides = [common + rng.normal(shift, 1, n) for shift in (1.5, 0.0, 1.5, 0.0)]
        differences = bootstrap_auroc(drawn, *sides[:2]) - bootstrap_auroc(drawn, *sides[2:])
        found.append(p_value(differences))
    rate = np.mean(np.array(found) <= 0.05)
    assert rate <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / samples)
    assert rate > 0.02  # not for want of power


def test_small_p_values_are_as_rare_as_they_say():
    # below 2 / (R + 1) they come from the spread of the resamples, which the 5 % level never shows
    rng = np.random.default_rng(3)
    samples, n, resamples = 4000, 100, 199
    drawn = draw_resamples(n, resamples)
    found = []
    for _ in range(samples):
        common = rng.normal(size=n)
        sides = [common + rng.normal(shift, 1, n) for shift in (1.5, 0.0, 1.5, 0.0)]
        differences = bootstrap_auroc(drawn, *sides[:2]) - bootstrap_auroc(drawn, *sides[2:])
        found.append(p_value(differences, auroc(*sides[:2]) - auroc(*sides[2:])))
    p = np.array(found)
    assert (p < 2 / (resamples + 1)).any()
    for level in (0.005, 0.001):
        assert np.mean(p <= level) <= level + 3 * math.sqrt(level / samples)


def test_a_plain_difference_is_not_held_back_by_the_number_of_resamples():
    differences = np.random.default_rng(4).normal(6.0, 1.0, 999)
    assert p_value(differences) == pytest.approx(2 / 1000)
    assert p_value(differences, 6.0) == pytest.approx(2 * norm.sf(6 / differences.std()))
    assert p_value(np.ones(999), 1.0) == pytest.approx(2 / 1000)  # no spread, nothing to go by
    assert p_value(differences - 6.0, 0.0) > 0.5


def test_what_cannot_be_meant_is_refused(scores):
    clean, attacked = scores
    with pytest.raises(ValueError, match="at least 1"):
        draw_resamples(0)
    with pytest.raises(ValueError, match="must be"):
        bootstrap_auroc(draw_resamples(59, 5), clean, attacked)
    with pytest.raises(ValueError, match="must be"):
        bootstrap_mean(draw_resamples(59, 5), clean)
    clean[0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        bootstrap_auroc(Resamples(np.ones((1, 60), np.uint16)), clean, attacked)


@pytest.mark.parametrize("shift", [3.0, 4.0])
def test_the_level_holds_where_few_images_carry_the_auroc(shift):
    """At 4 standard deviations some four of 100 images do; the percentiles alone reject 6 %."""
    rng = np.random.default_rng(5)
    samples, n = 1500, 100
    drawn = draw_resamples(n, 199)
    p, apart = [], []
    for _ in range(samples):
        sides = [rng.normal(mean, 1, n) for mean in (shift, 0.0, shift, 0.0)]
        differences = bootstrap_auroc(drawn, *sides[:2]) - bootstrap_auroc(drawn, *sides[2:])
        first, second = placements(*sides[:2]), placements(*sides[2:])
        freedom = degrees_of_freedom(influence(first) - influence(second))
        gap = first.auroc - second.auroc
        p.append(p_value(differences, gap, freedom=freedom))
        low, high = percentile_interval(differences, observed=gap, freedom=freedom)
        apart.append(low > 0 or high < 0)
    for rate in (np.mean(np.array(p) <= 0.05), np.mean(apart)):
        assert 0.005 < rate <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / samples)


def test_degrees_of_freedom():
    rng = np.random.default_rng(6)
    assert degrees_of_freedom(rng.normal(size=20_000)) == pytest.approx(20_000, rel=0.05)
    few = np.zeros(1000)
    few[:5] = 3e-9, -3e-9, 3e-9, 3e-9, 3e-9
    assert degrees_of_freedom(few) == pytest.approx(10, rel=0.01)
    assert degrees_of_freedom(few[4:]) == pytest.approx(2, rel=0.01)
    assert degrees_of_freedom(np.zeros(9)) == math.inf
    assert degrees_of_freedom(np.array([2.0, -2.0])) == math.inf


def test_few_degrees_of_freedom_widen_interval_and_p_value_alike():
    differences = np.random.default_rng(7).normal(2.2, 1.0, 1999)
    low, high = percentile_interval(differences)
    wide_low, wide_high = percentile_interval(differences, observed=2.2, freedom=6)
    assert wide_low < 0 < low < high < wide_high
    assert p_value(differences) < 0.05 < p_value(differences, freedom=6)
    assert wide_low == pytest.approx(2.2 - student.isf(0.025, 6), abs=0.25)
    # beyond the resamples: from their spread
    far_low, far_high = percentile_interval(differences, observed=2.2, freedom=2)
    reach = student.isf(0.025, 2) * differences.std()
    assert (far_low, far_high) == pytest.approx((2.2 - reach, 2.2 + reach))
    assert p_value(differences + 9, 11.2, freedom=5) == pytest.approx(
        2 * student.sf(11.2 / differences.std(), 5)
    )
