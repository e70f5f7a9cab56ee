"""Tests of loss against loss: closed values, type-I error, power at the detectable difference."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from robustloss.metrics.paired_tests import (
    benjamini_hochberg,
    detectable_by_images,
    detectable_by_seeds,
    holm,
    mcnemar,
    mcnemar_test,
    paired_difference,
    paired_margin,
    paired_t,
)

SAMPLES = 4000
TOLERANCE = 3 * math.sqrt(0.05 * 0.95 / SAMPLES)  # Monte-Carlo error of a rate of 5 %


@pytest.mark.parametrize(("a", "b"), [(0, 1), (3, 9), (10, 10), (0, 40), (511, 490)])
def test_mcnemar_is_the_binomial_test(a, b):
    known = stats.binomtest(min(a, b), a + b, 0.5).pvalue
    assert mcnemar(a, b) == pytest.approx(known, rel=1e-12)
    assert mcnemar(a, b) == mcnemar(b, a)
    assert mcnemar(a, b, mid_p=True) <= mcnemar(a, b)


def test_mid_p_counts_the_observed_table_half():
    # Fagerland et al. 2013, table 1: 1 and 7 discordant pairs
    assert mcnemar(1, 7) == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar(1, 7, mid_p=True) == pytest.approx(0.0391, abs=5e-5)


def test_no_discordant_image_is_no_evidence():
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 0, mid_p=True) == 1
    with pytest.raises(ValueError, match="counts"):
        mcnemar(-1, 2)


@pytest.mark.parametrize("expected", [4, 8, 14, 20, 30, 60])
def test_mcnemar_finds_a_difference_in_at_most_five_percent_of_equal_losses(expected):
    """Exact, without sampling: over the number of discordant images, and over who is wrong."""
    images = 10_000
    rate = 0.0
    for discordant in range(2 * expected + 100):
        k = np.arange(discordant + 1)
        p = np.array([mcnemar_test(int(i), discordant - int(i))[1] for i in k])
        shown = stats.binom.pmf(k, discordant, 0.5)[p <= 0.05].sum()
        rate += shown * stats.binom.pmf(discordant, images, expected / images)
    assert rate <= 0.05
    assert rate > 0.01


def test_seeds_without_a_difference_show_one_in_at_most_five_percent():
    rng = np.random.default_rng(0)
    p = np.array([paired_t(row) for row in rng.normal(0, 0.3, (SAMPLES, 8))])
    assert np.mean(p <= 0.05) <= 0.05 + TOLERANCE
    assert np.mean(p <= 0.05) > 0.02


def test_five_seeds_cannot_reach_five_percent_by_ranks():
    assert stats.wilcoxon([0.1, 0.2, 0.3, 0.4, 0.5]).pvalue == pytest.approx(2 / 32)
    assert paired_t([0.1, 0.2, 0.3, 0.4, 0.5]) < 0.05


def test_too_few_seeds_give_no_test():
    assert math.isnan(paired_t([0.1]))
    assert math.isnan(detectable_by_seeds(0.1, 1))


def test_seeds_that_agree_exactly():
    assert paired_t([0.0, 0.0]) == 1
    assert paired_t([0.1, 0.1]) == 0
    assert paired_t([0.1, 0.3 - 0.2, 0.1]) == 0  # but for rounding: scipy warns there
    assert 0 < paired_t([0.1, 0.1 + 1e-12, 0.1]) < 1e-6


def coverage(only_a: float, only_b: float, n: int) -> float:
    """Return how often the interval holds the difference: exact, over all counts that occur."""
    held = total = 0.0
    for discordant in range(n + 1):
        often = stats.binom.pmf(discordant, n, only_a + only_b)
        if often < 1e-7:
            continue
        k = np.arange(discordant + 1)
        chances = often * stats.binom.pmf(k, discordant, only_a / (only_a + only_b))
        for a in k[chances > 1e-8]:
            _, low, high = paired_difference(int(a), int(discordant - a), n)
            held += chances[a] * (low <= only_a - only_b <= high)
            total += chances[a]
    assert total == pytest.approx(1, abs=1e-4)
    return float(held)


@pytest.mark.parametrize(
    ("only_a", "only_b", "n"),
    [
        (0.004, 0.004, 1000),
        (0.01, 0.01, 400),
        (0.02, 0.0, 400),
        (0.03, 0.005, 400),
        (0.1, 0.05, 100),
    ],
)
def test_the_interval_of_a_difference_covers(only_a, only_b, n):
    assert 0.945 <= coverage(only_a, only_b, n) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 100, 400, 1000])
def test_the_interval_of_a_difference_covers_wherever_it_lies(n):
    for discordant in (0.02, 0.05, 0.1, 0.3):
        for share in (0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0):
            found = coverage(discordant * share, discordant * (1 - share), n)
            few = n * discordant < 6  # counts take few values then
            # .938 for 10 of 100 images that A alone gets wrong, as in Bonett and Price
            assert 0.93 <= found <= (1.0 if few else 0.98), (discordant, share)


def test_the_interval_of_a_difference_holds_0_exactly_where_nothing_is_shown():
    n = 60
    for a, b in itertools.combinations_with_replacement(range(31), 2):
        difference, low, high = paired_difference(a, b, n)
        assert (low <= 0 <= high) == (mcnemar_test(a, b)[1] > 0.05), (a, b)
        assert low <= difference <= high
        assert (low, high) == tuple(-end for end in paired_difference(b, a, n)[:0:-1])


def test_an_end_next_to_0_by_hand():
    # all of 5 images: P(5 of 5) / 2 = .025 where the share is .05^(1/5)
    assert paired_difference(5, 0, 400)[1] == pytest.approx(5 / 400 * (2 * 0.05**0.2 - 1))
    # 60 of 100: Clopper and Pearson's low end, below 1/2 as the exact test says
    low = stats.binomtest(60, 100).proportion_ci().low
    assert paired_difference(60, 40, 1000)[1] == pytest.approx((2 * low - 1) / 10)


def test_the_interval_of_no_difference_has_a_width():
    difference, low, high = paired_difference(0, 0, 100)
    assert difference == 0
    assert low < 0 < high
    with pytest.raises(ValueError, match="counts"):
        paired_difference(60, 60, 100)


def test_benjamini_hochberg_by_hand():
    found = benjamini_hochberg([0.01, 0.04, math.nan, 0.03, 0.005])
    assert found == pytest.approx([0.02, 0.04, math.nan, 0.04, 0.02], nan_ok=True)
    assert benjamini_hochberg([]).size == 0
    assert np.isnan(benjamini_hochberg([math.nan])).all()


def test_benjamini_hochberg_keeps_the_rate_where_nothing_differs():
    rng = np.random.default_rng(2)
    shown = [(benjamini_hochberg(rng.random(20)) <= 0.05).any() for _ in range(SAMPLES)]
    assert np.mean(shown) <= 0.05 + TOLERANCE


def test_the_detectable_difference_of_errors_is_found_with_its_power():
    n, discordant = 2000, 0.05
    gap = detectable_by_images(n, discordant)
    a, b = (discordant + gap) / 2, (discordant - gap) / 2
    counts = np.random.default_rng(3).multinomial(n, [a, b, 1 - a - b], SAMPLES)
    power = np.mean([mcnemar(int(x), int(y)) <= 0.05 for x, y, _ in counts])
    assert power == pytest.approx(0.8, abs=0.03)
    assert math.isnan(detectable_by_images(n, 0.0))
    assert math.isnan(detectable_by_images(3, 0.1))


def test_the_detectable_difference_of_seeds_is_found_with_its_power():
    gap = detectable_by_seeds(0.02, 5)
    drawn = np.random.default_rng(4).normal(gap, 0.02, (SAMPLES, 5))
    assert np.mean([paired_t(row) <= 0.05 for row in drawn]) == pytest.approx(0.8, abs=0.03)
    assert detectable_by_seeds(0.0, 5) == 0
    assert detectable_by_seeds(1.0, 2) > detectable_by_seeds(1.0, 3) > detectable_by_seeds(1.0, 20)


def test_holm_is_the_step_down_of_the_smallest_first():
    p = np.array([0.01, math.nan, 0.04, 0.03, 0.005])
    # 4 x 0.005, 3 x 0.01, 2 x 0.03, then 0.04, which may not fall below the one before
    assert holm(p) == pytest.approx([0.03, math.nan, 0.06, 0.06, 0.02], nan_ok=True)
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([0.9, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]).size == 0


def test_a_margin_is_tested_at_its_most_likely_shares():
    """Against the likelihood maximised by search over the share that B alone gets wrong."""
    n, only_a, only_b, margin = 200, 40, 10, 0.08
    shares = np.linspace(1e-6, (1 - margin) / 2 - 1e-6, 200_001)
    rest = 1 - 2 * shares - margin
    likelihood = (
        only_a * np.log(shares + margin) + only_b * np.log(shares)
        + (n - only_a - only_b) * np.log(rest)
    )  # fmt: skip
    share = shares[likelihood.argmax()]
    variance = n * (2 * share + margin - margin**2)
    known = stats.norm.sf((only_a - only_b - n * margin) / math.sqrt(variance))
    assert paired_margin(only_a, only_b, n, margin) == pytest.approx(known, rel=1e-4)
    with pytest.raises(ValueError, match=r"margin \(=5\) must lie in \(0, 1\)"):
        paired_margin(1, 2, 10, 5)


def test_a_margin_that_is_just_kept_is_broken_in_five_percent():
    rng = np.random.default_rng(3)
    counts = rng.multinomial(1000, (0.06, 0.03, 0.91), size=SAMPLES)
    p = np.array([paired_margin(int(a), int(b), 1000, 0.03) for a, b, _ in counts])
    assert (p <= 0.05).mean() == pytest.approx(0.05, abs=TOLERANCE)
