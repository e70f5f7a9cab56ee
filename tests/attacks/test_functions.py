import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchattacks
from torch import Tensor

from robustloss.attacks import AttackError, AttackOutput, PluginError, build_attack, perturb
from robustloss.attacks.functions import as_attack
from tests.attacks.models import BinaryLinear, classes, convolutional, images

FILE = '''
import torch
import torch.nn.functional as F
from robustloss.attacks import AttackOutput

def sign_step(model, inputs, labels, eps):
    """FGSM as a user would write it."""
    inputs.requires_grad_()
    F.cross_entropy(model(inputs), labels).backward()
    return inputs + eps * inputs.grad.sign()

def many_steps(model, inputs, labels, eps, *, steps, rate=0.25, momentum: float = 0.0):
    return (inputs + eps * min(1.0, steps * rate)).detach()

def euclidean(model, inputs, labels, eps):
    return inputs + eps
euclidean.norm = "l2"

def open_ended(model, inputs, labels, eps, **rest):
    return inputs + rest.get("share", 1) * eps

def whole(model, inputs, labels, *, eps, noise, share=1.0):
    shape = inputs.shape[1:]
    return torch.stack([inputs + share * e * noise.restart().uniform(shape) for e in eps])

def short(model, inputs, labels):
    return inputs

class Complete:
    norm, needs = "linf", "logits"
    def __init__(self, *, share=1.0):
        if share > 1:
            raise ValueError(f"share (={share}) must be at most 1.")
        self.name, self.share = "complete", share
    def __call__(self, model, inputs, labels, *, eps, noise):
        return AttackOutput(torch.stack([inputs + self.share * e for e in eps]))

class Chebyshev(Complete):
    norm = "l7"

built = Complete(share=0.5)
number = 3
'''


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(FILE)
    return str(tmp_path / "mine.py")


def attacked(attack: Any, eps: float = 0.1, **options: Any) -> Tensor:
    model = convolutional()
    return perturb(attack, model, images(), classes(), eps=[eps], **options).adv_inputs[0]


def test_a_function_of_one_eps_is_an_attack(plugin: str) -> None:
    found = attacked(build_attack(f"{plugin}:sign_step"))
    assert torch.equal(found, attacked(build_attack("fgsm")))


def test_a_function_can_be_given_as_it_is() -> None:
    def up(model, inputs, labels, eps):
        return inputs + eps

    assert torch.equal(attacked(up), (images() + 0.1).clamp(0, 1))


def test_further_parameters_are_keywords(plugin: str) -> None:
    attack = build_attack(f"{plugin}:many_steps", steps=2)
    torch.testing.assert_close(attacked(attack), (images() + 0.05).clamp(0, 1))
    attack = build_attack(f"{plugin}:many_steps", steps=2, rate=0.5)
    torch.testing.assert_close(attacked(attack), (images() + 0.1).clamp(0, 1))
    attack = build_attack(f"{plugin}:open_ended", share=0.5)
    torch.testing.assert_close(attacked(attack), (images() + 0.05).clamp(0, 1))


def test_a_function_that_takes_noise_gets_the_whole_contract(plugin: str) -> None:
    attack = build_attack(f"{plugin}:whole", share=0.5)
    found = perturb(attack, BinaryLinear(), images(), classes(k=2), eps=[0.1, 0.2])
    small, large = (found.adv_inputs - images()).clamp(min=0)
    inside = images() + large < 1
    torch.testing.assert_close(2 * small[inside], large[inside], rtol=0, atol=1e-6)
    assert len(large.unique()) > 1000


def test_classes_and_objects_with_the_signature_are_attacks(plugin: str) -> None:
    half = (images() + 0.05).clamp(0, 1)
    assert torch.equal(attacked(build_attack(f"{plugin}:Complete", share=0.5)), half)
    assert torch.equal(attacked(build_attack(f"{plugin}:built")), half)


def test_norm_comes_from_parameter_attribute_or_default(plugin: str) -> None:
    assert build_attack(f"{plugin}:sign_step").norm == "linf"
    assert build_attack(f"{plugin}:sign_step", norm="l2").norm == "l2"
    assert build_attack(f"{plugin}:euclidean").norm == "l2"
    assert build_attack(f"{plugin}:euclidean", norm="linf").norm == "linf"

    def own(model, inputs, labels, eps, norm="l2"):
        return inputs

    assert as_attack(own).norm == "l2"
    moved = attacked(build_attack(f"{plugin}:euclidean"), eps=2.0) - images()
    assert moved.flatten(1).norm(dim=1).max() == pytest.approx(2.0, abs=1e-5)


def randomised(model, inputs, labels, eps):
    shift = random.random() + np.random.rand()  # noqa: NPY002 - what users' code does
    return inputs + eps * (torch.rand_like(inputs) + shift - 1.5)


def test_a_random_function_repeats_itself() -> None:
    first = attacked(randomised, batch_size=20)
    random.seed(4), np.random.seed(4), torch.manual_seed(4)  # noqa: NPY002
    assert torch.equal(attacked(randomised, batch_size=20), first)
    assert not torch.equal(attacked(randomised, batch_size=20, seed=1), first)
    # Batches draw different numbers, and no eps depends on the others.
    change = first - images()
    assert not torch.allclose(change[:20], change[20:40], atol=0.01)
    both = perturb(randomised, BinaryLinear(), images(), classes(k=2), eps=[0.3, 0.1])
    alone = perturb(randomised, BinaryLinear(), images(), classes(k=2), eps=[0.1])
    assert torch.equal(both.adv_inputs[1], alone.adv_inputs[0])


