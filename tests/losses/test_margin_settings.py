"""Margin losses: optimizer groups, class weights, floors, and refused arguments."""

import inspect
import math

import numpy as np
import pytest
import torch

from robustloss.losses import LOSSES, build_loss
from tests.losses.toy_inputs import COSINE, D, K, head, inputs, numpy


@pytest.mark.parametrize(("name", "attribute"), [("normface", "scale"), ("l2_softmax", "radius")])
def test_a_learned_scale_stops_at_the_floor_and_can_leave_it(name, attribute):
    params = {"learn_radius": True} if name == "l2_softmax" else {}
    built, (features, labels) = head(name, **params), inputs()
    value = getattr(built, attribute)
    value.data.fill_(-3.0)
    built.after_step(features, labels)
    assert value.item() == pytest.approx(0.01)
    built.loss(features, labels, progress=0.0).classification.sum().backward()
    assert value.grad != 0


def test_a_fixed_radius_is_not_trained():
    built = head("l2_softmax")
    assert "radius" not in dict(built.named_parameters())
    assert "radius" in built.state_dict()


@pytest.mark.parametrize("name", COSINE)
def test_weight_decay_only_where_the_norm_counts(name):
    built = head(name)
    groups = built.parameter_groups(0.1)
    if name == "l_softmax":
        assert all("weight_decay" not in group for group in groups)
    else:
        assert all(group["weight_decay"] == 0.0 for group in groups)
    assert all(group["lr"] == pytest.approx(0.1) for group in groups)


def test_normface_weights_may_have_their_own_rate():
    weights, scale = head("normface", weight_lr_ratio=100.0).parameter_groups(0.1)
    assert (weights["lr"], scale["lr"]) == (pytest.approx(10.0), 0.1)


def test_a_learned_radius_is_not_decayed():
    linear, radius = head("l2_softmax", learn_radius=True).parameter_groups(0.1)
    assert "weight_decay" not in linear
    assert radius["weight_decay"] == 0.0


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("l_softmax", {"margin": 0}, r"margin \(=0\) must be a whole number of at least 1"),
        ("a_softmax", {"margin": 2.5}, r"margin \(=2.5\) must be a whole number"),
        ("l_softmax", {"anneal_base": -1}, r"anneal_base \(=-1\) must be finite and at least 0"),
        ("l_softmax", {"anneal_steps": "9"}, r"anneal_steps \(='9'\) must be a number"),
        ("a_softmax", {"anneal_min": math.inf}, r"anneal_min \(=inf\) must be finite"),
        ("fnorm_sphereface", {"scale": 0}, r"scale \(=0\) must be finite and at least 0.01"),
        ("cosface", {"margin": -0.1}, r"margin \(=-0.1\) must be finite and at least 0"),
        ("cosface", {"scale": math.nan}, r"scale \(=nan\) must be finite"),
        ("arcface", {"margin_rad": 28.6}, r"margin_rad \(=28.6\) .* at most 3.14159"),
        ("normface", {"scale": 0.0}, r"scale \(=0.0\) must be finite and at least 0.01"),
        ("normface", {"weight_lr_ratio": -1}, r"weight_lr_ratio \(=-1\) must be finite"),
        ("l2_softmax", {"radius": -4}, r"radius \(=-4\) must be finite and at least 0.01"),
        ("l2_softmax", {"learn_radius": 1}, r"learn_radius \(=1\) must be true or false"),
        ("weighted_softmax", {"class_weights": [1.0, 2.0]}, r"must be 3 positive.*these are 2"),
        ("weighted_softmax", {"class_weights": "equal"}, r"class_weights \(='equal'\) must be 3"),
        ("weighted_softmax", {"class_weights": [1, 0, 1]}, r"class_weights\[1\] \(=0\) must be"),
        ("weighted_softmax", {"class_weights": 3}, r"class_weights \(=3\) must be 3 positive"),
    ],
)
def test_refuses(name, params, message):
    with pytest.raises(ValueError, match=message):
        head(name, **params)


@pytest.mark.parametrize(
    ("weights", "counts", "message"),
    [
        ("balanced", [0, 3, 4], r"class_counts \(=\[0, 3, 4\]\) must be 3 numbers of at least 1"),
        ("balanced", [3, 4], r"class_counts \(=\[3, 4\]\) must be 3 numbers"),
        ([1.0, 1.0, 2.0], [0, 0, 0], r"class_counts \(=\[0, 0, 0\]\)"),
    ],
)
def test_counts_that_give_no_weights_are_refused(weights, counts, message):
    with pytest.raises(ValueError, match=message):
        head("weighted_softmax", class_weights=weights).start(torch.tensor(counts))


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    counts = np.array([3, 5, 12])
    built = head("weighted_softmax")
    built.start(torch.tensor(counts))
    labels = np.repeat(np.arange(3), counts)
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(numpy(built.class_weights), wanted, rtol=1e-6)


def test_every_keyword_is_a_plain_value():
    """A spec can name each of them."""
    for name in (*COSINE, "l2_softmax", "weighted_softmax"):
        for key, parameter in inspect.signature(LOSSES[name]).parameters.items():
            if key not in ("feature_dim", "num_classes"):
                assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
                assert isinstance(parameter.default, int | float | str | bool)
    assert build_loss("cosface", feature_dim=D, num_classes=K, margin=0.2).margin == 0.2
