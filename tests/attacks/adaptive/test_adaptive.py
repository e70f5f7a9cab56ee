"""Attacks on classifier and likelihood detector: optima in closed form, and what they promise."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from robustloss.attacks import ATTACKS, AttackError, build_attack, perturb
from robustloss.attacks.adaptive.base import Candidate, View, look
from robustloss.attacks.adaptive.gradients import (
    joint_direction,
    orthogonal_direction,
    selective_direction,
)
from tests.attacks.models import Distances, Gaussians, classes, gaussians, images

ADAPTIVE = [name for name in ATTACKS if name.startswith("adaptive_")]
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def linear(rows: Tensor) -> nn.Module:
    """Features rows · (x − ½): 0 at the middle of the box."""
    layer = nn.Linear(36, len(rows))
    layer.weight.data = rows
    layer.bias.data = -0.5 * rows.sum(dim=1)
    return nn.Sequential(nn.Flatten(), layer)


def on_a_line(means: list[float], radius: float, seed: int = 0) -> Gaussians:
    """One feature; an input is rejected farther than `radius` from the predicted class's mean.

    The row has ‖row‖₁ = 36, so that an L-inf budget of eps moves the feature by up to 36 · eps.
    """
    row = torch.randn(1, 36, generator=torch.Generator().manual_seed(seed))
    row *= 36 / row.abs().sum()
    return Gaussians(linear(row), torch.tensor(means).unsqueeze(1), -0.5 * radius**2 - HALF_LOG_2PI)


def in_a_plane(means: list[list[float]], radius: float, seed: int = 0) -> Gaussians:
    """Two features, orthogonal rows of length 4: an L2 ball of images is a disc of features."""
    rows = torch.randn(36, 2, generator=torch.Generator().manual_seed(seed))
    return Gaussians(
        linear(4 * torch.linalg.qr(rows).Q.T.contiguous()),
        torch.tensor(means),
        -0.5 * radius**2 - 2 * HALF_LOG_2PI,
    )


def around(model: Gaussians, features: Tensor) -> Tensor:
    """The images nearest to grey with these features (B,D)."""
    rows = model.extractor[1].weight.detach()  # type: ignore[index]
    shift = features @ torch.linalg.pinv(rows).T
    assert shift.abs().max() < 0.4  # room on both sides: the box does not bind
    return (0.5 + shift).view(-1, 1, 6, 6)


def judged(model: nn.Module, adv_inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each image is wrong, and the log-likelihood of its predicted class."""
    with torch.no_grad():
        logits, likelihood = model.joint(adv_inputs)  # type: ignore[operator]
    predicted = logits.argmax(dim=1)
    return predicted != labels, likelihood.gather(1, predicted[:, None])[:, 0]


def run(attack, model: nn.Module, inputs: Tensor, labels: Tensor, eps: float) -> Tensor:
    return perturb(attack, model, inputs, labels, eps=[eps]).adv_inputs[0]


# --- closed forms ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ADAPTIVE)
def test_one_feature_is_evaded_exactly_where_it_can_be(name: str) -> None:
    """L-inf: the features within reach are an interval; so are those that go undetected."""
    radius = 0.5
    model = on_a_line([-1.0, 1.0], radius)
    feature = torch.linspace(-2.2, 0.0, 40)[:-1]
    inputs, labels = around(model, feature.unsqueeze(1)), torch.zeros(39, dtype=torch.int64)
    for eps in (0.01, 0.03, 0.06):
        adv_inputs = run(build_attack(name), model, inputs, labels, eps)
        wrong, score = judged(model, adv_inputs, labels)
        farthest = feature + 36 * eps
        clear = farthest.abs() > 1e-3
        assert torch.equal(wrong[clear], (farthest > 0)[clear])
        clear &= (farthest - (1 - radius)).abs() > 1e-3
        undetected = wrong & (score >= model.threshold)
        assert torch.equal(undetected[clear], (farthest > 1 - radius)[clear])
        # Of what is wrong, nothing within reach is likelier.
        best = -0.5 * (farthest.clamp(max=1.0) - 1.0).square() - HALF_LOG_2PI
        torch.testing.assert_close(score[wrong], best[wrong], rtol=0, atol=2e-3)
    assert 0 < undetected.double().mean() < 1


