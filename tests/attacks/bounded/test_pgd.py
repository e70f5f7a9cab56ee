"""PGD and MI-FGSM: closed forms, other libraries, and what they promise."""

import warnings

import numpy as np
import pytest
import torch
import torchattacks
from torch import Tensor, nn

from robustloss.attacks import ATTACKS, AttackError, ImageNoise, build_attack, perturb
from robustloss.attacks.ball import distance, uniform_start
from robustloss.attacks.bounded.pgd import STEP_SCHEDULES
from tests.attacks.models import (
    BinaryLinear,
    ChangedLogits,
    Distances,
    classes,
    convolutional,
    images,
)

EPS = [0.02, 0.05, 0.1]


def fooled(model: nn.Module, adv_inputs: Tensor, labels: Tensor) -> Tensor:
    """(E,N) bool."""
    return torch.stack([model(each).argmax(dim=1) != labels for each in adv_inputs])


def margins(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    logits = model(inputs).detach()
    true = logits.gather(1, labels[:, None])
    return (logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1, keepdim=True) - true)[:, 0]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("objective", ["ce", "margin"])
@pytest.mark.parametrize("random_start", [False, True])
def test_linear_classifier_flips_exactly_beyond_its_distance(
    norm: str, objective: str, random_start: bool
) -> None:
    model = BinaryLinear()
    inputs = images(200, low=0.4, high=0.6)
    logits = model(inputs).detach()
    labels = logits.argmax(dim=1)
    dual = model.weight.detach().double().norm(p=1 if norm == "linf" else 2)
    threshold = logits[:, 1].double().abs() / dual
    eps = np.linspace(0.002, 0.05 if norm == "linf" else 0.2, 12).tolist()
    attack = build_attack("pgd", norm=norm, objective=objective, random_start=random_start)
    adv_inputs = perturb(attack, model, inputs, labels, eps=eps).adv_inputs
    for budget, flipped in zip(eps, fooled(model, adv_inputs, labels), strict=True):
        clear = (threshold - budget).abs() > 1e-4
        assert torch.equal(flipped[clear], (budget > threshold)[clear])
    assert 0.1 < (threshold < eps[3]).double().mean() < 0.9  # the grid sees both outcomes


def inner(norm: str) -> Tensor:
    """Images for comparison; in L2 away from the box, since others project ball first, box last.

    Ours goes the other way round, which spends the whole budget.
    """
    return images() if norm == "linf" else images(low=0.4, high=0.6)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.3)])
def test_equals_torchattacks(norm: str, eps: float) -> None:
    model = convolutional().eval()
    attack = build_attack(
        "pgd", norm=norm, steps=10, step_size=0.2, random_start=False, keep="last"
    )
    adv_inputs = perturb(attack, model, inner(norm), classes(), eps=[eps]).adv_inputs[0]
    kind = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
    theirs = kind(model, eps=eps, alpha=0.2 * eps, steps=10, random_start=False)(
        inner(norm), classes()
    )
    assert (adv_inputs - theirs).abs().max() <= 1e-5


def test_momentum_equals_torchattacks() -> None:
    model = convolutional().eval()
    adv_inputs = perturb(build_attack("mifgsm"), model, images(), classes(), eps=[0.1]).adv_inputs[
        0
    ]
    theirs = torchattacks.MIFGSM(model, eps=0.1, alpha=0.01, steps=10)(images(), classes())
    assert (adv_inputs - theirs).abs().max() <= 1e-5


def test_equals_foolbox() -> None:
    foolbox = pytest.importorskip("foolbox")
    model = convolutional().eval()
    for norm, kind in (("linf", foolbox.attacks.LinfPGD), ("l2", foolbox.attacks.L2PGD)):
        attack = kind(rel_stepsize=0.2, steps=10, random_start=False)
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        _, theirs, _ = attack(wrapped, inner(norm), classes(), epsilons=EPS)
        own = build_attack(
            "pgd", norm=norm, steps=10, step_size=0.2, random_start=False, keep="last"
        )
        adv_inputs = perturb(own, model, inner(norm), classes(), eps=EPS).adv_inputs
        assert (adv_inputs - torch.stack(theirs)).abs().max() <= 1e-5


