"""Detection metrics against closed forms, slow literal counts and scikit-learn."""

import math
import time

import numpy as np
import pytest
import sklearn.metrics
from scipy import stats
from scipy.stats import norm

from robustloss.metrics import rates as metrics
from robustloss.metrics.rates import auroc

INF = np.inf


def tied(seed: int, n: int = 40, m: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, the clean ones higher."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 12, n) / 2.0, rng.integers(-3, 9, m) / 2.0


def continuous(seed: int, n: int = 300, m: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(1, 1, n), rng.normal(0, 2, m)


CASES = [make(seed) for make in (tied, continuous) for seed in range(4)]


def as_sklearn(clean, attacked):
    """scikit-learn's convention: label 1 for attacked, higher means more suspicious."""
    labels = np.concatenate([np.zeros(len(clean)), np.ones(len(attacked))])
    return labels, -np.concatenate([clean, attacked])


# ---- AUROC


@pytest.mark.parametrize("distance", [0.0, 0.5, 2.0, 4.0])
def test_auroc_of_two_normals(distance):
    # equally spaced quantiles instead of draws: the error is of the order 1/n, not 1/sqrt(n)
    n = 5000
    quantiles = stats.norm.ppf((np.arange(n) + 0.5) / n)
    expected = stats.norm.cdf(distance / np.sqrt(2))
    assert auroc(quantiles + distance, quantiles) == pytest.approx(expected, abs=1 / n)


def test_auroc_of_drawn_normals_within_its_standard_error():
    n, expected = 20_000, stats.norm.cdf(1 / np.sqrt(2))
    rng = np.random.default_rng(0)
    # Hanley and McNeil: the variance is at most A(1-A)/n for n + n scores
    tolerance = 4 * np.sqrt(expected * (1 - expected) / n)
    value = metrics.auroc(rng.normal(1, 1, n), rng.normal(0, 1, n))
    assert value == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("clean", "attacked"), CASES)
def test_auroc_counts_pairs(clean, attacked):
    wins = sum((c > a) + 0.5 * (c == a) for c in clean for a in attacked)
    assert metrics.auroc(clean, attacked) == pytest.approx(wins / clean.size / attacked.size, 1e-14)


@pytest.mark.parametrize(("clean", "attacked"), CASES)
def test_auroc_equals_sklearn(clean, attacked):
    expected = sklearn.metrics.roc_auc_score(*as_sklearn(clean, attacked))
    assert metrics.auroc(clean, attacked) == pytest.approx(expected, 1e-12)


def test_likelihoods_are_ranked_where_their_exp_underflows():
    rng = np.random.default_rng(0)
    clean = -(0.5 * rng.chisquare(100, 3000) + 500).astype(np.float32)
    attacked = -(0.5 * rng.chisquare(130, 3000) + 500).astype(np.float32)
    assert metrics.auroc(np.exp(clean), np.exp(attacked)) == 0.5  # the trap
    wins = (clean[:, None] > attacked).mean() + 0.5 * (clean[:, None] == attacked).mean()
    assert wins > 0.85
    assert metrics.auroc(clean, attacked) == pytest.approx(wins, 1e-6)


@pytest.mark.parametrize("change", [np.arctan, np.cbrt, lambda s: 3e5 * s - 1e5, stats.rankdata])
@pytest.mark.parametrize(("clean", "attacked"), CASES)
def test_auroc_depends_on_ranks_only(change, clean, attacked):
    changed = change(np.concatenate([clean, attacked]))
    value = metrics.auroc(changed[: clean.size], changed[clean.size :])
    assert value == metrics.auroc(clean, attacked)


@pytest.mark.parametrize(("clean", "attacked"), CASES)
def test_auroc_has_its_symmetries(clean, attacked):
    value = metrics.auroc(clean, attacked)
    assert metrics.auroc(attacked, clean) == pytest.approx(1 - value, abs=1e-15)
    assert metrics.auroc(-clean, -attacked) == pytest.approx(1 - value, abs=1e-15)
    assert metrics.auroc(clean[::-1], attacked[::-1]) == value
    assert metrics.auroc(np.tile(clean, 3), attacked) == pytest.approx(value, abs=1e-15)
    assert metrics.auroc(clean, clean) == 0.5


@pytest.mark.parametrize(
    ("clean", "attacked", "expected"),
    [
        ([1.0], [0.0], 1.0),
        ([0.0], [1.0], 0.0),
        ([7.0] * 9, [7.0] * 4, 0.5),
        ([0.0, -INF], [-INF, -INF], 0.75),
        ([INF, 0.0], [-INF, INF], 0.625),
        ([-1e5 - 0.02], [-1e5 - 0.04], 1.0),
    ],
)
def test_auroc_at_its_edges(clean, attacked, expected):
    assert metrics.auroc(clean, attacked) == expected


def test_auroc_is_fast_at_the_size_of_a_test_set():
    rng = np.random.default_rng(0)
    clean, attacked = rng.normal(1, 1, 10_000), rng.normal(0, 1, 10_000)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        metrics.auroc(clean, attacked)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05  # about 0.003; counting pairs takes 0.3


# ---- points of the ROC curve


@pytest.mark.parametrize(("clean", "attacked"), CASES)
def test_roc_curve_equals_sklearn(clean, attacked):
    fpr, tpr, thresholds = metrics.roc_curve(clean, attacked)
    expected = sklearn.metrics.roc_curve(*as_sklearn(clean, attacked), drop_intermediate=False)
    np.testing.assert_allclose(fpr, expected[0], atol=1e-15)
    np.testing.assert_allclose(tpr, expected[1], atol=1e-15)
    for rate, scores in ((fpr, clean), (tpr, attacked)):
        np.testing.assert_allclose(rate, [(scores < t).mean() for t in thresholds], atol=1e-15)
    assert sklearn.metrics.auc(fpr, tpr) == pytest.approx(metrics.auroc(clean, attacked), 1e-12)


def test_roc_curve_ends_at_one_even_with_infinite_scores():
    fpr, tpr, thresholds = metrics.roc_curve(np.array([0, INF]), np.array([-INF, 0]))
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(thresholds[:-1]) > 0).all()


