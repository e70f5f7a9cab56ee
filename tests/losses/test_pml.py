"""Losses of pytorch-metric-learning as heads; our own of the same name must agree with them."""

import math
import sys

import pytest
import torch

from robustloss.cells import keys
from robustloss.losses import build_loss
from robustloss.losses.contract.check import check_loss

D, K, N = 5, 4, 12
NAMES = (
    *("ArcFaceLoss", "CosFaceLoss", "LargeMarginSoftmaxLoss", "NormalizedSoftmaxLoss"),
    *("ProxyNCALoss", "SoftTripleLoss", "SphereFaceLoss", "SubCenterArcFaceLoss"),
)


def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N, D, generator=generator), torch.arange(N) % K


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_with_logits_per_image_keeps_the_contract(name):
    assert [check.detail for check in check_loss(f"pml:{name}") if not check.passed] == []


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            ("cosface", {"scale": 20.0, "margin": 0.2}),
            ("CosFaceLoss", {"scale": 20, "margin": 0.2}),
        ),
        (
            ("arcface", {"scale": 20.0, "margin_rad": math.radians(20)}),
            ("ArcFaceLoss", {"scale": 20, "margin": 20}),
        ),
    ],
)
def test_ours_and_theirs_are_the_same_loss(ours, theirs):
    first = build_loss(ours[0], feature_dim=D, num_classes=K, **ours[1]).double()
    second = build_loss(f"pml:{theirs[0]}", feature_dim=D, num_classes=K, **theirs[1]).double()
    second.inner.W.data = first.weight.data.T.clone()
    features, labels = batch()
    features = features.double()
    rows = [head.loss(features, labels, progress=1.0).classification for head in (first, second)]
    torch.testing.assert_close(*rows)
    torch.testing.assert_close(first.logits(features), second.logits(features))


def test_logits_that_are_distances_are_turned():
    head = build_loss("pml:ProxyNCALoss", feature_dim=D, num_classes=K)
    at_proxies = head.inner.proxies.detach()
    assert head.logits(at_proxies).argmax(1).tolist() == list(range(K))


def test_an_image_without_a_term_keeps_its_place():
    torch.manual_seed(0)
    head = build_loss("pml:ProxyNCALoss", feature_dim=D, num_classes=K, softmax_scale=100)
    features, labels = batch()
    terms = head.loss(features, labels, progress=1.0).classification
    assert terms.shape == (N,)
    gone = terms == 0  # it lets go of images whose probability underflows to 0
    assert gone.any()
    assert not gone.all()
    with_proxies = -head.logits(features) * 100
    wanted = torch.logsumexp(-with_proxies, 1) + with_proxies[torch.arange(N), labels]
    torch.testing.assert_close(terms[~gone], wanted[~gone], rtol=1e-4, atol=1e-4)


def test_terms_of_classes_are_not_taken_for_terms_of_images():
    with pytest.raises(ValueError, match="ProxyAnchorLoss gives no term per image"):
        build_loss("pml:ProxyAnchorLoss", feature_dim=D, num_classes=K)


def test_class_vectors_are_the_weights_or_the_proxies():
    for name, rows in (("CosFaceLoss", "W"), ("ProxyNCALoss", "proxies")):
        head = build_loss(f"pml:{name}", feature_dim=D, num_classes=K)
        found = getattr(head.inner, rows)
        assert torch.equal(head.class_vectors(), found.T if rows == "W" else found)
    assert build_loss("pml:SoftTripleLoss", feature_dim=D, num_classes=K).class_vectors() is None


def test_unknown_names_and_parameters_are_refused():
    with pytest.raises(ValueError, match=r"must be one of pml:ArcFaceLoss.*did you mean 'ArcFaceL"):
        build_loss("pml:ArcFacLoss", feature_dim=D, num_classes=K)
    with pytest.raises(ValueError, match="must be one of"):  # it has no get_logits
        build_loss("pml:TripletMarginLoss", feature_dim=D, num_classes=K)
    with pytest.raises(ValueError, match=r"scal: unknown parameter; did you mean 'scale'\?"):
        build_loss("pml:ArcFaceLoss", feature_dim=D, num_classes=K, scal=3)


def test_without_the_package_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
    with pytest.raises(ValueError, match=r"pip install 'robustloss\[pml\]'"):
        build_loss("pml:ArcFaceLoss", feature_dim=D, num_classes=K)


def test_the_version_of_the_package_decides_the_key(tmp_path):
    assert keys.plugin_digest("pml:ArcFaceLoss", tmp_path).startswith("pytorch-metric-learning 2.")
