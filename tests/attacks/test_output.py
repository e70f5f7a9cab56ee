import numpy as np
import pytest
import torch
from torch import Tensor

from robustloss.attacks import AttackError, AttackOutput, build_attack, perturb
from robustloss.attacks.ball import distance
from tests.attacks.models import BinaryLinear, Made, classes, images

# --- minimum-norm attacks -------------------------------------------------------------------


def nearest(claim: float = 1.0, norm: str = "l2", copies: bool = False) -> Made:
    """The exact nearest image of a linear classifier, a hair beyond the plane."""

    def do(model, inputs, labels, eps, noise) -> AttackOutput:
        weight = model.weight
        score = inputs.flatten(1) @ weight + model.bias
        if norm == "l2":
            step = -1.001 * score[:, None] * weight / weight.square().sum()
        else:
            step = -1.001 * score[:, None] * weight.sign() / weight.abs().sum()
        adv_inputs = (inputs + step.reshape(inputs.shape)).unsqueeze(0)
        if copies:
            adv_inputs = adv_inputs.expand(len(eps), *inputs.shape)
        radius = claim * distance(adv_inputs[0] - inputs, norm)  # type: ignore[arg-type]
        return AttackOutput(adv_inputs, radius=radius.masked_fill(labels == 9, torch.inf))

    return Made(do, norm=norm)


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_minimum_norm_attack_runs_once_and_its_radius_is_the_threshold(norm, copies) -> None:
    model, inputs = BinaryLinear(), images(100, low=0.4, high=0.6)
    score = model(inputs)[:, 1].detach().double()
    inputs, score = inputs[score.abs() > 0.01], score[score.abs() > 0.01]
    labels = (score > 0).long()
    dual = 1 if norm == "linf" else 2
    exact = score.abs() / model.weight.detach().double().norm(p=dual)
    eps = [0.0, float(exact.median()), 1.0]
    found = perturb(
        nearest(norm=norm, copies=copies), model, inputs, labels, eps=eps, batch_size=30
    )
    assert found.radius is not None
    torch.testing.assert_close(found.radius.double(), exact * 1.001, rtol=1e-4, atol=1e-6)
    for adv_inputs, budget in zip(found.adv_inputs, eps, strict=True):
        moved = (adv_inputs != inputs).flatten(1).any(dim=1)
        fooled = model(adv_inputs).argmax(dim=1) != labels
        assert torch.equal(moved, found.radius <= budget)
        assert torch.equal(fooled, found.radius <= budget)
    assert moved.all()
    assert not found.outside.any()
    # A budget equal to the radius reaches.
    first = float(found.radius[0])
    edge = perturb(nearest(norm=norm, copies=copies), model, inputs, labels, eps=[first])
    assert (edge.adv_inputs[0, 0] != inputs[0]).any()


def test_radius_is_measured_not_believed() -> None:
    model, inputs = BinaryLinear(), images(40, low=0.4, high=0.6)
    labels = model(inputs).argmax(dim=1)
    honest = perturb(nearest(), model, inputs, labels, eps=[1.0])
    liar = perturb(nearest(claim=0.5), model, inputs, labels, eps=[1.0])
    assert torch.equal(liar.radius, honest.radius)  # type: ignore[arg-type]
    assert torch.equal(liar.outside, honest.radius > 4e-6)  # type: ignore[operator]
    # Images that are not fooled after all have no radius and stay as they are.
    still = Made(lambda model, x, y, eps, noise: AttackOutput(x[None], radius=torch.zeros(len(x))))
    found = perturb(still, model, inputs, labels, eps=[1.0])
    assert torch.isinf(found.radius).all()  # type: ignore[arg-type]
    # Images that are wrong from the start have radius 0.
    found = perturb(still, model, inputs, 1 - labels, eps=[0.0])
    assert (found.radius == 0).all()  # type: ignore[operator]


