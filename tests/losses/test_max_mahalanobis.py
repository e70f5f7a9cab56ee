"""MMC: where the centers stand, and what the loss is."""

import math

import numpy as np
import pytest
import torch

from robustloss.losses import build_loss
from robustloss.losses.max_mahalanobis import optimal_directions


def dots(unit):
    return (unit @ unit.T)[np.triu_indices(len(unit), 1)]


@pytest.mark.parametrize(("num_classes", "feature_dim"), [(10, 9), (10, 100), (2, 1), (3, 2)])
def test_centers_are_a_simplex_where_there_is_room(num_classes, feature_dim):
    unit = optimal_directions(num_classes, feature_dim)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, atol=1e-12)
    np.testing.assert_allclose(dots(unit), -1.0 / (num_classes - 1), atol=1e-12)
    np.testing.assert_allclose(unit.sum(0), 0.0, atol=1e-12)


def test_in_the_plane_they_are_a_regular_polygon():
    assert dots(optimal_directions(10, 2)).max() == pytest.approx(math.cos(2 * math.pi / 10))


def test_up_to_two_classes_a_dimension_no_two_are_nearer_than_a_right_angle():
    assert dots(optimal_directions(7, 4)).max() == 0.0


@pytest.mark.parametrize(("num_classes", "degrees"), [(8, 74.8585), (10, 66.1468), (12, 63.4349)])
def test_elsewhere_they_are_as_far_apart_as_the_best_known(num_classes, degrees):
    """Tammes' problem: the largest smallest angle between K points on a sphere."""
    unit = optimal_directions(num_classes, 3)
    assert math.degrees(math.acos(dots(unit).max())) == pytest.approx(degrees, abs=0.05)


def test_the_global_random_state_has_no_part():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = optimal_directions(9, 3)
    optimal_directions.cache_clear()
    assert np.array_equal(first, optimal_directions(9, 3))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_it_is_the_pull_of_center_loss_to_fixed_centers():
    torch.manual_seed(0)
    head = build_loss("mmc", feature_dim=5, num_classes=4).double()
    center = build_loss("center", feature_dim=5, num_classes=4, center_weight=1.0).double()
    center.centers.copy_(head.centers)
    features, labels = torch.randn(9, 5).double(), torch.arange(9) % 4
    ours = head.loss(features, labels, progress=1.0)
    torch.testing.assert_close(
        ours.classification, center.loss(features, labels, progress=1.0).regulariser
    )
    assert list(head.parameters()) == []


def test_its_likelihood_is_a_normal_density_about_the_center():
    head = build_loss("mmc", feature_dim=3, num_classes=4, center_norm=2.0).double()
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
    normal = torch.distributions.MultivariateNormal(head.centers, torch.eye(3).double())
    torch.testing.assert_close(
        head.class_log_likelihood(features), normal.log_prob(features.unsqueeze(1))
    )


def test_what_has_no_room_or_no_length_is_refused():
    with pytest.raises(ValueError, match=r"feature_dim \(=1\) has room for 2 centers"):
        build_loss("mmc", feature_dim=1, num_classes=3)
    with pytest.raises(ValueError, match=r"center_norm \(=0\) must be positive"):
        build_loss("mmc", feature_dim=3, num_classes=3, center_norm=0.0)