def test_cross_entropy_overshoots_into_the_detector() -> None:
    model = on_a_line([-1.0, 1.0], radius=0.5)
    inputs = around(model, torch.linspace(-1.4, -0.6, 20).unsqueeze(1))
    labels = torch.zeros(20, dtype=torch.int64)
    wrong, score = judged(model, run(build_attack("pgd"), model, inputs, labels, 0.15), labels)
    assert wrong.all()
    assert (score < model.threshold).all()
    for name in ADAPTIVE:
        adv_inputs = run(build_attack(name), model, inputs, labels, 0.15)
        wrong, score = judged(model, adv_inputs, labels)
        assert wrong.all()
        assert (score >= model.threshold).all(), name


def nearest_wrong(feature: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Of the disc around each feature (B,2), what is nearest to (1,0) right of the axis x = 0.

    The disc's own nearest point, if that lies right of the axis; else the nearest of the chord
    that the disc cuts from the axis, since both are convex. Returns points, and where there is any.
    """
    goal = torch.tensor([1.0, 0.0])
    towards = goal - feature
    length = towards.norm(dim=1, keepdim=True)
    inner = feature + towards * (reach / length).clamp(max=1.0)
    half = (reach**2 - feature[:, 0].square()).clamp(min=0.0).sqrt()
    height = torch.zeros(len(feature)).clamp(feature[:, 1] - half, feature[:, 1] + half)
    chord = torch.stack((torch.zeros_like(height), height), dim=1)
    return torch.where(inner[:, :1] > 0, inner, chord), feature[:, 0] + reach > 0


@pytest.mark.parametrize("name", ADAPTIVE)
def test_two_features_reach_the_likeliest_wrong_point_of_the_disc(name: str) -> None:
    model = in_a_plane([[-1.0, 0.0], [1.0, 0.0]], radius=0.6)
    generator = torch.Generator().manual_seed(3)
    feature = torch.tensor([-0.8, 0.0]) + 0.3 * torch.randn(60, 2, generator=generator)
    inputs, labels = around(model, feature), torch.zeros(60, dtype=torch.int64)
    for reach in (0.6, 0.9, 1.2):
        adv_inputs = run(build_attack(name, norm="l2"), model, inputs, labels, reach / 4)
        wrong, score = judged(model, adv_inputs, labels)
        point, exists = nearest_wrong(feature, reach)
        assert torch.equal(wrong, exists)
        assert 0.1 < exists.double().mean() < 0.99
        best = -0.5 * (point - torch.tensor([1.0, 0.0])).square().sum(dim=1) - 2 * HALF_LOG_2PI
        assert (score <= best + 1e-5)[wrong].all()
        if name != "adaptive_orthogonal":  # which gives up what both gradients agree on
            torch.testing.assert_close(score[wrong], best[wrong], rtol=0, atol=5e-3)


# --- directions -----------------------------------------------------------------------------


def seen() -> View:
    """Half the images taken for the class aimed at, half not."""
    model, inputs = gaussians().eval(), images()
    labels = model(inputs).argmax(dim=1)
    labels[32:] = (labels[32:] + 1) % 5
    return look(model, inputs, labels, None)


def separate(view: View) -> tuple[Tensor, Tensor]:
    """The gradients of lead and log-likelihood, written out image by image in float64."""
    model = copy.deepcopy(view.model).double()
    found = []
    for image, label, aim in zip(view.point.detach(), view.labels, view.aim, strict=True):
        point = image.double().unsqueeze(0).requires_grad_()
        logits, likelihood = model.joint(point)  # type: ignore[operator]
        others = [logits[0, k] for k in range(5) if k != aim]
        lead = logits[0, aim] - torch.stack(others).max()
        assert logits[0].argmax() == aim or logits[0].argmax() == label
        found.append(
            [
                torch.autograd.grad(value, point, retain_graph=True)[0].flatten()
                for value in (lead, likelihood[0, aim])
            ]
        )
    leads, likelihoods = zip(*found, strict=True)
    return torch.stack(leads), torch.stack(likelihoods)


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=1, keepdim=True)


def same_way(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(
        unit(found.flatten(1).double()), unit(expected), rtol=0, atol=1e-5, check_dtype=False
    )


def test_selective_follows_the_detector_exactly_where_the_classifier_is_fooled() -> None:
    view = seen()
    assert view.reached.tolist() == [False] * 32 + [True] * 32
    lead, likelihood = separate(view)
    found = selective_direction(view)
    same_way(found[:32], lead[:32])
    same_way(found[32:], likelihood[32:])


def test_joint_adds_unit_gradients() -> None:
    view = seen()
    lead, likelihood = separate(view)
    for weight in (0.0, 0.5, 4.0):
        expected = unit(lead) + weight * unit(likelihood)
        found = joint_direction(view, weight).flatten(1).double()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("project", ["classifier", "detector", "both"])
def test_orthogonal_is_the_authors_formula(project: str) -> None:
    view = seen()
    lead, likelihood = separate(view)

    def without(one: Tensor, other: Tensor) -> Tensor:
        share = (one * other).sum(dim=1, keepdim=True) / other.square().sum(dim=1, keepdim=True)
        return one - share * other

    found = orthogonal_direction(view, project)  # type: ignore[arg-type]
    same_way(found[:32], lead[:32] if project == "detector" else without(lead, likelihood)[:32])
    same_way(
        found[32:], likelihood[32:] if project == "classifier" else without(likelihood, lead)[32:]
    )
    if project == "both":
        flat = unit(found.flatten(1).double())
        assert (flat * unit(likelihood)).sum(dim=1)[:32].abs().max() < 1e-5
        assert (flat * unit(lead)).sum(dim=1)[32:].abs().max() < 1e-5
        assert (unit(lead) * unit(likelihood)).sum(dim=1).abs().min() > 1e-3  # it has to do much


def test_parallel_gradients_leave_no_rounding_noise() -> None:
    """On a line both gradients are multiples of the same row."""
    model = on_a_line([-1.0, 1.0], radius=0.5)
    row = model.extractor[1].weight.detach().sign().view(1, 6, 6)  # type: ignore[index]
    inputs = around(model, torch.tensor([[-0.5], [0.5], [1.5]]))
    view = look(model, inputs, torch.zeros(3, dtype=torch.int64), None)
    found = orthogonal_direction(view, "both").sign()
    assert torch.equal(found, torch.stack([row, row, -row]))
    found = joint_direction(view, 1.0).sign()
    assert torch.equal(found, torch.stack([row, row, 0 * row]))


# --- what is kept ---------------------------------------------------------------------------


def test_wrong_comes_first_then_the_score() -> None:
    wrong = torch.tensor([False, True, False, True])
    score = torch.tensor([5.0, 1.0, 2.0, 1.0])
    one = Candidate(torch.zeros(4, 1, 1, 1), wrong, score)
    other = Candidate(
        torch.ones(4, 1, 1, 1),
        torch.tensor([True, False, False, True]),
        torch.tensor([-1e9, 9.0, 3.0, 1.0]),
    )
    best = one.take(other)
    assert best.images.flatten().tolist() == [1, 0, 1, 0]
    assert best.fooled.tolist() == [True, True, False, True]
    assert best.score.tolist() == [-1e9, 1, 3, 1]


def no_worse(model: nn.Module, one: Tensor, other: Tensor, labels: Tensor) -> bool:
    """Each image of one is at least what the other is: wrong first, then the score."""
    (wrong, score), (base_wrong, base_score) = (judged(model, x, labels) for x in (one, other))
    better = (wrong & ~base_wrong) | ((wrong == base_wrong) & (score >= base_score - 1e-4))
    return bool(better.all())


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_nothing_is_worse_than_the_image_itself_nor_more_work_than_less(name, norm) -> None:
    model, labels = gaussians().eval(), classes()
    short = {"norm": norm, "steps": 4, "targets": 1}

    def found(**more) -> Tensor:
        attack = build_attack(name, **short | more)
        return run(attack, model, images(), labels, 0.1 if norm == "linf" else 0.5)

    once = found(step_size=5.0)  # each step as far as it goes: most of them leave the goal behind
    assert no_worse(model, once, images(), labels)
    once = found()
    assert no_worse(model, found(restarts=2), once, labels)
    assert no_worse(model, found(targets=3), once, labels)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_further_target_is_tried_where_the_first_is_found_out(name: str) -> None:
    """Class 0 is the nearest wrong one, but whatever is taken for it has no likelihood."""
    model = on_a_line([-1.0, 0.0, 1.2], radius=0.5)
    penalty = torch.tensor([-100.0, 0.0, 0.0])
    changed = Changed(model, likelihood=lambda values: values + penalty)
    inputs, labels = around(model, torch.linspace(-0.1, 0.05, 9)[:, None]), torch.ones(9).long()
    for targets, undetected in ((1, False), (2, True), (9, True)):
        attack = build_attack(name, targets=targets)
        wrong, score = judged(changed, run(attack, changed, inputs, labels, 0.03), labels)
        assert wrong.all()
        assert torch.equal(score >= model.threshold, torch.full((9,), undetected))


@pytest.mark.parametrize("name", ADAPTIVE)
def test_scale_of_the_likelihood_and_constant_of_the_logits_change_nothing(name: str) -> None:
    attack = build_attack(name, steps=8)
    plain = Changed(gaussians().eval())
    expected = run(attack, plain, images(), classes(), 0.1)
    for change in (
        {"likelihood": lambda values: values * 2.0**10},
        {"likelihood": lambda values: values * 2.0**-40},
        {"logits": lambda values: values * 2.0**10},
    ):  # powers of two: not a bit is rounded otherwise
        assert torch.equal(
            run(attack, Changed(plain.model, **change), images(), classes(), 0.1), expected
        )
    shifted = Changed(plain.model, logits=lambda values: values + 1000.0)
    found = run(attack, shifted, images(), classes(), 0.1)
    assert ((found - expected).abs() > 1e-6).double().mean() < 0.01
    assert torch.equal(judged(plain, found, classes())[0], judged(plain, expected, classes())[0])


class Changed(nn.Module):
    """A model in float64 whose logits or log-likelihoods are changed."""

    def __init__(self, model: Gaussians, logits=lambda z: z, likelihood=lambda z: z) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).double()
        self.logits, self.likelihood = logits, likelihood
        self.class_means, self.threshold = self.model.class_means, model.threshold

    def features(self, images: Tensor) -> Tensor:
        return self.model.features(images.double())

    def joint(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, likelihood = self.model.joint(images.double())
        return self.logits(logits), self.likelihood(likelihood)

    def forward(self, images: Tensor) -> Tensor:
        return self.joint(images)[0]


# --- flags, counts, refusals ----------------------------------------------------------------


@pytest.mark.parametrize("name", ADAPTIVE)
def test_zero_gradient_speaks_of_the_classifier_at_the_image_itself(name: str) -> None:
    class Gated(Gaussians):
        def features(self, images: Tensor) -> Tensor:
            return super().features(images) * (images[:, 0, 0, :1] > 0.5)

    base = gaussians().eval()
    model = Gated(base.extractor, base.get_buffer("class_means"), 0.0)
    for eps in ([0.0], [0.1]):
        found = perturb(build_attack(name, steps=1), model, images(), classes(), eps=eps)
        assert torch.equal(found.zero_gradient, images()[:, 0, 0, 0] <= 0.5)


@pytest.mark.parametrize(
    ("name", "keys", "forward", "backward"),
    [
        ("adaptive_joint", {"weights": [1, 2, 3]}, 1 + 6 * 5, 1 + 6 * 2 * 4),
        ("adaptive_joint", {"weights": [1], "targets": 2}, 1 + 4 * 5, 1 + 4 * 2 * 4),
        ("adaptive_selective", {}, 1 + 2 * 5, 1 + 2 * 4),
        ("adaptive_selective", {"restarts": 3}, 1 + 6 * 5, 1 + 6 * 4),
        ("adaptive_orthogonal", {}, 1 + 2 * 5, 1 + 2 * 2 * 4),
        ("adaptive_matching", {}, 2 + 6 * (5 + 4), 1 + 6 * 4),
    ],
)
def test_queries_are_counted(name: str, keys: dict, forward: int, backward: int) -> None:
    attack = build_attack(name, steps=4, **keys)
    found = perturb(attack, gaussians(), images(), classes(), eps=[0.1, 0.2])
    assert found.queries == (64 * forward, 64 * backward)
    assert not found.outside.any()


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_model_without_what_an_attack_needs_is_refused(name: str) -> None:
    attack = build_attack(name, steps=1)
    with pytest.raises(ValueError, match=r"must have joint\(images\) and threshold: .* likelihood"):
        perturb(attack, Distances(1.0), images(), classes(k=4), eps=[0.1])


def test_matching_refuses_a_model_without_usable_means() -> None:
    attack = build_attack("adaptive_matching", steps=1)

    def attacked(means: Tensor | None) -> None:
        model = Changed(gaussians())
        model.class_means = means
        perturb(attack, model, images(), classes(), eps=[0.1])

    means = gaussians().get_buffer("class_means")
    with pytest.raises(AttackError, match=r"must have features\(images\) and class_means \(K,D\)"):
        perturb(attack, WithoutFeatures(), images(), classes(k=4), eps=[0.1])
    with pytest.raises(AttackError, match="attack 'adaptive_matching' aims at the mean"):
        attacked(None)
    with pytest.raises(AttackError, match=r"shape \(4, 5\)\) must have shape \(K, D\) = \(5, 5\)"):
        attacked(means[:4])
    with pytest.raises(AttackError, match=r"classes 1, 3\) must be finite"):
        attacked(means.masked_fill(torch.tensor([[0], [1], [0], [1], [0]]).bool(), torch.nan))


class WithoutFeatures(Distances):
    threshold = 0.0

    def __init__(self) -> None:
        super().__init__(scale=1.0)

    def joint(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self(images), self(images)


@pytest.mark.parametrize("name", ["adaptive_joint", "adaptive_selective"])
def test_an_overflow_is_told(name: str) -> None:
    model = gaussians().eval()
    broken = Changed(model, likelihood=lambda values: values * torch.nan)
    with pytest.raises(AttackError, match="logits or scores are NaN or infinite for 64"):
        perturb(build_attack(name), broken, images(), classes(), eps=[0.1])


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"norm": "l0"}, r"norm \(='l0'\) must be one of 'linf', 'l2'"),
        ({"steps": 0}, r"steps \(=0\) must be at least 1"),
        ({"restarts": 0}, r"restarts \(=0\) must be at least 1"),
        ({"restarts": 2, "random_start": False}, "would all be the same path"),
        ({"step_size": -0.1}, r"step_size \(=-0.1\) must be positive"),
        ({"targets": -1}, r"targets \(=-1\) must be at least 0"),
        ({"targets": 1.5}, r"targets \(=1.5\) must be an integer"),
        ({"target": 1}, "did you mean 'targets'"),
    ],
)
def test_bad_parameters_are_refused(name: str, keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_attack(name, **keys)


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("adaptive_joint", {"weights": []}, r"weights \(=\(\)\) must hold at least one"),
        ("adaptive_joint", {"weights": 2.0}, r"weights \(=2.0\) must be numbers, such as"),
        ("adaptive_joint", {"weights": [1, -2]}, r"weights \(=-2\) must be numbers of at least 0"),
        ("adaptive_joint", {"weights": ["1"]}, r"weights \(='1'\) must be numbers of at least 0"),
        ("adaptive_orthogonal", {"project": "none"}, "must be one of 'classifier', 'detector', 'b"),
        ("adaptive_matching", {"targets": 0}, r"targets \(=0\) must be at least 1"),
    ],
)
def test_bad_parameters_of_their_own_are_refused(name: str, keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_attack(name, **keys)
