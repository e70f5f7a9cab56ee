"""Estimates and their comparison: by hand, and over simulated pairs of equal networks.

`REGIMES` are pairs of networks that do not differ in a number. How often its interval holds the
difference 0, and how often it is shown to differ all the same, is the table of the guide's page
`statistics`: `python -m tests.metrics.test_estimates` prints it.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import norm

from robustloss.metrics.auroc_interval import auroc_interval
from robustloss.metrics.bootstrap import draw_resamples
from robustloss.metrics.calibration import equal_width
from robustloss.metrics.estimates import (
    Estimate,
    compare,
    crossing_interval,
    estimate_auroc,
    estimate_calibration_error,
    estimate_crossing,
    estimate_error,
    estimate_mean,
    estimate_median,
    find_crossing,
)
from robustloss.metrics.intervals import median_interval, t_interval
from robustloss.metrics.paired_tests import paired_t

FEW, MANY = 100, 1000  # images
EPS = np.array([0.0, 0.1, 0.2, 0.3])
Draw = Callable[[np.random.Generator, np.ndarray], Estimate | None]


def harder(rng, images, own=0.6):
    """How hard each image is for one network; images are hard for every network alike."""
    return math.sqrt(1 - own**2) * images + own * rng.normal(size=images.size)


def error(rate: float) -> Draw:
    return lambda rng, images: estimate_error(harder(rng, images) < norm.ppf(rate))


def undetected(rate: float) -> Draw:
    def draw(rng, images):
        correct = rng.random(images.size) < 0.97
        return estimate_mean(harder(rng, images) < norm.ppf(rate), correct)

    return draw


def radius(spread: float, missing: float = 0.0, wrong: float = 0.0) -> Draw:
    """Log-normal radii; some are not found, and some images are wrong without an attack."""

    def draw(rng, images):
        # either network may have the wider radii; the medians are equal
        found = np.exp(rng.choice([0.4, 0.4 * spread]) * harder(rng, images))
        found[rng.random(images.size) < missing] = math.inf
        found[rng.random(images.size) < wrong] = 0.0
        return estimate_median(found)

    return draw


def crossing(rng, images):
    reach = 0.15 * np.exp(0.5 * harder(rng, images))
    return estimate_crossing(EPS, reach <= EPS[:, None])


def calibration(gap: float) -> Draw:
    def draw(rng, images):
        confidence = 0.1 + 0.9 / (1 + np.exp(-1.5 - harder(rng, images)))
        correct = rng.random(images.size) < confidence - gap * (confidence > 0.4)
        return estimate_calibration_error(confidence, correct)

    return draw


def brier(rng, images):
    chance = 1 / (1 + np.exp(-2 - harder(rng, images)))
    return estimate_mean(2 * ((rng.random(images.size) < chance) - chance) ** 2)


def adaptive(shift: float, population: str = "all") -> Draw:
    """AUROC where each image meets the best of three attacks for it."""

    def draw(rng, images):
        clean = images + rng.normal(size=images.size)
        scores = 0.7 * clean + rng.normal(size=(3, images.size)) - shift
        wrong = rng.random((3, images.size)) < 0.7
        best = np.lexsort((scores, wrong), axis=0)[-1:]
        scores, wrong = (np.take_along_axis(each, best, 0)[0] for each in (scores, wrong))
        keep = (None, None) if population == "all" else (np.ones_like(wrong), wrong)
        return estimate_auroc(clean, scores, *keep)

    return draw


class Regime(NamedTuple):
    """Pairs of equal networks; `most` is the coverage that its few discrete values may reach."""

    draw: Draw
    n: int
    most: float = 0.97


REGIMES: Mapping[str, Regime] = {
    f"{name}, {n:,} images": Regime(draw, n, most.get(n, 0.97))
    for name, draw, most in (
        ("error in 2 % (worst case)", error(0.02), {FEW: 1.0}),
        ("error in 50 % (worst case)", error(0.5), {}),
        ("fooled and unnoticed in 2 %", undetected(0.02), {FEW: 1.0}),
        ("fooled and unnoticed in 30 %", undetected(0.3), {}),
        ("median radius", radius(1.0), {FEW: 0.98}),
        ("median radius, spreads that may differ by 2", radius(2.0), {}),
        ("median radius, 30 % not found, 10 % at 0", radius(1.0, 0.3, 0.1), {}),
        ("eps at 50 % error", crossing, {}),
        ("ECE, calibrated but for chance", calibration(0.0), {FEW: 0.99, MANY: 0.99}),
        ("ECE near 0.12", calibration(0.15), {}),
        ("Brier score", brier, {}),
        ("adaptive AUROC near 0.5", adaptive(0.5), {}),
        ("adaptive AUROC near 0.97", adaptive(3.5), {}),
        ("adaptive AUROC of successful attacks", adaptive(1.5, "successful"), {}),
    )
    for n in (FEW, MANY)
}


def simulate(regime: Regime, samples: int, resamples: int, seed: int = 0) -> tuple[float, float]:
    """Return how often the interval holds 0, and how often a difference is shown at 5 %."""
    rng, drawn = np.random.default_rng(seed), draw_resamples(regime.n, resamples)
    held = shown = 0
    for _ in range(samples):
        images = rng.normal(size=regime.n)
        a, b = (regime.draw(rng, images) for _ in "ab")
        assert a is not None
        assert b is not None
        again = [None if e.wrong is not None else e.resample(drawn) for e in (a, b)]
        found = compare(a, b, *again)
        held += found.low <= 0 <= found.high
        shown += found.p_value <= 0.05
    return held / samples, shown / samples


def check(found: tuple[float, float], samples: int, most: float) -> None:
    """Hold 93 to 97 % and 5 %, but for the chance of so few samples."""
    coverage, type_1 = found
    slack = 3 * math.sqrt(0.05 * 0.95 / samples)
    assert 0.93 - slack <= coverage <= most + slack
    assert type_1 <= 0.05 + slack


@pytest.mark.parametrize("name", [name for name in REGIMES if "100 images" in name])
def test_equal_networks_differ_in_at_most_five_percent_of_samples(name):
    check(simulate(REGIMES[name], 100, 99), 100, REGIMES[name].most)


@pytest.mark.slow
@pytest.mark.parametrize("name", REGIMES)
def test_equal_networks_differ_in_at_most_five_percent_of_four_thousand_samples(name):
    check(simulate(REGIMES[name], 4000, 199), 4000, REGIMES[name].most)


def own_interval(rng, n: int, number: str) -> tuple[float, float, float]:
    """Return the interval of one network's number over images, and its true value."""
    images = rng.normal(size=n)
    if number == "median radius":
        found = np.exp(0.4 * images)
        found[rng.random(n) < 0.2], found[rng.random(n) < 0.2] = math.inf, 0.0
        # 0.5 = 0.2 + 0.8 · 0.8 · share below + 0 of those not found
        return *median_interval(found), math.exp(0.4 * norm.ppf(0.3 / 0.64))
    if number == "eps at 50 % error":
        reach = 0.15 * np.exp(0.5 * images)
        wrong = reach <= EPS[:, None]
        errors = norm.cdf(2 * np.log(np.maximum(EPS, 1e-9) / 0.15))
        return *crossing_interval(EPS, wrong), float(find_crossing(EPS, errors))
    if number == "Brier score":
        chance = 1 / (1 + np.exp(-2 - images))
        _, _, low, high = t_interval(2 * ((rng.random(n) < chance) - chance) ** 2)
        return low, high, BRIER
    best = images + rng.normal(size=(3, n)).max(axis=0)  # of three attacks, the best for each
    estimate = auroc_interval(images + 1.5, best, np.arange(n), np.arange(n))
    return estimate.low, estimate.high, BEST


