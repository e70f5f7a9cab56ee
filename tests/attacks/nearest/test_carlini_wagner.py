"""Carlini-Wagner: closed form, foolbox, and the traps that other implementations fall into."""

import pytest
import torch
import torchattacks
from torch import Tensor

from robustloss.attacks import build_attack, perturb
from robustloss.attacks.ball import distance
from tests.attacks.models import (
    BinaryLinear,
    ChangedLogits,
    Distances,
    classes,
    convolutional,
    images,
)

CPU = {"steps": 200, "search_steps": 5}


def test_radius_on_a_linear_classifier_is_the_distance_to_the_plane() -> None:
    model = BinaryLinear()
    inputs = images(200, low=0.4, high=0.6)
    logits = model(inputs).detach()
    labels = logits.argmax(dim=1)
    exact = logits[:, 1].abs() / model.weight.detach().norm()
    radius = perturb(build_attack("cw", **CPU), model, inputs, labels, eps=[0.1]).radius
    far = exact > 1e-3
    assert far.sum() > 150
    assert ((radius / exact)[far] >= 0.9999).all()
    assert ((radius / exact)[far] <= 1.05).all()


def test_as_near_as_foolbox() -> None:
    foolbox = pytest.importorskip("foolbox")
    model = convolutional().eval()
    labels = model(images(60)).argmax(dim=1)
    theirs = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=6, steps=500)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    _, found, fooled = theirs(wrapped, images(60), labels, epsilons=None)
    radius = perturb(build_attack("cw", **CPU), model, images(60), labels, eps=[1]).radius
    assert radius.isfinite().all()
    assert fooled.any()
    length = distance(found - images(60), "l2")
    assert radius.median() <= 1.05 * length[fooled].median()
    assert (radius[fooled] <= 1.05 * length[fooled] + 1e-4).double().mean() > 0.9


def test_binary_images_and_negative_logits_are_no_shelter() -> None:
    """Every logit of a Gaussian head is negative and most pixels are 0 or 1 (DESIGN section 6)."""
    model = Distances(scale=2.0)
    labels = classes(40, k=4)
    inputs = model.get_buffer("centers")[labels].reshape(40, 1, 6, 6)
    assert (model(inputs) <= 0).all()
    radius = perturb(build_attack("cw", **CPU), model, inputs, labels, eps=[1]).radius
    theirs = torchattacks.CW(model, c=1, steps=200, lr=0.01)(inputs, labels)
    assert (model(theirs).argmax(dim=1) == labels).all()
    assert radius.isfinite().all()
    flipped = perturb(build_attack("deepfool"), model, inputs, labels, eps=[1]).radius
    assert (radius <= 1.02 * flipped).all()


@pytest.mark.parametrize("change", [lambda z: z - 1024.0, lambda z: z * 1024.0, lambda z: z / 1024])
def test_shift_and_scale_of_the_logits_do_not_matter(change) -> None:
    model = ChangedLogits(change)
    labels = model(images(30)).argmax(dim=1)
    keys = {"steps": 100, "search_steps": 4}
    theirs = perturb(build_attack("cw", **keys), model, images(30), labels, eps=[1]).radius
    own = perturb(
        build_attack("cw", **keys), model.model.float(), images(30), labels, eps=[1]
    ).radius
    torch.testing.assert_close(own, theirs, rtol=0.01, atol=1e-3)


def test_confidence_buys_distance() -> None:
    model = convolutional().eval()
    labels = model(images(20)).argmax(dim=1)
    plain = perturb(build_attack("cw", **CPU), model, images(20), labels, eps=[9]).radius
    attack = build_attack("cw", confidence=0.5, **CPU)
    found = perturb(attack, model, images(20), labels, eps=[9.0])
    assert found.radius.isfinite().all()
    assert (found.radius > plain).all()
    logits = model(found.adv_inputs[0]).detach()
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    assert (others - logits.gather(1, labels[:, None])[:, 0] >= 0.4999).all()


def test_wrong_from_the_start_has_radius_zero_and_flat_has_none() -> None:
    class Gated(BinaryLinear):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * 0 + torch.tensor([1.0, 0.0])

    labels = torch.zeros(20, dtype=torch.int64)
    labels[:5] = 1
    attack = build_attack("cw", steps=5, search_steps=2)
    found = perturb(attack, Gated(), images(20), labels, eps=[0.5])
    assert (found.radius[:5] == 0).all()
    assert found.radius[5:].isinf().all()
    assert found.zero_gradient.all()
    assert torch.equal(found.adv_inputs[0], images(20))


@pytest.mark.parametrize("size", [1, 7])
def test_batch_size_does_not_matter(size: int) -> None:
    model = convolutional().eval()
    labels = model(images(20)).argmax(dim=1)
    attack = build_attack("cw", steps=50, search_steps=3)
    whole = perturb(attack, model, images(20), labels, eps=[0.3])
    parts = perturb(attack, model, images(20), labels, eps=[0.3], batch_size=size)
    torch.testing.assert_close(whole.radius, parts.radius, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"steps": 0}, r"steps \(=0\) must be at least 1"),
        ({"search_steps": 0}, r"search_steps \(=0\) must be at least 1"),
        ({"confidence": -1.0}, r"confidence \(=-1.0\) must be at least 0"),
        ({"learning_rate": 0.0}, r"learning_rate \(=0.0\) must be positive"),
        ({"norm": "linf"}, "cw.norm: unknown parameter"),
    ],
)
def test_bad_parameters_are_refused(keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_attack("cw", **keys)
