"""GM and L-GM: closed forms, oracles, gradients."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import multivariate_normal

from tests import oracles
from tests.losses.toy_inputs import D, K, N, covariances, head, inputs, numpy

COVARIANCES = ["identity", "spherical", "diagonal"]
COUNTS = torch.tensor([1, 5, 14])
PRIORS = np.array([0.05, 0.25, 0.7])


def lgm(covariance: str, **params: object):
    """L-GM with alpha 0.7, lambda 0.3 and unequal priors."""
    params = {"alpha": 0.7, "likelihood_weight": 0.3, **params}
    built = head("lgm", covariance=covariance, priors="counts", **params)
    built.start(COUNTS)
    return built


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_likelihood_is_the_multivariate_normal(covariance):
    built, (features, _) = lgm(covariance), inputs()
    ours = numpy(built.class_log_likelihood(features))
    for k, matrix in enumerate(covariances(built)):
        normal = multivariate_normal(numpy(built.centers)[k], matrix)
        np.testing.assert_allclose(ours[:, k], normal.logpdf(numpy(features)), rtol=1e-11)
    assert built.density


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_posterior_is_bayes_rule(covariance):
    built, (features, _) = lgm(covariance), inputs()
    expected = oracles.gm_posterior(
        numpy(features), numpy(built.centers), covariances(built), PRIORS
    )
    ours = softmax(numpy(built.logits(features)), axis=1)
    np.testing.assert_allclose(ours, expected, rtol=1e-10)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_logits_are_likelihood_and_prior_up_to_one_constant(covariance):
    built, (features, _) = lgm(covariance), inputs()
    rest = built.logits(features) - built.class_log_likelihood(features) - built.log_prior
    torch.testing.assert_close(rest, torch.full_like(rest, 0.5 * D * math.log(2 * math.pi)))


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_loss_follows_equations_17_and_18(covariance):
    built, (features, labels) = lgm(covariance), inputs()
    terms = built.loss(features, labels, progress=0.5)
    classification, regulariser = oracles.gm_terms(
        numpy(features),
        numpy(labels),
        numpy(built.centers),
        covariances(built),
        PRIORS,
        alpha=0.7,
        weight=0.3,
    )
    np.testing.assert_allclose(numpy(terms.classification), classification, rtol=1e-10)
    np.testing.assert_allclose(numpy(terms.regulariser), regulariser, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_feature_gradient_is_equation_23(covariance):
    built = head("lgm", covariance=covariance, alpha=0.7, likelihood_weight=0.3)
    features, labels = inputs()
    terms = built.loss(features.requires_grad_(), labels, progress=0.5)
    (ours,) = torch.autograd.grad((terms.classification + terms.regulariser).sum(), features)
    expected = oracles.lgm_feature_gradient(
        numpy(features),
        numpy(labels),
        numpy(built.centers),
        covariances(built),
        alpha=0.7,
        weight=0.3,
    )
    np.testing.assert_allclose(numpy(ours), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_gradients_to_everything_learned(covariance):
    built, (features, labels) = lgm(covariance), inputs()
    names = [name for name, _ in built.named_parameters()]

    def total(x, *values):
        state = dict(zip(names, values, strict=True))
        terms = torch.func.functional_call(built, state, (x, labels))
        return terms.classification + terms.regulariser

    built.forward = lambda x, y: built.loss(x, y, progress=0.5)
    learned = [p.detach().clone().requires_grad_() for p in built.parameters()]
    assert torch.autograd.gradcheck(total, (features.requires_grad_(), *learned))


def test_margin_scales_the_true_distance_only():
    built, (features, labels) = head("lgm", alpha=2.0), inputs()
    logits = built.logits(features)
    row = torch.arange(N)
    distance = -math.log(K) - logits[row, labels]
    logits[row, labels] -= 2.0 * distance
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    terms = built.loss(features, labels, progress=0.0)
    torch.testing.assert_close(terms.classification, expected)


def test_larger_margin_is_a_larger_loss():
    features, labels = inputs()
    losses = [
        head("lgm", alpha=alpha).loss(features, labels, progress=0.0).classification
        for alpha in (0.0, 0.3, 1.0, 4.0)
    ]
    for smaller, larger in itertools.pairwise(losses):
        assert (larger > smaller).all()


def test_margin_stays_out_of_logits_and_likelihood():
    (features, _), plain, margin = inputs(), head("gm"), head("lgm", alpha=3.0)
    margin.load_state_dict(plain.state_dict())
    assert torch.equal(margin.logits(features), plain.logits(features))
    assert torch.equal(margin.class_log_likelihood(features), plain.class_log_likelihood(features))


def test_schedules_drive_alpha_and_lambda():
    features, labels = inputs()
    scheduled = head(
        "lgm",
        alpha=1.0,
        alpha_schedule="steps",
        likelihood_weight=0.4,
        likelihood_weight_schedule="linear",
        schedule_until=0.5,
    )
    for progress, alpha, weight in ((0.0, 0.001, 0.0), (0.2, 0.01, 0.16), (0.5, 1.0, 0.4)):
        fixed = head("lgm", alpha=alpha, likelihood_weight=weight)
        for ours, theirs in zip(
            scheduled.loss(features, labels, progress=progress),
            fixed.loss(features, labels, progress=progress),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs)


def test_far_features_do_not_overflow_where_exp_would():
    """The log domain: e^{-d} is 0 in float64 for every class here."""
    built, (features, labels) = head("lgm").float(), inputs(spread=1e4)
    terms = built.loss(features.float(), labels, progress=0.0)
    exact = head("lgm").loss(features, labels, progress=0.0)
    torch.testing.assert_close(
        terms.classification.double(), exact.classification, rtol=1e-4, atol=1e-4
    )
    assert built.class_log_likelihood(features.float()).isfinite().all()
