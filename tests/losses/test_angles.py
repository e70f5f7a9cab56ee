"""cos(m theta), psi, the ArcFace branch and lambda, at what the papers and authors publish."""

import math

import pytest
import torch

from robustloss.losses.angles import cos_of_multiple, psi
from robustloss.losses.schedules import Annealing
from tests.losses.toy_inputs import NO_LAMBDA, head


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 7])
def test_chebyshev_is_cos_of_the_multiple(m):
    theta = torch.linspace(0, math.pi, 1001, dtype=torch.float64)
    torch.testing.assert_close(
        cos_of_multiple(theta.cos(), m), (m * theta).cos(), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_psi_falls_without_a_jump_from_1_to_1_minus_2m(m):
    steps = 20_000
    theta = torch.linspace(0, math.pi, steps + 1, dtype=torch.float64)
    values = psi(theta.cos(), m)
    assert values[0] == pytest.approx(1.0)
    assert values[-1] == pytest.approx(1.0 - 2.0 * m)
    falls = -values.diff()
    assert (falls > -1e-12).all()
    assert falls.max() <= 1.001 * m * math.pi / steps  # |psi'| <= m: no jump at a border


@pytest.mark.parametrize("m", [2, 3, 4])
def test_slope_of_psi_is_that_of_the_formula_and_continuous(m):
    theta = torch.linspace(0.01, math.pi - 0.01, 4001, dtype=torch.float64)
    cosine = theta.cos().requires_grad_()
    (slope,) = torch.autograd.grad(psi(cosine, m).sum(), cosine)
    # d psi / d theta = −m |sin(m theta)|, and d cos / d theta = −sin theta
    wanted = m * (m * theta).sin().abs() / theta.sin()
    torch.testing.assert_close(slope, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("margin_rad", [0.1, 0.5, 1.0, 2.0])
def test_arcface_falls_all_the_way(margin_rad):
    built = head("arcface", margin_rad=margin_rad)
    theta = torch.linspace(0, math.pi, 5001, dtype=torch.float64)
    values = built.target_cosine(theta.cos(), 0.0)
    assert (values.diff() < 1e-7).all()  # 1e-6 · sin m is the step of the root's floor
    inside = theta <= math.pi - margin_rad
    torch.testing.assert_close(
        values[inside][1:], (theta + margin_rad).cos()[inside][1:], rtol=0, atol=1e-9
    )
    below = theta > math.pi - margin_rad
    torch.testing.assert_close(
        values[below], theta.cos()[below] - margin_rad * math.sin(margin_rad)
    )


@pytest.mark.parametrize(
    ("loss", "iteration", "published"),
    [
        ("l_softmax", 0, 1000.0),
        ("l_softmax", 1_000, 421.0),
        ("l_softmax", 5_000, 16.2),
        ("l_softmax", 10_000, 0.406),
        ("l_softmax", 20_000, 0.000686),
        ("a_softmax", 0, 1000.0),
        ("a_softmax", 100, 1000 / 13),
        ("a_softmax", 1_000, 1000 / 121),
        ("a_softmax", 2_000, 5.0),
        ("a_softmax", 28_000, 5.0),
        ("fnorm_sphereface", 1_000, 1000 / 121),
    ],
)
def test_lambda_at_the_published_iterations(loss, iteration, published):
    annealing = head(loss).annealing
    assert annealing.at(iteration / annealing.steps) == pytest.approx(published, rel=2e-3)


def test_lambda_of_the_authors_cifar_examples():
    for gamma, last in ((2e-5, 1000 * 1.4**-45), (1e-5, 1000 * 1.2**-45)):
        assert Annealing(1000.0, gamma, 45.0, 0.0, 20_000.0).at(1.0) == pytest.approx(last)


@pytest.mark.parametrize("progress", [-0.01, 1.01, float("nan")])
def test_progress_out_of_range_is_refused(progress):
    with pytest.raises(ValueError, match=r"progress \(=.*\) must lie in \[0, 1\]"):
        head("l_softmax").annealing.at(progress)


@pytest.mark.parametrize(
    ("loss", "params", "note"),
    [
        ("l_softmax", {}, "L-Softmax m 4: lambda from 1000 to 0.000687"),
        ("l_softmax", {"margin": 2, "anneal_min": 7.5}, "L-Softmax m 2: lambda from 1000 to 7.5"),
        ("l_softmax", {"margin": 1}, ""),
        ("a_softmax", {}, "A-Softmax m 4: lambda from 1000 to 5"),
        ("fnorm_sphereface", {"margin": 3}, "F-norm SphereFace m 3: lambda from 1000 to 5"),
        ("a_softmax", {"margin": 2, **NO_LAMBDA}, "A-Softmax m 2: lambda 0 throughout"),
        ("a_softmax", {"anneal_base": 8, "anneal_gamma": 0}, "A-Softmax m 4: lambda 8 throughout"),
        ("cosface", {}, ""),
    ],
)
def test_note(loss, params, note):
    assert head(loss, **params).note() == note
