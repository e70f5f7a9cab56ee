"""Lemma 1 of Wan et al. and their equation 23, between the heads themselves."""

import math

import pytest
import torch

from robustloss.losses import build_loss

K, N = 5, 40


def heads(dim, **params):
    """A center and a GM head with the same centers, in float64, and features with labels."""
    generator = torch.Generator().manual_seed(dim)
    center = build_loss("center", feature_dim=dim, num_classes=K, center_weight=1.0).double()
    mixture = build_loss("lgm", feature_dim=dim, num_classes=K, **params).double()
    with torch.no_grad():
        center.centers.copy_(torch.randn(K, dim, generator=generator, dtype=torch.float64))
        mixture.centers.copy_(center.centers)
    features = torch.randn(N, dim, generator=generator, dtype=torch.float64, requires_grad=True)
    return center, mixture, features, torch.arange(N) % K


@pytest.mark.parametrize("dim", [2, 100])
def test_lemma_1_between_the_heads(dim):
    """S = I, uniform prior: −log N(f; mu_y, I) = center loss + ½ D log 2π per image."""
    center, mixture, features, labels = heads(dim, likelihood_weight=1.0)
    pull = center.loss(features, labels, progress=1.0).regulariser
    negative = -mixture.class_log_likelihood(features)[torch.arange(N), labels]
    torch.testing.assert_close(negative, pull + 0.5 * dim * math.log(2 * math.pi), rtol=1e-12,
                               atol=0)  # fmt: skip
    # the trained term leaves the constant out, so the gradients are the same
    regulariser = mixture.loss(features, labels, progress=1.0).regulariser
    torch.testing.assert_close(regulariser, pull, rtol=1e-12, atol=0)
    ours, theirs = (torch.autograd.grad(x.sum(), features)[0] for x in (regulariser, pull))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dim", [2, 100])
@pytest.mark.parametrize("covariance", ["identity", "spherical", "diagonal"])
def test_equation_23(covariance, dim):
    """[(1 − p_y)(1 + alpha) + lambda] S_y⁻¹ (f − mu_y) − Σ_{k≠y} p_k S_k⁻¹ (f − mu_k)."""
    alpha, weight = 0.7, 0.3
    params = {"alpha": alpha, "likelihood_weight": weight, "covariance": covariance}
    _, mixture, features, labels = heads(dim, **params)
    variance = torch.ones(K, dim, dtype=torch.float64)
    if mixture.log_var is not None:
        with torch.no_grad():
            mixture.log_var.normal_(std=0.4, generator=torch.Generator().manual_seed(1))
            variance = mixture.log_var.exp().expand(K, dim)
    terms = mixture.loss(features, labels, progress=1.0)
    (gradient,) = torch.autograd.grad((terms.classification + terms.regulariser).sum(), features)
    with torch.no_grad():
        for row in range(N):
            y, arms = int(labels[row]), (features[row] - mixture.centers) / variance
            exponents = [
                -(1 + alpha * (k == y)) * float((arms[k] ** 2 * variance[k]).sum()) / 2
                - float(variance[k].log().sum()) / 2
                for k in range(K)
            ]
            p = torch.tensor(exponents, dtype=torch.float64).softmax(0)
            wanted = ((1 - p[y]) * (1 + alpha) + weight) * arms[y]
            for k in range(K):
                wanted = wanted - (p[k] * arms[k] if k != y else 0)
            torch.testing.assert_close(gradient[row], wanted, rtol=1e-9, atol=1e-10)
