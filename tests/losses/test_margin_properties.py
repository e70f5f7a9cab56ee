"""Margin losses: what they reduce to, their schedules, and where formulas lose their slope."""

import inspect
import math

import numpy as np
import pytest
import torch

from robustloss.losses import LOSSES, build_loss
from robustloss.losses.angles import Annealing, cos_of_multiple, psi
from tests.losses.toy_inputs import D, K, head, inputs, numpy

MULTIPLE = ("l_softmax", "a_softmax", "fnorm_sphereface")
COSINE = (*MULTIPLE, "modified_softmax", "normface", "cosface", "arcface")
NO_LAMBDA = {"anneal_base": 0.0, "anneal_min": 0.0}


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


@pytest.mark.parametrize(("name", "attribute"), [("normface", "scale"), ("l2_softmax", "radius")])
def test_a_learned_scale_stops_at_the_floor_and_can_leave_it(name, attribute):
    params = {"learn_radius": True} if name == "l2_softmax" else {}
    built, (features, labels) = head(name, **params), inputs()
    value = getattr(built, attribute)
    value.data.fill_(-3.0)
    built.after_step(features, labels)
    assert value.item() == pytest.approx(0.01)
    built.loss(features, labels, progress=0.0).classification.sum().backward()
    assert value.grad != 0


def test_a_fixed_radius_is_not_trained():
    built = head("l2_softmax")
    assert "radius" not in dict(built.named_parameters())
    assert "radius" in built.state_dict()


@pytest.mark.parametrize("name", COSINE)
def test_weight_decay_only_where_the_norm_counts(name):
    built = head(name)
    groups = built.parameter_groups(0.1)
    if name == "l_softmax":
        assert all("weight_decay" not in group for group in groups)
    else:
        assert all(group["weight_decay"] == 0.0 for group in groups)
    assert all(group["lr"] == pytest.approx(0.1) for group in groups)


def test_normface_weights_may_have_their_own_rate():
    weights, scale = head("normface", weight_lr_ratio=100.0).parameter_groups(0.1)
    assert (weights["lr"], scale["lr"]) == (pytest.approx(10.0), 0.1)


def test_a_learned_radius_is_not_decayed():
    linear, radius = head("l2_softmax", learn_radius=True).parameter_groups(0.1)
    assert "weight_decay" not in linear
    assert radius["weight_decay"] == 0.0


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("l_softmax", {"margin": 0}, r"margin \(=0\) must be a whole number of at least 1"),
        ("a_softmax", {"margin": 2.5}, r"margin \(=2.5\) must be a whole number"),
        ("l_softmax", {"anneal_base": -1}, r"anneal_base \(=-1\) must be finite and at least 0"),
        ("l_softmax", {"anneal_steps": "9"}, r"anneal_steps \(='9'\) must be a number"),
        ("a_softmax", {"anneal_min": math.inf}, r"anneal_min \(=inf\) must be finite"),
        ("fnorm_sphereface", {"scale": 0}, r"scale \(=0\) must be finite and at least 0.01"),
        ("cosface", {"margin": -0.1}, r"margin \(=-0.1\) must be finite and at least 0"),
        ("cosface", {"scale": math.nan}, r"scale \(=nan\) must be finite"),
        ("arcface", {"margin_rad": 28.6}, r"margin_rad \(=28.6\) .* at most 3.14159"),
        ("normface", {"scale": 0.0}, r"scale \(=0.0\) must be finite and at least 0.01"),
        ("normface", {"weight_lr_ratio": -1}, r"weight_lr_ratio \(=-1\) must be finite"),
        ("l2_softmax", {"radius": -4}, r"radius \(=-4\) must be finite and at least 0.01"),
        ("l2_softmax", {"learn_radius": 1}, r"learn_radius \(=1\) must be true or false"),
        ("weighted_softmax", {"class_weights": [1.0, 2.0]}, r"must be 3 positive.*these are 2"),
        ("weighted_softmax", {"class_weights": "equal"}, r"class_weights \(='equal'\) must be 3"),
        ("weighted_softmax", {"class_weights": [1, 0, 1]}, r"class_weights\[1\] \(=0\) must be"),
        ("weighted_softmax", {"class_weights": 3}, r"class_weights \(=3\) must be 3 positive"),
    ],
)
def test_refuses(name, params, message):
    with pytest.raises(ValueError, match=message):
        head(name, **params)


@pytest.mark.parametrize(
    ("weights", "counts", "message"),
    [
        ("balanced", [0, 3, 4], r"class_counts \(=\[0, 3, 4\]\) must be 3 numbers of at least 1"),
        ("balanced", [3, 4], r"class_counts \(=\[3, 4\]\) must be 3 numbers"),
        ([1.0, 1.0, 2.0], [0, 0, 0], r"class_counts \(=\[0, 0, 0\]\)"),
    ],
)
def test_counts_that_give_no_weights_are_refused(weights, counts, message):
    with pytest.raises(ValueError, match=message):
        head("weighted_softmax", class_weights=weights).start(torch.tensor(counts))


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    counts = np.array([3, 5, 12])
    built = head("weighted_softmax")
    built.start(torch.tensor(counts))
    labels = np.repeat(np.arange(3), counts)
    wanted = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(numpy(built.class_weights), wanted, rtol=1e-6)


def test_every_keyword_is_a_plain_value():
    """A spec can name each of them."""
    for name in (*COSINE, "l2_softmax", "weighted_softmax"):
        for key, parameter in inspect.signature(LOSSES[name]).parameters.items():
            if key not in ("feature_dim", "num_classes"):
                assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
                assert isinstance(parameter.default, int | float | str | bool)
    assert build_loss("cosface", feature_dim=D, num_classes=K, margin=0.2).margin == 0.2
