"""Center loss."""

import numpy as np
import pytest
import torch

from tests import oracles
from tests.losses.toy_inputs import K, head, inputs, numpy


def test_regulariser_follows_the_formula():
    built, (features, labels) = head("center", center_weight=0.3), inputs()
    expected = oracles.center_regulariser(
        numpy(features), numpy(labels), numpy(built.centers), weight=0.3
    )
    terms = built.loss(features, labels, progress=0.5)
    np.testing.assert_allclose(numpy(terms.regulariser), expected, rtol=1e-12)


def test_weight_0_is_softmax():
    (features, labels), plain = inputs(), head("softmax")
    built = head("center", center_weight=0.0)
    built.linear.load_state_dict(plain.linear.state_dict())
    for ours, theirs in zip(
        built.loss(features, labels, progress=0.5),
        plain.loss(features, labels, progress=0.5),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_after_step_moves_the_centers_by_the_papers_rule():
    built, (features, labels) = head("center", center_rate=0.4), inputs()
    labels = torch.zeros_like(labels)
    labels[:3] = 2  # nine of class 0, none of class 1, three of class 2
    before = numpy(built.centers).copy()
    built.after_step(features, labels)
    expected = oracles.center_update(numpy(features), numpy(labels), before, rate=0.4)
    np.testing.assert_allclose(numpy(built.centers), expected, rtol=1e-12)
    np.testing.assert_array_equal(numpy(built.centers)[1], before[1])


def test_one_image_moves_its_center_by_hand():
    built = head("center", center_rate=0.5)
    built.centers.zero_()
    feature = torch.tensor([[4.0, 0.0, -8.0, 0.0]], dtype=torch.float64)
    built.after_step(feature, torch.tensor([1]))
    # 0 − 0.5 · (0 − f) / (1 + 1) = f / 4
    assert built.centers[1].tolist() == [1.0, 0.0, -2.0, 0.0]
    assert not built.centers[[0, 2]].any()


def test_centers_settle_on_the_class_means():
    built, (features, labels) = head("center"), inputs()
    for _ in range(200):
        built.after_step(features, labels)
    means = torch.stack([features[labels == k].mean(0) for k in range(K)])
    torch.testing.assert_close(built.centers, means)


def test_centers_take_no_gradient_and_no_weight_of_the_loss():
    """Their rule is not scaled by lambda, and no optimizer sees them."""
    moved = []
    for weight in (0.0, 5.0):
        built, (features, labels) = head("center", center_weight=weight), inputs()
        built.after_step(features, labels)
        moved.append(built.centers)
        listed = [id(p) for group in built.parameter_groups(0.1) for p in group["params"]]
        assert id(built.centers) not in listed
        assert not built.centers.requires_grad
        assert "centers" in built.state_dict()
    assert torch.equal(*moved)


def test_likelihood_is_half_the_squared_distance():
    built, (features, _) = head("center"), inputs()
    identity = np.stack([np.eye(features.shape[1])] * K)
    expected = -oracles.mahalanobis(numpy(features), numpy(built.centers), identity)
    np.testing.assert_allclose(numpy(built.class_log_likelihood(features)), expected, rtol=1e-12)
    assert not built.density


def test_gradient():
    built, (features, labels) = head("center", center_weight=0.3), inputs()

    def total(x):
        terms = built.loss(x, labels, progress=0.5)
        return terms.classification + terms.regulariser

    assert torch.autograd.gradcheck(total, features.requires_grad_())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"center_weight": -0.1}, r"center_weight \(=-0.1\) must be finite and at least 0\."),
        ({"center_weight": "0.1"}, r"center_weight \(='0.1'\) must be a number"),
        ({"center_rate": 1.5}, r"center_rate \(=1.5\) must be finite and at least 0 and at most 1"),
        ({"center_init": "xaver"}, r"center_init \(='xaver'\) must be one of .* mean 'xavier'"),
    ],
)
def test_refuses(params, message):
    with pytest.raises(ValueError, match=message):
        head("center", **params)
