"""What holds for every built-in loss, and for every one that will be added to LOSSES."""

import pytest
import torch

from robustloss.losses import LOSSES, build_loss
from robustloss.losses.base import LossHead, LossTerms

D, K, N = 6, 4, 16


@pytest.fixture(params=LOSSES)
def head(request) -> LossHead:
    torch.manual_seed(0)
    built = build_loss(request.param, feature_dim=D, num_classes=K)
    built.start(torch.tensor([5, 6, 7, 8]))
    if built.batching == "balanced":
        built.fit(*batch(seed=1))
    return built


def batch(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, D, generator=generator, dtype=dtype), torch.arange(N) % K


def total(terms: LossTerms) -> torch.Tensor:
    return terms.classification + terms.regulariser


def test_gradient_is_right(head):
    head.double()
    features, labels = batch(dtype=torch.float64)
    for progress in (0.1, 1.0):
        assert torch.autograd.gradcheck(
            lambda x, p=progress: total(head.loss(x, labels, progress=p)),
            features.requires_grad_(),
        )


def test_float32_agrees_with_float64(head):
    features, labels = batch()
    single = [*head.loss(features, labels, progress=0.5), head.class_log_likelihood(features)]
    head.double()
    wide = features.double()
    double = [*head.loss(wide, labels, progress=0.5), head.class_log_likelihood(wide)]
    for a, b in zip(single, double, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", [-100, -1, K, 1000])
def test_labels_of_no_class_are_refused(head, wrong):
    features, labels = batch()
    labels[3] = wrong
    with pytest.raises(ValueError, match=r"labels \(from .* must lie in \[0, 3\], the 4 classes"):
        head.loss(features, labels, progress=0.5)


def test_a_batch_is_its_parts(head):
    if head.batching == "balanced":
        pytest.skip("pairs cross the parts")
    features, labels = batch()
    whole = total(head.loss(features, labels, progress=0.5))
    parts = [
        total(head.loss(f, y, progress=0.5))
        for f, y in zip(features.split(5), labels.split(5), strict=True)
    ]
    torch.testing.assert_close(whole, torch.cat(parts))


def test_order_of_the_batch_does_not_matter(head):
    features, labels = batch()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        total(head.loss(features[order], labels[order], progress=0.5)),
        total(head.loss(features, labels, progress=0.5))[order],
    )


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 1e4])
@pytest.mark.parametrize("rounded", [False, True], ids=["float32", "bfloat16"])
def test_hostile_features_give_numbers(head, scale, rounded):
    features, labels = batch()
    features = scale * features
    features = (features.bfloat16().float() if rounded else features).requires_grad_()
    for progress in (0.0, 1.0):
        loss = total(head.loss(features, labels, progress=progress))
        grads = torch.autograd.grad(loss.sum(), [features, *head.parameters()], allow_unused=True)
        assert loss.isfinite().all()
        assert all(grad is None or grad.isfinite().all() for grad in grads)


def test_features_at_a_center_give_numbers(head):
    if not hasattr(head, "centers"):
        pytest.skip("no centers")
    assert head.centers.shape == (K, D)
    features = head.centers.detach().clone().requires_grad_()
    loss = total(head.loss(features, torch.arange(K), progress=1.0))
    (grad,) = torch.autograd.grad(loss.sum(), features)
    assert loss.isfinite().all()
    assert grad.isfinite().all()


def test_wrong_inputs_are_refused(head):
    features, labels = batch()
    for call in (head.logits, head.class_log_likelihood):
        with pytest.raises(ValueError, match=r"features \(shape \(16, 1\)\) must be \(B, 6\)"):
            call(features[:, :1])
        with pytest.raises(ValueError, match=r"features \(=torch.int64\) must be floating"):
            call(features.long())
    with pytest.raises(ValueError, match=r"labels \(torch.int64, shape \(16, 1\)\) must be int64"):
        head.loss(features, labels[:, None], progress=0.5)
    with pytest.raises(ValueError, match=r"labels \(torch.int32, shape \(16,\)\) must be int64"):
        head.loss(features, labels.int(), progress=0.5)


def test_calling_a_head_gives_its_logits(head):
    features, _ = batch()
    assert torch.equal(head(features), head.logits(features))


def test_same_seed_same_head():
    for name in LOSSES:
        states = []
        for _ in range(2):
            torch.manual_seed(7)
            states.append(build_loss(name, feature_dim=D, num_classes=K).state_dict())
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
