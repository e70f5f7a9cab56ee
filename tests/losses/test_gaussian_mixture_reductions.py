"""GM and L-GM: what they reduce to, and the training rules around them."""

import math

import numpy as np
import pytest
import torch

from tests import oracles
from tests.losses.toy_inputs import D, K, head, inputs, numpy


def same_losses(ours, theirs, **tolerance):
    features, labels = inputs()
    for progress in (0.0, 0.4, 1.0):
        for a, b in zip(
            ours.loss(features, labels, progress=progress),
            theirs.loss(features, labels, progress=progress),
            strict=True,
        ):
            torch.testing.assert_close(a, b, **tolerance)


def test_alpha_0_is_gm():
    for covariance in ("identity", "spherical", "diagonal"):
        plain = head("gm", covariance=covariance)
        margin = head("lgm", covariance=covariance, alpha=0.0)
        margin.load_state_dict(plain.state_dict())
        same_losses(margin, plain, rtol=0.0, atol=0.0)


def test_alpha_0_lambda_0_is_softmax_with_the_centers_as_weights():
    gm, softmax = head("gm", likelihood_weight=0.0), head("softmax")
    softmax.linear.weight.data = gm.centers.detach().clone()
    softmax.linear.bias.data = -0.5 * gm.centers.detach().square().sum(1)
    same_losses(gm, softmax)
    features, _ = inputs()
    torch.testing.assert_close(gm.logits(features).softmax(1), softmax.logits(features).softmax(1))


def test_lemma_1_likelihood_regulariser_is_center_loss_and_a_constant():
    """−log N(f; mu_y, I) = ½‖f − c_y‖² + ½ D log 2π, equation 16 per image."""
    (features, labels), gm = inputs(), head("gm", likelihood_weight=1.0)
    center = oracles.center_regulariser(
        numpy(features), numpy(labels), numpy(gm.centers), weight=1.0
    )
    likelihood = gm.class_log_likelihood(features).gather(1, labels[:, None]).squeeze(1)
    np.testing.assert_allclose(
        -numpy(likelihood), center + 0.5 * D * math.log(2 * math.pi), rtol=1e-12
    )
    np.testing.assert_allclose(
        numpy(gm.loss(features, labels, progress=0.0).regulariser), center, rtol=1e-12
    )


def test_equal_variances_in_a_class_make_diagonal_spherical():
    spherical = head("lgm", covariance="spherical")
    diagonal = head("lgm", covariance="diagonal")
    diagonal.centers.data = spherical.centers.detach().clone()
    diagonal.log_var.data = spherical.log_var.detach().expand(K, D).clone()
    same_losses(diagonal, spherical)
    features, _ = inputs()
    torch.testing.assert_close(
        diagonal.class_log_likelihood(features), spherical.class_log_likelihood(features)
    )


@pytest.mark.parametrize("covariance", ["spherical", "diagonal"])
def test_variance_1_is_identity(covariance):
    plain, learned = head("lgm"), head("lgm", covariance=covariance)
    learned.centers.data = plain.centers.detach().clone()
    learned.log_var.data.zero_()
    same_losses(learned, plain)


def test_a_common_scale_of_space_and_variance_changes_no_posterior():
    (features, _), built = inputs(), head("gm", covariance="diagonal")
    before = built.logits(features).softmax(1)
    built.centers.data *= 3.0
    built.log_var.data += 2.0 * math.log(3.0)
    torch.testing.assert_close(built.logits(3.0 * features).softmax(1), before)


def test_equal_counts_are_uniform_priors():
    counted, uniform = head("gm", priors="counts"), head("gm")
    counted.start(torch.tensor([40, 40, 40]))
    torch.testing.assert_close(counted.log_prior, uniform.log_prior)
    uniform.start(torch.tensor([1, 2, 3]))
    assert torch.equal(uniform.log_prior, torch.full((K,), -math.log(K)).double())


@pytest.mark.parametrize("counts", [[0, 3, 4], [3, 4]])
def test_counts_that_give_no_prior_are_refused(counts):
    with pytest.raises(ValueError, match=r"class_counts \(=\[.*\]\) must be 3 numbers of at least"):
        head("gm", priors="counts").start(torch.tensor(counts))


