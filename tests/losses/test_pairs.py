"""Contrastive and triplet losses: oracles, the well-kept library, mining, means."""

import numpy as np
import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers

from robustloss.losses import build_loss
from tests import oracles_pairs

D, K = 3, 4
MININGS = ("semi_hard", "batch_hard", "all")


def batch(seed=0, n=20, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    features = spread * torch.randn(n, D, generator=generator, dtype=torch.float64)
    return features, torch.arange(n) % K


def unit(features):
    return (features / features.norm(dim=1, keepdim=True)).numpy()


def build(name, **params):
    return build_loss(name, feature_dim=D, num_classes=K, **params).double()


def mean(head, features, labels, progress=1.0):
    return head.loss(features, labels, progress=progress).classification.mean()


@pytest.mark.parametrize("margin", [0.3, 1.0, 5.0])
def test_contrastive_is_that_of_the_paper(margin):
    features, labels = batch()
    wanted = oracles_pairs.contrastive(features.numpy(), labels.numpy(), margin)
    assert mean(build("contrastive", margin=margin), features, labels).item() == pytest.approx(
        wanted, abs=1e-12
    )


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("margin", [0.05, 0.2, 2.0])
def test_triplet_is_that_of_the_papers(mining, squared, margin):
    features, labels = batch(seed=1)
    wanted = oracles_pairs.triplet(unit(features), labels.numpy(), margin, mining, squared)
    head = build("triplet", mining=mining, squared=squared, margin=margin)
    # 1e-10: the norm of a feature has 1e-12 under its root
    assert mean(head, features, labels).item() == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("mining", MININGS)
def test_tuples_are_the_triplets_with_a_cost(mining):
    features, labels = batch(seed=2)
    terms = oracles_pairs.triplets(unit(features), labels.numpy(), 0.2, mining, True)
    head = build("triplet", mining=mining)
    assert int(head.tuples(features, labels)) == sum(term > 0 for term in terms)


def test_tuples_of_contrastive_are_pairs_counted_once():
    features = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [9, 0, 0], [0.1, 0, 0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1])
    # of one class: (0,1), (2,3); of two and nearer than 1: (0,3), (1,3); the others are far apart
    assert int(build("contrastive").tuples(features, labels)) == 4


def library(name, features, labels):
    """Value and gradient of pytorch-metric-learning's loss of the same meaning."""
    euclid = distances.LpDistance(normalize_embeddings=True, p=2, power=2)
    loss = losses.TripletMarginLoss(margin=0.2, distance=euclid)
    mined = None
    if name == "batch_hard":
        mined = miners.BatchHardMiner(distance=euclid)(features, labels)
    x = features.clone().requires_grad_()
    value = loss(x, labels, mined)
    return value, torch.autograd.grad(value, x)[0]


@pytest.mark.parametrize("mining", ["batch_hard", "all"])
def test_triplet_agrees_with_pytorch_metric_learning(mining):
    features, labels = batch(seed=3)
    value, slope = library(mining, features, labels)
    x = features.clone().requires_grad_()
    ours = mean(build("triplet", mining=mining), x, labels)
    torch.testing.assert_close(ours, value)
    torch.testing.assert_close(torch.autograd.grad(ours, x)[0], slope)


def test_contrastive_agrees_with_pytorch_metric_learning_where_its_hinge_is_ours():
    features, labels = batch(seed=4)
    x, y = (features.clone().requires_grad_() for _ in range(2))
    # Its hinge is linear, in d² here; without the pairs of two classes ½d² is half of it.
    plain = distances.LpDistance(normalize_embeddings=False, p=2, power=2)
    theirs = 0.5 * losses.ContrastiveLoss(pos_margin=0, neg_margin=0, distance=plain)(x, labels)
    ours = mean(build("contrastive", margin=0.0), y, labels)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(v, i)[0] for v, i in ((ours, y), (theirs, x))))


def test_semi_hard_agrees_with_the_miner_of_pytorch_metric_learning():
    """Its miner gives every negative within the margin beyond the positive; ours the nearest."""
    features, labels = batch(seed=6)
    euclid = distances.LpDistance(normalize_embeddings=True, p=2, power=2)
    margin = 9.0  # no squared distance on the unit sphere exceeds 4: every farther negative is in
    miner = miners.TripletMarginMiner(margin, type_of_triplets="semihard", distance=euclid)
    x, y = (features.clone().requires_grad_() for _ in range(2))
    squares, nearest = euclid(features), {}
    for a, p, n in zip(*(index.tolist() for index in miner(features, labels)), strict=True):
        best = nearest.setdefault((a, p), n)
        nearest[a, p] = min(best, n, key=lambda n, a=a: squares[a, n].item())
    for a in range(len(labels)):  # pairs without such a negative take the farthest
        for p in range(len(labels)):
            if a != p and labels[a] == labels[p] and (a, p) not in nearest:
                others = [n for n in range(len(labels)) if labels[n] != labels[a]]
                nearest[a, p] = max(others, key=lambda n, a=a: squares[a, n].item())
    mined = tuple(torch.tensor(i) for i in zip(*((*k, n) for k, n in nearest.items()), strict=True))
    theirs = losses.TripletMarginLoss(margin=0.2, distance=euclid)(y, labels, mined)
    ours = mean(build("triplet"), x, labels)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(v, i)[0] for v, i in ((ours, x), (theirs, y))))


