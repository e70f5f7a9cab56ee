"""What an attack of somebody else's does to a model or a process changes no number.

Each misdeed is one function. After those in UNDONE everything is as it was, and those in REFUSED
end with an error that names the attack.
"""

import gc
import os
import signal
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustloss.attacks import AttackError, build_attack, harness, iter_perturb, perturb
from robustloss.attacks.settings import preserving_settings, reset_settings
from robustloss.attacks.witness import ModelWitness, watching
from tests.attacks.misdeeds import (
    OLD,
    REFUSED,
    UNDONE,
    Settings,
    Victim,
    functional,
    misbehaving,
    of_numpy,
    of_ours,
    of_torch,
    through_data,
)
from tests.attacks.models import Made, classes, images
from tests.attacks.test_sealing import same, state


@pytest.fixture(autouse=True)
def _unharmed():
    """Puts back what a misdeed leaves where nothing stops it."""
    forward, code = Victim.forward, Victim.forward.__code__
    linear, hooks = nn.Linear.forward, nn.modules.module._global_forward_hooks
    with preserving_settings():
        yield
    Victim.factor, Victim.forward, Victim.forward.__code__ = 1.0, forward, code
    nn.Linear.forward = linear
    hooks.clear()
    if "scale" in vars(Settings):
        del Settings.scale


def settings() -> list[object]:
    """What the misdeeds change of the process, as far as it can be read."""
    return [
        torch.get_default_dtype(),
        torch.zeros(0).device,
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        (torch.autocast_increment_nesting(), torch.autocast_decrement_nesting()),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32 if OLD else torch.backends.mkldnn.conv.fp32_precision,
        torch.are_deterministic_algorithms_enabled(),
        (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        float(torch.full((1,), 1e-39) * 1.0),
        torch._C._len_torch_function_stack(),
        torch.is_anomaly_enabled(),
        Path.cwd(),
        dict(os.environ),
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGALRM),
        list(warnings.filters),
        np.geterr(),
        sys.stdout,
        list(sys.path),
        gc.isenabled(),
    ]


@pytest.mark.parametrize("misdeed", REFUSED, ids=lambda misdeed: misdeed.__name__)
def test_a_changed_model_is_refused_by_the_name_of_the_attack(misdeed) -> None:
    with pytest.raises(AttackError, match=f"attack '{misdeed.__name__}' changed"):
        perturb(misbehaving(misdeed), Victim().eval(), images(12), classes(12), eps=[0.1])


@pytest.mark.parametrize("misdeed", UNDONE, ids=lambda misdeed: misdeed.__name__)
def test_what_can_be_undone_is_undone(misdeed) -> None:
    model, inputs, labels = Victim().eval(), images(12), classes(12)
    attack = build_attack("fgsm")
    expected = perturb(attack, model, inputs, labels, eps=[0.1]).adv_inputs
    before, found = state(model), settings()
    perturb(misbehaving(misdeed), model, inputs, labels, eps=[0.1], batch_size=6)
    assert settings() == found
    assert same(before, state(model))
    assert torch.equal(perturb(attack, model, inputs, labels, eps=[0.1]).adv_inputs, expected)


def test_torch_2_8_has_one_switch_of_precision_and_it_is_put_back(monkeypatch) -> None:
    monkeypatch.delattr(torch._C, "_set_fp32_precision_setter", raising=False)
    reset_settings()
    with preserving_settings():
        torch.backends.cudnn.allow_tf32 = False
    assert torch.backends.cudnn.allow_tf32


def test_functions_of_others_are_put_back_before_the_error_is_raised() -> None:
    before = F.linear, torch.cat, np.concatenate, harness._bound
    for misdeed in (functional, of_torch, of_numpy, of_ours):
        with pytest.raises(AttackError, match="changed functions that others use"):
            perturb(misbehaving(misdeed), Victim().eval(), images(4), classes(4), eps=[0.1])
    assert (F.linear, torch.cat, np.concatenate, harness._bound) == before