def _mean_over_images(of) -> float:
    """Return the mean of a function of a standard normal variable."""
    x = np.linspace(-9, 9, 200_001)
    return float(np.average(of(x), weights=norm.pdf(x)))


def _chance(x):
    return 1 / (1 + np.exp(-2 - x))


BRIER = _mean_over_images(lambda x: 2 * _chance(x) * (1 - _chance(x)))
# a clean score beats the best of three: its density is that of the largest of three normals, and
# the difference of two independent images is normal with variance 2
_T = np.linspace(-8, 8, 20_001)
BEST = float(
    np.average(norm.cdf((1.5 - _T) / math.sqrt(2)), weights=3 * norm.pdf(_T) * norm.cdf(_T) ** 2)
)
OWN = ("median radius", "eps at 50 % error", "Brier score", "adaptive AUROC")


def own_coverage(number: str, n: int, samples: int) -> float:
    """Return how often the interval over images of one network holds the true value."""
    rng = np.random.default_rng(1)
    found = (own_interval(rng, n, number) for _ in range(samples))
    return float(np.mean([low <= truth <= high for low, high, truth in found]))


def seeds_coverage(seeds: int, samples: int) -> tuple[float, float]:
    """Return coverage and type I error over seeds of equal losses, paired by seed.

    The error of a network depends on its loss, its seed and both; it is counted on 200 images.
    """
    rng = np.random.default_rng(2)
    held = shown = 0
    for _ in range(samples):
        shared = rng.normal(size=seeds)
        sides = [
            rng.binomial(200, norm.cdf(-0.5 + 0.1 * shared + 0.1 * rng.normal(size=seeds)))
            for _ in "ab"
        ]
        differences = (sides[0] - sides[1]) / 200
        _, _, low, high = t_interval(differences)
        held += low <= 0 <= high
        shown += paired_t(differences) <= 0.05
    return held / samples, shown / samples


@pytest.mark.parametrize("number", OWN)
def test_one_networks_own_interval_holds_the_truth(number):
    assert 0.93 - 0.04 <= own_coverage(number, FEW, 300) <= 0.97 + 0.03


