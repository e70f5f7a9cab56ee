"""Auto-PGD: closed forms, and what it promises."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from robustloss.attacks import AttackError, ImageNoise, build_attack, perturb
from robustloss.attacks.ball import distance, surface_start
from robustloss.attacks.bounded import apgd_steps
from robustloss.attacks.objectives import cross_entropy, logit_ratio, margin, targeted_logit_ratio
from tests.attacks.apgd_cases import (
    BUDGET,
    FORMS,
    NORMS,
    FromScore,
    Linear,
    Padded,
    Recording,
    fooled,
    ordinary,
)
from tests.attacks.models import SHAPE, BinaryLinear, ChangedLogits, classes, convolutional, images

# --- closed forms ---------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("name", "keys"), FORMS)
def test_linear_classifier_flips_exactly_beyond_its_distance(
    name: str, keys: dict, norm: str
) -> None:
    model = Padded()
    inputs = images(200, low=0.4, high=0.6)
    logits = model(inputs).detach()
    labels = logits.argmax(dim=1)
    dual = model.weight.detach().double().norm(p=1 if norm == "linf" else 2)
    threshold = logits[:, 1].double().abs() / dual
    eps = np.linspace(0.002, 0.05 if norm == "linf" else 0.2, 12).tolist()
    attack = build_attack(name, norm=norm, steps=20, **keys)
    adv_inputs = perturb(attack, model, inputs, labels, eps=eps).adv_inputs
    for budget, flipped in zip(eps, fooled(model, adv_inputs, labels), strict=True):
        clear = (threshold - budget).abs() > 1e-4
        assert torch.equal(flipped[clear], (budget > threshold)[clear])
    assert 0.1 < (threshold < eps[3]).double().mean() < 0.9  # the grid sees both outcomes


@pytest.mark.parametrize("norm", NORMS)
def test_targeted_form_finds_the_nearest_of_several_planes(norm: str) -> None:
    model = Linear()
    inputs = images(150, low=0.4, high=0.6)
    logits = model(inputs)
    labels = logits.argmax(dim=1)
    weight = model.get_buffer("weight")
    dual = (weight[labels].unsqueeze(1) - weight).norm(p=1 if norm == "linf" else 2, dim=2)
    distances = (logits.gather(1, labels[:, None]) - logits) / dual
    nearest = distances.scatter(1, labels[:, None], torch.inf).amin(dim=1)
    attack = build_attack("apgd_dlr", norm=norm, targets=3, steps=40)
    for share in (0.2, 0.5, 0.8):
        budget = float(nearest.quantile(share))
        adv_inputs = perturb(attack, model, inputs, labels, eps=[budget]).adv_inputs
        (flipped,) = fooled(model, adv_inputs, labels)
        clear = (nearest / budget - 1).abs() > 0.01
        assert torch.equal(flipped[clear], (budget > nearest)[clear])


@pytest.mark.parametrize("norm", NORMS)
def test_every_start_lies_on_the_surface_of_the_ball(norm: str) -> None:
    inputs = images(50, low=0.4, high=0.6)
    noise = ImageNoise(0, torch.arange(50))
    first, second = (surface_start(inputs, 0.3, norm, noise) for _ in range(2))  # type: ignore[arg-type]
    torch.testing.assert_close(distance(first - inputs, norm), torch.full((50,), 0.3))  # type: ignore[arg-type]
    assert (first != second).flatten(1).any(dim=1).all()


# --- strength -------------------------------------------------------------------------------


def test_zig_zag_over_a_peak_ends_because_the_step_is_halved(monkeypatch) -> None:
    """Fooled within 2e-3 of the peak only; eps is 0.1, so that the first steps jump across it."""

    def peak(left: Tensor, right: Tensor) -> Sequence[Tensor]:
        lead = 2e-3 - (0.5 * (left + right) - 0.53).abs()
        return torch.zeros_like(lead), lead, torch.tensor(-1.0), torch.tensor(-1.0)

    model, inputs = FromScore(peak), torch.full((30, *SHAPE), 0.5)
    labels = torch.zeros(30, dtype=torch.int64)
    for name, keys in FORMS:
        attack = build_attack(name, **keys)
        adv_inputs = perturb(attack, model, inputs, labels, eps=[0.1]).adv_inputs
        assert fooled(model, adv_inputs, labels).all()
        with monkeypatch.context() as patch:
            patch.setattr(apgd_steps, "_CHECKPOINTS", (2.0, 1.0, 1.0))  # never reached
            adv_inputs = perturb(attack, model, inputs, labels, eps=[0.1]).adv_inputs
            assert fooled(model, adv_inputs, labels).double().mean() < 0.5


@pytest.mark.parametrize("norm", NORMS)
def test_at_least_as_strong_as_pgd_with_as_many_gradients(norm: str) -> None:
    model, inputs, labels = ordinary()
    wrong = {
        name: fooled(
            model,
            perturb(
                build_attack(name, norm=norm, steps=20, **keys),
                *(model, inputs, labels),
                eps=[BUDGET[norm]],
            ).adv_inputs,
            labels,
        ).sum()
        for name, keys in [("apgd_ce", {}), ("apgd_dlr", {"targets": 4}), ("pgd", {})]
    }
    assert 20 <= wrong["pgd"] <= 80
    assert wrong["apgd_ce"] >= wrong["pgd"]
    assert wrong["apgd_dlr"] >= wrong["pgd"]


@pytest.mark.parametrize("keys", [{}, {"targets": 3}])
@pytest.mark.parametrize("change", [lambda z: z - 1000.0, lambda z: z * 1000.0, lambda z: z / 1000])
def test_ratio_ignores_shift_and_scale_of_the_logits(keys: dict, change) -> None:
    changed = ChangedLogits(change)
    labels = changed.model(images().double()).argmax(dim=1)
    attack = build_attack("apgd_dlr", steps=10, **keys)
    theirs = perturb(attack, changed, images(), labels, eps=[0.03]).adv_inputs
    plain = changed.model.float()
    own = perturb(attack, plain, images(), labels, eps=[0.03]).adv_inputs
    assert torch.equal(fooled(plain, own, labels), fooled(plain, theirs, labels))
    assert ((own - theirs).abs() > 1e-6).double().mean() < 0.01


def test_targeted_ratio_is_the_published_one() -> None:
    logits = torch.tensor([[1.0, 5.0, -2.0, 4.0, 0.5], [3.0, 3.0, 3.0, 3.0, 3.0]])
    found = targeted_logit_ratio(logits, torch.tensor([1, 0]), torch.tensor([2, 1]))
    torch.testing.assert_close(found, torch.tensor([-(5.0 + 2.0) / (5.0 - 0.75), 0.0]))


# --- what it promises -----------------------------------------------------------------------


def test_targeted_form_fools_where_the_untargeted_one_fails() -> None:
    """Class 1 is near and out of reach; pushing class 2 down, the only one in reach, looks best."""

    def decoy(left: Tensor, right: Tensor) -> Sequence[Tensor]:
        zero = torch.zeros_like(left)
        return zero, zero - 0.1, 2 * (right - 0.5) - 0.5, zero - 1.0

    model, inputs = FromScore(decoy), torch.full((20, *SHAPE), 0.5)
    labels = torch.zeros(20, dtype=torch.int64)
    for targets, expected in ((0, False), (1, False), (2, True), (9, True)):
        attack = build_attack("apgd_dlr", targets=targets, steps=20)
        adv_inputs = perturb(attack, model, inputs, labels, eps=[0.3]).adv_inputs
        assert (fooled(model, adv_inputs, labels) == expected).all()


@pytest.mark.parametrize(
    ("name", "objective"), [("apgd_ce", cross_entropy), ("apgd_dlr", logit_ratio)]
)
def test_returns_the_most_wrong_image_seen_else_the_one_of_highest_objective(
    name: str, objective
) -> None:
    plain, inputs, labels = ordinary()
    model = Recording(plain)
    attack = build_attack(name, steps=15)
    adv_inputs = perturb(attack, model, inputs, labels, eps=[BUDGET["linf"]]).adv_inputs[0]
    # All but the clean pass, and the last one, in which the harness judges what came back.
    seen, logits = map(torch.stack, zip(*model.seen[1:-1], strict=True))
    assert len(seen) == 16
    margins = torch.stack([margin(each, labels) for each in logits])
    values = torch.stack([objective(each, labels) for each in logits])
    some = (margins > 0).any(dim=0)
    chosen = torch.where(some, margins.argmax(dim=0), values.argmax(dim=0))
    assert 20 <= some.sum() <= 80
    assert torch.equal(adv_inputs, seen[chosen, torch.arange(100)])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("name", "objective"), [("apgd_ce", cross_entropy), ("apgd_dlr", logit_ratio)]
)
def test_objective_does_not_fall_with_more_steps(name: str, objective, norm: str) -> None:
    model, inputs, labels = ordinary()
    last = torch.full((100,), -torch.inf)
    for steps in (1, 5, 20, 100):
        attack = build_attack(name, norm=norm, steps=steps)
        found = perturb(attack, model, inputs, labels, eps=[BUDGET[norm] / 4]).adv_inputs[0]
        values = objective(model(found), labels).detach()
        kept = model(found).argmax(dim=1) == labels
        assert kept.sum() > 50
        assert (values >= last - 1e-4)[kept].all()
        last = values


def test_more_restarts_only_help() -> None:
    model, inputs, labels = ordinary()

    def found(restarts: int) -> tuple[Tensor, Tensor]:
        attack = build_attack("apgd_ce", steps=4, restarts=restarts)
        adv_inputs = perturb(attack, model, inputs, labels, eps=[BUDGET["linf"]]).adv_inputs
        logits = model(adv_inputs[0]).detach()
        return logits.argmax(dim=1) != labels, cross_entropy(logits, labels)

    (once, low), (often, high) = found(1), found(8)
    assert (often >= once).all()
    assert (high >= low - 1e-6).all()
    assert (high > low + 1e-5).any()


def test_fooled_images_drop_out_and_leave_no_trace() -> None:
    model, inputs, labels = ordinary()
    labels[::3] = (labels[::3] + 1) % 5  # wrong from the start
    attack = build_attack("apgd_dlr", steps=10, restarts=2, targets=2)
    together = perturb(attack, model, inputs, labels, eps=[BUDGET["linf"], 0.5])
    assert torch.equal(together.adv_inputs[0, ::3], inputs[::3])
    rest = [i for i in range(100) if i % 3]
    alone = perturb(
        attack, model, inputs[rest], labels[rest], eps=[BUDGET["linf"]], index=rest
    ).adv_inputs[0]
    assert ((alone - together.adv_inputs[0, rest]).abs() > 1e-6).double().mean() < 0.002
    wrong = fooled(model, together.adv_inputs, labels)
    assert 0 < wrong[0, rest].sum() < len(rest)
    assert wrong[1].all()
    # At eps 0.5 the first run does; at the smaller one somebody needs all four.
    run, slow = 11 * len(rest), int((~wrong[0]).sum())
    least, most = 100 + 2 * run + 3 * 11 * slow, 100 + run + 4 * run
    assert least <= together.queries.forward < most


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("name", "keys"), [*FORMS, ("apgd_ce", {"restarts": 2})])
def test_first_makes_the_errors_of_best_with_fewer_passes(name: str, keys: dict, norm: str) -> None:
    model, inputs, labels = ordinary()
    best, first = (
        perturb(
            build_attack(name, norm=norm, steps=12, keep=keep, **keys),
            model, inputs, labels, eps=[BUDGET[norm]],
        )
        for keep in ("best", "first")
    )  # fmt: skip
    assert first.queries.backward < best.queries.backward
    assert torch.equal(first.success, best.success)
    wrong = best.success[0]
    assert 10 < wrong.sum() < 90
    # Where none was fooled, the whole path was climbed, and the same image kept.
    far = (first.adv_inputs[0, ~wrong] - best.adv_inputs[0, ~wrong]).abs() > 1e-6
    assert far.double().mean() < 0.002
    ours, theirs = (
        margin(model(each.adv_inputs[0, wrong]), labels[wrong]) for each in (first, best)
    )
    assert (ours <= theirs + 1e-5).all()


def test_queries_are_counted_and_nothing_follows_the_last_point() -> None:
    _, inputs, labels = ordinary()
    for keys, runs in (({}, 1), ({"restarts": 3}, 3)):
        attack = build_attack("apgd_ce", steps=4, **keys)
        found = perturb(attack, convolutional(), inputs, labels, eps=[1e-6, 2e-6])
        assert found.queries == (100 * (1 + 2 * runs * 5), 100 * (1 + 2 * runs * 4))
    wrong = perturb(attack, convolutional(), inputs, (labels + 1) % 5, eps=[0.1])
    assert wrong.queries == (100, 100)


@pytest.mark.parametrize(("name", "keys"), FORMS)
def test_zero_gradient_speaks_of_the_image_itself(name: str, keys: dict) -> None:
    class Gated(Linear):
        def forward(self, images: Tensor) -> Tensor:
            gate = (images[:, 0, 0, 0] > 0.5).unsqueeze(1)
            return torch.where(gate, super().forward(images), torch.arange(4.0))

    inputs = images(50)
    labels = Gated()(inputs).argmax(dim=1)
    labels[:10] = (labels[:10] + 1) % 4  # fooled already: nobody asks for a gradient
    for eps in ([0.1], [0.4, 0.1], [0.0]):
        attack = build_attack(name, steps=3, **keys)
        found = perturb(attack, Gated(), inputs, labels, eps=eps)
        assert not found.zero_gradient[:10].any()
        assert torch.equal(found.zero_gradient[10:], inputs[10:, 0, 0, 0] <= 0.5)


# --- refusals -------------------------------------------------------------------------------


def test_too_few_classes_are_refused_with_a_way_out() -> None:
    args = (images(4), classes(4, k=2))
    with pytest.raises(ValueError, match=r"at least 3 classes, the model has 2; use .* or apgd_ce"):
        perturb(build_attack("apgd_dlr"), BinaryLinear(), *args, eps=[0.1])

    class Three(Linear):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images)[:, :3]

    perturb(build_attack("apgd_dlr", steps=1), Three(), *args, eps=[0.1])
    with pytest.raises(ValueError, match="at least 4 classes, the model has 3; use targets=0"):
        perturb(build_attack("apgd_dlr", targets=2), Three(), *args, eps=[0.1])


def test_nan_logits_at_the_last_step_are_told() -> None:
    class Cliff(Linear):
        def forward(self, images: Tensor) -> Tensor:
            still = torch.is_grad_enabled() and images.requires_grad
            return super().forward(images) + (0.0 if still else torch.nan)

    attack = build_attack("apgd_ce", steps=1)
    labels = Linear()(images(20)).argmax(dim=1)
    with pytest.raises(AttackError, match="logits are NaN or infinite for 20 of 20"):
        perturb(attack, Cliff(), images(20), labels, eps=[0.1])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"norm": "l0"}, r"norm \(='l0'\) must be one of 'linf', 'l2', 'l1'"),
        ({"steps": 0}, r"steps \(=0\) must be at least 1"),
        ({"steps": 2.5}, r"steps \(=2.5\) must be an integer"),
        ({"restarts": 0}, r"restarts \(=0\) must be at least 1"),
        ({"rho": 0.0}, r"rho \(=0.0\) must lie in \(0, 1\)"),
        ({"rho": 1.0}, r"rho \(=1.0\) must lie in \(0, 1\)"),
        ({"rho": float("nan")}, r"rho \(=nan\) must lie in \(0, 1\)"),
        ({"keep": "last"}, r"keep \(='last'\) must be one of 'best', 'first'"),
        ({"stpes": 3}, "did you mean 'steps'"),
    ],
)
@pytest.mark.parametrize("name", ["apgd_ce", "apgd_dlr"])
def test_bad_parameters_are_refused(name: str, keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_attack(name, **keys)


def test_targets_belong_to_the_ratio() -> None:
    with pytest.raises(ValueError, match=r"targets \(=-1\) must be at least 0"):
        build_attack("apgd_dlr", targets=-1)
    with pytest.raises(ValueError, match=r"apgd_ce.targets: unknown parameter"):
        build_attack("apgd_ce", targets=3)
