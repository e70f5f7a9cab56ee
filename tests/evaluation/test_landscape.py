"""Boundaries and gradients of heads against closed forms and independent root finding."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from robustloss.evaluation.landscape import gradient_norms, landscape_arrays
from robustloss.losses import LOSSES, build_loss
from robustloss.losses.center import CenterHead

D, K = 3, 4


def features(seed=0, each=10, dim=D):
    rng = np.random.default_rng(seed)
    labels = np.arange(each * K) % K
    means = 4.0 * rng.normal(size=(K, dim))
    return (means[labels] + 0.1 * rng.normal(size=(len(labels), dim))).astype(np.float32), labels


def trained(name, dim=D, **params):
    torch.manual_seed(0)
    head = build_loss(name, feature_dim=dim, num_classes=K, **params)
    x, y = features(dim=dim)
    head.start(torch.full((K,), 10))
    vectors = head.class_vectors()
    if vectors is not None and vectors.requires_grad:
        means = np.stack([x[y == k].mean(0) for k in range(K)])
        vectors.data.copy_(torch.from_numpy(means))
    head.fit(torch.from_numpy(x), torch.from_numpy(y))
    return head.eval(), x, y


def positions(name, dim=D, **params):
    head, x, y = trained(name, dim, **params)
    return landscape_arrays(head, name, params, x, y, {})


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.3, 1.0])
def test_lgm_takes_a_known_share_of_the_way(alpha):
    found = positions("lgm", alpha=alpha)
    assert found["margin_pairs"].tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    share = 1 / (1 + math.sqrt(1 + alpha))  # (1 + alpha) t² = (1 − t)²
    wanted = [[0.5, share, 1 - share]] * 6
    np.testing.assert_allclose(found["margin_positions"], wanted, atol=1e-4)
    np.testing.assert_allclose(found["margin_closed"], wanted, atol=1e-4)


def test_cosface_boundaries_are_where_another_root_finder_puts_them():
    params = {"scale": 10.0, "margin": 0.2}
    head, x, y = trained("cosface", **params)
    found = landscape_arrays(head, "cosface", params, x, y, {})
    means = [x[y == k].mean(0, dtype=np.float64) for k in range(K)]
    weight = head.weight.detach().double().numpy()

    def cosine(point, k):
        return point @ weight[k] / np.linalg.norm(point) / np.linalg.norm(weight[k])

    for (a, b), measured in zip(found["margin_pairs"], found["margin_positions"], strict=True):
        for place, shift in zip(measured, (0.0, -0.2, 0.2), strict=True):

            def gap(t, a=a, b=b, shift=shift):
                point = means[a] + t * (means[b] - means[a])
                return cosine(point, a) - cosine(point, b) + shift

            if gap(0.0) * gap(1.0) < 0:
                assert place == pytest.approx(brentq(gap, 0.0, 1.0), abs=1e-4)


@pytest.mark.parametrize("name", [n for n in LOSSES if n not in ("contrastive", "triplet")])
def test_what_a_head_computes_is_its_closed_form(name):
    found = positions(name)
    assert np.isfinite(found["margin_positions"][:, 0]).any()
    assert np.array_equal(
        np.isfinite(found["margin_positions"]), np.isfinite(found["margin_closed"])
    )
    np.testing.assert_allclose(found["margin_positions"], found["margin_closed"], atol=1e-4)


@pytest.mark.parametrize("name", ["contrastive", "triplet"])
def test_a_pair_loss_has_a_boundary_but_no_margin(name):
    found = positions(name)
    assert np.isfinite(found["margin_positions"][:, 0]).all()
    assert np.isnan(found["margin_positions"][:, 1:]).all()
    assert np.isnan(found["margin_closed"]).all()
    if name == "contrastive":
        np.testing.assert_allclose(found["margin_positions"][:, 0], 0.5, atol=1e-4)


def test_in_the_plane_the_gaps_stand_on_the_grid():
    head, x, y = trained("lgm", dim=2)
    grid = {"grid_x": np.linspace(-9, 9, 7), "grid_y": np.linspace(-8, 8, 5)}
    found = landscape_arrays(head, "lgm", {}, x, y, grid)
    a, b = found["boundary_pair"]
    means = np.stack([x[y == k].mean(0) for k in range(K)])
    gaps = [(np.linalg.norm(means[i] - means[j]), i, j) for i in range(K) for j in range(i)]
    assert {a, b} == set(min(gaps)[1:])
    mu = head.centers.detach().numpy()
    point = np.array([grid["grid_x"][2], grid["grid_y"][3]])
    d_a, d_b = (0.5 * ((point - mu[k]) ** 2).sum() for k in (a, b))
    for name, wanted in (("free", d_b - d_a), ("a", d_b - 2 * d_a), ("b", 2 * d_b - d_a)):
        assert found[f"boundary_{name}"].shape == (5, 7)
        assert found[f"boundary_{name}"][3, 2] == pytest.approx(wanted, rel=1e-4)
        assert found[f"closed_{name}"][3, 2] == pytest.approx(wanted, rel=1e-4)


def test_gradients_of_center_loss_by_hand():
    torch.manual_seed(0)
    head = CenterHead(D, K, center_weight=0.5)
    x, y = features()
    z = torch.from_numpy(x)
    posterior = head.logits(z).softmax(1)
    posterior[torch.arange(len(y)), torch.from_numpy(y)] -= 1.0
    slope = posterior @ head.linear.weight + 0.5 * (z - head.centers[torch.from_numpy(y)])
    np.testing.assert_allclose(
        gradient_norms(head, x, y), slope.norm(dim=1).detach().numpy(), rtol=1e-4
    )


def test_a_pair_loss_is_asked_about_batches_of_every_class(monkeypatch):
    head, x, y = trained("triplet")
    order = np.argsort(y, kind="stable")  # the file has one class after the other
    x, y = np.tile(x[order], (20, 1)), np.repeat(y[order], 1).tolist() * 20
    y = np.array(y)
    seen = []
    original = head.loss
    monkeypatch.setattr(
        head, "loss", lambda f, t, progress: (seen.append(t), original(f, t, progress=progress))[1]
    )
    norms = gradient_norms(head, x, y)
    assert norms.shape == (800,)
    assert all(torch.bincount(t, minlength=K).tolist() == [32] * K for t in seen[:-1])
    assert sum(len(t) for t in seen) == 800


def test_a_loss_of_the_users_own_has_no_closed_form():
    head, x, y = trained("softmax")
    found = landscape_arrays(head, "mine.py:Mine", {}, x, y, {})
    assert np.isnan(found["margin_closed"]).all()
    assert np.isfinite(found["margin_positions"]).any()


def test_the_callers_random_state_stays():
    head, x, y = trained("triplet")
    before = torch.get_rng_state()
    landscape_arrays(head, "triplet", {}, x, y, {})
    assert torch.equal(before, torch.get_rng_state())


def test_class_vectors_of_a_wrong_shape_are_refused_and_not_drawn(monkeypatch):
    head, x, y = trained("softmax")
    monkeypatch.setattr(type(head), "class_vectors", lambda self: self.linear.weight[0])
    with pytest.raises(ValueError, match=r"class_vectors\(\) \(shape \(3,\)\) must have shape"):
        landscape_arrays(head, "softmax", {}, x, y, {})
