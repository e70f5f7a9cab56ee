"""What every attack that looks for the smallest change finds on a linear classifier, and beyond."""

from typing import Any

import pytest
import torch
from torch import Tensor

from robustloss.attacks import build_attack, perturb
from tests.attacks.exact_steps import DUAL, ORDER, exact_step, length
from tests.attacks.models import (
    BinaryLinear,
    ChangedLogits,
    Distances,
    classes,
    convolutional,
    images,
)

FAR_OFF = {"deepfool": 1.03, "fab": 1.01, "fmn": 1.01}  # times the exact radius, at most
EVERY = [(name, norm) for name in FAR_OFF for norm in ORDER if norm != "l1" or name == "fmn"]
SHORT: dict[str, dict[str, Any]] = {"deepfool": {}, "fab": {"steps": 20}, "fmn": {"steps": 20}}
EXACT = [(name, norm) for name, norm in EVERY if name != "deepfool"]


@pytest.mark.parametrize(("name", "norm"), EVERY)
def test_radius_on_a_linear_classifier_is_the_distance_to_the_plane(name: str, norm: str) -> None:
    model = BinaryLinear()
    inputs = images(200, low=0.4, high=0.6)
    logits = model(inputs).detach()
    labels = logits.argmax(dim=1)
    exact = logits[:, 1].abs() / model.weight.detach().norm(p=DUAL[norm])
    found = perturb(build_attack(name, norm=norm), model, inputs, labels, eps=[0.01, 0.2])
    assert found.radius is not None
    far = exact > 1e-4  # nearer ones are decided by rounding
    assert far.sum() > 150
    assert ((found.radius / exact)[far] >= 0.9999).all()
    assert ((found.radius / exact)[far] <= FAR_OFF[name]).all()
    for budget, adv_inputs in zip([0.01, 0.2], found.adv_inputs, strict=True):
        fooled = model(adv_inputs).argmax(dim=1) != labels
        assert torch.equal(fooled, found.radius <= budget)
    assert not found.outside.any()


@pytest.mark.parametrize(("name", "norm"), EXACT)
def test_radius_on_a_linear_classifier_where_the_box_binds(name: str, norm: str) -> None:
    model = BinaryLinear()
    inputs = images(30).round()  # every pixel at a bound: half of them cannot move
    logits = model(inputs).detach()
    labels = logits.argmax(dim=1)
    weight = model.weight.detach().double().numpy()
    exact = [
        length(exact_step(pixels, weight, gap, norm), norm)
        for pixels, gap in zip(
            inputs.flatten(1).double().numpy(), -logits[:, 1].double().numpy(), strict=True
        )
    ]
    free = logits[:, 1].abs() / model.weight.detach().norm(p=DUAL[norm])
    radius = perturb(build_attack(name, norm=norm), model, inputs, labels, eps=[0.1]).radius
    assert radius is not None
    ratio = radius / torch.tensor(exact)
    held = (torch.tensor(exact) > 1.1 * free).double().mean()
    assert held > (0.1 if norm == "l1" else 0.8)  # in L1 few pixels move at all
    assert (ratio >= 0.9999).all()
    assert (ratio <= 1.02).all()


@pytest.mark.parametrize(("name", "norm"), [*EXACT, ("deepfool", "l2")])
def test_binary_images_and_negative_logits_are_no_shelter(name: str, norm: str) -> None:
    """Where cross-entropy is saturated and every pixel is 0 or 1 (DESIGN section 6)."""
    model = Distances(scale=6.0)
    labels = classes(40, k=4)
    inputs = model.get_buffer("centers")[labels].reshape(40, 1, 6, 6)
    assert (model(inputs) <= 0).all()
    radius = perturb(build_attack(name, norm=norm), model, inputs, labels, eps=[0.1]).radius
    # Centers differ in 18 pixels; the boundary is in the middle.
    half_way = torch.full((40,), 0.5 * 18 ** (1 / ORDER[norm]))
    torch.testing.assert_close(radius, half_way, rtol=0.03 if name == "deepfool" else 0.02, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_and_fmn_come_at_least_as_near_as_deepfool(norm: str) -> None:
    model = convolutional().eval()
    labels = model(images()).argmax(dim=1)
    other = perturb(build_attack("deepfool", norm=norm), model, images(), labels, eps=[1]).radius
    assert other is not None
    for name, steps in (("fab", 20), ("fmn", 50)):
        attack = build_attack(name, norm=norm, steps=steps)
        own = perturb(attack, model, images(), labels, eps=[0.1]).radius
        assert own is not None
        assert (own <= 1.005 * other).double().mean() > 0.95
        assert own.median() < 0.999 * other.median()


@pytest.mark.parametrize(("name", "norm"), EVERY)
@pytest.mark.parametrize(
    "change", [lambda z: z - 1024.0, lambda z: z * 1000.0, lambda z: z * 1e-12]
)
def test_shift_and_scale_of_the_logits_do_not_matter(name: str, norm: str, change) -> None:
    model = ChangedLogits(change)
    labels = model.model(images().double()).argmax(dim=1)
    attack = build_attack(name, norm=norm, **SHORT[name])
    theirs = perturb(attack, model, images(), labels, eps=[1]).radius
    own = perturb(attack, model.model.float(), images(), labels, eps=[1]).radius
    assert own is not None
    assert theirs is not None
    rtol = 1e-3 if name == "deepfool" else 2e-3
    same = torch.isclose(own, theirs, rtol=rtol, atol=1e-6)
    # Beside a boundary, rounding decides whether the ball of FMN shrinks or grows by γ.
    assert same.double().mean() > 0.9 if name == "fmn" else same.all()
    torch.testing.assert_close(own.median(), theirs.median(), rtol=5e-3, atol=0)


@pytest.mark.parametrize("name", FAR_OFF)
def test_wrong_from_the_start_has_radius_zero_and_flat_has_none(name: str) -> None:
    class Gated(BinaryLinear):
        def forward(self, images: Tensor) -> Tensor:
            moving = super().forward(images)
            flat = torch.tensor([1.0, 0.0]).expand_as(moving)
            return torch.where((images[:, 0, 0, 0] > 0.5).unsqueeze(1), moving, flat)

    model, inputs = Gated(), images(60)
    with torch.no_grad():
        model.weight[0] = 0  # no step goes through the gate
    labels = model(inputs).argmax(dim=1)
    labels[:10] = 1 - labels[:10]
    found = perturb(build_attack(name), model, inputs, labels, eps=[0.5])
    assert found.radius is not None
    flat = (inputs[:, 0, 0, 0] <= 0.5) & (torch.arange(60) >= 10)
    assert (found.radius[:10] == 0).all()
    assert torch.equal(found.radius.isinf(), flat)
    assert torch.equal(found.zero_gradient, flat)
    assert torch.equal(found.adv_inputs[0][flat], inputs[flat])
    all_wrong = perturb(build_attack(name), model, inputs[:5], labels[:5], eps=[0.5])
    assert all_wrong.queries == (5, 5 if name == "fmn" else 0)  # it begins with a gradient of all
    if name == "fmn":
        going = 50 - int(flat.sum())  # the others are left alone
        assert found.queries == (60 + 100 * going, 60 + 99 * going)
