"""The geometry of features: closed forms, hand-computed examples, simulation."""

import math
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from robustloss.analysis.tables import feature_space as geometry
from robustloss.analysis.tables.feature_space import center_rows, geometry_rows
from robustloss.metrics import feature_space

CELL = {"loss": "gm", "label": "GM", "seed": 0, "batch_size": 64}
# Two classes about (3, 0) and (0, 4), two images each, one unit from their mean.
SQUARE = np.array([[3.0, 1], [3, -1], [1, 4], [-1, 4]])
LABELS = np.array([0, 0, 1, 1])


def clusters(num_classes=4, dim=50, each=400, spread=2.0, radius=10.0):
    rng = np.random.default_rng(0)
    means = radius * np.eye(num_classes, dim)
    labels = np.repeat(np.arange(num_classes), each)
    return means[labels] + spread * rng.normal(size=(len(labels), dim)), labels


def test_an_example_by_hand():
    row = feature_space.shape_of(SQUARE, LABELS, 2)
    assert (row["n"], row["feature_dim"]) == (4, 2)
    assert row["within_distance"] == pytest.approx(1.0)
    assert row["between_distance"] == row["between_distance_min"] == pytest.approx(5.0)
    assert (row["nearest_a"], row["nearest_b"]) == (0, 1)
    # both means are 2.5 from their common mean: 6.25 over 1
    assert row["fisher_ratio"] == pytest.approx(6.25)
    wanted = (math.atan2(1, 3) + math.atan2(1, 4)) / 2
    assert row["within_angle_deg"] == pytest.approx(math.degrees(wanted))
    assert row["between_angle_deg"] == row["between_angle_min_deg"] == pytest.approx(90.0)
    assert row["norm_mean"] == pytest.approx((math.sqrt(10) + math.sqrt(17)) / 2)


def test_gaussian_clusters_have_their_scatter_and_angles():
    features, labels = clusters()
    row = feature_space.shape_of(features, labels, 4)
    # E‖x − mean‖² = D s² (1 − 1/n), of class means (1 − 1/K) (r² + D s²/n), with n = 400; a mean's
    # length has deviation s/√n = 0.1 of 10, so the ratio 2 % over √K, of which three are allowed
    wanted = 0.75 * (100 + 50 * 4 / 400) / (50 * 4 * (1 - 1 / 400))
    assert row["fisher_ratio"] == pytest.approx(wanted, rel=0.03)
    assert row["within_distance"] == pytest.approx(2.0 * math.sqrt(49.5), rel=0.01)
    assert row["between_distance"] == pytest.approx(10 * math.sqrt(2), rel=0.02)
    assert row["between_angle_deg"] == pytest.approx(90.0, abs=2.0)


def test_a_class_without_images_is_left_out():
    row = feature_space.shape_of(SQUARE, np.array([0, 0, 2, 2]), 4)
    assert (row["nearest_a"], row["nearest_b"], row["between_distance"]) == (0, 2, 5.0)


def test_one_class_has_nothing_between_and_zero_features_no_angle():
    row = feature_space.shape_of(np.zeros((3, 2)), np.zeros(3, int), 2)
    for name in ("between_distance", "nearest_a", "between_angle_deg", "fisher_ratio"):
        assert row[name] is None
    assert row["within_angle_deg"] is None
    assert row["within_distance"] == 0.0


def test_one_dimension_has_angles_of_0_and_180():
    row = feature_space.shape_of(np.array([[1.0], [3], [-2], [-2]]), LABELS, 2)
    assert row["within_angle_deg"] == 0.0
    assert row["between_angle_deg"] == 180.0


def test_features_that_are_no_numbers_are_refused():
    bad = SQUARE.copy()
    bad[1, 1] = np.nan
    with pytest.raises(ValueError, match="features hold NaN or infinite values"):
        feature_space.shape_of(bad, LABELS, 2)


def test_a_thousand_classes_fit():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3000, 64)).astype(np.float32)
    row = feature_space.shape_of(features, np.arange(3000) % 1000, 1000)
    means = np.stack([features[k::1000].mean(0, dtype=np.float64) for k in range(1000)])
    gaps = cdist(means, means) + 1e9 * np.eye(1000)
    assert row["between_distance_min"] == pytest.approx(gaps.min())
    assert (row["nearest_a"], row["nearest_b"]) == np.unravel_index(gaps.argmin(), gaps.shape)


def reference(features, labels, **more):
    return {"train_features": features, "train_labels": labels, **more}


def test_every_split_that_is_there_has_a_row():
    test = SimpleNamespace(features=SQUARE, labels=LABELS, logits=np.zeros((4, 2)))
    slopes = np.array([1.0, 2.0, 3.0, 4.0])
    arrays = reference(
        2 * SQUARE, LABELS, train_gradient_norm=slopes, untrained_features=SQUARE[:2],
        untrained_labels=LABELS[:2],
    )  # fmt: skip
    rows = geometry_rows(CELL, arrays, test)
    assert [row["split"] for row in rows] == ["train", "test", "untrained"]
    assert [row["within_distance"] for row in rows] == pytest.approx([2.0, 1.0, 1.0])
    assert rows[0]["gradient_norm_mean"] == 2.5
    # norms 2√10, 2√10, 2√17, 2√17 have ranks 1.5 1.5 3.5 3.5 beside 1 2 3 4
    wanted = np.corrcoef([1.5, 1.5, 3.5, 3.5], [1, 2, 3, 4])[0, 1]
    assert rows[0]["gradient_norm_correlation"] == pytest.approx(wanted)
    assert rows[1]["gradient_norm_mean"] is None