@pytest.mark.slow
@pytest.mark.parametrize("n", [FEW, MANY])
@pytest.mark.parametrize("number", OWN)
def test_one_networks_own_interval_holds_the_truth_in_93_to_97_percent(number, n):
    assert 0.93 <= own_coverage(number, n, 4000) <= 0.97


@pytest.mark.parametrize("seeds", [3, 5])
def test_over_seeds_equal_losses_differ_in_five_percent(seeds):
    coverage, type_1 = seeds_coverage(seeds, 1000)
    assert 0.93 <= coverage <= 0.97
    assert type_1 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


def draw_by_hand(n=40, resamples=30):
    drawn = draw_resamples(n, resamples, seed=5)
    return drawn, [np.repeat(np.arange(n), counts) for counts in drawn.counts]


def test_resampled_numbers_are_those_of_the_repeated_images():
    rng = np.random.default_rng(3)
    drawn, resampled = draw_by_hand()
    found = np.where(rng.random(40) < 0.45, math.inf, rng.random(40))
    confidence, correct = rng.random(40), rng.random(40) < 0.7
    wrong = rng.random(40) <= EPS[:, None] * 2.5
    median = estimate_median(found).resample(drawn)
    half = estimate_crossing(EPS, wrong).resample(drawn)
    gaps = estimate_calibration_error(confidence, correct).resample(drawn)
    assert np.isinf(median).any()
    for row, images in enumerate(resampled):
        assert median[row] == np.sort(found[images])[(images.size - 1) // 2]
        assert half[row] == pytest.approx(find_crossing(EPS, wrong[:, images].mean(axis=1)))
    own = np.array([equal_width(confidence[i], correct[i]).error for i in resampled])
    np.testing.assert_allclose(gaps - gaps[0], own - own[0], atol=1e-12)
    assert gaps.mean() == pytest.approx(equal_width(confidence, correct).error)


def test_what_images_add_is_what_resampling_spreads():
    rng = np.random.default_rng(4)
    n, images = 2000, rng.normal(size=2000)
    drawn = draw_resamples(n, 600)
    reach = 0.15 * np.exp(0.5 * images)
    confidence = 0.1 + 0.9 / (1 + np.exp(-1.5 - images))
    for one in (
        estimate_median(np.exp(0.4 * images)),
        estimate_crossing(EPS, reach <= EPS[:, None]),
        estimate_calibration_error(confidence, rng.random(n) < confidence - 0.15),
        estimate_mean(images > 1, images > 0),
    ):
        assert one is not None
        assert abs(one.influence.mean()) < 1e-9
        spread = one.influence.std() / math.sqrt(n)
        assert spread == pytest.approx(one.resample(drawn).std(), rel=0.15)


def test_a_median_beyond_what_was_found_is_larger_than_any_that_was():
    rng = np.random.default_rng(5)
    near = rng.random(60)
    far = np.where(np.arange(60) < 45, math.inf, near)
    a, b = estimate_median(near), estimate_median(far)
    assert not a.beyond
    assert b.beyond
    drawn = draw_resamples(60, 199)
    found = compare(a, b, a.resample(drawn), b.resample(drawn))
    assert found.difference == found.low == -math.inf
    assert found.p_value == pytest.approx(2 / 200)
    both = compare(b, b, b.resample(drawn), b.resample(drawn))
    assert both.p_value == 1


def test_where_nothing_counts_there_is_no_number():
    nobody = np.zeros(5, bool)
    assert estimate_mean(np.ones(5), nobody) is None
    assert estimate_auroc(np.arange(5.0), np.arange(5.0), attacked_keep=nobody) is None
    assert estimate_crossing(EPS, np.zeros((4, 5), bool)).beyond


@pytest.mark.parametrize(
    ("errors", "half"),
    [
        ([0.6, 0.7], 0.0),
        ([0.1, 0.5], 0.2),
        ([0.25, 0.75], 0.1),
        ([0.0, 0.49], math.inf),
    ],
)
def test_where_a_curve_crosses_a_half(errors, half):
    assert find_crossing(np.array([0.0, 0.2]), np.array(errors)) == pytest.approx(half)


def test_the_median_lies_between_two_order_statistics():
    values = np.arange(100.0)
    assert median_interval(values) == (39.0, 60.0)  # P(Bin(100, 1/2) <= 39) = 1.8 %
    values[55:] = math.inf
    assert median_interval(values) == (39.0, math.inf)
    assert all(math.isnan(end) for end in median_interval(np.arange(5.0)))


if __name__ == "__main__":
    import sys

    count = int(sys.argv[1])
    for name, each in REGIMES.items():
        held, shown = simulate(each, count, 199)
        print(f"| {name} | {100 * held:.1f} | {100 * shown:.1f} |", flush=True)
    for name in OWN:
        held = [f"{100 * own_coverage(name, n, count):.1f}" for n in (FEW, MANY)]
        print(f"| {name} | {' | '.join(held)} |", flush=True)
    for number in (3, 5):
        held, shown = seeds_coverage(number, count)
        print(f"| {number} seeds | {100 * held:.1f} | {100 * shown:.1f} |", flush=True)
