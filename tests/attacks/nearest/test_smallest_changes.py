"""What every attack that looks for the smallest change finds on a linear classifier, and beyond."""

import pytest
import torch

from robustloss.attacks import build_attack, perturb
from tests.attacks.exact_steps import DUAL, ORDER, exact_step, length
from tests.attacks.models import BinaryLinear, Distances, classes, convolutional, images

FAR_OFF = {"deepfool": 1.03, "fab": 1.01, "fmn": 1.01}  # times the exact radius, at most
EVERY = [(name, norm) for name in FAR_OFF for norm in ORDER if norm != "l1" or name == "fmn"]
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
