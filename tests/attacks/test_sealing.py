import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustloss.attacks import AttackError, build_attack, iter_perturb, perturb, sealing
from tests.attacks.models import BinaryLinear, Made, classes, convolutional, images, noisy

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def state(model: nn.Module) -> dict[str, Any]:
    return {
        "modes": [module.training for module in model.modules()],
        "frozen": [p.requires_grad for p in model.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "buffers": [b.clone() for b in model.buffers()],
        "python": random.getstate(),
        "numpy": np.random.get_state()[1:3],  # noqa: NPY002 - the global state is the subject
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "grad": torch.is_grad_enabled(),
    }


def same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor | np.ndarray):
        return type(left) is type(right) and bool((left == right).all())
    if isinstance(left, dict):
        return all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def vandal(raises: bool) -> Made:
    def do(model, inputs, labels, eps, noise) -> Tensor:
        assert not any(module.training for module in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        out = inputs.clone()
        model.train()
        model.requires_grad_(True)
        model.zero_grad(set_to_none=False)
        model(inputs.requires_grad_()).sum().backward()
        with torch.no_grad():
            inputs.fill_(0.5)
        labels.fill_(0)
        random.seed(9)
        np.random.seed(9)  # noqa: NPY002
        torch.manual_seed(9)
        torch.rand(3, device=inputs.device)
        torch.set_grad_enabled(False)
        if raises:
            raise KeyError("vandal")
        return out.expand(len(eps), *out.shape)

    return Made(do)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("raises", [False, True])
def test_model_random_state_and_inputs_are_as_before(raises: bool, device: str) -> None:
    model = convolutional().to(device)
    model[1].eval()  # one part was frozen on purpose
    model[5].bias.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    kept = model[0].weight.grad
    inputs, labels = images().to(device), classes().to(device)
    before, pixels, truth = state(model), inputs.clone(), labels.clone()
    if raises:
        with pytest.raises(KeyError, match="vandal"):
            perturb(vandal(raises), model, inputs, labels, eps=[0.1], batch_size=20)
    else:
        perturb(vandal(raises), model, inputs, labels, eps=[0.1], batch_size=20)
    assert same(before, state(model))
    assert model[0].weight.grad is kept
    assert torch.equal(inputs, pixels)
    assert torch.equal(labels, truth)
    assert not inputs.requires_grad


def test_model_is_as_before_between_two_batches() -> None:
    model = convolutional()
    before = state(model)
    parts = iter_perturb(vandal(False), model, images(), classes(), eps=[0.1], batch_size=16)
    for _ in parts:
        assert same(before, state(model))


def test_a_changed_parameter_is_refused() -> None:
    def do(model, inputs, labels, eps, noise) -> Tensor:
        with torch.no_grad():
            next(model.parameters()).mul_(2)
        return inputs.unsqueeze(0)

    with pytest.raises(AttackError, match="changed the model's parameters; load the model again"):
        perturb(Made(do), convolutional(), images(), classes(), eps=[0.1])


def test_an_unstarted_cuda_generator_is_left_alone(monkeypatch) -> None:
    """torch.manual_seed would queue a seed for it, which nothing could take back."""
    called: list[int] = []
    model = convolutional()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", called.append)
    perturb(build_attack("fgsm"), model, images(), classes(), eps=[0.1])
    assert called == []


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_works_inside_no_grad_and_inference_mode(around) -> None:
    args = (build_attack("fgsm"), convolutional())
    expected = perturb(*args, images(), classes(), eps=[0.1]).adv_inputs
    with around():
        inputs = images()
        found = perturb(*args, inputs, classes(), eps=[0.1])
    assert torch.equal(found.adv_inputs, expected)


def test_runs_in_float32_inside_autocast() -> None:
    args = (build_attack("fgsm"), convolutional(), images(), classes())
    expected = perturb(*args, eps=[0.1]).adv_inputs
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(perturb(*args, eps=[0.1]).adv_inputs, expected)


# --- counting -------------------------------------------------------------------------------


class Likelihood(nn.Module):
    """What evaluation hands to an attack on the detector."""

    def __init__(self) -> None:
        super().__init__()
        self.model = BinaryLinear()
        self.threshold = -3.0

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def joint(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.model(images), 2 * self.model(images)


def test_queries_count_images_forward_and_backward() -> None:
    def do(model, inputs, labels, eps, noise) -> Tensor:
        assert model.threshold == -3.0
        assert model.model.weight.shape == (36,)
        model(inputs)  # forward alone
        with torch.no_grad():
            model(inputs[:2])
        point = inputs.requires_grad_()
        logits, likelihood = model.joint(point)
        # One backward through both outputs, whatever the number of paths.
        torch.autograd.grad((logits + likelihood).sum(), point, retain_graph=True)
        torch.autograd.grad(likelihood.sum(), point)
        torch.autograd.grad((model(point[:5]).sum() + model(point).sum()), point)
        return inputs.detach().unsqueeze(0)

    found = perturb(
        Made(do, needs="likelihood"),
        Likelihood(),
        images(),
        classes(k=2),
        eps=[0.1],
        batch_size=32,
    )
    assert found.queries.forward == 64 + 2 * 2 + 64 + 2 * 5 + 64
    assert found.queries.backward == 64 + 64 + 2 * 5 + 64
    assert found.seconds > 0


def test_an_attack_on_the_detector_needs_a_likelihood() -> None:
    message = r"BinaryLinear\) must have joint\(images\) and threshold: attack 'made' needs"
    with pytest.raises(ValueError, match=message):
        perturb(Made(noisy, needs="likelihood"), BinaryLinear(), images(), classes(k=2), eps=[0.1])


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(3, 2), r"joint output \(=Tensor\) must be a pair"),
        ((torch.zeros(3), torch.zeros(3)), r"joint logits \(=\(3,\)\) must be a tensor of logits"),
        ((torch.zeros(3, 2), torch.zeros(3)), r"log-likelihoods \(shape \(3,\)\) must have the sh"),
        ((torch.zeros(3, 1), torch.zeros(3, 1)), "joint logits must have at least 2 logits"),
    ],
)
def test_joint_is_held_to_its_word(output, message: str) -> None:
    model = Likelihood()
    model.joint = lambda images: output  # type: ignore[method-assign]
    made = Made(lambda model, x, y, eps, noise: model.joint(x), needs="likelihood")
    with pytest.raises(ValueError, match=message):
        perturb(made, model, images(3), classes(3, k=1), eps=[0.1])


