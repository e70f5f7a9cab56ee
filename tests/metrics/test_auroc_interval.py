"""The clustered AUROC interval: literal oracles, edge cases, and coverage by simulation."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from robustloss.metrics.auroc_interval import _pairs, auroc_interval, influence, placements
from robustloss.metrics.bootstrap import (
    bootstrap_auroc,
    degrees_of_freedom,
    draw_resamples,
    student_quantile,
)
from robustloss.metrics.rates import auroc
from tests.simulations import simulated_intervals


def auroc_difference(clean_a, attacked_a, clean_b, attacked_b):
    """Difference of two AUROCs on the same images, its variance and interval, without resampling.

    The covariance of two AUROCs of Obuchowski 1997, where every image stands on both sides.
    """
    first, second = placements(clean_a, attacked_a), placements(clean_b, attacked_b)
    per_image = influence(first) - influence(second)
    variance = float(per_image @ per_image) / (len(per_image) * (len(per_image) - 1))
    difference = first.auroc - second.auroc
    half = student_quantile(0.025, degrees_of_freedom(per_image)) * math.sqrt(variance)
    return difference, variance, difference - half, difference + half


def literal_obuchowski(clean, attacked, clean_index, attacked_index):
    """Obuchowski 1997, equations for X10, X01 and S, written with loops over clusters."""
    n, m = len(clean), len(attacked)
    kernel = [[1.0 if c > a else 0.5 if c == a else 0.0 for a in attacked] for c in clean]
    area = sum(map(sum, kernel)) / (n * m)
    images = sorted({*clean_index, *attacked_index})
    own_10 = dict.fromkeys(images, 0.0)
    own_01 = dict.fromkeys(images, 0.0)
    for i, image in enumerate(clean_index):
        own_10[image] += sum(kernel[i]) / m - area
    for j, image in enumerate(attacked_index):
        own_01[image] += sum(kernel[i][j] for i in range(n)) / n - area
    s10 = sum(v**2 for v in own_10.values()) * n / ((n - 1) * n)
    s01 = sum(v**2 for v in own_01.values()) * m / ((m - 1) * m)
    size = len(images)
    s11 = sum(own_10[i] * own_01[i] for i in images) * size / (size - 1)
    return area, s10 / n + s01 / m + 2 * s11 / (n * m)


@pytest.mark.parametrize("kept", [30, 17, 2])
def test_the_variance_is_the_literal_clustered_one(kept):
    rng = np.random.default_rng(kept)
    clean = np.round(rng.normal(1, 1, 30), 1)  # rounded: ties
    attacked = np.round(0.5 * clean[:kept] + rng.normal(0, 1, kept), 1)
    index, own = np.arange(30) + 5, np.arange(kept) + 5
    found = auroc_interval(clean, attacked, index, own)
    area, variance = literal_obuchowski(clean, attacked, list(index), list(own))
    assert found.auroc == pytest.approx(area, abs=1e-12)
    assert found.auroc == pytest.approx(auroc(clean, attacked), abs=1e-12)
    assert found.variance == pytest.approx(variance, rel=1e-10)


@pytest.mark.parametrize("order", ["rising", "shuffled"])
def test_images_on_both_sides_are_found_whatever_their_order(order):
    rng = np.random.default_rng(4)
    for _ in range(20):
        sides = [rng.choice(60, int(rng.integers(1, 40)), replace=False) for _ in range(2)]
        if order == "rising":
            sides = [np.sort(side) for side in sides]
        first, second = _pairs(*(side.astype(float) for side in sides), *sides)
        assert np.array_equal(sides[0][first], sides[1][second])
        assert set(sides[0][first]) == set(sides[0]) & set(sides[1])
    with pytest.raises(ValueError, match="twice"):
        _pairs(np.zeros(3), np.zeros(2), np.array([1, 2, 2]), np.array([1, 2]))


def test_placements_with_ties_and_infinities_are_the_counts():
    rng = np.random.default_rng(5)
    clean, attacked = rng.integers(0, 9, 40).astype(float), rng.integers(-3, 7, 25).astype(float)
    clean[:3], attacked[:2], attacked[2] = np.inf, np.inf, -np.inf
    found = placements(clean, attacked)
    wins = (clean[:, None] > attacked) + (clean[:, None] == attacked) / 2
    assert np.array_equal(found.clean, wins.sum(1) / 25)
    np.testing.assert_allclose(found.attacked, wins.sum(0) / 40, rtol=0, atol=1e-15)
    assert found.auroc == wins.sum() / 1000


def test_without_index_the_variance_is_delongs():
    rng = np.random.default_rng(0)
    clean, attacked = rng.normal(1, 1, 40), rng.normal(0, 1, 25)
    found = placements(clean, attacked)
    delong = found.clean.var(ddof=1) / 40 + found.attacked.var(ddof=1) / 25
    assert auroc_interval(clean, attacked).variance == pytest.approx(delong, rel=1e-12)


def test_the_order_of_the_images_does_not_matter():
    rng = np.random.default_rng(1)
    clean, attacked, index = rng.normal(1, 1, 50), rng.normal(0, 1, 50), np.arange(50)
    shuffled = rng.permutation(50)
    one = auroc_interval(clean, attacked, index, index)
    other = auroc_interval(clean, attacked[shuffled], index, index[shuffled])
    assert other == pytest.approx(one, rel=1e-12)


def test_pairing_matters():
    rng = np.random.default_rng(2)
    clean = rng.normal(1, 1, 500)
    attacked, index = clean - 1 + 0.1 * rng.normal(size=500), np.arange(500)
    paired = auroc_interval(clean, attacked, index, index).variance
    assert paired < 0.5 * auroc_interval(clean, attacked).variance


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("shift", [0.0, 1.0, 8.0, -8.0, 1e5])
def test_the_interval_holds_the_estimate_and_stays_in_the_unit_interval(shift, confidence):
    rng = np.random.default_rng(3)
    clean = rng.normal(0, 1, 60) - 1e5
    attacked = clean + rng.normal(0, 1, 60) - shift
    found = auroc_interval(clean, attacked, np.arange(60), np.arange(60), confidence)
    assert 0 <= found.low <= found.auroc <= found.high <= 1
    assert found.high - found.low > 1e-4  # finite data leave something open, even at AUROC 1


def test_mirrored_scores_mirror_the_interval():
    rng = np.random.default_rng(4)
    clean, attacked, index = rng.normal(1.5, 1, 40), rng.normal(0, 1, 40), np.arange(40)
    one = auroc_interval(clean, attacked, index, index)
    other = auroc_interval(-clean, -attacked, index, index)
    assert (other.low, other.high) == pytest.approx((1 - one.high, 1 - one.low), abs=1e-9)


def test_more_images_narrow_the_interval_at_auroc_one():
    ends = [auroc_interval(np.ones(n), np.zeros(n)).low for n in (1, 10, 100, 1000)]
    assert ends == sorted(ends)
    assert ends[-1] > 0.99
    assert ends[0] < 0.5


def test_constant_scores_tell_nothing():
    found = auroc_interval(np.zeros(50), np.zeros(50), np.arange(50), np.arange(50))
    assert found.auroc == 0.5
    assert found.low < 0.45
    assert found.high > 0.55


def test_infinities_have_ranks():
    clean, attacked = np.array([np.inf, 0, 1, 2]), np.array([-np.inf, 0, 1, -1])
    assert auroc_interval(clean, attacked).auroc == auroc(clean, attacked)


def test_an_empty_side_has_no_auroc():
    assert all(math.isnan(value) for value in auroc_interval(np.zeros(0), np.zeros(3)))
    assert all(math.isnan(value) for value in auroc_interval(np.zeros(3), np.zeros(0)))


def test_what_cannot_be_meant_is_refused():
    scores, index = np.zeros(3), np.arange(3)
    with pytest.raises(ValueError, match="NaN"):
        auroc_interval(np.array([np.nan]), scores)
    with pytest.raises(ValueError, match="both, or neither"):
        auroc_interval(scores, scores, index)
    with pytest.raises(ValueError, match="attacked_index"):
        auroc_interval(scores, scores, index, np.arange(2))
    with pytest.raises(ValueError, match="twice"):
        auroc_interval(scores, scores, index, np.zeros(3, int))
    with pytest.raises(ValueError, match="confidence"):
        auroc_interval(scores, scores, confidence=95)


def test_two_normals_have_the_closed_area():
    rng = np.random.default_rng(5)
    for distance in (0.5, 1.0, 2.0):
        clean, attacked = rng.normal(distance, 1, 20_000), rng.normal(0, 1, 20_000)
        truth = norm.cdf(distance / math.sqrt(2))
        found = auroc_interval(clean, attacked)
        assert found.auroc == pytest.approx(truth, abs=4 * math.sqrt(found.variance))
        assert found.low < found.auroc < found.high


def test_the_difference_agrees_with_the_image_bootstrap():
    rng = np.random.default_rng(6)
    n = 600
    common = rng.normal(size=n)
    sides = [common + rng.normal(shift, 1, n) for shift in (2.0, 0.0, 1.6, 0.0)]
    difference, variance, low, high = auroc_difference(*sides)
    drawn = draw_resamples(n, 2000)
    resampled = bootstrap_auroc(drawn, *sides[:2]) - bootstrap_auroc(drawn, *sides[2:])
    assert difference == pytest.approx(auroc(*sides[:2]) - auroc(*sides[2:]), abs=1e-12)
    assert math.sqrt(variance) == pytest.approx(resampled.std(), rel=0.08)
    assert low < difference < high


def test_the_influence_of_an_image_is_what_leaving_it_out_shows():
    rng = np.random.default_rng(8)
    n = 120
    clean, attacked = rng.normal(1.5, 1, n), rng.normal(0, 1, n)
    correct = rng.random(n) < 0.9
    fooled = correct & (rng.random(n) < 0.4)
    found = influence(placements(clean[correct], attacked[fooled]), correct, fooled)
    assert found.shape == (n,)
    assert found.mean() == pytest.approx(0, abs=1e-12)
    whole = auroc(clean[correct], attacked[fooled])
    left_out = []
    for image in range(n):
        rest = np.arange(n) != image
        left_out.append(auroc(clean[correct & rest], attacked[fooled & rest]))
    np.testing.assert_allclose(found, n * (whole - np.array(left_out)), rtol=0.05, atol=0.03)
    whole_set = influence(placements(clean, attacked))
    np.testing.assert_allclose(
        whole_set, influence(placements(clean, attacked), *np.ones((2, n), bool))
    )


def test_a_loss_does_not_differ_from_itself():
    scores = np.random.default_rng(7).normal(size=(2, 30))
    assert auroc_difference(*scores, *scores) == pytest.approx((0, 0, 0, 0), abs=1e-12)


# AUROC, images, correlation within an image, share of images on the attacked side
REGIMES = [
    (0.6, 500, 0.5, 1.0),
    (0.9, 100, 0.0, 1.0),
    (0.9, 100, 0.9, 0.7),
    (0.97, 500, 0.9, 1.0),
    (0.97, 500, 0.5, 0.3),
    (0.99, 500, 0.5, 0.7),
    (0.99, 2000, 0.9, 1.0),
]


@pytest.mark.parametrize(("area", "n", "correlation", "share"), REGIMES)
def test_ninety_five_percent_intervals_cover_ninety_five_percent(area, n, correlation, share):
    found = simulated_intervals(area, n, correlation, share, samples=4000, seed=n)
    covered = np.mean((found.low <= area) & (area <= found.high))
    assert 0.93 <= covered <= 0.97


def test_where_samples_do_not_overlap_the_interval_is_wide_rather_than_wrong():
    found = simulated_intervals(0.998, 100, 0.5, 0.3, samples=4000, seed=1)
    assert np.mean(found.auroc == 1) > 0.1  # every variance estimate is 0 there
    assert np.mean((found.low <= 0.998) & (found.high >= 0.998)) >= 0.93


def test_an_interval_that_ignores_the_pairing_covers_too_often():
    """The check above can fail: DeLong's variance, for independent images, is too large here."""
    found = simulated_intervals(0.8, 200, 0.9, 1.0, samples=1000, seed=2, paired=False)
    assert np.mean((found.low <= 0.8) & (found.high >= 0.8)) > 0.98
