"""FMN: closed form, exact steps in the box by general-purpose solvers, other attacks."""

import pytest
import torch
from torch import Tensor, nn

from robustloss.attacks import AttackError, build_attack, perturb
from tests.attacks.exact_steps import ORDER
from tests.attacks.models import BinaryLinear, convolutional, images

NORMS = pytest.mark.parametrize("norm", ORDER)


def radii(model: nn.Module, inputs: Tensor, labels: Tensor, **keys) -> Tensor:
    radius = perturb(build_attack("fmn", **keys), model, inputs, labels, eps=[0.1]).radius
    assert radius is not None
    return radius


@NORMS
def test_at_least_as_near_as_foolbox(norm: str) -> None:
    foolbox = pytest.importorskip("foolbox")
    model = convolutional().eval()
    labels = model(images(100)).argmax(dim=1)
    kinds = {
        "linf": foolbox.attacks.LInfFMNAttack,
        "l2": foolbox.attacks.L2FMNAttack,
        "l1": foolbox.attacks.L1FMNAttack,
    }
    size = 10.0 if norm == "linf" else 1.0
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = kinds[norm](steps=50, max_stepsize=size)
    _, theirs, fooled = attack(wrapped, images(100), labels, epsilons=None)
    distances = (theirs - images(100)).flatten(1).norm(p=ORDER[norm], dim=1)
    distances = distances.masked_fill(~fooled, torch.inf)
    own = radii(model, images(100), labels, norm=norm, steps=50)
    assert own.isfinite().all()
    assert (own <= 1.01 * distances).double().mean() > 0.95
    assert own.median() <= 1.001 * distances.median()


@NORMS
@pytest.mark.parametrize("size", [1, 7])
def test_batch_size_does_not_matter(norm: str, size: int) -> None:
    model = convolutional().eval()
    inputs = images(21)
    labels = model(inputs).argmax(dim=1)
    attack = build_attack("fmn", norm=norm, steps=8)
    whole = perturb(attack, model, inputs, labels, eps=[0.3])
    parts = perturb(attack, model, inputs, labels, eps=[0.3], batch_size=size)
    torch.testing.assert_close(whole.radius, parts.radius, rtol=1e-3, atol=1e-6)


def test_nan_is_told() -> None:
    class Cliff(BinaryLinear):
        def forward(self, images: Tensor) -> Tensor:
            moved = (images != 0.5).flatten(1).any(dim=1, keepdim=True)
            return super().forward(images) + torch.where(moved, torch.nan, 0.0)

    model, inputs = Cliff(), torch.full((20, 1, 6, 6), 0.5)
    with torch.no_grad():
        model.bias += 1.0
    labels = model(inputs).argmax(dim=1)
    with pytest.raises(AttackError, match="NaN"):
        perturb(build_attack("fmn"), model, inputs, labels, eps=[0.1])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"norm": "l0"}, r"norm \(='l0'\) must be one of"),
        ({"steps": 0}, r"steps \(=0\) must be at least 1"),
        ({"step_size": 0.0}, r"step_size \(=0.0\) must be positive"),
        ({"gamma": 1.0}, r"gamma \(=1.0\) must lie between 0 and 1"),
        ({"eps": 0.3}, "fmn.eps: unknown parameter"),
    ],
)
def test_bad_parameters_are_refused(keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_attack("fmn", **keys)
