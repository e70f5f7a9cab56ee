"""Every attack, ours and torchattacks', leaves the model, the images and all randomness alone."""

import pytest
import torch
from torch import nn

from robustloss.attacks import build_attack, perturb
from tests.attacks.models import classes, images
from tests.attacks.test_harness import SHORT_ATTACKS, subject
from tests.attacks.test_sealing import same, state

ADAPTED = [
    build_attack(f"torchattacks:{name}", **params)
    for name, params in {
        "FGSM": {},
        "PGD": {"steps": 3},
        "PGDL2": {"steps": 3},
        "APGD": {"steps": 3},
        "FAB": {"steps": 2},
        "Square": {"n_queries": 5},
        "CW": {"steps": 3},
        "DeepFool": {"steps": 3},
    }.items()
]


class Failing(nn.Module):
    """A model that gives up at its second call, in the middle of an attack."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.calls = 0

    def __getattr__(self, name: str):
        if name in ("threshold", "class_means", "features"):
            return getattr(self.model, name)
        return super().__getattr__(name)

    def forward(self, inputs):
        self._count()
        return self.model(inputs)

    def joint(self, inputs):
        self._count()
        return self.model.joint(inputs)

    def _count(self) -> None:
        self.calls += 1
        if self.calls > 1:
            torch.manual_seed(0)
            raise FloatingPointError("second call")


@pytest.mark.parametrize("attack", [*SHORT_ATTACKS, *ADAPTED], ids=lambda attack: attack.name)
@pytest.mark.parametrize("raises", [False, True])
def test_all_is_as_before(attack, raises: bool) -> None:
    model = subject(attack)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 1.0 + number)
    next(model.modules()).train()
    inputs, labels = images(12), classes(12, k=3)
    target = Failing(model) if raises else model
    before, pixels, truth = state(target), inputs.clone(), labels.clone()
    if raises:
        with pytest.raises(FloatingPointError, match="second call"):
            # In two batches: one call for each is all that some attacks ask for.
            perturb(attack, target, inputs, labels, eps=[0.1], batch_size=6)
    else:
        perturb(attack, target, inputs, labels, eps=[0.1, 0.2])
    assert same(before, state(target))
    assert torch.equal(inputs, pixels)
    assert torch.equal(labels, truth)
    assert not inputs.requires_grad