FPRS = [0, 0.01, 0.05, 0.29, 0.5, 0.999, 1]


@pytest.mark.parametrize("fpr", FPRS)
@pytest.mark.parametrize(("clean", "attacked"), CASES)
def test_threshold_is_the_largest_that_keeps_the_rate(fpr, clean, attacked):
    threshold = metrics.threshold_at_fpr(clean, fpr)
    candidates = np.append(np.unique(clean), INF)
    kept = [t for t in candidates if (clean < t).mean() <= fpr + 1e-12]
    assert threshold == max(kept)


def test_threshold_counts_images_not_float_dust():
    scores = np.arange(100.0)
    assert 0.29 * 100 < 29  # float dust
    assert metrics.threshold_at_fpr(scores, 0.29) == 29
    assert metrics.threshold_at_fpr(scores, 0.05) == 5
    assert metrics.threshold_at_fpr(scores[:99], 0.05) == 4  # 4 of 99: five would be too many
    assert metrics.threshold_at_fpr(np.full(100, 7.0), 0.05) == 7  # rejects none of equals


def test_the_caught_share_counts_images_not_float_dust():
    attacked = np.arange(100.0)
    assert 0.07 * 100 > 7  # float dust
    assert metrics.clean_rejected_at_tpr(np.array([6.5, 7, 7.5]), attacked, 0.07) == 0
    assert metrics.clean_rejected_at_tpr(np.array([6, 7, 7.5]), attacked, 0.07) == 1 / 3


@pytest.mark.parametrize("fpr", FPRS)
@pytest.mark.parametrize(("clean", "attacked"), CASES)
def test_tpr_at_fpr_is_the_best_point_of_sklearns_curve(fpr, clean, attacked):
    rates = sklearn.metrics.roc_curve(*as_sklearn(clean, attacked), drop_intermediate=False)
    expected = rates[1][rates[0] <= fpr + 1e-12].max()
    assert metrics.tpr_at_fpr(clean, attacked, fpr) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("tpr", [0, 0.05, 0.5, 0.95, 1])