@pytest.mark.parametrize("margin", [0.5, 1.0, 3.0])
def test_contrastive_is_the_square_of_the_hinge_of_pytorch_metric_learning(margin):
    features, labels = batch(seed=4)
    x, y = (features.clone().requires_grad_() for _ in range(2))
    plain = distances.LpDistance(normalize_embeddings=False, p=2, power=1)
    hinges = losses.ContrastiveLoss(
        pos_margin=0, neg_margin=margin, distance=plain, reducer=reducers.DoNothingReducer()
    )(y, labels)
    kinds = [hinges[kind]["losses"] for kind in ("pos_loss", "neg_loss")]
    theirs = sum(0.5 * kind[kind > 0].square().mean() for kind in kinds if (kind > 0).any())
    ours = mean(build("contrastive", margin=margin), x, labels)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(v, i)[0] for v, i in ((ours, x), (theirs, y))))


def test_semi_hard_negatives_lie_beyond_the_positive():
    # anchor 0, positive at distance 1, negatives at .5 (too hard), 1.2 (semi-hard) and 3 (easy)
    features = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 0.5, 0], [0, 1.2, 0], [0, 3, 0]]).double()
    labels = torch.tensor([0, 0, 1, 2, 3])
    head = build("triplet", normalise=False, squared=False, margin=0.5)
    cost = head.costs(torch.cdist(features, features).square(), labels[:, None] == labels, 1.0)[0]
    assert cost[0, 1].item() == pytest.approx(1.0 - 1.2 + 0.5)


def test_batch_hard_is_semi_hard_at_first_and_says_so():
    features, labels = batch(seed=5)
    hard, semi = build("triplet", mining="batch_hard", hard_from=0.25), build("triplet")
    early = mean(hard, features, labels, progress=0.24)
    torch.testing.assert_close(early, mean(semi, features, labels))
    assert mean(hard, features, labels, progress=0.25) > early
    assert hard.note() == "triplet batch_hard: semi-hard until 25 % of training"
    assert build("triplet").note() == ""


@pytest.mark.parametrize("name", ["contrastive", "triplet"])
@pytest.mark.parametrize("mining", MININGS)
def test_gradients_are_right_and_finite_where_features_coincide(name, mining):
    params = {"mining": mining} if name == "triplet" else {}
    head = build(name, **params)
    features, labels = batch(seed=6, n=8)
    assert torch.autograd.gradcheck(
        lambda x: head.loss(x, labels, progress=1.0).classification, features.requires_grad_()
    )
    same = torch.ones(8, D, dtype=torch.float64, requires_grad=True)
    for x in (same, torch.zeros(8, D, dtype=torch.float64, requires_grad=True)):
        (slope,) = torch.autograd.grad(mean(head, x, labels), x)
        assert slope.isfinite().all()


def test_without_a_tuple_the_loss_is_zero_and_connected():
    for name in ("contrastive", "triplet"):
        x = torch.randn(1, D, dtype=torch.float64, requires_grad=True)
        value = mean(build(name), x, torch.tensor([2]))
        assert value.item() == 0.0
        assert torch.equal(torch.autograd.grad(value, x)[0], torch.zeros_like(x))


def test_classes_are_told_by_the_nearest_mean_of_the_training_features():
    features, labels = batch(seed=7, n=40)
    head = build("contrastive")
    with pytest.raises(RuntimeError, match=r"has no logits before fit\(\)"):
        head.logits(features)
    assert head.class_vectors() is None
    head.fit(features, labels)
    x, y = features.numpy(), labels.numpy()
    means = np.stack([x[y == k].mean(0) for k in range(K)])
    np.testing.assert_allclose(head.class_vectors().numpy(), means, atol=1e-12)
    gaps = x[:, None] - means
    np.testing.assert_allclose(head.logits(features).numpy(), -0.5 * (gaps**2).sum(2), atol=1e-12)


def test_triplet_means_are_of_directions():
    features, labels = batch(seed=8, n=40)
    head = build("triplet")
    head.fit(features, labels)
    rows = unit(features)
    means = np.stack([rows[labels.numpy() == k].mean(0) for k in range(K)])
    np.testing.assert_allclose(head.class_vectors().numpy(), means, atol=1e-10)
    torch.testing.assert_close(head.logits(features), head.logits(7.0 * features))


def test_fit_names_an_empty_class():
    features, labels = batch()
    with pytest.raises(ValueError, match="class 3 has no training images"):
        build("triplet").fit(features, labels % 3)


def test_wrong_mining_is_refused():
    with pytest.raises(ValueError, match=r"mining \(='hard'\) must be one of semi_hard"):
        build("triplet", mining="hard")
