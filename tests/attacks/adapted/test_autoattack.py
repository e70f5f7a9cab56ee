"""The reference AutoAttack behind our signature."""

import importlib.util
import sys

import pytest
import torch
from torch import Tensor, nn

from robustloss.attacks import PluginError, build_attack, perturb
from robustloss.attacks.adapted.autoattack import VERSIONS
from tests.attacks.models import BinaryLinear, classes, convolutional, images

pytest.importorskip("pyautoattack")


@pytest.fixture
def short(monkeypatch):
    """The reference with few steps: what the adapter promises does not depend on their number."""
    import pyautoattack

    class Short(pyautoattack.AutoAttack):
        def __init__(self, *args, **keys):
            super().__init__(*args, **keys)
            self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 5
            self.square.n_queries = 20
            self.apgd.eot_iter = min(self.apgd.eot_iter, 2)
            made.append(self)

    made: list[Short] = []
    monkeypatch.setattr(pyautoattack, "AutoAttack", Short)
    return made


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("version", VERSIONS)
def test_runs_counted_inside_the_ball_and_repeats_itself(short, norm: str, version: str) -> None:
    model, inputs = convolutional(), images(8)
    labels = model.eval()(inputs).argmax(dim=1)
    args = (build_attack("autoattack", norm=norm, version=version), model.train(), inputs, labels)
    found = perturb(*args, eps=[0.3, 0.0, 0.1])
    assert not found.outside.any()
    assert torch.equal(found.adv_inputs[1], inputs)
    assert found.queries.forward > 8 * 10
    assert found.queries.backward > 8
    assert model.training
    assert torch.equal(perturb(*args, eps=[0.1]).adv_inputs[0], found.adv_inputs[2])
    fooled = model.eval()(found.adv_inputs[0]).argmax(dim=1) != labels
    assert fooled.any()
    assert torch.equal(found.adv_inputs[0][~fooled], inputs[~fooled])


def test_settings_are_those_of_its_authors(short) -> None:
    """Five classes: four targets; the names say what each version runs."""
    perturb(build_attack("autoattack"), convolutional(), images(2), classes(2), eps=[0.1])
    (made,) = short
    assert made.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert made.apgd_targeted.n_target_classes == made.fab.n_target_classes == 4
    for version, known in VERSIONS.items():
        name = build_attack("autoattack", version=version).name
        assert name == f"autoattack {version} ({known.settings})"


def test_seed_and_index_decide(short) -> None:
    perturb(build_attack("autoattack"), convolutional(), images(4), classes(4), eps=[0.1, 0.2])
    perturb(
        build_attack("autoattack"), convolutional(), images(4), classes(4), eps=[0.1], batch_size=2
    )
    seeds = [made.seed for made in short]
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 3


def test_a_debugger_keeps_its_trace_function(short) -> None:
    def trace(frame, event, argument):
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        perturb(build_attack("autoattack"), convolutional(), images(2), classes(2), eps=[0.1])
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)


def test_bad_parameters_few_classes_and_the_missing_extra_are_refused(monkeypatch) -> None:
    with pytest.raises(PluginError, match=r"version \(='custom'\) must be one of 'standard'"):
        build_attack("autoattack", version="custom")
    with pytest.raises(PluginError, match=r"norm \(='l1'\) must be one of 'linf', 'l2'"):
        build_attack("autoattack", norm="l1")
    with pytest.raises(ValueError, match="standard needs at least 4 classes, the model has 2"):
        perturb(build_attack("autoattack"), BinaryLinear(), images(2), classes(2, k=2), eps=[0.1])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PluginError, match=r"pip install 'robustloss\[autoattack\]'"):
        build_attack("autoattack")


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_passes_are_those_of_an_image_that_nothing_fools(version: str) -> None:
    class Sure(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            mean = inputs.flatten(1).mean(dim=1, keepdim=True)
            far = torch.tensor([1e3, *range(-9, 0)])
            return far + 1e-3 * mean * torch.arange(10)

    attack = build_attack("autoattack", version=version)
    labels = torch.zeros(1, dtype=torch.int64)
    found = perturb(attack, Sure(), images(1), labels, eps=[0.1, 0.2]).queries
    promised = attack.passes(2)
    assert found.backward == promised.backward
    assert promised.forward - 1 <= found.forward <= promised.forward