def test_an_honest_model_that_changes_whenever_it_is_asked_is_attacked() -> None:
    def ask(model, inputs, labels, eps, noise) -> Tensor:
        point = inputs.requires_grad_()
        (slope,) = torch.autograd.grad(model(point).sum(), point)
        return (inputs + slope).detach().unsqueeze(0)

    model = Victim()
    perturb(Made(ask), model, images(12), classes(12), eps=[0.1], batch_size=5)
    assert model.calls > 3
    assert model.training


def test_what_changes_at_every_call_excuses_nothing_of_a_similar_name() -> None:
    model = Victim().eval()
    model.calls_wanted = 3  # "calls" counts; this does not
    witness = ModelWitness(model, images(4), "made")
    model(images(4))
    witness.check()
    model.calls_wanted = 4
    with pytest.raises(AttackError, match="It changed calls_wanted"):
        witness.check()


def test_a_change_after_the_attack_has_returned_is_told_at_the_end_of_the_pass() -> None:
    model, waiting = Victim().eval(), threading.Event()
    later = threading.Thread(target=lambda: (waiting.wait(), through_data(model)))

    def do(model, inputs, labels, eps, noise) -> Tensor:
        later.start()
        return inputs.unsqueeze(0)

    def watch() -> None:
        with watching():
            list(iter_perturb(Made(do), model, images(4), classes(4), eps=[0.1]))
            waiting.set()
            later.join()

    with pytest.raises(AttackError, match="attack 'made' changed the model's parameters"):
        watch()


def test_a_nearest_image_is_judged_by_the_model_in_eval_mode() -> None:
    def do(model, inputs, labels, eps, noise) -> tuple:
        from robustloss.attacks import AttackOutput

        nearest = 1 - inputs
        radius = (nearest - inputs).flatten(1).abs().amax(1)
        model.attacked_model.train()
        model.attacked_model.shift.fill_(100.0)
        return AttackOutput(nearest.unsqueeze(0), radius=radius)

    model, inputs = Victim().eval(), images(12)
    with torch.no_grad():
        labels = model(1 - inputs).argmax(1)  # nothing is fooled
    found = perturb(Made(do), model, inputs, labels, eps=[1.0])
    assert found.radius is not None
    assert bool(found.radius.isinf().all())


def test_what_an_attack_returns_is_its_own_no_more() -> None:
    kept: list[Tensor] = []

    def do(model, inputs, labels, eps, noise):
        from robustloss.attacks import AttackOutput

        for tensor in kept:
            tensor.fill_(1)
        flags, radius = torch.zeros(len(inputs), dtype=torch.bool), torch.zeros(len(inputs))
        kept[:] = [flags, radius]
        return AttackOutput(inputs.unsqueeze(0), flags)

    found = perturb(Made(do), Victim().eval(), images(12), classes(12), eps=[0.1], batch_size=6)
    assert found.zero_gradient is not None
    assert not found.zero_gradient.any()


# --- models that change the images that they are asked about ----------------------------------


class Normalising(nn.Module):
    """Writes on its input, as published code does."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place, self.linear = in_place, nn.Linear(36, 5)
        self.linear.weight.data = torch.randn(5, 36, generator=torch.Generator().manual_seed(3))

    def forward(self, pixels: Tensor) -> Tensor:
        pixels = pixels.sub_(0.5).div_(0.25) if self.in_place else (pixels - 0.5) / 0.25
        return self.linear(pixels.flatten(1))


@pytest.mark.parametrize(
    "name", ["fgsm", "pgd", "apgd_ce", "square", "deepfool", "fab", "cw", "fmn"]
)
def test_a_model_that_writes_on_its_input_is_attacked_like_one_that_does_not(name: str) -> None:
    short = {"pgd": {"steps": 3}, "apgd_ce": {"steps": 3}, "square": {"queries": 20}}
    short |= {
        "deepfool": {"steps": 3},
        "fab": {"steps": 3},
        "cw": {"steps": 3},
        "fmn": {"steps": 3},
    }
    attack = build_attack(name, **short.get(name, {}))
    inputs, labels = images(12), classes(12)
    pixels = inputs.clone()
    found = []
    for in_place in (False, True):
        torch.manual_seed(0)
        model = Normalising(in_place)
        found.append(perturb(attack, model, inputs, labels, eps=[0.1]).adv_inputs)
    assert torch.equal(*found)
    assert torch.equal(inputs, pixels)