def test_a_function_may_not_spoil_the_next_eps() -> None:
    def careless(model, inputs, labels, eps):
        return inputs.mul_(1 - eps)

    found = perturb(careless, BinaryLinear(), images(), classes(k=2), eps=[0.1, 0.2])
    assert torch.equal(found.adv_inputs[1], images() * 0.8)


def test_a_minimum_norm_function_is_called_once() -> None:
    calls = []

    def flip(model, inputs, labels, eps) -> AttackOutput:
        calls.append(eps)
        return AttackOutput((1 - inputs)[None], radius=(1 - 2 * inputs).abs().amax((1, 2, 3)))

    model, inputs = BinaryLinear(), images()
    labels = model(inputs).argmax(dim=1)
    found = perturb(flip, model, inputs, labels, eps=[0.5, 0.99, 1.0])
    assert calls == [0.5]
    # Reflection at the middle of the box crosses a boundary that runs through it.
    expected = (1 - 2 * inputs).abs().amax((1, 2, 3))
    torch.testing.assert_close(found.radius, expected)
    assert torch.equal((found.adv_inputs[1] != inputs).any(3).any(2).any(1), found.radius <= 0.99)


def test_flags_of_a_function_are_kept() -> None:
    def flagged(model, inputs, labels, eps) -> AttackOutput:
        return AttackOutput(inputs[None], zero_gradient=labels == 1)

    found = perturb(flagged, BinaryLinear(), images(), classes(k=2), eps=[0.1, 0.2])
    assert torch.equal(found.zero_gradient, classes(k=2) == 1)


def test_another_librarys_attack_works_inside_a_function() -> None:
    def theirs(model, inputs, labels, eps):
        return torchattacks.FGSM(copy.deepcopy(model), eps=eps)(inputs, labels)

    def counted(model, inputs, labels, eps):
        return torchattacks.PGD(model, eps=eps, alpha=eps / 4, steps=3)(inputs, labels)

    assert torch.equal(attacked(theirs), attacked(build_attack("fgsm")))
    found = perturb(counted, convolutional(), images(), classes(), eps=[0.1])
    assert found.queries == (3 * 64, 3 * 64)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: x[:, :, :3], r"returned shape \(64, 1, 3, 6\); a function that takes one eps"),
        (lambda x: x.numpy(), r"returned ndarray; .* must return images of shape \(64, 1, 6, 6\)"),
        (lambda x: AttackOutput(x), r"returned shape \(64, 1, 6, 6\); .* AttackOutput of \(1, "),
        (lambda x: (x, None), "returned tuple; a function"),
    ],
)
def test_a_wrong_return_is_refused(returned, message: str) -> None:
    def wrong(model, inputs, labels, eps):
        return returned(inputs)

    with pytest.raises(AttackError, match=f"attack 'wrong' {message}"):
        attacked(wrong)


BAD = {
    "three arguments": ("short", {}, r"takes \(model, inputs, labels\); it must take \(model, in"),
    "unknown": ("many_steps", {"step": 2}, "many_steps.step: unknown parameter; did you mean 'st"),
    "none to take": ("sign_step", {"steps": 2}, "sign_step.steps: unknown parameter. It takes no"),
    "missing": ("many_steps", {}, "many_steps.steps: missing; this parameter has no default"),
    "filled": ("open_ended", {"eps": 2}, "open_ended.eps: unknown parameter"),
    "norm": ("sign_step", {"norm": "l0"}, r"norm \(='l0'\) must be one of 'linf', 'l2'"),
    "needs": ("sign_step", {"needs": "x"}, r"needs \(='x'\) must be one of 'logits', 'likelihood'"),
    "class value": ("Complete", {"share": 2}, r"Complete': share \(=2\) must be at most 1"),
    "class type": ("Complete", {"share": "x"}, "Complete': TypeError: '>' not supported"),
    "class parameter": ("Complete", {"shar": 1}, "Complete.shar: unknown parameter; did you mean"),
    "class norm": ("Chebyshev", {}, r"norm \(='l7'\) must be one of 'linf', 'l2'"),
    "object": ("built", {"share": 1}, "built.share: an object is built already; name a class"),
    "number": ("number", {}, "number' has no name, norm, needs; an attack is a function"),
}


@pytest.mark.parametrize(("name", "params", "message"), BAD.values(), ids=BAD)
def test_what_is_no_attack_is_refused(plugin: str, name: str, params: dict, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        build_attack(f"{plugin}:{name}", **params)


def test_unknown_built_in_names_and_parameters_are_refused() -> None:
    with pytest.raises(PluginError, match=r"attack 'fgsn': unknown name; did you mean 'fgsm'"):
        build_attack("fgsn")
    with pytest.raises(PluginError, match=r"fgsm.objectiv: unknown parameter; did you mean 'objec"):
        build_attack("fgsm", objectiv="ce")


def test_a_relative_file_is_found_in_the_given_folders(plugin: str) -> None:
    attack = build_attack("mine.py:sign_step", folders=[Path(plugin).parent])
    assert attack.name == "mine.py:sign_step"


def test_the_readme_form_of_an_attack_reaches_the_reference() -> None:
    """The margin objective written by hand equals the built-in."""

    def by_hand(model, inputs, labels, eps):
        inputs.requires_grad_()
        logits = model(inputs)
        true = F.one_hot(labels, logits.shape[1]).bool()
        others = logits.masked_fill(true, -torch.inf).max(dim=1).values
        (others - logits[true]).sum().backward()
        return inputs + eps * inputs.grad.sign()

    assert torch.equal(attacked(by_hand), attacked(build_attack("fgsm", objective="margin")))
