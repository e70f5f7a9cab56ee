"""Values and gradients of the margin losses: slow oracles, and pytorch-metric-learning."""

import warnings

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning.distances import CosineSimilarity

from tests import margin_oracles as oracles
from tests.losses.toy_inputs import D, K, N, head, inputs, numpy

M_S = {"margin": 3, "anneal_base": 4.0, "anneal_gamma": 1.0, "anneal_power": 1.0}
"""lambda = max(anneal_min, 4 / (1 + progress · anneal_steps)): 4 at 0, .8 at .5, with 8 steps."""
STEPS = {"anneal_steps": 8.0, "anneal_min": 0.5}


def lam(progress):
    return max(0.5, 4.0 / (1.0 + 8.0 * progress))


ORACLES = {
    "l_softmax": (M_S | STEPS, lambda f, y, w, p: oracles.l_softmax(f, y, w, 3, lam(p))),
    "a_softmax": (M_S | STEPS, lambda f, y, w, p: oracles.a_softmax(f, y, w, 3, lam(p))),
    "fnorm_sphereface": (
        M_S | STEPS | {"scale": 7.0},
        lambda f, y, w, p: oracles.fnorm_sphereface(f, y, w, 3, lam(p), 7.0),
    ),
    "modified_softmax": ({}, lambda f, y, w, p: oracles.a_softmax(f, y, w, 1, 0.0)),
    "normface": ({"scale": 8.0}, lambda f, y, w, p: oracles.cosface(f, y, w, 8.0, 0.0)),
    "cosface": ({}, lambda f, y, w, p: oracles.cosface(f, y, w, 30.0, 0.35)),
    "arcface": ({}, lambda f, y, w, p: oracles.arcface(f, y, w, 64.0, 0.5)),
}


THETAS_RAD = torch.linspace(0.1, 3.1, N, dtype=torch.float64)
"""From the true class's weight almost to its opposite: every branch of psi and of ArcFace."""


def around_the_weights(weight, seed=0):
    """Image i of norm 1 to 3 at THETAS_RAD[i] from the weight of its class."""
    noise, labels = inputs(seed=seed)
    true = torch.nn.functional.normalize(weight.detach()[labels])
    across = torch.nn.functional.normalize(noise - (noise * true).sum(1, keepdim=True) * true)
    rotated = THETAS_RAD.cos()[:, None] * true + THETAS_RAD.sin()[:, None] * across
    return torch.linspace(1.0, 3.0, N, dtype=torch.float64)[:, None] * rotated, labels


def test_the_inputs_reach_every_branch():
    built = head("arcface")
    features, labels = around_the_weights(built.weight)
    thetas = numpy(built.cosines(features)[torch.arange(N), labels].arccos())
    np.testing.assert_allclose(thetas, THETAS_RAD, rtol=1e-9)
    for m in (2, 3, 4, 5):
        assert set(np.floor(m * thetas / np.pi)) == set(range(m))
    assert (thetas > np.pi - 0.5).sum() >= 2


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_loss_is_that_of_the_paper(name, progress):
    params, oracle = ORACLES[name]
    built = head(name, **params)
    features, labels = around_the_weights(built.weight)
    terms = built.loss(features, labels, progress=progress)
    wanted = oracle(numpy(features), numpy(labels), numpy(built.weight), progress)
    np.testing.assert_allclose(numpy(terms.classification), wanted, rtol=1e-9, atol=1e-10)
    assert not terms.regulariser.any()


@pytest.mark.parametrize("learn_radius", [False, True])
def test_l2_softmax(learn_radius):
    built, (features, labels) = head("l2_softmax", learn_radius=learn_radius), inputs()
    wanted = oracles.l2_softmax(
        numpy(features),
        numpy(labels),
        numpy(built.linear.weight),
        numpy(built.linear.bias),
        16.0,
    )
    loss = built.loss(features, labels, progress=0.3).classification
    np.testing.assert_allclose(numpy(loss), wanted, rtol=1e-10)


@pytest.mark.parametrize("weights", ["balanced", [1.0, 2.0, 5.0]])
def test_weighted_softmax(weights):
    counts = np.array([10, 40, 50])
    built, (features, labels) = head("weighted_softmax", class_weights=weights), inputs()
    built.start(torch.tensor(counts))
    v = 1.0 / counts if weights == "balanced" else np.array(weights)
    wanted = oracles.weighted_softmax(numpy(built.logits(features)), numpy(labels), v, counts)
    loss = built.loss(features, labels, progress=0.0).classification
    np.testing.assert_allclose(numpy(loss), wanted, rtol=1e-10)


def test_weighted_softmax_over_the_training_set_is_torchs_weighted_mean():
    counts, v = torch.tensor([2, 4, 6]), [3.0, 1.0, 2.0]
    built, (features, _) = head("weighted_softmax", class_weights=v), inputs()
    built.start(counts)
    labels = torch.arange(K).repeat_interleave(counts)
    torch.testing.assert_close(
        built.loss(features, labels, progress=0.0).classification.mean(),
        torch.nn.functional.cross_entropy(
            built.logits(features), labels, weight=torch.tensor(v, dtype=torch.float64)
        ),
    )


NO_ANNEALING = {"anneal_base": 0.0, "anneal_min": 0.0}
PML = {
    "cosface": (
        {"scale": 64.0, "margin": 0.35},
        lambda: pml.CosFaceLoss(K, D, margin=0.35, scale=64.0),
    ),
    "arcface": (
        {"scale": 20.0, "margin_rad": float(np.radians(28.6))},
        lambda: pml.ArcFaceLoss(K, D, margin=28.6, scale=20.0),
    ),
    "normface": (
        {"scale": 12.5},
        lambda: pml.NormalizedSoftmaxLoss(K, D, temperature=0.08, distance=CosineSimilarity()),
    ),
    "modified_softmax": ({}, lambda: pml.SphereFaceLoss(K, D, margin=1, scale=1.0)),
    **{
        f"l_softmax {m}": (
            {"margin": m, **NO_ANNEALING},
            lambda m=m: pml.LargeMarginSoftmaxLoss(K, D, margin=m, scale=1.0),
        )
        for m in (1, 2, 3, 4, 5)
    },
    **{
        f"a_softmax {m}": (
            {"margin": m, **NO_ANNEALING},
            lambda m=m: pml.SphereFaceLoss(K, D, margin=m, scale=1.0),
        )
        for m in (1, 2, 3, 4, 5)
    },
}
"""No annealing there; margins in degrees; a scale is 1 / temperature."""


@pytest.mark.parametrize("case", PML)
@pytest.mark.parametrize("seed", range(5))
def test_value_and_gradients_of_pytorch_metric_learning(case, seed):
    params, build = PML[case]
    ours = head(case.split()[0], seed=seed, **params)
    with warnings.catch_warnings():  # it hands tensors to scipy, which numpy 2 warns of
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = build().double()
    theirs.W.data = ours.weight.detach().T.clone()
    features, labels = around_the_weights(ours.weight, seed=seed)
    features.requires_grad_()
    loss = ours.loss(features, labels, progress=1.0).classification.mean()
    other = theirs(features, labels)
    torch.testing.assert_close(loss, other, rtol=1e-9, atol=1e-10)
    gradients = torch.autograd.grad(loss, [features, ours.weight])
    of_features, of_weight = torch.autograd.grad(other, [features, theirs.W])
    torch.testing.assert_close(gradients[0], of_features, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(gradients[1], of_weight.T, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(ours.logits(features), theirs.get_logits(features))