def test_images_that_the_attack_gave_up_have_no_radius() -> None:
    model, inputs = BinaryLinear(), images(40, low=0.4, high=0.6)

    def do(m, x, y, eps, noise) -> AttackOutput:
        found = nearest().do(m, x, y, eps, noise)
        return found._replace(radius=found.radius.masked_fill(x[:, 0, 0, 0] > 0.5, torch.inf))

    found = perturb(Made(do, norm="l2"), model, inputs, model(inputs).argmax(dim=1), eps=[5.0])
    gave_up = inputs[:, 0, 0, 0] > 0.5
    assert torch.equal(torch.isinf(found.radius), gave_up)  # type: ignore[arg-type]
    assert torch.equal((found.adv_inputs[0] == inputs).flatten(1).all(dim=1), gave_up)


# --- what an attack must not return ---------------------------------------------------------


def nan_pixel(model, inputs, labels, eps, noise) -> Tensor:
    out = torch.stack([inputs + e for e in eps])
    out[1, 3:5, 0, 2, 2] = torch.nan
    return out


BAD_OUTPUTS = {
    "nan": (nan_pixel, r"NaN or infinity at eps 0.2 for 2 of 8 images \(the first is number 3 "),
    "infinity": (
        lambda m, x, y, e, n: torch.full((2, *x.shape), -torch.inf),
        "NaN or infinity at eps 0.1 for 8 of 8 images",
    ),
    "nothing": (lambda m, x, y, e, n: None, "NoneType; it must return an AttackOutput"),
    "one eps": (
        lambda m, x, y, e, n: x.unsqueeze(0),
        r"adv_inputs of shape \(1, 8, 1, 6, 6\); expected \(2, 8, 1, 6, 6\)",
    ),
    "float64": (
        lambda m, x, y, e, n: torch.stack([x, x]).double(),
        "adv_inputs of dtype torch.float64; expected torch.float32",
    ),
    "array": (
        lambda m, x, y, e, n: AttackOutput(np.zeros(3)),  # type: ignore[arg-type]
        "adv_inputs as ndarray, no tensor",
    ),
    "flag": (
        lambda m, x, y, e, n: AttackOutput(torch.stack([x, x]), zero_gradient=y),
        "zero_gradient of dtype torch.int64; expected torch.bool",
    ),
    "radius": (
        lambda m, x, y, e, n: AttackOutput(torch.stack([x, x]), radius=-y.float() - 1),
        "a radius that is NaN or below 0",
    ),
    "whole radius": (
        lambda m, x, y, e, n: AttackOutput(torch.stack([x, x]), radius=y),
        "radius of dtype torch.int64; expected floating point",
    ),
}


@pytest.mark.parametrize(("do", "message"), BAD_OUTPUTS.values(), ids=BAD_OUTPUTS)
def test_bad_output_is_refused(do, message: str) -> None:
    with pytest.raises(AttackError, match=f"attack 'made' returned {message}"):
        perturb(Made(do), BinaryLinear(), images(8), classes(8, k=2), eps=[0.1, 0.2])


def test_flags_for_some_batches_only_are_refused() -> None:
    def do(model, inputs, labels, eps, noise) -> AttackOutput:
        flag = torch.zeros(len(inputs), dtype=torch.bool) if len(inputs) == 5 else None
        return AttackOutput(inputs.unsqueeze(0), zero_gradient=flag)

    with pytest.raises(AttackError, match="returned zero_gradient for some batches only"):
        perturb(Made(do), BinaryLinear(), images(8), classes(8, k=2), eps=[0.1], batch_size=5)


def test_nan_in_the_model_does_not_pass_for_robustness() -> None:
    model = BinaryLinear()
    with torch.no_grad():
        model.bias.fill_(torch.nan)
    with pytest.raises(AttackError, match="the gradient is NaN for 64 of 64 images"):
        perturb(build_attack("fgsm"), model, images(), classes(k=2), eps=[0.1])
