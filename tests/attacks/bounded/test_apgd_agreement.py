"""Auto-PGD: the rule of its step length, and the authors' code."""

import numpy as np
import pytest
import torch
import torchattacks
from torch import Tensor

from robustloss.attacks import ImageNoise, ball, build_attack, perturb
from robustloss.attacks.ball import distance
from robustloss.attacks.bounded.apgd_steps import StepLength
from tests.attacks.apgd_cases import BUDGET, FORMS, NORMS, Recording, fooled, ordinary


def halvings(values: np.ndarray, rho: float) -> list[int]:
    """Slow and literal, for one image: steps after which the step length is halved."""
    steps = len(values) - 1
    period, least, fall = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    found, checked, best_then, halved = [], 0, values[0], True
    for step in range(1, steps + 1):
        if step - checked < period:
            continue
        rises = sum(values[i + 1] > values[i] for i in range(checked, step))
        best = max(values[: step + 1])
        halved = rises <= rho * period or (not halved and best == best_then)
        if halved:
            found.append(step)
        checked, best_then, period = step, best, max(period - fall, least)
    return found


@pytest.mark.parametrize("steps", [1, 7, 50, 100])
@pytest.mark.parametrize("rho", [0.75, 0.4])
def test_step_is_halved_as_the_paper_says(steps: int, rho: float) -> None:
    generator = np.random.default_rng(0)
    rising = np.arange(steps + 1.0)
    walks = generator.normal(0.3, 1.0, size=(20, steps + 1)).cumsum(axis=1)
    plateau = np.minimum(rising, 0.4 * steps)
    values = np.stack([rising, -rising, np.zeros(steps + 1), rising % 2, plateau, *walks])
    expected = [halvings(row, rho) for row in values]
    length = StepLength(0.1, steps, rho, torch.tensor(values[:, 0]), "linf")
    found: list[list[int]] = [[] for _ in values]
    for step in range(1, steps + 1):
        for row in (
            length.observe(torch.tensor(values[:, step]), torch.zeros(0))
            .nonzero()
            .flatten()
            .tolist()
        ):
            found[row].append(step)
    assert found == expected
    assert expected[0] == []  # always rising
    halves = torch.tensor([len(row) for row in expected])
    torch.testing.assert_close(length.now, 0.2 * 0.5**halves)
    if steps == 100:  # the published checkpoints
        assert expected[1] == [22, 41, 57, 70, 80, 87, 93, 99]


def authors_start(inputs: Tensor, eps: float, norm: str, noise: ImageNoise) -> Tensor:
    """The start that torchattacks draws with its seed 0, away from the box."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        delta = 2 * torch.rand(inputs.shape) - 1 if norm == "linf" else torch.randn(inputs.shape)
    return inputs + eps * delta / distance(delta, norm).view(-1, 1, 1, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("name", "keys"), FORMS)
@pytest.mark.parametrize("steps", [10, 40])
def test_robust_error_equals_torchattacks(
    name: str, keys: dict, norm: str, steps: int, monkeypatch
) -> None:
    model, inputs, labels = ordinary()
    own = perturb(
        build_attack(name, norm=norm, steps=steps, **(keys and {"targets": 4})),
        *(model, inputs, labels),
        eps=[BUDGET[norm]],
    ).adv_inputs[0]
    monkeypatch.setattr(ball, "surface_start", authors_start)
    paired = perturb(
        build_attack(name, norm=norm, steps=steps, **(keys and {"targets": 1})),
        *(model, inputs, labels),
        eps=[BUDGET[norm]],
    ).adv_inputs[0]
    settings = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": BUDGET[norm], "steps": steps}

    def theirs(n_classes: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):  # it seeds the global generator
            if keys:
                attack = torchattacks.APGDT(model, n_classes=n_classes, **settings)
            else:
                attack = torchattacks.APGD(model, loss=name.removeprefix("apgd_"), **settings)
            return attack(inputs, labels)

    # Their own random start, then the same start in one run.
    wrong, expected = fooled(model, torch.stack([own, theirs(5)]), labels)
    assert 20 <= expected.sum() <= 80
    assert abs(wrong.sum() - expected.sum()) <= 1
    wrong, expected = fooled(model, torch.stack([paired, theirs(2)]), labels)
    assert torch.equal(wrong, expected)


def ratio(attack: torchattacks.APGD, logits: Tensor, labels: Tensor) -> Tensor:
    """Equation 6 of Croce and Hein 2020, literally."""
    ordered = logits.sort(dim=1).values
    true = logits.gather(1, labels[:, None])[:, 0]
    other = torch.where(true == ordered[:, -1], ordered[:, -2], ordered[:, -1])
    return (other - true) / (ordered[:, -1] - ordered[:, -3])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["apgd_ce", "apgd_dlr"])
def test_goes_step_by_step_where_torchattacks_goes(name: str, norm: str, monkeypatch) -> None:
    """In float64 and without the 1e-12 in the authors' denominator.

    A machine's rounding in float32 sends the paths apart, and so does that number where the ratio
    is constant: where the true class is third.
    """
    plain, inputs, labels = ordinary()
    monkeypatch.setattr(ball, "surface_start", authors_start)
    monkeypatch.setattr(torchattacks.APGD, "dlr_loss", ratio)
    eps, count = BUDGET[norm], len(inputs)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # the authors' code keeps its losses in it
    try:
        own, theirs = Recording(plain.double()), Recording(plain)
        inputs = inputs.double()
        attack = build_attack(name, norm=norm, steps=50)
        attack(own, inputs, labels, eps=[eps], noise=ImageNoise(0, torch.arange(count)))
        kind = {"linf": "Linf", "l2": "L2"}[norm]
        with torch.random.fork_rng(devices=[]):
            torchattacks.APGD(
                theirs, norm=kind, eps=eps, steps=50, loss=name.removeprefix("apgd_")
            )(inputs, labels)
    finally:
        torch.set_default_dtype(before)
    ours, expected = (torch.stack([each for each, _ in seen]) for seen in (own.seen, theirs.seen))
    assert len(ours) == len(expected) == 52
    same = (ours - expected).abs().amax(dim=(2, 3, 4)) < 1e-5
    assert same[:13].double().mean() > 0.99  # the image, the start, the first gap of 11 steps
    # In L2 the path has settled by then, and rounding decides whether the objective rises.
    assert same.all(dim=0).double().mean() >= (0.97 if norm == "linf" else 0.6)
