"""Softmax cross-entropy."""

import math

import numpy as np
import pytest
import torch

from tests import oracles
from tests.losses.toy_inputs import D, head, inputs, numpy


def test_logits_and_loss_follow_the_formula():
    built, (features, labels) = head("softmax"), inputs()
    logits = oracles.softmax_logits(
        numpy(features), numpy(built.linear.weight), numpy(built.linear.bias)
    )
    terms = built.loss(features, labels, progress=0.5)
    np.testing.assert_allclose(numpy(built.logits(features)), logits, rtol=1e-12)
    np.testing.assert_allclose(
        numpy(terms.classification), oracles.cross_entropy(logits, numpy(labels)), rtol=1e-10
    )
    assert torch.equal(terms.regulariser, torch.zeros_like(terms.classification))


def test_likelihood_is_the_logit():
    built, (features, _) = head("softmax"), inputs()
    assert torch.equal(built.class_log_likelihood(features), built.logits(features))
    assert not built.density


def test_without_bias_the_origin_is_undecided():
    built = head("softmax", bias=False)
    origin = torch.zeros(1, D, dtype=torch.float64)
    terms = built.loss(origin, torch.tensor([1]), progress=0.0)
    assert terms.classification.item() == pytest.approx(math.log(3))


def test_shift_of_all_logits_changes_no_loss():
    built, (features, labels) = head("softmax"), inputs()
    before = built.loss(features, labels, progress=0.0).classification
    built.linear.bias.data += 7.0
    torch.testing.assert_close(
        built.loss(features, labels, progress=0.0).classification, before, rtol=0, atol=1e-12
    )


def test_bias_must_be_a_flag():
    with pytest.raises(ValueError, match=r"bias \(='no'\) must be true or false"):
        head("softmax", bias="no")
