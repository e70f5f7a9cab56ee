"""The closed forms of the decision boundaries against the heads, which compute them differently."""

import inspect
import math

import numpy as np
import pytest
import torch

from robustloss.losses import LOSSES, build_loss
from robustloss.losses.boundaries import closed_gaps

D, K, N = 4, 5, 300
CASES = [
    ("softmax", {}),
    ("softmax", {"bias": False}),
    ("weighted_softmax", {"class_weights": [1.0, 2.0, 3.0, 4.0, 5.0]}),
    ("center", {}),
    ("gm", {}),
    ("gm", {"covariance": "spherical"}),
    ("lgm", {}),
    ("lgm", {"alpha": 0.3, "covariance": "diagonal", "priors": "counts"}),
    ("lgm", {"alpha": 2.0, "covariance": "spherical", "alpha_schedule": "steps"}),
    ("l_softmax", {}),
    *[("l_softmax", {"margin": m, "anneal_min": 0.5}) for m in (1, 2, 3, 5)],
    ("a_softmax", {}),
    *[("a_softmax", {"margin": m, "anneal_min": 0.0}) for m in (1, 2, 3, 4)],
    ("modified_softmax", {}),
    ("fnorm_sphereface", {}),
    ("fnorm_sphereface", {"margin": 3, "scale": 12.0, "anneal_min": 0.0, "anneal_steps": 1e6}),
    ("l2_softmax", {}),
    ("l2_softmax", {"radius": 20.0, "learn_radius": True, "bias": False}),
    ("normface", {}),
    ("cosface", {}),
    ("cosface", {"scale": 64.0, "margin": 0.2}),
    ("arcface", {}),
    ("arcface", {"scale": 10.0, "margin_rad": 1.2}),
    ("mmc", {}),
    ("label_smoothing", {}),
    ("focal", {}),
    ("logit_norm", {"bias": False}),
    ("one_vs_rest", {}),
]


def trained(name, params):
    """A head whose every trained value has moved from where it started."""
    torch.manual_seed(0)
    head = build_loss(name, feature_dim=D, num_classes=K, **params)
    head.start(torch.tensor([5, 6, 7, 8, 9]))
    head.double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return head


def values(head):
    terms = {name: value.detach().numpy() for name, value in head.boundary_terms().items()}
    return head.class_vectors().detach().numpy(), terms


@pytest.mark.parametrize(("name", "params"), CASES)
def test_gaps_are_those_of_the_head(name, params):
    if name not in LOSSES:
        pytest.skip("not a built-in loss")
    head = trained(name, params)
    vectors, terms = values(head)
    points = 2.0 * torch.randn(N, D, dtype=torch.float64)
    for a, b in ((0, 1), (4, 2)):
        gaps = closed_gaps(name, params, vectors, points.numpy(), a, b, **terms)
        with torch.no_grad():
            free = head.logits(points)
            under_a, under_b = (
                head.training_logits(points, torch.full((N,), label), progress=1.0)
                for label in (a, b)
            )
        for gap, logits in zip(gaps, (free, under_a, under_b), strict=True):
            wanted = (logits[:, a] - logits[:, b]).numpy()
            assert np.abs(gap - wanted).max() < 1e-9


def test_every_case_has_a_loss():
    covered = {name for name, _ in CASES}
    without = {"contrastive", "triplet"}
    assert set(LOSSES) - without <= covered


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("l2_softmax", {"radius": 16.0}),
        ("normface", {"scale": 10.0}),
        ("cosface", {"scale": 30.0, "margin": 0.35}),
        ("arcface", {"scale": 64.0, "margin_rad": 0.5}),
        ("lgm", {"alpha": 1.0}),
        ("l_softmax", {"margin": 4, "anneal_gamma": 2.5e-5, "anneal_steps": 20_000}),
        ("a_softmax", {"margin": 4, "anneal_min": 5.0, "anneal_steps": 30_000}),
        ("fnorm_sphereface", {"scale": 30.0, "margin": 4, "anneal_min": 5.0}),
    ],
)
def test_parameters_left_out_are_the_defaults_of_the_head(name, given):
    taken = inspect.signature(LOSSES[name]).parameters
    assert {key: taken[key].default for key in given} == given
    vectors, points = np.eye(3), np.random.default_rng(0).normal(size=(20, 3))
    for gap, wanted in zip(
        closed_gaps(name, {}, vectors, points, 0, 1),
        closed_gaps(name, given, vectors, points, 0, 1),
        strict=True,
    ):
        assert np.array_equal(gap, wanted)


@pytest.mark.parametrize("name", ["contrastive", "triplet", "pml:ArcFaceLoss", "mine.py:Loss"])
def test_no_closed_form(name):
    assert closed_gaps(name, {}, np.eye(2), np.eye(2), 0, 1) is None


def test_a_point_at_the_origin_is_a_number():
    for name in LOSSES:
        gaps = closed_gaps(name, {}, np.eye(2), np.zeros((1, 2)), 0, 1)
        assert gaps is None or np.isfinite(gaps).all()


def angles_of_zero(gap, angles_rad):
    """Where a gap changes sign along a circle."""
    change = np.flatnonzero(np.diff(np.sign(gap)))
    return angles_rad[change]


@pytest.mark.parametrize(
    ("name", "params", "margin_rad"),
    [
        # Weights at ±60 degrees. The boundary under a label lies where
        (
            "cosface",
            {"margin": 0.2, "scale": 1.0},
            2 * math.asin(0.2 / (2 * math.sin(math.pi / 3))),
        ),
        ("arcface", {"margin_rad": 0.3, "scale": 1.0}, 0.3),
        # m (theta − x) = theta + x with theta = pi/3 and x the way from the middle
        ("a_softmax", {"margin": 2, "anneal_min": 0.0, "anneal_steps": 1e12}, 2 * math.pi / 9),
    ],
)
def test_width_of_the_margin(name, params, margin_rad):
    vectors = np.array([[0.5, math.sqrt(3) / 2], [0.5, -math.sqrt(3) / 2]])
    angles_rad = np.linspace(-math.pi / 3, math.pi / 3, 200_001)
    points = np.stack([np.cos(angles_rad), np.sin(angles_rad)], axis=1)
    free, under_a, under_b = closed_gaps(name, params, vectors, points, 0, 1)
    (middle,) = angles_of_zero(free + 1e-12, angles_rad)
    (upper,), (lower,) = angles_of_zero(under_a, angles_rad), angles_of_zero(under_b, angles_rad)
    assert middle == pytest.approx(0.0, abs=2e-5)
    assert upper - lower == pytest.approx(margin_rad, abs=3e-5)


def test_margin_of_lgm_on_the_segment_of_two_centers():
    alpha, length = 1.0, 4.0
    vectors = np.array([[0.0, 0.0], [length, 0.0]])
    along = np.linspace(0.0, 1.0, 100_001)
    points = np.stack([length * along, np.zeros_like(along)], axis=1)
    gaps = closed_gaps("lgm", {"alpha": alpha}, vectors, points, 0, 1)
    root = math.sqrt(1.0 + alpha)
    for gap, wanted in zip(gaps, (0.5, 1 / (1 + root), root / (1 + root)), strict=True):
        assert along[np.flatnonzero(gap <= 0)[0]] == pytest.approx(wanted, abs=2e-5)
