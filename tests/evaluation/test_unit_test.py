"""Networks that are known to be breakable: they are, sound attacks break them, broken ones do not.

The models are linear in the image, where the best attack has a closed form, or turn with it, where
theory says that one long step overshoots.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from robustloss.attacks import build_attack
from robustloss.attacks.base import NORMS
from robustloss.attacks.bounded.pgd import PGD
from robustloss.attacks.functions import FunctionAttack
from robustloss.data.images import ImageSet
from robustloss.evaluation import unit_test
from robustloss.evaluation.torch_scores import build_torch_score
from robustloss.evaluation.unit_test import Binarised, make_readouts, unit_arrays

M, K, D, EPS = 24, 4, 8, 0.05


class Linear(nn.Module):
    """Features that are linear in the image, and the score of a Gaussian around 0."""

    def __init__(self, dim: int = D) -> None:
        super().__init__()
        self.head = SimpleNamespace(num_classes=K, feature_dim=dim)
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("weight", torch.randn(36, dim, generator=generator))

    def features(self, images):
        return (images.flatten(1) - 0.5) @ self.get_buffer("weight")

    def outputs(self, images):
        features = self.features(images)
        logits = features[:, :1] * torch.arange(K)
        return features, logits, -features.square().sum(1, keepdim=True).expand(-1, K) / 2

    def forward(self, images):
        return self.outputs(images)[1]


class Turning(Linear):
    """Each feature goes through more than a full turn on the way of one long step."""

    def features(self, images):
        return (10 * super().features(images)).sin()


@pytest.fixture(autouse=True)
def _few_points(monkeypatch):
    monkeypatch.setattr(unit_test, "INNER", 60)
    monkeypatch.setattr(unit_test, "RANDOM", 20)


def photos(n=M) -> ImageSet:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(64, 192, (n, 1, 6, 6), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(n) % K, torch.arange(n), 255.0)


def wrong_sign(model, inputs, labels, eps):
    point = inputs.requires_grad_()
    (gradient,) = torch.autograd.grad(model(point)[:, 0].sum(), point)  # up, not down
    return inputs + eps * gradient.sign()


def cut_gradient(model, inputs, labels, eps):
    return inputs + 0 * model(inputs.detach()).sum()


BROKEN = {
    "wrong sign": FunctionAttack(function=wrong_sign, name="wrong sign"),
    "cut gradient": FunctionAttack(function=cut_gradient, name="cut gradient"),
    "two steps": build_attack("pgd", steps=2, step_size=0.05, random_start=False),
}
SOUND = {
    "pgd": build_attack("pgd", steps=40),
    "apgd": build_attack("apgd_ce", steps=60),
    "dlr": build_attack("apgd_dlr", steps=60),  # needs a third logit
    "nll": build_attack("pgd", steps=40, objective="nll"),  # asks for likelihoods of classes
    "first": build_attack("pgd", steps=40, keep="first"),  # goes on with a part of the images
    "fmn": build_attack("fmn", steps=60, step_size=0.03),  # its first steps are long otherwise
}


def success(model, attack, eps=EPS, images=None, name="unit_a", score=None):
    """The share of the networks that random points leave whole, and the attack does not."""
    tested = unit_test.Tested(name, attack, eps, attack.name.startswith("adaptive_"), score)
    found = unit_arrays(model, images or photos(), [tested], seed=3)
    shares = []
    for broken, random in (found[key] for key in sorted(found) if not key.endswith("_eps")):
        assert (~random).sum() >= 15
        shares.append(float(broken[~random].mean()))
    return shares if len(shares) > 1 else shares[0]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("model", [Linear(), Turning()], ids=["linear", "turning"])
def test_every_network_can_be_broken_and_is_right_at_its_image(model, norm):
    images = photos(30)  # in L1 some points on the surface do not stand out
    made = make_readouts(model, images, norm, EPS, 0)
    assert len(made.rows) >= 20
    network = Binarised(model, images, made, 0)
    assert (network(network.images.batch(slice(None))).argmax(1) == 0).all()
    seen = []

    def give_away(model, inputs, labels, eps):
        points = [
            unit_test._draw_points(one[None], norm, EPS, 0, int(row))[1][0]
            for one, row in zip(inputs, network.images.index, strict=True)
        ]
        seen.append(torch.stack(points))
        return seen[0]

    broken, _ = network.attack(FunctionAttack(function=give_away, name="told", norm=norm), EPS, 0)
    assert broken.all()
    for sign in (1, -1):  # and the point is accepted, by the detector and by the inverted one
        known = FunctionAttack(function=give_away, name="told", norm=norm, needs="likelihood")
        assert Binarised(model, images, made, sign).attack(known, EPS, 0)[0].all()


def test_on_a_linear_network_success_is_the_closed_form():
    model, images = Linear(), photos()
    made = make_readouts(model, images, "linf", EPS, 3)
    own = images.take(made.rows).batch(slice(None))
    lead = ((model.features(own) - made.points) * made.weights).sum(1) + made.slack
    best = lead + EPS * (made.weights @ model.get_buffer("weight").T).abs().sum(1)
    assert (best > 0).all()
    for attack in (*SOUND.values(), build_attack("fgsm")):
        assert success(model, attack) == 1
    # the boundary lies at 0.999 of the way from the last inner point: one of them is there
    assert (lead < 0).all()


@pytest.mark.parametrize("model", [Linear(), Turning()], ids=["linear", "turning"])
@pytest.mark.parametrize("name", BROKEN)
def test_an_attack_that_is_broken_on_purpose_fails(model, name):
    assert success(model, BROKEN[name]) < 0.5


@pytest.mark.parametrize("name", SOUND)
def test_sound_attacks_pass_where_one_long_step_must_overshoot(name):
    assert success(Turning(), SOUND[name]) >= 0.95


def test_one_long_step_overshoots_where_the_features_turn():
    assert success(Turning(), build_attack("fgsm")) < 0.6


class Blind(PGD):
    """Asks for the detector, and never looks at it."""

    name = "adaptive_blind"
    needs = "likelihood"


class BlindToScore(Blind):
    needs = "score"
    score = "any"


def test_an_attack_on_the_detector_must_follow_it_both_ways():
    adaptive = build_attack("adaptive_orthogonal", steps=40)
    assert min(success(Linear(), adaptive, name="unit_a")) >= 0.95
    assert min(success(Linear(), Blind(steps=20))) < 0.5


@pytest.mark.parametrize("name", ["energy", "feature_norm"])
def test_an_attack_on_another_score_must_follow_that_one_both_ways(name):
    score = build_torch_score(name, {}, torch.device("cpu"))
    adaptive = build_attack("adaptive_orthogonal", steps=40, score=name)
    assert min(success(Linear(), adaptive, score=score)) >= 0.95
    assert min(success(Linear(), BlindToScore(steps=20), score=score)) < 0.6


def test_features_of_one_number_are_too_easy_and_say_so():
    found = unit_arrays(
        Linear(1),
        photos(60),
        [unit_test.Tested("unit_a", build_attack("pgd", steps=40), EPS)],
        seed=0,
    )
    broken, random = found["unit_a"]
    assert random.mean() > 0.5 or broken.size < 20


def test_random_points_are_as_many_as_the_passes_of_the_attack():
    images, model = photos(60), Linear(2)
    arrays = unit_arrays(
        model, images, [unit_test.Tested("one", build_attack("fgsm"), EPS),
                        unit_test.Tested("many", build_attack("pgd", steps=40), EPS)], seed=0,
    )  # fmt: skip
    made = make_readouts(model, images, "linf", EPS, 0)
    assert np.array_equal(arrays["one"][1], (made.lead[:, :1] > 0).any(1).numpy())
    assert np.array_equal(arrays["many"][1], (made.lead > 0).any(1).numpy())
    assert arrays["one_eps"] == EPS


def test_the_same_seed_gives_the_same_networks():
    one, same, other = (make_readouts(Linear(), photos(), "linf", EPS, s) for s in (0, 0, 1))
    assert torch.equal(one.weights, same.weights)
    assert not torch.equal(one.points[: len(other.points)], other.points[: len(one.points)])


def test_balls_that_meet_leave_an_image_out_and_others_are_told_apart():
    images = photos(6)
    twin = images.images.clone()
    twin[1] = twin[0]
    twin[1, 0, 0, 0] += 3
    pair = ImageSet(twin, images.labels, images.index, 255.0)
    inputs = pair.batch(slice(None))
    for norm in ("linf", "l2"):
        assert unit_test._find_apart(inputs, norm, EPS) == [0, 2, 3, 4, 5]
    # the farthest corner towards another image is still nearest to its own
    rows = unit_test._find_apart(inputs, "linf", 0.1)
    for row in rows:
        for other in rows:
            moved = inputs[row] + 0.1 * (inputs[other] - inputs[row]).sign()
            far = (moved - inputs[rows]).flatten(1).square().sum(1)
            assert rows[int(far.argmin())] == row


def test_a_model_whose_features_stand_still_has_no_network():
    model = Linear()
    model.get_buffer("weight").zero_()
    found = unit_arrays(model, photos(), [unit_test.Tested("unit_a", build_attack("fgsm"), EPS)])
    assert found["unit_a"].shape == (2, 0)


def test_passes_are_counted_once_for_each_ball():
    fgsm, pgd = build_attack("fgsm"), build_attack("pgd", steps=10)
    points = unit_test.INNER + unit_test.RANDOM + 3
    assert unit_test.count_passes([]) == (0, 0)
    both = [unit_test.Tested("a", fgsm, 0.1), unit_test.Tested("b", pgd, 0.1)]
    assert unit_test.count_passes(both) == (points + 2 + 13, 1 + 11)
    adaptive = build_attack("adaptive_selective", steps=10)
    spent = adaptive.passes(1)
    both = [unit_test.Tested("a", adaptive, 0.1, True), unit_test.Tested("b", fgsm, 0.2)]
    assert unit_test.count_passes(both) == (
        2 * points + 2 * (spent.forward + 1) + 2,
        2 * spent.backward + 1,
    )
