import warnings

import numpy as np
import pytest
import torch
import torchattacks
from torch import Tensor, nn

from robustloss.attacks import AttackError, build_attack, perturb
from robustloss.attacks.ball import ascent_direction
from robustloss.attacks.objectives import (
    OBJECTIVES,
    cross_entropy,
    differentiate,
    logit_ratio,
    margin,
)
from tests.attacks.models import BinaryLinear, Distances, classes, convolutional, images

EPS = [0.0, 8 / 255, 0.1, 0.3]


def own(objective: str = "ce") -> Tensor:
    attack = build_attack("fgsm", objective=objective)
    return perturb(attack, convolutional(), images(), classes(), eps=EPS).adv_inputs


def test_equals_torchattacks() -> None:
    model = convolutional().eval()
    for adv_inputs, eps in zip(own()[1:], EPS[1:], strict=True):
        theirs = torchattacks.FGSM(model, eps=eps)(images(), classes())
        assert (adv_inputs - theirs).abs().max() <= 1e-6


def test_equals_foolbox() -> None:
    foolbox = pytest.importorskip("foolbox")
    model = foolbox.PyTorchModel(convolutional().eval(), bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    _, theirs, _ = attack(model, images(), classes(), epsilons=EPS[1:])
    assert (own()[1:] - torch.stack(theirs)).abs().max() <= 1e-6


def test_equals_adversarial_robustness_toolbox() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports are full of deprecations
        pytest.importorskip("art")
        from art.attacks.evasion import FastGradientMethod
        from art.estimators.classification import PyTorchClassifier

        model = PyTorchClassifier(
            convolutional().eval(),
            loss=nn.CrossEntropyLoss(),
            input_shape=(1, 6, 6),
            nb_classes=5,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
        for adv_inputs, eps in zip(own()[1:], EPS[1:], strict=True):
            attack = FastGradientMethod(model, eps=eps, batch_size=64)
            theirs = attack.generate(images().numpy(), classes().numpy())
            assert np.abs(adv_inputs.numpy() - theirs).max() <= 1e-6


@pytest.mark.parametrize("objective", ["ce", "margin"])
def test_linear_classifier_flips_exactly_beyond_its_distance(objective: str) -> None:
    """The L-inf distance of x to the plane w·x + b = 0 is |w·x + b| / ‖w‖₁ (box not binding)."""
    model = BinaryLinear()
    inputs = images(500, low=0.4, high=0.6)
    logits = model(inputs).detach()
    labels = logits.argmax(dim=1)
    threshold = logits[:, 1].double().abs() / model.weight.detach().double().abs().sum()
    eps = np.linspace(0.0, 0.05, 41).tolist()
    found = perturb(
        build_attack("fgsm", objective=objective), model, inputs, labels, eps=eps, batch_size=77
    )
    decided = 0
    for budget, adv_inputs in zip(eps, found.adv_inputs, strict=True):
        clear = (threshold - budget).abs() > 1e-6  # float32 decides the others
        flipped = model(adv_inputs).argmax(dim=1) != labels
        assert torch.equal(flipped[clear], (budget > threshold)[clear])
        decided += int(clear.sum())
    assert decided > 0.999 * len(eps) * 500
    assert 0.2 < (threshold < 0.01).double().mean() < 0.9  # the grid sees both outcomes


def test_one_gradient_serves_every_eps() -> None:
    attack = build_attack("fgsm")
    for eps in ([0.1], [0.05, 0.1, 0.2, 0.3, 0.4], [0.0]):
        found = perturb(attack, convolutional(), images(), classes(), eps=eps, batch_size=10)
        assert found.queries == (64, 64)


def test_cross_entropy_stands_still_where_the_margin_objective_moves() -> None:
    """A logit gap above 104 underflows every softmax gradient in float32 (DESIGN section 6, 1)."""
    model = Distances(scale=6.0)
    labels = classes(40, k=4)
    inputs = model.get_buffer("centers")[labels].reshape(40, 1, 6, 6) * 0.9
    logits = model(inputs)
    gap = (logits.gather(1, labels[:, None]) - logits).topk(2, largest=False).values[:, 1]
    assert gap.min() > 104
    ce, difference = (
        perturb(build_attack("fgsm", objective=o), model, inputs, labels, eps=[0.5])
        for o in ("ce", "margin")
    )
    assert ce.zero_gradient is not None
    assert ce.zero_gradient.all()
    assert torch.equal(ce.adv_inputs[0], inputs)
    assert difference.zero_gradient is not None
    assert not difference.zero_gradient.any()
    assert (model(difference.adv_inputs[0]).argmax(dim=1) != labels).all()


def test_zero_gradient_is_told_per_image() -> None:
    class Gated(BinaryLinear):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * (images[:, 0, 0, 0] > 0.5).unsqueeze(1)

    inputs = images(50)
    found = perturb(
        build_attack("fgsm"), Gated(), inputs, classes(50, k=2), eps=[0.1], batch_size=8
    )
    assert found.zero_gradient is not None
    assert torch.equal(found.zero_gradient, inputs[:, 0, 0, 0] <= 0.5)


def test_pixels_without_gradient_stay() -> None:
    model = BinaryLinear()
    with torch.no_grad():
        model.weight[:18] = 0
    inputs = images(20)
    adv_inputs = perturb(
        build_attack("fgsm"), model, inputs, classes(20, k=2), eps=[0.2]
    ).adv_inputs
    still = (adv_inputs[0] == inputs).flatten(1)
    assert still[:, :18].all()
    assert not still[:, 18:].any()


def test_pixels_at_the_bounds_move_inwards() -> None:
    """A clamp inside the graph has gradient 0 at its bounds: most of MNIST would be frozen."""
    model = BinaryLinear()
    inputs = images(30).round()
    labels = classes(30, k=2)
    adv_inputs = perturb(build_attack("fgsm"), model, inputs, labels, eps=[0.1]).adv_inputs[0]
    slope = torch.where(labels == 1, -1, 1)[:, None] * model.weight.detach().sign()
    inwards = torch.where(inputs.flatten(1) == 0, slope > 0, slope < 0)
    assert torch.equal((adv_inputs != inputs).flatten(1), inwards)


@pytest.mark.parametrize("change", ["shift", "scale"])
def test_margin_objective_ignores_shift_and_scale_of_the_logits(change: str) -> None:
    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = convolutional()

        def forward(self, images: Tensor) -> Tensor:
            logits = self.model(images)
            return logits - 1000.0 if change == "shift" else logits * 1024.0

    attack = build_attack("fgsm", objective="margin")
    found = perturb(attack, Changed(), images(), classes(), eps=EPS)
    assert torch.equal(found.adv_inputs, own("margin"))


def test_batch_size_does_not_weaken_small_gradients() -> None:
    """A mean over the batch would divide gradients near the smallest float32 to 0."""
    model = BinaryLinear()
    with torch.no_grad():
        model.weight *= 1e-44 / model.weight.abs().max()
        model.bias.zero_()
    attack = build_attack("fgsm", objective="margin")
    labels = classes(512, k=2)
    found = [
        perturb(attack, model, images(512), labels, eps=[0.1], batch_size=size).adv_inputs
        for size in (1, 512)
    ]
    assert torch.equal(*found)
    assert (found[0][0] != images(512)).any(dim=(1, 2, 3)).all()


def test_margin_is_the_best_other_minus_the_true_logit() -> None:
    logits = torch.tensor([[-5.0, -7.0, -6.0], [1.0, 4.0, 2.5]])
    assert margin(logits, torch.tensor([0, 1])).tolist() == [-1.0, -1.5]
    assert margin(logits, torch.tensor([1, 2])).tolist() == [2.0, 1.5]


def test_logit_ratio_ignores_shift_and_scale() -> None:
    logits = torch.tensor([[4.0, 1.0, 3.0, 2.0], [4.0, 1.0, 3.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    labels = torch.tensor([0, 1, 2])
    expected = [(3.0 - 4.0) / (4.0 - 2.0), (4.0 - 1.0) / (4.0 - 2.0), 0.0]
    assert logit_ratio(logits, labels).tolist() == expected
    assert logit_ratio(8.0 * logits - 64.0, labels).tolist() == expected
    with pytest.raises(ValueError, match="needs at least 3 classes, the model has 2; use 'margin'"):
        logit_ratio(logits[:, :2], torch.tensor([0, 1, 0]))


def test_cross_entropy_is_the_negative_log_posterior() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).double()
    expected = np.log(np.exp([0.0, 1.0, 2.0]).sum()) - 1.0
    assert cross_entropy(logits, torch.tensor([1])).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_equals_central_differences(name) -> None:
    objective = OBJECTIVES[name]
    model = convolutional().eval().double()
    inputs, labels = images(4).double(), classes(4)
    gradient = differentiate(model, inputs, labels, name).gradient
    step = 1e-6
    for pixel in (0, 17, 35):
        moved = torch.zeros(36, dtype=torch.float64)
        moved[pixel] = step
        up, down = inputs + moved.reshape(1, 6, 6), inputs - moved.reshape(1, 6, 6)
        change = (objective(model(up), labels) - objective(model(down), labels)) / (2 * step)
        torch.testing.assert_close(gradient.flatten(1)[:, pixel], change, rtol=1e-5, atol=1e-8)


def test_model_without_gradient_is_refused() -> None:
    class Detached(BinaryLinear):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images.detach())

    with pytest.raises(AttackError, match="carries no gradient towards the images"):
        perturb(build_attack("fgsm"), Detached(), images(), classes(k=2), eps=[0.1])


def test_l2_step_reaches_the_plane_exactly() -> None:
    """The L2 distance of x to the plane w·x + b = 0 is |w·x + b| / ‖w‖₂ (box not binding)."""
    model = BinaryLinear()
    inputs = images(300, low=0.4, high=0.6)
    logits = model(inputs).detach()
    labels = logits.argmax(dim=1)
    threshold = logits[:, 1].double().abs() / model.weight.detach().double().norm()
    attack = build_attack("fgsm", norm="l2")
    eps = np.linspace(0.01, 0.2, 20).tolist()
    found = perturb(attack, model, inputs, labels, eps=eps)
    for budget, adv_inputs in zip(eps, found.adv_inputs, strict=True):
        clear = (threshold - budget).abs() > 1e-5
        flipped = model(adv_inputs).argmax(dim=1) != labels
        assert torch.equal(flipped[clear], (budget > threshold)[clear])
        length = (adv_inputs - inputs).flatten(1).norm(dim=1)
        torch.testing.assert_close(length, torch.full_like(length, budget), rtol=1e-4, atol=0)


def test_l2_direction_of_a_tiny_gradient_has_unit_length() -> None:
    gradient = torch.tensor(
        [[[[3e-30, 4e-30]]], [[[0.0, 0.0]]], [[[1e-44, 0.0]]], [[[3e30, 4e30]]]]
    )
    direction = ascent_direction(gradient, "l2").flatten(1)
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    torch.testing.assert_close(direction, expected)


def test_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match=r"norm \(='l0'\) must be one of 'linf', 'l2'"):
        build_attack("fgsm", norm="l0")


def test_unknown_objective_is_refused() -> None:
    with pytest.raises(ValueError, match=r"objective \(='cw'\) must be one of 'ce', 'margin'"):
        build_attack("fgsm", objective="cw")
