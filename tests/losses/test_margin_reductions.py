"""Margin losses: what they reduce to, and what does not move them."""

import pytest
import torch

from tests.losses.toy_inputs import COSINE, K, head, inputs


def same(one, other, *, progress=(0.0, 0.4, 1.0)):
    """Equal losses, logits and gradients to the features."""
    one.load_state_dict(other.state_dict(), strict=False)
    for at in progress:
        features, labels = inputs(spread=2.0)
        features.requires_grad_()
        results = []
        for built in (one, other):
            loss = built.loss(features, labels, progress=at).classification
            (gradient,) = torch.autograd.grad(loss.sum(), features)
            results.append((loss, gradient, built.logits(features)))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("cosface", {"margin": 0.0, "scale": 20.0}), ("normface", {"scale": 20.0})),
        (("arcface", {"margin_rad": 0.0, "scale": 20.0}), ("cosface", {"margin": 0, "scale": 20})),
        (("a_softmax", {"margin": 1}), ("modified_softmax", {})),
        (("a_softmax", {"anneal_base": 1e18, "anneal_min": 1e18}), ("modified_softmax", {})),
        (("fnorm_sphereface", {"margin": 1, "scale": 9.0}), ("normface", {"scale": 9.0})),
        (
            ("fnorm_sphereface", {"anneal_min": 1e18, "scale": 9.0}),
            ("cosface", {"margin": 0.0, "scale": 9.0}),
        ),
        (
            ("l_softmax", {"margin": 1, "anneal_min": 0.0}),
            ("l_softmax", {"margin": 3, "anneal_min": 1e18}),
        ),
        (("weighted_softmax", {"class_weights": [2.0, 2.0, 2.0]}), ("softmax", {})),
        (("l2_softmax", {"learn_radius": True}), ("l2_softmax", {})),
    ],
    ids=lambda case: case[0],
)
def test_reductions(one, other):
    same(head(one[0], **one[1]), head(other[0], **other[1]))


def test_l_softmax_with_m_1_is_softmax_without_bias():
    ours, softmax = head("l_softmax", margin=1), head("softmax", bias=False)
    softmax.linear.weight.data = ours.weight.detach().clone()
    same(ours, softmax)


def test_weights_of_norm_1_make_l_softmax_a_softmax():
    settings = {"margin": 3, "anneal_base": 2.0, "anneal_gamma": 0.0}
    ours, other = head("l_softmax", **settings), head("a_softmax", **settings, anneal_min=0.0)
    ours.weight.data = torch.nn.functional.normalize(ours.weight.data)
    other.load_state_dict(ours.state_dict())
    same(ours, other)


def test_features_of_the_scales_norm_make_a_softmax_fnorm():
    ours, other = head("a_softmax"), head("fnorm_sphereface", scale=5.0)
    other.load_state_dict(ours.state_dict())
    features, labels = inputs()
    features = 5.0 * torch.nn.functional.normalize(features)
    for a, b in zip(
        ours.loss(features, labels, progress=0.7),
        other.loss(features, labels, progress=0.7),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_l2_softmax_is_softmax_on_the_sphere_and_normface_when_the_weights_are_there_too():
    ours, softmax = head("l2_softmax", radius=6.0), head("softmax")
    softmax.linear.load_state_dict(ours.linear.state_dict())
    features, labels = inputs()
    on_sphere = 6.0 * torch.nn.functional.normalize(features)
    torch.testing.assert_close(
        ours.loss(features, labels, progress=0.0).classification,
        softmax.loss(on_sphere, labels, progress=0.0).classification,
    )
    plain, normface = head("l2_softmax", radius=6.0, bias=False), head("normface", scale=6.0)
    plain.linear.weight.data = torch.nn.functional.normalize(normface.weight.detach())
    torch.testing.assert_close(plain.logits(features), normface.logits(features))


@pytest.mark.parametrize("name", COSINE)
def test_logits_have_no_margin_and_training_takes_it_off_the_true_class_alone(name):
    built, (features, labels) = head(name), inputs()
    training = built.training_logits(features, labels, progress=1.0)
    logits, true = built.logits(features), torch.nn.functional.one_hot(labels, K).bool()
    torch.testing.assert_close(training[~true], logits[~true])
    assert (training[true] <= logits[true] + 1e-12).all()
    if name not in ("modified_softmax", "normface"):
        assert (training[true] < logits[true] - 1e-6).all()


@pytest.mark.parametrize("name", ["fnorm_sphereface", "normface", "cosface", "arcface"])
def test_length_of_features_and_weights_does_not_count(name):
    built, (features, labels) = head(name), inputs()
    before = built.loss(features, labels, progress=0.9).classification
    built.weight.data *= torch.tensor([[0.5], [3.0], [7.0]])
    after = built.loss(20.0 * features, labels, progress=0.9).classification
    torch.testing.assert_close(after, before)
