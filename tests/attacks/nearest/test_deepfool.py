"""DeepFool: closed form, other libraries, and what it promises."""

import pytest
import torch
from torch import nn

from robustloss.attacks import build_attack, perturb
from robustloss.attacks.ball import distance
from tests.attacks.models import convolutional, images


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_nearest_of_several_planes_is_taken(norm: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 5))
    inputs = images(100, low=0.45, high=0.55)
    logits = model(inputs).detach().double()
    labels = logits.argmax(dim=1)
    weight = model[1].weight.detach().double()
    difference = weight[labels].unsqueeze(1) - weight
    size = difference.norm(p=1 if norm == "linf" else 2, dim=2)
    lead = logits.gather(1, labels[:, None]) - logits
    exact = (lead / size).scatter(1, labels[:, None], torch.inf).amin(dim=1)
    inside = exact < (0.3 if norm == "linf" else 1.0)  # the box does not bind
    radius = perturb(build_attack("deepfool", norm=norm), model, inputs, labels, eps=[0.1]).radius
    assert inside.sum() > 30
    assert ((radius / exact)[inside] <= 1.03).all()
    assert ((radius / exact)[inside] >= 0.9999).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_as_near_as_foolbox(norm: str) -> None:
    foolbox = pytest.importorskip("foolbox")
    model = convolutional().eval()
    labels = model(images(200)).argmax(dim=1)
    kind = {"l2": foolbox.attacks.L2DeepFoolAttack, "linf": foolbox.attacks.LinfDeepFoolAttack}
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    _, theirs, fooled = kind[norm]()(wrapped, images(200), labels, epsilons=None)
    radius = perturb(
        build_attack("deepfool", norm=norm), model, images(200), labels, eps=[1]
    ).radius
    assert fooled.all()
    assert radius.isfinite().all()
    assert radius.median() <= 1.05 * distance(theirs - images(200), norm).median()


@pytest.mark.parametrize("size", [1, 7])
def test_batch_size_does_not_matter(size: int) -> None:
    model = convolutional().eval()
    labels = model(images()).argmax(dim=1)
    attack = build_attack("deepfool")
    whole = perturb(attack, model, images(), labels, eps=[0.3])
    parts = perturb(attack, model, images(), labels, eps=[0.3], batch_size=size)
    torch.testing.assert_close(whole.radius, parts.radius, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(whole.adv_inputs, parts.adv_inputs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"norm": "l1"}, r"norm \(='l1'\) must be one of"),
        ({"steps": 0}, r"steps \(=0\) must be at least 1"),
        ({"candidates": 0}, r"candidates \(=0\) must be at least 1"),
        ({"overshoot": -0.1}, r"overshoot \(=-0.1\) must be at least 0"),
    ],
)
def test_bad_parameters_are_refused(keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_attack("deepfool", **keys)