@pytest.mark.parametrize(("clean", "attacked"), CASES)
def test_clean_rejected_at_tpr_is_the_best_point_of_sklearns_curve(tpr, clean, attacked):
    rates = sklearn.metrics.roc_curve(*as_sklearn(clean, attacked), drop_intermediate=False)
    expected = rates[0][rates[1] >= tpr - 1e-12].min()
    assert metrics.clean_rejected_at_tpr(clean, attacked, tpr) == pytest.approx(expected, abs=1e-15)


def test_tpr_of_two_normals():
    n, distance = 20_000, 2.0
    quantiles = stats.norm.ppf((np.arange(n) + 0.5) / n)
    for fpr in (0.01, 0.05):
        expected = stats.norm.cdf(stats.norm.ppf(fpr) + distance)
        value = metrics.tpr_at_fpr(quantiles + distance, quantiles, fpr)
        assert value == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("clean", "attacked"), CASES)
def test_average_precision_equals_sklearn(clean, attacked):
    expected = sklearn.metrics.average_precision_score(*as_sklearn(clean, attacked))
    assert metrics.average_precision(clean, attacked) == pytest.approx(expected, 1e-12)


def test_average_precision_of_constant_scores_is_the_share_of_attacked():
    assert metrics.average_precision(np.zeros(30), np.zeros(10)) == 0.25  # the trapezoid says 0.625


@pytest.mark.parametrize(
    "rate",
    [
        metrics.auroc,
        metrics.average_precision,
        lambda clean, attacked: metrics.tpr_at_fpr(clean, attacked, 0.05),
        lambda clean, attacked: metrics.clean_rejected_at_tpr(clean, attacked, 0.95),
    ],
)
class TestEveryRate:
    def test_an_empty_side_gives_nan(self, rate):
        assert np.isnan(rate(np.array([1.0]), np.array([])))
        assert np.isnan(rate(np.array([]), np.array([1.0])))

    def test_nan_scores_are_refused(self, rate):
        with pytest.raises(ValueError, match="1 of 2 clean scores are NaN"):
            rate(np.array([1.0, np.nan]), np.array([]))
        with pytest.raises(ValueError, match="2 of 3 attacked scores are NaN"):
            rate(np.array([1.0]), np.array([np.nan, 0, np.nan]))

    def test_two_axes_are_refused(self, rate):
        with pytest.raises(ValueError, match=r"clean scores \(shape \(2, 3\)\) must have one axis"):
            rate(np.zeros((2, 3)), np.zeros(3))


@pytest.mark.parametrize("value", [-0.1, 5])
def test_rates_are_fractions(value):
    scores = np.zeros(3)
    with pytest.raises(ValueError, match=rf"fpr \(={value}\) must lie in \[0, 1\]"):
        metrics.threshold_at_fpr(scores, value)
    with pytest.raises(ValueError, match=rf"tpr \(={value}\) must lie in \[0, 1\]"):
        metrics.clean_rejected_at_tpr(scores, scores, value)


def test_a_threshold_and_a_curve_need_scores():
    with pytest.raises(ValueError, match="clean scores are empty"):
        metrics.threshold_at_fpr(np.array([]), 0.05)
    with pytest.raises(ValueError, match="attacked scores are empty"):
        metrics.roc_curve(np.zeros(2), np.array([]))


def test_equal_error_rate_by_hand():
    # rejected below 2.5: clean 1 of 4 (the 2), attacked 3 of 4 (all but the 3): 25 % each
    clean, attacked = np.array([2.0, 4, 5, 6]), np.array([0.0, 1, 2.2, 3])
    assert metrics.equal_error_rate(clean, attacked) == 0.25
    assert metrics.equal_error_rate(clean, clean) == pytest.approx(0.5)
    assert metrics.equal_error_rate(np.ones(3), np.ones(5)) == pytest.approx(0.5)
    assert metrics.equal_error_rate(clean + 9, attacked) == 0
    assert metrics.equal_error_rate(attacked, clean + 9) == 1
    assert math.isnan(metrics.equal_error_rate(clean, clean[:0]))


def test_equal_error_rate_of_two_normals():
    rng = np.random.default_rng(0)
    clean, attacked = rng.normal(2, 1, 50_000), rng.normal(0, 1, 50_000)
    assert metrics.equal_error_rate(clean, attacked) == pytest.approx(norm.cdf(-1), abs=0.004)