def test_equals_adversarial_robustness_toolbox() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports are full of deprecations
        pytest.importorskip("art")
        from art.attacks.evasion import ProjectedGradientDescentPyTorch
        from art.estimators.classification import PyTorchClassifier

        model = convolutional().eval()
        wrapped = PyTorchClassifier(
            model,
            loss=nn.CrossEntropyLoss(),
            input_shape=(1, 6, 6),
            nb_classes=5,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
        theirs = ProjectedGradientDescentPyTorch(
            wrapped, eps=0.1, eps_step=0.02, max_iter=10, batch_size=64, verbose=False
        ).generate(images().numpy(), classes().numpy())
    own = build_attack("pgd", steps=10, step_size=0.2, random_start=False, keep="last")
    adv_inputs = perturb(own, model, images(), classes(), eps=[0.1]).adv_inputs[0]
    assert np.abs(adv_inputs.numpy() - theirs).max() <= 1e-5


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_batch_size_and_company_do_not_matter(norm: str, momentum: float) -> None:
    model = convolutional().eval()
    attack = build_attack("pgd", norm=norm, steps=5, restarts=2, momentum=momentum)
    whole = perturb(attack, model, images(), classes(), eps=[0.05, 0.1]).adv_inputs
    for size in (1, 7):
        parts = perturb(
            attack, model, images(), classes(), eps=[0.05, 0.1], batch_size=size
        ).adv_inputs
        assert torch.equal(fooled(model, whole, classes()), fooled(model, parts, classes()))
        assert ((whole - parts).abs() > 1e-6).double().mean() < 0.01
    alone = perturb(attack, model, images(), classes(), eps=[0.1]).adv_inputs[0]
    assert torch.equal(alone, whole[1])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_start_lies_in_box_and_ball_and_fills_them(norm: str) -> None:
    inputs = images(200, low=0.4, high=0.6)
    noise = ImageNoise(0, torch.arange(200))
    first, second = (uniform_start(inputs, 0.3, norm, noise) for _ in range(2))
    length = distance(first - inputs, norm)
    assert (length <= 0.3 + 1e-6).all()
    assert not torch.equal(first, second)
    if norm == "linf":
        assert (first - inputs).flatten().std() == pytest.approx(0.3 / 3**0.5, rel=0.02)
    else:  # uniform in the ball: (length / eps)^d is uniform on [0,1]
        share = (length / 0.3).double() ** 36
        assert share.mean() == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    "keys",
    [{}, {"restarts": 3}, {"momentum": 1.0}, {"random_start": False}, {"schedule": "linear"}],
    ids=str,
)
def test_first_makes_the_errors_of_best_with_fewer_passes(norm: str, keys: dict) -> None:
    model, labels = convolutional().eval(), classes()
    eps = [0.05, 0.1] if norm == "linf" else [0.2, 0.5]
    best, first = (
        perturb(
            build_attack("pgd", norm=norm, steps=8, keep=keep, **keys),
            model, images(), labels, eps=eps,
        )
        for keep in ("best", "first")
    )  # fmt: skip
    assert first.queries.backward < best.queries.backward
    everywhere = fooled(model, best.adv_inputs, labels)
    assert everywhere.any(1).all()
    assert torch.equal(fooled(model, first.adv_inputs, labels), everywhere)
    for milder, worst, wrong in zip(first.adv_inputs, best.adv_inputs, everywhere, strict=True):
        # Where none was fooled, the whole path was climbed, and the same image kept.
        torch.testing.assert_close(milder[~wrong], worst[~wrong], rtol=0, atol=1e-6)
        distances = (margins(model, each, labels)[wrong] for each in (milder, worst))
        assert (next(distances) <= next(distances) + 1e-5).all()


def test_best_is_never_milder_than_last_and_more_restarts_never_than_fewer() -> None:
    model = convolutional().eval()
    labels = classes()
    keys = {"objective": "ce", "steps": 6, "step_size": 1.0}

    def found(**more) -> Tensor:
        attack = build_attack("pgd", **keys, **more)
        return margins(
            model, perturb(attack, model, images(), labels, eps=[0.1]).adv_inputs[0], labels
        )

    assert (found() >= found(keep="last") - 1e-6).all()
    assert (found() > found(keep="last") + 1e-4).any()
    assert (found(restarts=3) >= found() - 1e-6).all()
    assert (found(restarts=3) > found() + 1e-4).any()


@pytest.mark.parametrize("change", [lambda z: z - 1024.0, lambda z: z * 1024.0])
def test_margin_objective_ignores_shift_and_scale_of_the_logits(change) -> None:
    plain = ChangedLogits(change)
    attack = build_attack("pgd", objective="margin", steps=5)
    theirs = perturb(attack, plain, images(), classes(), eps=[0.1]).adv_inputs
    own = perturb(attack, plain.model.float(), images(), classes(), eps=[0.1]).adv_inputs
    assert torch.equal(fooled(plain.model, own, classes()), fooled(plain.model, theirs, classes()))
    assert ((own - theirs).abs() > 1e-6).double().mean() < 0.01


