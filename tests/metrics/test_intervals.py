"""Intervals against scipy, against exact enumeration, and by simulation."""

import numpy as np
import pytest
from scipy import stats

from robustloss.metrics.intervals import sign_test, t_interval, wilson


@pytest.mark.parametrize("n", [1, 2, 7, 100, 10_000])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_wilson_equals_scipy(n, confidence):
    for k in np.unique(np.linspace(0, n, 25).astype(int)):
        expected = stats.binomtest(int(k), n).proportion_ci(confidence, "wilson")
        assert wilson(int(k), n, confidence) == pytest.approx((expected.low, expected.high), 1e-12)


def test_wilson_solves_its_equation():
    # the bounds are the p at which the observed fraction lies exactly z standard errors away
    k, n, z = 40, 10_000, stats.norm.ppf(0.975)
    for p in wilson(k, n):
        assert abs(k / n - p) / np.sqrt(p * (1 - p) / n) == pytest.approx(z, 1e-9)


@pytest.mark.parametrize("n", [1, 7, 500])
def test_wilson_is_exact_at_the_ends_and_mirrors(n):
    for confidence in (0.5, 0.9, 0.95, 0.99):
        assert wilson(0, n, confidence)[0] == 0.0
        assert wilson(n, n, confidence)[1] == 1.0
    for k in range(n + 1):
        low, high = wilson(k, n)
        assert 0 <= low <= k / n <= high <= 1
        assert (1 - high, 1 - low) == pytest.approx(wilson(n - k, n), abs=1e-12)


@pytest.mark.parametrize("n", [50, 500, 2000])
def test_wilson_covers_by_exact_enumeration(n):
    # no simulation: the coverage at p is a sum of binomial probabilities
    low, high = np.array([wilson(k, n) for k in range(n + 1)]).T
    p = np.linspace(5 / n, 1 - 5 / n, 401)  # at least five images expected on either side
    covers = (low[:, None] <= p) & (p <= high[:, None])
    coverage = (stats.binom.pmf(np.arange(n + 1)[:, None], n, p) * covers).sum(axis=0)
    assert 0.94 < coverage.mean() < 0.96
    assert coverage.min() > 0.91


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_impossible_counts(k, n):
    with pytest.raises(ValueError, match=rf"k \(={k}\) of n \(={n}\) must fulfil 0 <= k <= n"):
        wilson(k, n)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_confidence_is_a_fraction(confidence):
    for interval in (lambda: wilson(1, 2, confidence), lambda: t_interval([1, 2], confidence)):
        with pytest.raises(ValueError, match=rf"confidence \(={confidence}\) must lie in \(0, 1\)"):
            interval()


def test_t_interval_by_hand():
    # five seeds: t(0.975, 4) = 2.7764, sd = sqrt(2.5)
    mean, sd, low, high = t_interval([1, 2, 3, 4, 5])
    assert (mean, sd) == pytest.approx((3, 1.5811388))
    assert (low, high) == pytest.approx((3 - 1.9632432, 3 + 1.9632432), 1e-6)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_t_interval_ends_where_the_t_test_rejects(confidence):
    values = np.random.default_rng(0).normal(3, 2, size=6)
    for bound in t_interval(values, confidence)[2:]:
        assert stats.ttest_1samp(values, bound).pvalue == pytest.approx(1 - confidence)


def test_t_interval_covers():
    samples = np.random.default_rng(1).normal(size=(4000, 3))
    covered = [low <= 0 <= high for _, _, low, high in map(t_interval, samples)]
    assert 0.94 < np.mean(covered) < 0.96  # binomial standard error 0.0034


def test_t_interval_follows_shift_and_scale():
    values = np.random.default_rng(2).normal(size=5)
    mean, sd, low, high = t_interval(values)
    moved = t_interval(10 - 3 * values)
    assert moved == pytest.approx((10 - 3 * mean, 3 * sd, 10 - 3 * high, 10 - 3 * low))


def test_one_seed_has_a_mean_and_no_interval():
    mean, *rest = t_interval([0.25])
    assert mean == 0.25
    assert np.isnan(rest).all()


@pytest.mark.parametrize("values", [[], [1, np.nan], [1, np.inf], [[1, 2]]])
def test_t_interval_refuses_missing_values(values):
    with pytest.raises(ValueError, match="must be one or more finite numbers"):
        t_interval(values)


@pytest.mark.parametrize("wins", range(12))
def test_sign_test_equals_the_enumeration_of_all_coin_tosses(wins):
    tosses = np.array(np.meshgrid(*[[0, 1]] * 11)).reshape(11, -1).sum(axis=0)
    assert sign_test(wins, 11 - wins) == pytest.approx((tosses >= wins).mean(), abs=1e-12)


def test_sign_test_equals_scipy_and_needs_five_of_five():
    for wins, losses in ((0, 0), (1, 0), (4, 0), (5, 0), (60, 40), (5000, 4900)):
        expected = 1.0
        if wins + losses:
            expected = stats.binomtest(wins, wins + losses, alternative="greater").pvalue
        assert sign_test(wins, losses) == pytest.approx(expected, rel=1e-9)
    assert sign_test(4, 0) > 0.05 > sign_test(5, 0)


def test_sign_test_takes_counts():
    with pytest.raises(ValueError, match=r"wins \(=-1\) and losses \(=2\) must be counts, >= 0"):
        sign_test(-1, 2)