def two_convolutions() -> nn.Module:
    """The first sees one channel: its weights are in both layouts, and their strides decide."""
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 5))
    )
    for number, parameter in enumerate(model.parameters()):
        generator = torch.Generator().manual_seed(number)
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("raises", [False, True])
def test_convolutions_have_their_fastest_layout_while_attacked_and_the_callers_after(raises):
    model = two_convolutions()
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert not weights[1].is_contiguous(memory_format=torch.channels_last)
    before = [(weight.data_ptr(), weight.stride(), weight.clone()) for weight in weights]
    seen = []

    def look(model, inputs, labels, eps, noise) -> Tensor:
        seen.extend(weight.stride()[1] for weight in weights)
        if raises:
            raise KeyError("look")
        return inputs.expand(len(eps), *inputs.shape)

    try:
        perturb(Made(look), model, images(3), classes(3), eps=[0.1])
    except KeyError:
        assert raises
    assert seen == [1] * len(weights)
    for weight, (place, stride, values) in zip(weights, before, strict=True):
        assert (weight.data_ptr(), weight.stride()) == (place, stride)
        assert torch.equal(weight, values)


def test_attacked_images_are_those_of_a_model_that_had_the_layout_before():
    plain, laid_out = two_convolutions(), two_convolutions().to(memory_format=torch.channels_last)
    attack = build_attack("pgd", steps=3)
    one, other = (
        perturb(attack, model, images(4), classes(4), eps=[0.1]).adv_inputs
        for model in (plain, laid_out)
    )
    assert torch.equal(one, other)


def test_a_large_batch_goes_through_a_plain_network_in_pieces_and_comes_out_the_same(monkeypatch):
    model = two_convolutions()
    inputs, labels = images(7), classes(7)
    attack = build_attack("pgd", steps=2, random_start=False)
    seen = []
    model[0].register_forward_pre_hook(lambda module, words: seen.append(len(words[0])))
    whole = perturb(attack, model, inputs, labels, eps=[0.1])
    assert seen == [7] * 4
    monkeypatch.setattr(sealing, "LEAST_AT_ONCE", 3)
    monkeypatch.setattr(sealing, "PIXELS_AT_ONCE", 3 * inputs.shape[2:].numel())
    seen.clear()
    pieces = perturb(attack, model, inputs, labels, eps=[0.1])
    assert seen == [4, 3] * 4
    assert pieces.queries == whole.queries
    torch.testing.assert_close(pieces.adv_inputs, whole.adv_inputs)
    assert torch.equal(pieces.success, whole.success)
