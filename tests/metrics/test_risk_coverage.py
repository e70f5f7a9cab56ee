"""AUGRC and AURC: a literal loop over thresholds, closed forms, and coverage by simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import norm

from robustloss.metrics.bootstrap import draw_resamples
from robustloss.metrics.estimates import compare, estimate_augrc
from robustloss.metrics.rates import auroc
from robustloss.metrics.risk_coverage import augrc, aurc, estimate_areas


def literal_areas(scores, wrong):
    """Trapezoids through the points of all thresholds, one threshold after the other."""
    total = len(scores)
    points = []  # coverage, generalised risk, selective risk
    for threshold in sorted(set(scores), reverse=True):
        accepted = [w for s, w in zip(scores, wrong, strict=True) if s >= threshold]
        points.append((len(accepted) / total, sum(accepted) / total, sum(accepted) / len(accepted)))
    points.insert(0, (0.0, 0.0, points[0][2]))
    areas = [0.0, 0.0]
    for (c0, *before), (c1, *after) in itertools.pairwise(points):
        for k in (0, 1):
            areas[k] += (c1 - c0) * (before[k] + after[k]) / 2
    return areas


@pytest.mark.parametrize("step", [0.01, 1, 100], ids=["no ties", "ties", "all tied"])
def test_the_areas_are_those_of_a_literal_loop(step):
    rng = np.random.default_rng(0)
    for n in (1, 2, 40):
        scores, wrong = np.round(rng.normal(size=n) / step) * step, rng.random(n) < 0.4
        generalised, selective = literal_areas(scores.tolist(), wrong.tolist())
        assert augrc(scores, wrong) == pytest.approx(generalised, abs=1e-12)
        assert aurc(scores, wrong) == pytest.approx(selective, abs=1e-12)
        both = estimate_areas(scores, wrong)
        assert (both.augrc.area, both.aurc.area) == (augrc(scores, wrong), aurc(scores, wrong))


@pytest.mark.parametrize("error", [0.0, 0.1, 0.7, 1.0])
def test_closed_forms_of_perfect_useless_and_constant_scores(error):
    n = 2000
    wrong = np.arange(n) < error * n
    kept = 1 - error
    perfect = np.where(wrong, 0.0, 1.0) + np.random.default_rng(1).random(n) / 2
    assert augrc(perfect, wrong) == pytest.approx(error**2 / 2, abs=1e-12)
    ideal = error + kept * math.log(kept) if kept else 1.0
    assert aurc(perfect, wrong) == pytest.approx(ideal, abs=1 / n)
    constant = np.full(n, -np.inf)
    assert augrc(constant, wrong) == pytest.approx(error / 2, abs=1e-12)
    assert aurc(constant, wrong) == pytest.approx(error, abs=1e-12)
    shuffled = [np.random.default_rng(k).random(n) for k in range(40)]
    for area, value in ((augrc, error / 2), (aurc, error)):
        found = [area(scores, wrong) for scores in shuffled]
        assert np.mean(found) == pytest.approx(value, abs=4 * np.std(found) / math.sqrt(40) + 1e-9)


def test_augrc_is_what_error_and_auroc_say():
    rng = np.random.default_rng(2)
    wrong = rng.random(300) < 0.3
    scores = np.round(rng.normal(size=300) - wrong, 1)
    error = wrong.mean()
    area = auroc(scores[~wrong], scores[wrong])
    expected = error * (1 - error) * (1 - area) + error**2 / 2
    assert augrc(scores, wrong) == pytest.approx(expected, abs=1e-12)


def test_ties_give_augrc_the_mean_over_every_order():
    wrong = np.array([True, False, False, True, False, True])
    scores = np.array([3, 3, 3, 1, 1, 0.0])
    rng = np.random.default_rng(3)
    orders = [augrc(scores + rng.random(6) / 2, wrong) for _ in range(1000)]
    assert augrc(scores, wrong) == pytest.approx(np.mean(orders), abs=0.006)


def test_the_influence_is_the_numerical_derivative_by_the_weight_of_an_image():
    rng = np.random.default_rng(4)
    n = 12
    wrong = rng.random(2 * n) < 0.5
    scores = np.round(rng.normal(size=2 * n) - wrong, 0)
    index = np.tile(np.arange(n), 2)
    found = estimate_areas(scores, wrong, index)
    for name, area in (("augrc", augrc), ("aurc", aurc)):
        influence = getattr(found, name).influence
        assert influence.mean() == pytest.approx(0, abs=1e-12)
        copies = 2000  # of every image; one image once more changes its weight by 1 / copies
        for image in (0, 5):
            every = np.tile(np.arange(2 * n), copies)
            more = np.append(every, [image, image + n])
            change = (area(scores[more], wrong[more]) - area(scores[every], wrong[every])) * copies
            assert influence[image] == pytest.approx(change * n, rel=2e-3, abs=1e-3)


def test_both_copies_of_an_image_count_as_one():
    rng = np.random.default_rng(5)
    wrong = rng.random(200) < 0.3
    scores = rng.normal(size=200) - wrong
    once = estimate_areas(scores, wrong)
    twice = estimate_areas(np.tile(scores, 2), np.tile(wrong, 2), np.tile(np.arange(200), 2))
    apart = estimate_areas(np.tile(scores, 2), np.tile(wrong, 2))
    for name in ("augrc", "aurc"):
        alone, together, loose = (getattr(each, name) for each in (once, twice, apart))
        assert together.area == pytest.approx(alone.area, rel=0.02)
        assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.05)
        assert loose.high - loose.low < 0.8 * (alone.high - alone.low)


def test_nothing_wrong_leaves_an_upper_end_and_one_image_gives_one():
    found = estimate_areas(np.arange(100.0), np.zeros(100, bool))
    assert found.augrc[:2] == found.aurc[:2] == (0, 0)
    error = 1 - 100 / (100 + norm.ppf(0.975) ** 2)  # the upper end of Wilson's interval
    assert found.augrc.high == pytest.approx(error - error**2 / 2)
    assert found.augrc.high < found.aurc.high < 1
    (one,) = {each[:2] for each in (estimate_areas(np.zeros(1), np.ones(1, bool)).aurc,)}
    assert one[0] == 1


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        augrc(np.array([1, np.nan]), np.zeros(2, bool))
    with pytest.raises(ValueError, match="one entry each"):
        aurc(np.zeros(3), np.zeros(2, bool))
    with pytest.raises(ValueError, match="at least one"):
        augrc(np.zeros(0), np.zeros(0, bool))
    with pytest.raises(ValueError, match="index"):
        estimate_areas(np.zeros(3), np.zeros(3, bool), np.arange(2))
    with pytest.raises(ValueError, match="confidence"):
        estimate_areas(np.zeros(3), np.zeros(3, bool), confidence=95)


# images, error of the clean and of the attacked copy (None: no copy), distance of the wrong ones
REGIMES = [
    (500, 0.02, None, 3.0), (2000, 0.005, None, 2.0), (500, 0.3, None, 0.0), (100, 0.9, None, 1.0),
    (100, 0.02, 0.5, 2.0), (500, 0.02, 0.95, 4.0), (500, 0.05, 0.2, 0.0),
]  # fmt: skip


def true_areas(error, distance):
    """Of right scores N(0, 1) and wrong ones N(-distance, 1): AUGRC in closed form, AURC summed."""
    separation = norm.cdf(distance / math.sqrt(2))
    points = np.linspace(9, -14, 20001)
    covered = (1 - error) * norm.sf(points) + error * norm.sf(points + distance)
    risk = error * norm.sf(points + distance) / covered
    return (
        error * (1 - error) * (1 - separation) + error**2 / 2,
        float(np.sum((risk[1:] + risk[:-1]) / 2 * np.diff(covered))),
    )


def count_misses(regime, samples):
    """Share of samples whose interval lies below and above the truth, for both areas."""
    n, clean_error, attacked_error, distance = regime
    rng = np.random.default_rng(6)
    error = clean_error if attacked_error is None else (clean_error + attacked_error) / 2
    truth = true_areas(error, distance)
    missed = np.zeros((2, 2))
    for _ in range(samples):
        score, wrong, index = rng.normal(size=n), rng.random(n) < clean_error, None
        if attacked_error is not None:  # the copy's score is correlated with the image's
            copy = 0.6 * score + 0.8 * rng.normal(size=n)
            score = np.append(score, copy)
            wrong = np.append(wrong, rng.random(n) < attacked_error)
            index = np.tile(np.arange(n), 2)
        found = estimate_areas(score - distance * wrong, wrong, index)
        for k, (estimate, value) in enumerate(zip(found, truth, strict=True)):
            missed[k] += estimate.high < value, estimate.low > value
    return missed / samples


@pytest.mark.slow
@pytest.mark.parametrize("regime", REGIMES)
def test_coverage_of_the_intervals(regime):
    missed = count_misses(regime, 4000)
    assert ((missed.sum(1) >= 0.02) & (missed.sum(1) <= 0.07)).all(), missed


def test_coverage_of_few_intervals():
    missed = count_misses(REGIMES[4], 300)
    assert (missed.sum(1) <= 0.09).all()
    assert (missed.sum(1) >= 0.01).all()


def test_a_resample_has_all_but_the_area_of_its_images():
    rng = np.random.default_rng(7)
    n = 400
    wrong = rng.random(2 * n) < np.repeat([0.05, 0.6], n)
    scores = rng.normal(size=2 * n) - wrong
    estimate = estimate_augrc(scores, wrong, np.tile(np.arange(n), 2))
    drawn = draw_resamples(n, 200)
    found = estimate.resample(drawn)
    again = [
        augrc(np.repeat(scores, counts), np.repeat(wrong, counts))
        for counts in (np.tile(each.astype(int), 2) for each in drawn.counts)
    ]
    assert np.std(found - again) < 0.05 * np.std(again)
    assert np.std(found) == pytest.approx(np.std(again), rel=0.03)


def count_false_alarms(n, clean_error, attacked_error, distance, samples):
    """Share of samples in which two equal networks, alike on the images, are told apart."""
    rng = np.random.default_rng(8)
    drawn, index, shown = draw_resamples(n, 400), np.tile(np.arange(n), 2), 0
    for _ in range(samples):
        typical, hard = rng.normal(size=n), rng.random((2, n))
        sides = []
        for _ in range(2):
            own = np.where(rng.random((2, n)) < 0.6, hard, rng.random((2, n)))
            wrong = (own < np.array([[clean_error], [attacked_error]])).ravel()
            scores = 0.7 * typical + 0.7 * rng.normal(size=(2, n))
            sides.append(estimate_augrc(scores.ravel() - distance * wrong, wrong, index))
        again = [side.resample(drawn) for side in sides]
        shown += compare(*sides, *again).p_value <= 0.05
    return shown / samples


@pytest.mark.slow
@pytest.mark.parametrize("regime", [(200, 0.02, 0.5, 2.0), (500, 0.02, 0.9, 3.0)])
def test_equal_networks_are_seldom_told_apart(regime):
    assert 0.03 <= count_false_alarms(*regime, samples=4000) <= 0.055


def test_equal_networks_are_seldom_told_apart_in_few_samples():
    assert count_false_alarms(200, 0.02, 0.5, 2.0, samples=150) <= 0.1
