"""Attacks in L1: the exact projection, the steepest step, closed forms and other libraries."""

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor, nn

from robustloss.attacks import ImageNoise, build_attack, perturb
from robustloss.attacks.ball import (
    ascend,
    ascent_direction,
    distance,
    project,
    surface_start,
    uniform_start,
)
from robustloss.attacks.bounded.apgd_steps import SparseStep
from tests.attacks.apgd_cases import Linear, Padded, fooled, ordinary
from tests.attacks.exact_steps import exact_step
from tests.attacks.models import images

FORMS = [
    ("fgsm", {}),
    ("fgsm", {"objective": "margin"}),
    ("pgd", {}),
    ("apgd_ce", {"steps": 60}),
    ("apgd_dlr", {"steps": 60}),
]


def exact_radii(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """The L1 distance of each image to the plane w·x + b = 0, inside the box, by an LP."""
    weight, (_, lead, *_) = model.weight.detach().double().numpy(), model(inputs).detach().T
    pixels, gaps = inputs.flatten(1).double().numpy(), -lead.double().numpy()
    assert torch.equal(labels, (lead > 0).long())
    found = [
        np.abs(exact_step(own, weight, gap, "l1")).sum()
        for own, gap in zip(pixels, gaps, strict=True)
    ]
    return torch.tensor(found)


# --- projection, steps and starts -----------------------------------------------------------


def nearest_point(pixels: np.ndarray, wanted: np.ndarray, eps: float) -> np.ndarray:
    """The point of box and ball that is nearest to another, by a general-purpose solver.

    Variables: the upward and the downward part of its distance from the pixels.
    """
    n = len(pixels)

    def slope(parts: np.ndarray) -> np.ndarray:
        away = pixels + parts[:n] - parts[n:] - wanted
        return np.append(away, -away)

    solved = scipy.optimize.minimize(
        lambda parts: 0.5 * ((pixels + parts[:n] - parts[n:] - wanted) ** 2).sum(),
        np.zeros(2 * n),
        jac=slope,
        bounds=[(0, room) for room in (*(1 - pixels), *pixels)],
        constraints={
            "type": "ineq", "fun": lambda p: eps - p.sum(), "jac": lambda p: -np.ones(2 * n),
        },
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    assert solved.success
    return pixels + solved.x[:n] - solved.x[n:]


@pytest.mark.parametrize("eps", [0.1, 1.0, 4.0])
def test_projection_is_the_nearest_point_of_box_and_ball(eps: float) -> None:
    inputs = images(10)
    inputs[:5] = inputs[:5].round()  # pixels at the bounds already
    wanted = inputs + 3 * (images(10, seed=5) - 0.5)
    found = project(wanted, inputs, eps, "l1")
    length = distance(found - inputs, "l1")
    torch.testing.assert_close(length, torch.full((10,), eps), rtol=1e-6, atol=1e-6)
    for own, pixels, point in zip(found, inputs, wanted, strict=True):
        best = nearest_point(*(each.flatten().double().numpy() for each in (pixels, point)), eps)
        np.testing.assert_allclose(own.flatten().numpy(), best, atol=1e-5)


def test_projection_of_many_pixels_keeps_to_the_radius() -> None:
    """Rounding of 150,528 sums must not add up beyond the tolerance of the harness."""
    inputs = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    for scale in (0.01, 1.0, 1e30):
        wanted = inputs + scale * (inputs.flip(0) - 0.5)
        length = distance((project(wanted, inputs, 12.0, "l1") - inputs).double(), "l1")
        assert (length <= 12.0 * (1 + 1e-6)).all()
        assert (length >= 12.0 * (1 - 1e-3)).all() or scale > 1e3


def test_projection_equals_the_authors() -> None:
    reference = pytest.importorskip("pyautoattack.autopgd_base")
    inputs = images(40)
    wanted = inputs + 3 * (images(40, seed=5) - 0.5)
    theirs = wanted + reference.L1_projection(inputs, wanted - inputs, 2.0)
    torch.testing.assert_close(project(wanted, inputs, 2.0, "l1"), theirs, rtol=0, atol=2e-5)


def test_steepest_step_fills_pixels_in_the_order_of_their_gradients() -> None:
    point = torch.tensor([0.5, 0.25, 1.0, 0.0, 0.5]).view(1, 1, 1, 5)
    gradient = torch.tensor([2.0, -3.0, 9.0, -1.0, 0.0]).view(1, 1, 1, 5)
    for length, expected in [
        (0.2, [0.5, 0.05, 1.0, 0.0, 0.5]),
        (0.5, [0.75, 0.0, 1.0, 0.0, 0.5]),
        (9.0, [1.0, 0.0, 1.0, 0.0, 0.5]),  # no room, and no gradient, in the others
    ]:
        found = ascend(point, gradient, length, "l1").flatten()
        torch.testing.assert_close(found, torch.tensor(expected))


def test_unit_step_goes_along_the_largest_gradients() -> None:
    gradient = torch.tensor([[2e-30, -3e-30, 3e-30, 0.0], [0.0, 0.0, 0.0, 0.0]]).view(2, 1, 1, 4)
    found = ascent_direction(gradient, "l1").view(2, 4)
    assert found.tolist() == [[0.0, -0.5, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]]


def test_sparse_step_is_spread_over_pixels_with_room_and_adapts() -> None:
    inputs = torch.full((2, 1, 1, 100), 0.5)
    point = inputs + 0.01  # every pixel changed
    point[:, ..., :10] = 1.0
    gradient = torch.arange(100, 0, -1.0).expand(2, 1, 1, 100)
    step = SparseStep(3.0, 25, point, inputs)
    moved = step.move(point, gradient) - point
    assert torch.equal(moved[0].flatten().nonzero().flatten(), torch.arange(10, 30))
    torch.testing.assert_close(distance(moved, "l1"), torch.full((2,), 3.0))
    best = point.clone()
    best[0, ..., 30:] = 0.5  # the first image's change has become sparser, the other's has not
    assert step.observe(torch.zeros(2), best).tolist() == [True, False]
    torch.testing.assert_close(step.length, torch.tensor([3.0, 2.0]))
    torch.testing.assert_close(step.pixels, torch.tensor([20.0, 100 / 1.5]))
    for _ in range(9):
        step.observe(torch.zeros(2), best)
    torch.testing.assert_close(step.length, torch.tensor([0.3, 0.3]))  # a tenth of the radius


def test_starts_lie_in_the_ball_and_fill_it() -> None:
    inputs, noise = images(300, low=0.4, high=0.6), ImageNoise(0, torch.arange(300))
    surface = surface_start(inputs, 0.3, "l1", noise)
    torch.testing.assert_close(distance(surface - inputs, "l1"), torch.full((300,), 0.3))
    inside = distance(uniform_start(inputs, 0.3, "l1", noise) - inputs, "l1")
    assert (inside <= 0.3 + 1e-6).all()
    # Uniform in the ball: (length / eps)^d is uniform on [0,1].
    assert ((inside / 0.3).double() ** 36).mean() == pytest.approx(0.5, abs=0.06)


# --- closed forms ---------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [False, True], ids=["inside", "at the box"])
@pytest.mark.parametrize(("name", "keys"), FORMS)
def test_linear_classifier_flips_beyond_its_distance(name: str, keys: dict, bound: bool) -> None:
    model = Padded()
    inputs = images(60).round() if bound else images(60, low=0.4, high=0.6)
    labels = model(inputs).argmax(dim=1)
    exact = exact_radii(model, inputs, labels)
    free = model(inputs)[:, 1].detach().abs() / model.weight.detach().abs().max()
    assert ((exact > 1.05 * free).double().mean() > 0.2) == bound
    eps = [float(exact.quantile(share)) for share in (0.2, 0.5, 0.8)]
    adv_inputs = perturb(build_attack(name, norm="l1", **keys), model, inputs, labels, eps=eps)
    for budget, flipped in zip(eps, fooled(model, adv_inputs.adv_inputs, labels), strict=True):
        assert not flipped[exact > 1.0001 * budget].any()
        assert flipped[exact < budget / (1.0001 if name == "fgsm" else 1.02)].all()


def test_targeted_form_finds_the_nearest_of_several_planes() -> None:
    model, inputs = Linear(), images(100, low=0.4, high=0.6)
    logits = model(inputs)
    labels = logits.argmax(dim=1)
    weight = model.get_buffer("weight")
    dual = (weight[labels].unsqueeze(1) - weight).abs().amax(dim=2)
    distances = (logits.gather(1, labels[:, None]) - logits) / dual
    nearest = distances.scatter(1, labels[:, None], torch.inf).amin(dim=1)
    nearest = nearest[inside := nearest < 0.3]  # one pixel does it: the box does not bind
    budget = float(nearest.median())
    attack = build_attack("apgd_dlr", norm="l1", targets=3, steps=60)
    found = perturb(attack, model, inputs[inside], labels[inside], eps=[budget])
    assert inside.sum() > 30
    assert found.success[0][nearest < budget / 1.02].all()
    assert not found.success[0][nearest > 1.0001 * budget].any()


# --- strength -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:there are:Warning")  # of the authors: zero gradients
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_as_strong_as_the_authors(loss: str) -> None:
    reference = pytest.importorskip("pyautoattack.autopgd_base")
    model, inputs, labels = ordinary()
    own = perturb(
        build_attack(f"apgd_{loss}", norm="l1", steps=40), model, inputs, labels, eps=[0.5]
    )
    attack = reference.APGDAttack(
        model, n_iter=40, norm="L1", eps=0.5, loss=loss, use_largereps=True, seed=0, device="cpu"
    )
    with torch.random.fork_rng(devices=[]):  # it seeds the global generator
        theirs = model(attack.perturb(inputs, labels)).argmax(dim=1) != labels
    assert 20 <= theirs.sum() <= 80
    assert own.success[0].sum() >= theirs.sum() - 1


def test_at_least_as_strong_as_pgd_and_that_as_fgsm() -> None:
    model, inputs, labels = ordinary()
    once, pgd, apgd = (
        int(perturb(build_attack(name, norm="l1", **keys), model, inputs, labels, eps=[0.5])
            .success.sum())
        for name, keys in (("fgsm", {}), ("pgd", {"steps": 20}), ("apgd_ce", {"steps": 20}))
    )  # fmt: skip
    assert 20 <= once <= pgd <= apgd <= 80


def test_first_makes_the_errors_of_best_with_fewer_passes() -> None:
    model, inputs, labels = ordinary()
    best, first = (
        perturb(
            build_attack("apgd_ce", norm="l1", steps=20, keep=keep),
            model, inputs, labels, eps=[0.5],
        )
        for keep in ("best", "first")
    )  # fmt: skip
    assert torch.equal(first.success, best.success)
    assert first.queries.backward < best.queries.backward
    # A start in each of three balls, and 20 steps in all.
    right = int((model(inputs).argmax(dim=1) == labels).sum())
    assert best.queries == (100 + right * 23, 100 + right * 20)


@pytest.mark.parametrize("name", ["deepfool", "fab", "square"])
def test_an_attack_without_l1_names_those_that_have_it(name: str) -> None:
    message = r"norm \(='l1'\) must be one of 'linf', 'l2' in this attack. Attacks in L1 are fgsm"
    with pytest.raises(ValueError, match=message):
        build_attack(name, norm="l1")
