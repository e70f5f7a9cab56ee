"""Distances to centers and where centers start."""

import math

import numpy as np
import pytest
import torch

from robustloss.losses import centers as module
from robustloss.losses.centers import draw_centers, half_squared_distances
from tests import oracles


def draw(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(7, 5, generator=generator, dtype=dtype)
    centers = torch.randn(4, 5, generator=generator, dtype=dtype)
    precision = torch.rand(4, 5, generator=generator, dtype=dtype) + 0.5
    return features, centers, precision


def test_matches_the_matrix_formula():
    features, centers, precision = draw()
    for weights in (None, precision):
        diagonal = np.ones((4, 5)) if weights is None else weights.numpy()
        expected = oracles.mahalanobis(
            features.numpy(), centers.numpy(), np.stack([np.diag(1 / row) for row in diagonal])
        )
        ours = half_squared_distances(features, centers, weights).numpy()
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


@pytest.mark.parametrize("chunk", [2**21, 40], ids=["one chunk", "two rows"])
def test_first_and_second_derivatives(monkeypatch, chunk):
    monkeypatch.setattr(module, "MAX_ELEMENTS", chunk)
    given = [value.requires_grad_() for value in draw()]
    assert torch.autograd.gradcheck(half_squared_distances, given)
    assert torch.autograd.gradgradcheck(half_squared_distances, given)
    assert torch.autograd.gradcheck(lambda f, c: half_squared_distances(f, c), given[:2])


def test_chunks_change_nothing(monkeypatch):
    features, centers, precision = (value.requires_grad_() for value in draw())
    whole = half_squared_distances(features, centers, precision)
    grads = torch.autograd.grad(whole.square().sum(), (features, centers, precision))
    monkeypatch.setattr(module, "MAX_ELEMENTS", 3 * centers.numel())
    parts = half_squared_distances(features, centers, precision)
    assert torch.equal(parts, whole)
    for ours, theirs in zip(
        torch.autograd.grad(parts.square().sum(), (features, centers, precision)),
        grads,
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_only_wanted_gradients_are_computed():
    features, centers, precision = draw()
    features.requires_grad_()
    half_squared_distances(features, centers, precision).sum().backward()
    expected = ((features.detach().unsqueeze(1) - centers) * precision).sum(1)
    torch.testing.assert_close(features.grad, expected)


def test_float32_is_right_next_to_a_far_center():
    """The expanded square loses every digit here; the difference loses none."""
    center = torch.full((1, 5), 1000.0)
    feature = center + 2.0**-10
    exact = 0.5 * 5 * 2.0**-20
    assert half_squared_distances(feature, center).item() == exact
    expanded = feature.square().sum() + center.square().sum() - 2 * (feature * center).sum()
    assert abs(0.5 * expanded.item() - exact) >= exact


def test_gradient_at_a_center_is_zero():
    _, centers, _ = draw(torch.float32)
    feature = centers[2:3].clone().requires_grad_()
    half_squared_distances(feature, centers)[0, 2].backward()
    assert torch.equal(feature.grad, torch.zeros_like(feature))


@pytest.mark.parametrize("dim", [2, 100])
def test_xavier_centers_have_norm_1_on_average(dim):
    torch.manual_seed(0)
    drawn = draw_centers("xavier", 2000, dim)
    assert drawn.abs().max() <= math.sqrt(3 / dim)
    assert drawn.square().sum(1).mean().item() == pytest.approx(1.0, rel=0.05)


def test_normal_and_zero_centers():
    torch.manual_seed(0)
    drawn = draw_centers("normal", 500, 40)
    assert drawn.std().item() == pytest.approx(1.0, rel=0.05)
    assert drawn.mean().item() == pytest.approx(0.0, abs=0.05)
    assert not draw_centers("zeros", 3, 2).any()
