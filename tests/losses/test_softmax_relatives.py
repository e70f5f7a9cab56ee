"""Losses on a linear layer that change one formula of softmax."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from robustloss.losses.base import LossHead
from tests import oracles
from tests.losses.toy_inputs import D, K, N, head, inputs, numpy

RELATIVES = ("label_smoothing", "focal", "logit_norm", "one_vs_rest")


@pytest.mark.parametrize("spread", [0.3, 3.0])
@pytest.mark.parametrize(
    ("name", "params", "oracle"),
    [
        ("label_smoothing", {}, lambda z, y: oracles.label_smoothing(z, y, 0.1)),
        ("label_smoothing", {"smoothing": 0.4}, lambda z, y: oracles.label_smoothing(z, y, 0.4)),
        ("focal", {}, lambda z, y: oracles.focal(z, y, 2.0)),
        ("focal", {"gamma": 0.5}, lambda z, y: oracles.focal(z, y, 0.5)),
        ("logit_norm", {}, lambda z, y: oracles.logit_norm(z, y, 0.04)),
        ("logit_norm", {"temperature": 1.0}, lambda z, y: oracles.logit_norm(z, y, 1.0)),
        ("one_vs_rest", {}, oracles.one_vs_rest),
    ],
)
def test_loss_follows_the_formula(name, params, oracle, spread):
    built, (features, labels) = head(name, **params), inputs(spread=spread)
    logits = oracles.softmax_logits(
        numpy(features), numpy(built.linear.weight), numpy(built.linear.bias)
    )
    terms = built.loss(features, labels, progress=0.5)
    np.testing.assert_allclose(
        numpy(terms.classification), oracle(logits, numpy(labels)), rtol=1e-8
    )
    assert not terms.regulariser.any()


@pytest.mark.parametrize("name", RELATIVES)
def test_what_is_attacked_is_the_linear_layer(name):
    """No smoothing, weight or normalisation is left at test time."""
    built, softmax, (features, labels) = head(name), head("softmax"), inputs()
    for method in (built.logits, built.class_log_likelihood):
        assert torch.equal(method(features), softmax.logits(features))
    under_labels = built.training_logits(features, labels, progress=0.5)
    assert torch.equal(under_labels, softmax.logits(features))
    assert torch.equal(built.class_vectors(), softmax.class_vectors())


@pytest.mark.parametrize(
    ("name", "params"), [("label_smoothing", {"smoothing": 0.0}), ("focal", {"gamma": 0.0})]
)
def test_without_its_parameter_it_is_softmax(name, params):
    features, labels = inputs(spread=5.0)
    found = head(name, **params).loss(features, labels, progress=0.5)
    wanted = head("softmax").loss(features, labels, progress=0.5)
    torch.testing.assert_close(found.classification, wanted.classification, rtol=1e-12, atol=1e-12)


def test_label_smoothing_is_that_of_torch():
    built, (features, labels) = head("label_smoothing", smoothing=0.2), inputs()
    wanted = F.cross_entropy(built.logits(features), labels, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(built.loss(features, labels, progress=1.0).classification, wanted)


def loss_of_logits(built: LossHead, logits: torch.Tensor, label: int) -> torch.Tensor:
    """Gives a head the logits themselves, by a feature that its weights do not change."""
    built.linear.weight.data = torch.eye(K, D, dtype=torch.float64)
    built.linear.bias.data.zero_()
    features = F.pad(logits, (0, D - K)).unsqueeze(0)
    return built.loss(features, torch.tensor([label]), progress=0.5).classification[0]


def test_label_smoothing_is_least_at_the_gap_that_its_text_names():
    gap = torch.tensor(math.log(1 + K * 0.9 / 0.1), dtype=torch.float64, requires_grad=True)
    logits = torch.stack([gap, *torch.zeros(K - 1, dtype=torch.float64)])
    built = head("label_smoothing", smoothing=0.1)
    (slope,) = torch.autograd.grad(loss_of_logits(built, logits, 0), gap)
    assert slope.item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_keeps_its_digits_where_the_posterior_is_one(gamma):
    """−(1 − p)^gamma log p is (1 − p)^(1 + gamma) there, and so is its slope a number."""
    for gap in (15.0, 40.0, 700.0):
        z = torch.tensor([gap, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
        loss = loss_of_logits(head("focal", gamma=gamma), z, 0)
        (slope,) = torch.autograd.grad(loss, z)
        assert slope.isfinite().all()
        if gap < 30.0:
            assert loss.item() == pytest.approx((2 * math.exp(-gap)) ** (1 + gamma), rel=1e-4)


def test_logit_norm_does_not_see_the_length_of_the_logits():
    built, (features, labels) = head("logit_norm", bias=False), inputs()
    near, far = (built.loss(s * features, labels, progress=0.5) for s in (1.0, 1000.0))
    torch.testing.assert_close(near.classification, far.classification, rtol=1e-8, atol=1e-8)
    features.requires_grad_()
    loss = built.loss(features, labels, progress=0.5).classification.sum()
    (grad,) = torch.autograd.grad(loss, features)
    along = (grad * features).sum(1)
    torch.testing.assert_close(along, torch.zeros(N, dtype=torch.float64), rtol=0, atol=1e-6)


def test_logit_norm_cannot_learn_at_temperature_one():
    """The least loss of ten classes, at the best of all directions of z."""
    best = torch.tensor([9.0, *[-1.0] * 9], dtype=torch.float64)
    least = oracles.logit_norm(best.numpy()[None], np.array([0]), 1.0)
    assert least[0] == pytest.approx(1.42, abs=0.005)


def test_posterior_of_one_vs_rest_is_that_of_exactly_one_yes():
    """P(k says yes and all others no), divided by its sum over k."""
    built, (features, _) = head("one_vs_rest"), inputs()
    logits = built.logits(features)
    yes = logits.sigmoid()
    alone = torch.stack([yes[:, k] * (1 - yes).prod(1) / (1 - yes[:, k]) for k in range(K)], dim=1)
    torch.testing.assert_close(alone / alone.sum(1, keepdim=True), logits.softmax(1))


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        (
            "label_smoothing",
            {"smoothing": 1.0},
            r"smoothing \(=1.0\) must be finite and at least 0",
        ),
        ("focal", {"gamma": -1}, r"gamma \(=-1\) must be finite and at least 0"),
        ("logit_norm", {"temperature": 0}, r"temperature \(=0\) must be finite and at least 0.001"),
        ("one_vs_rest", {"bias": 1}, r"bias \(=1\) must be true or false"),
        ("focal", {"alpha": 0.25}, r"focal.alpha: unknown parameter.*It takes: gamma, bias"),
    ],
)
def test_wrong_parameters_are_refused(name, params, message):
    with pytest.raises(ValueError, match=message):
        head(name, **params)