def test_one_step_of_spherical_moves_as_equal_diagonal_ones_do():
    moved = {}
    for covariance in ("spherical", "diagonal"):
        built, (features, labels) = head("lgm", covariance=covariance), inputs()
        built.log_var.data.zero_()
        optimizer = torch.optim.SGD(built.parameter_groups(0.5))
        terms = built.loss(features, labels, progress=0.0)
        (terms.classification + terms.regulariser).mean().backward()
        optimizer.step()
        moved[covariance] = built.log_var.detach().mean(1)
    torch.testing.assert_close(moved["spherical"], moved["diagonal"])
    assert moved["spherical"].abs().min() > 0


@pytest.mark.parametrize("covariance", ["spherical", "diagonal"])
def test_collapsing_variances_stop_at_the_floor(covariance):
    """Features on their centers: the likelihood grows without bound as variances go to 0."""
    built = head(
        "gm",
        covariance=covariance,
        variance_floor=0.25,
        likelihood_weight=1.0,
        center_lr_ratio=1.0,
    )
    optimizer = torch.optim.SGD(built.parameter_groups(0.5))
    labels = torch.arange(K)
    for _ in range(100):
        features = built.centers.detach().clone()
        terms = built.loss(features, labels, progress=0.0)
        optimizer.zero_grad()
        (terms.classification + terms.regulariser).mean().backward()
        optimizer.step()
        built.after_step(features, labels)
    torch.testing.assert_close(built.log_var.exp(), torch.full_like(built.log_var, 0.25))


def test_a_variance_at_the_floor_can_grow_again():
    """Whatever clamp's gradient at its bound is: the floor is not in the graph."""
    built, (features, labels) = head("gm", covariance="diagonal", variance_floor=0.25), inputs()
    built.log_var.data.fill_(math.log(0.25) - 1.0)
    built.after_step(features, labels)
    terms = built.loss(10.0 * features, labels, progress=0.0)
    (terms.classification + terms.regulariser).mean().backward()
    assert (built.log_var.grad < 0).any()


def test_parameter_groups():
    built = head("lgm", covariance="spherical", center_lr_ratio=0.2, center_weight_decay=1e-3)
    centers, log_var = built.parameter_groups(0.05)
    assert centers["params"] == [built.centers]
    assert centers["lr"] == pytest.approx(0.01)
    assert centers["weight_decay"] == 1e-3
    assert log_var["params"] == [built.log_var]
    assert log_var["lr"] == pytest.approx(0.01 / D)
    assert log_var["weight_decay"] == 0.0
    (only,) = head("lgm").parameter_groups(0.05)
    assert only["weight_decay"] == 0.0


def test_training_without_decay_leaves_unused_centers_alone():
    """The trainer's own decay does not reach the centers."""
    built = head("gm")
    optimizer = torch.optim.SGD(built.parameter_groups(1.0), weight_decay=0.5)
    before = built.centers.detach().clone()
    built.centers.grad = torch.zeros_like(built.centers)
    optimizer.step()
    assert torch.equal(built.centers, before)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"alpha": -1}, r"alpha \(=-1\) must be finite and at least 0\."),
        ({"alpha": True}, r"alpha \(=True\) must be a number\."),
        ({"alpha": float("inf")}, r"alpha \(=inf\) must be finite"),
        ({"alpha": float("nan")}, r"alpha \(=nan\) must be finite"),
        ({"alpha_schedule": "step"}, r"alpha_schedule \(='step'\).* did you mean 'steps'\?"),
        ({"likelihood_weight": -1e-9}, r"likelihood_weight \(=-1e-09\) must be finite"),
        ({"likelihood_weight_schedule": 3}, r"likelihood_weight_schedule \(=3\) must be one of"),
        ({"schedule_until": 2}, r"schedule_until \(=2\) .* at most 1\."),
        ({"covariance": "full"}, r"covariance \(='full'\).* identity, spherical, diagonal"),
        ({"variance_floor": 0.0}, r"variance_floor \(=0.0\) .* at least 1e-12 and at most 1"),
        ({"priors": "empirical"}, r"priors \(='empirical'\) must be one of uniform, counts"),
        ({"center_init": "zero"}, r"center_init \(='zero'\).* did you mean 'zeros'\?"),
        ({"center_lr_ratio": -1}, r"center_lr_ratio \(=-1\) must be finite"),
        ({"center_weight_decay": "1e-3"}, r"center_weight_decay \(='1e-3'\) must be a number"),
    ],
)
def test_refuses(params, message):
    with pytest.raises(ValueError, match=message):
        head("lgm", **params)