def test_a_batch_knows_the_class_means_as_well_as_theory_says():
    features, labels = clusters(num_classes=4, dim=50, each=4000)
    arrays = reference(features, labels, centers=10.5 * np.eye(4, 50))
    (row,) = center_rows(CELL, arrays)
    assert (row["batch_size"], row["images_per_class"]) == (64, 16.0)
    assert row["expected_error"] == pytest.approx(2.0 * math.sqrt(50 / 16), rel=0.01)
    # 1/n averages to more than 1/16 over the random n of a class in a batch: about 1 + 0.75/16
    wanted = row["expected_error"] * math.sqrt(1 + 0.75 / 16)
    assert row["batch_mean_error"] == pytest.approx(wanted, rel=0.03)
    assert row["centers_error"] == pytest.approx(0.5, rel=0.15)


@pytest.mark.parametrize("each", [40, 400])
def test_a_set_hardly_larger_than_the_batch_is_no_better_known(each):
    features, labels = clusters(num_classes=4, dim=50, each=each)
    (row,) = geometry.center_rows(CELL, reference(features, labels))
    wanted = row["expected_error"] * math.sqrt(1 + 0.75 / 16)
    assert row["batch_mean_error"] == pytest.approx(wanted, rel=0.05)


def test_more_classes_than_images_in_a_batch_have_no_expectation():
    features, labels = clusters(num_classes=80, dim=80, each=5)
    (row,) = geometry.center_rows(CELL, reference(features, labels))
    assert row["images_per_class"] == 0.8
    assert row["expected_error"] is None
    assert row["batch_mean_error"] > 0


def test_many_images_are_taken_in_blocks(monkeypatch):
    features, labels = clusters(num_classes=4, dim=50, each=100)
    whole = feature_space.shape_of(features, labels, 4)
    monkeypatch.setattr(feature_space, "BLOCK", 64)
    parts = feature_space.shape_of(features, labels, 4)
    assert parts == {key: pytest.approx(value, rel=1e-12) for key, value in whole.items()}
    tracemalloc.start()
    feature_space.shape_of(np.ones((20_000, 200), np.float32), np.arange(20_000) % 4, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000 * 200 * 8  # less than one float64 copy of the features


def test_without_a_batch_size_nothing_is_estimated():
    assert geometry.center_rows({"loss": "gm", "label": "GM", "seed": 0}, {}) == []


def test_margins_are_lengths_of_what_lies_between_the_boundaries():
    arrays = reference(
        SQUARE, LABELS,
        margin_pairs=np.array([[0, 1]]),
        margin_positions=np.array([[0.5, 0.4, 0.62]]),
        margin_closed=np.array([[0.5, 0.4, np.nan]]),
    )  # fmt: skip
    (row,) = geometry.margin_rows(CELL, arrays)
    assert (row["class_a"], row["class_b"], row["length"]) == (0, 1, pytest.approx(5.0))
    assert row["margin"] == pytest.approx(0.22 * 5)
    assert (row["closed_boundary_a"], row["closed_boundary_b"]) == (0.4, None)
    assert row["closed_margin"] is None
    assert row["difference"] == 0.0
    assert geometry.margin_rows(CELL, reference(SQUARE, LABELS)) == []


def test_a_collapsed_space_has_four_zeros():
    means = 3.0 * np.eye(4) + 2.0  # a simplex away from the origin
    labels = np.repeat(np.arange(4), 5)
    found = feature_space.collapse_of(means[labels], labels, 4, 7.0 * means - 1.0)
    assert found == pytest.approx(dict.fromkeys(("nc1", "nc2_lengths", "nc2_cosines", "nc3"), 0.0))


def test_collapse_is_the_formula_of_the_paper():
    features, labels = clusters(dim=7, each=30)
    features = features @ np.diag([1.0, 3, 1, 2, 1, 1, 1])  # lengths and angles that differ
    weights = np.random.default_rng(1).normal(size=(5, 7))
    found = feature_space.collapse_of(features, labels, 5, weights)  # class 4 has no images
    means = np.stack([features[labels == k].mean(0) for k in range(4)])
    centred = means - means.mean(0)
    own = features - means[labels]
    within, between = own.T @ own / len(own), centred.T @ centred / 4
    assert found["nc1"] == pytest.approx(np.trace(within @ np.linalg.pinv(between)) / 4)
    lengths = np.linalg.norm(centred, axis=1)
    assert found["nc2_lengths"] == pytest.approx(lengths.std() / lengths.mean())
    cosines = [
        centred[a] @ centred[b] / lengths[a] / lengths[b] for a in range(4) for b in range(a)
    ]
    assert found["nc2_cosines"] == pytest.approx(np.mean(np.abs(np.array(cosines) + 1 / 3)))
    own = weights[:4] - weights[:4].mean(0)
    apart = own / np.linalg.norm(own) - centred / np.linalg.norm(centred)
    assert found["nc3"] == pytest.approx(np.linalg.norm(apart))


def test_features_without_two_class_means_have_no_collapse():
    found = feature_space.collapse_of(np.ones((4, 2)), np.array([0, 0, 1, 1]), 2)
    assert set(found.values()) == {None}
    assert feature_space.collapse_of(SQUARE, np.zeros(4, int), 2)["nc1"] is None
    two = feature_space.collapse_of(SQUARE, LABELS, 2)
    assert (two["nc2_lengths"], two["nc2_cosines"]) == pytest.approx((0.0, 0.0))
    assert two["nc3"] is None