class WithLikelihood(Distances):
    threshold = 0.0

    def joint(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self(images)
        return logits, logits - 18.0


def test_nll_walks_away_from_the_true_center() -> None:
    model = WithLikelihood(scale=1.0)
    labels = classes(30, k=4)
    attack = build_attack("pgd", objective="nll", steps=10, random_start=False, keep="last")
    assert attack.needs == "likelihood"
    assert build_attack("pgd", objective="ce").needs == "logits"
    inputs = images(30, low=0.3, high=0.7)
    adv_inputs = perturb(attack, model, inputs, labels, eps=[0.1]).adv_inputs[0]
    away = (inputs - model.get_buffer("centers")[labels].view(-1, 1, 6, 6)).sign()
    torch.testing.assert_close(adv_inputs, inputs + 0.1 * away)
    with pytest.raises(ValueError, match="needs the likelihood"):
        perturb(attack, convolutional(), images(), classes(), eps=[0.1])


def test_queries_are_counted_and_the_image_itself_is_asked_once() -> None:
    start = {"steps": 4, "random_start": False}
    for keys, forward, backward in [
        ({"steps": 4}, 1 + 2 * 5, 1 + 2 * 4),
        (start, 1 + 2 * 4, 1 + 2 * 3),
        ({"steps": 4, "restarts": 3}, 1 + 6 * 5, 1 + 6 * 4),
    ]:
        found = perturb(
            build_attack("pgd", **keys), convolutional(), images(), classes(), eps=[0.1, 0.2]
        )
        assert found.queries == (64 * forward, 64 * backward)


def test_zero_gradient_speaks_of_the_image_itself() -> None:
    class Gated(BinaryLinear):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * (images[:, 0, 0, 0] > 0.5).unsqueeze(1)

    inputs = images(50)
    for eps in ([0.1], [0.4, 0.1]):
        found = perturb(build_attack("pgd", steps=3), Gated(), inputs, classes(50, k=2), eps=eps)
        assert torch.equal(found.zero_gradient, inputs[:, 0, 0, 0] <= 0.5)


def test_nan_logits_at_the_last_step_are_told() -> None:
    class Cliff(BinaryLinear):
        def forward(self, images: Tensor) -> Tensor:
            far = (images - 0.5).abs().flatten(1).amax(dim=1, keepdim=True) > 0.05
            return super().forward(images) + torch.where(far, torch.nan, 0.0)

    attack = build_attack("pgd", steps=1, random_start=False)
    with pytest.raises(AttackError, match="logits are NaN or infinite for 20 of 20"):
        perturb(attack, Cliff(), torch.full((20, 1, 6, 6), 0.5), classes(20, k=2), eps=[0.1])


@pytest.mark.parametrize("schedule", STEP_SCHEDULES)
def test_steps_shrink_as_the_schedule_says(schedule: str) -> None:
    model = BinaryLinear()
    inputs = images(5, low=0.5, high=0.5)
    attack = build_attack(
        "pgd", steps=4, step_size=0.1, schedule=schedule, random_start=False, keep="last"
    )
    adv_inputs = perturb(attack, model, inputs, classes(5, k=2), eps=[0.1]).adv_inputs[0]
    total = sum(STEP_SCHEDULES[schedule](step / 4) for step in range(4))
    expected = torch.full((5,), 0.01 * total)
    torch.testing.assert_close(distance(adv_inputs - inputs, "linf"), expected)
    assert STEP_SCHEDULES[schedule](0.0) == 1.0
    assert total == {"constant": 4.0, "linear": 2.5}.get(schedule, pytest.approx(2.5))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"objective": "cw"}, "must be one of 'ce', 'margin', 'dlr', 'nll'"),
        ({"norm": "l0"}, r"norm \(='l0'\) must be one of 'linf', 'l2'"),
        ({"steps": 0}, r"steps \(=0\) must be at least 1"),
        ({"steps": 2.5}, r"steps \(=2.5\) must be an integer"),
        ({"restarts": 0}, r"restarts \(=0\) must be at least 1"),
        ({"restarts": 2, "random_start": False}, "would all be the same path"),
        ({"step_size": 0.0}, r"step_size \(=0.0\) must be positive"),
        ({"momentum": -1.0}, r"momentum \(=-1.0\) must be at least 0"),
        ({"schedule": "step"}, r"schedule \(='step'\) must be one of 'constant'"),
        ({"keep": "all"}, r"keep \(='all'\) must be one of 'best', 'first', 'last'"),
        ({"stpes": 3}, "did you mean 'steps'"),
    ],
)
@pytest.mark.parametrize("name", ["pgd", "mifgsm"])
def test_bad_parameters_are_refused(name: str, keys: dict, message: str) -> None:
    assert name in ATTACKS
    with pytest.raises(ValueError, match=message):
        build_attack(name, **keys)
