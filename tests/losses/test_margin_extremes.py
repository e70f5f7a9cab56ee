"""Margin losses where formulas lose their slope, and the conventions of clamp."""

import math

import pytest
import torch

from robustloss.losses import LOSSES
from tests.losses.toy_inputs import COSINE, MULTIPLE, NO_LAMBDA, D, K, head, inputs


def extreme_inputs(built, dtype):
    """Batches where cosines are ±1, and where nothing has a direction."""
    labels = torch.arange(K).repeat(2)
    vectors = built.class_vectors().detach()
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    plain = torch.randn(2 * K, D, generator=torch.Generator().manual_seed(3)).to(dtype)
    for size in (1e-6, 1.0, 1e4):
        yield size * vectors[labels], labels
        yield -size * vectors[labels], labels
        yield size * plain, labels
    yield torch.zeros(2 * K, D, dtype=dtype), labels


def settings_of(name):
    """The loss as it is by default, and with the margin at full strength from the start."""
    return [{}, NO_LAMBDA] if name in MULTIPLE else [{}]


@pytest.mark.parametrize("name", [*COSINE, "l2_softmax", "weighted_softmax"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_extremes_give_numbers(name, dtype):
    for params in settings_of(name):
        built = head(name, **params).to(dtype)
        for zero_weights in (False, True):
            batches = list(extreme_inputs(built, dtype))
            if zero_weights:
                built.class_vectors().data.zero_()
            for features, labels in batches:
                features = features.clone().requires_grad_()
                for progress in (0.0, 1.0):
                    loss = built.loss(features, labels, progress=progress).classification
                    assert loss.isfinite().all()
                    leaves = [features, *built.parameters()]
                    for grad in torch.autograd.grad(loss.sum(), leaves, allow_unused=True):
                        assert grad is None or grad.isfinite().all()


@pytest.mark.parametrize("name", COSINE)
def test_gradient_at_a_class_weight_is_bounded_by_its_formula(name):
    """‖d z / d f‖ <= r m / ‖f‖ and one more for the length, whatever 1 − cos² rounds to."""
    built = head(name, **settings_of(name)[-1]).float()
    scale = float(torch.as_tensor(getattr(built, "scale", 1.0)).detach())
    weight_norm = float(built.weight.detach().norm(dim=1).max()) if name == "l_softmax" else 1.0
    steepest = {"arcface": 1.0, "cosface": 1.0}.get(name, getattr(built, "margin", 1))
    features, labels = list(extreme_inputs(built, torch.float32))[3]
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    for nudge in (0.0, 1e-7, 1e-5, 1e-3):
        moved = (features + nudge * noise).requires_grad_()
        logits = built.training_logits(moved, labels, progress=1.0)
        (grad,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), moved)
        bound = scale * weight_norm * (steepest + 2 * steepest)
        assert grad.norm(dim=1).max() <= bound * 1.01


@pytest.mark.parametrize("name", LOSSES)
def test_second_derivatives_are_right(name):
    built = head(name)
    if built.batching == "balanced":
        pytest.skip("pairs have kinks")
    features, labels = inputs()
    features = features[:4].requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda x: built.loss(x, labels[:4], progress=1.0).classification, features
    )


@pytest.mark.parametrize("name", [*COSINE, "l2_softmax"])
def test_gradients_of_every_parameter_are_right(name):
    built, (features, labels) = head(name), inputs()

    def loss(*values):
        state = dict(zip(dict(built.named_parameters()), values, strict=True))
        head_of = _Terms(built, labels)
        return torch.func.functional_call(
            head_of, {f"built.{key}": value for key, value in state.items()}, (features,)
        )

    assert torch.autograd.gradcheck(loss, tuple(built.parameters()))


class _Terms(torch.nn.Module):
    def __init__(self, built, labels):
        super().__init__()
        self.built, self.labels = built, labels

    def forward(self, features):
        return self.built.loss(features, self.labels, progress=0.8).classification


class _Clamp(torch.autograd.Function):
    """clamp whose gradient at its bounds is 1 (torch 2.13) or 0 (torch 2.14)."""

    at_bound = 1.0

    @staticmethod
    def forward(ctx, value, low, high):
        low, high = (-math.inf if low is None else low), (math.inf if high is None else high)
        at_bound = ((value == low) | (value == high)) * _Clamp.at_bound
        ctx.save_for_backward(((value > low) & (value < high)) + at_bound)
        return torch.minimum(torch.maximum(value, torch.as_tensor(low)), torch.as_tensor(high))

    @staticmethod
    def backward(ctx, grad):
        (share,) = ctx.saved_tensors
        return grad * share, None, None


torch_clamp = torch.clamp


def _clamp(value, min=None, max=None):
    if not value.is_floating_point():
        return torch_clamp(value, min, max)
    return _Clamp.apply(value, min, max)


def clamp_with(at_bound, monkeypatch):
    monkeypatch.setattr(_Clamp, "at_bound", at_bound)
    for place in (torch, torch.Tensor):
        monkeypatch.setattr(place, "clamp", _clamp)
        monkeypatch.setattr(place, "clip", _clamp)
        monkeypatch.setattr(place, "clamp_min", lambda value, min: _clamp(value, min))
        monkeypatch.setattr(place, "clamp_max", lambda value, max: _clamp(value, None, max))


def gradients_at_extremes(name):
    found = []
    for params in settings_of(name):
        built = head(name, **params)
        if built.batching == "balanced":
            built.fit(*inputs())
            batches = [inputs(), inputs(seed=1)]
        else:
            batches = list(extreme_inputs(built, torch.float64))
        for features, labels in batches:
            features = features.clone().requires_grad_()
            terms = built.loss(features, labels, progress=1.0)
            total = (terms.classification + terms.regulariser).sum() + built.logits(features).sum()
            grads = torch.autograd.grad(total, [features, *built.parameters()], allow_unused=True)
            found += [grad for grad in grads if grad is not None]
    return found


@pytest.mark.parametrize("name", LOSSES)
def test_no_gradient_depends_on_clamps_convention(name, monkeypatch):
    found = [gradients_at_extremes(name)]
    for at_bound in (0.0, 1.0):
        clamp_with(at_bound, monkeypatch)
        found.append(gradients_at_extremes(name))
    for plain, newer, older in zip(*found, strict=True):
        assert torch.equal(plain, newer)
        assert torch.equal(plain, older)


@pytest.mark.parametrize("at_bound", [0.0, 1.0], ids=["torch 2.14", "torch 2.13"])
def test_the_patched_clamp_is_one(at_bound, monkeypatch):
    clamp_with(at_bound, monkeypatch)
    value = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], requires_grad=True)
    value.clamp(-1.0, 1.0).sum().backward()
    assert value.grad.tolist() == [0.0, at_bound, 1.0, at_bound, 0.0]
