"""What an attack of somebody else's may do to a model or a process, and that it changes no number.

Each misdeed is one function. After those in UNDONE everything is as it was, and those in REFUSED
end with an error that names the attack.
"""

import builtins
import gc
import os
import random
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
from torch.overrides import TorchFunctionMode

from robustloss.attacks import AttackError, build_attack, harness, iter_perturb, perturb
from robustloss.attacks.settings import preserving_settings
from robustloss.attacks.witness import watching
from tests.attacks.models import Made, classes, images
from tests.attacks.test_sealing import same, state


class Settings:
    def __init__(self) -> None:
        self.scale = 1.0


class Victim(nn.Module):
    """A model that can be changed in many ways, and that counts its calls as some do."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first = nn.Linear(36, 8)
            self.norm = nn.BatchNorm1d(8)
            self.drop = nn.Dropout(0.5)
            self.second = nn.Linear(8, 5)
        self.scale, self.settings, self.gains = 1.0, Settings(), [1.0, 1.0]
        self.tables = {"shift": np.zeros(5, np.float32)}
        self.unregistered = [nn.Linear(5, 5)]
        self.register_buffer("shift", torch.zeros(5))
        self.register_buffer("hidden", torch.zeros(5), persistent=False)
        self.calls, self.last = 0, torch.zeros(0)

    def forward(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        self.last = self.drop(F.relu(self.norm(self.first(pixels.flatten(1)))))
        scale = self.scale * self.settings.scale * self.gains[0] * self.factor
        shift = self.get_buffer("shift") + self.get_buffer("hidden")
        return self.second(self.last) * scale + shift + torch.from_numpy(self.tables["shift"])


def unchanged(inputs: Tensor) -> Tensor:
    return inputs


def twice(*args: object) -> Tensor:
    return -2 * F.linear(*args)  # type: ignore[arg-type]


class Doubling(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        return out * 2 if function is F.linear else out


class Other(Victim):
    def forward(self, pixels: Tensor) -> Tensor:
        return -super().forward(pixels)


def in_place(model, **ignored):
    with torch.no_grad():
        model.first.weight.mul_(0.5)


def through_data(model, **ignored):
    model.first.weight.data.mul_(0.5)


def new_data(model, **ignored):
    model.first.weight.data = torch.zeros_like(model.first.weight)


def through_numpy(model, **ignored):
    model.first.weight.detach().numpy()[:] = 0


def one_bit(model, **ignored):
    model.second.bias.data.view(torch.int32)[0] ^= 1


def other_state(model, **ignored):
    model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})


def other_parameter(model, **ignored):
    model.second.bias = nn.Parameter(torch.ones(5))


def added_parameter(model, **ignored):
    model.extra = nn.Parameter(torch.ones(5))


def added_layer(model, **ignored):
    model.add_module("extra", nn.Linear(2, 2))


def other_layer(model, **ignored):
    model.second = nn.Linear(8, 5)


def layer_taken_out(model, **ignored):
    model.norm = nn.Identity()


def layer_that_is_not_registered(model, **ignored):
    model.unregistered[0].weight.data.zero_()


def half(model, **ignored):
    model.double()


def forward_hook(model, **ignored):
    model.second.register_forward_hook(lambda module, args, out: out * 2)


def pre_hook(model, **ignored):
    model.second.register_forward_pre_hook(lambda module, args: (args[0] * 2,))


def backward_hook(model, **ignored):
    model.second.register_full_backward_hook(lambda module, back, out: None)


def global_hook(model, **ignored):
    nn.modules.module.register_module_forward_hook(lambda module, args, out: None)


def own_forward(model, **ignored):
    model.forward = lambda pixels: torch.zeros(len(pixels), 5)


def forward_of_the_class(model, **ignored):
    type(model).forward = lambda self, pixels: torch.zeros(len(pixels), 5)


def forward_of_torchs_class(model, **ignored):
    nn.Linear.forward = lambda self, x: twice(x, self.weight, self.bias)


def call_of_all_modules(model, **ignored):
    nn.Module.__call__ = lambda self, *args: twice(*args)


def other_code(model, **ignored):
    Victim.forward.__code__ = (lambda self, pixels: pixels.flatten(1)[:, :5]).__code__


def other_class(model, **ignored):
    model.__class__ = Other


def class_attribute(model, **ignored):
    type(model).factor = -1.0


def attribute(model, **ignored):
    model.scale = -3.0


def attribute_of_a_layer(model, **ignored):
    model.norm.eps = 10.0


def attribute_of_an_attribute(model, **ignored):
    model.settings.scale = -3.0


def entry_of_a_list(model, **ignored):
    model.gains[0] = -1.0


def array(model, **ignored):
    model.tables["shift"][0] = 100.0


def attribute_taken_away(model, **ignored):
    del model.scale


def other_buffer(model, **ignored):
    model.shift = torch.full((5,), 7.0)


def buffer_that_is_not_stored(model, **ignored):
    model.hidden = torch.arange(5.0)


def answers_alone(model, **ignored):
    # What is seen in no part of the model: here the class of an object that it does not describe.
    Settings.scale = property(lambda self: -1.0, lambda self, value: None)  # type: ignore[assignment]


def functional(model, **ignored):
    F.linear = twice  # type: ignore[assignment]


def of_tensors(model, **ignored):
    Tensor.argmax = lambda self, dim=None: torch.zeros(len(self))  # type: ignore[assignment]


def of_torch(model, **ignored):
    torch.cat = lambda tensors, dim=0: tensors[0]  # type: ignore[assignment]


def of_numpy(model, **ignored):
    np.concatenate = lambda arrays, *args: arrays[0]


def of_python(model, **ignored):
    builtins.sorted = lambda each: list(each)  # type: ignore[assignment]


def of_ours(model, **ignored):
    harness._bound = lambda output, inputs, eps, asked, norm: (inputs, inputs)


REFUSED = [
    in_place, through_data, new_data, through_numpy, one_bit, other_state, other_parameter,
    added_parameter, added_layer, other_layer, layer_taken_out, layer_that_is_not_registered, half,
    forward_hook, pre_hook, backward_hook, global_hook, own_forward, forward_of_the_class,
    forward_of_torchs_class, call_of_all_modules, other_class, class_attribute, attribute,
    attribute_of_a_layer, attribute_of_an_attribute, entry_of_a_list, array, attribute_taken_away,
    other_buffer, buffer_that_is_not_stored, answers_alone, functional, of_tensors, of_torch,
    of_numpy, of_python, of_ours,
]  # fmt: skip


def train_mode(model, **ignored):
    model.train()


def statistics(model, inputs, **ignored):
    model.train()
    model(inputs)


def buffer_in_place(model, **ignored):
    model.shift.fill_(9.0)


def thawed(model, **ignored):
    model.requires_grad_(True)


def gradients(model, inputs, **ignored):
    model.requires_grad_(True)
    model(inputs).sum().backward()


def spoiled_inputs(inputs, labels, **ignored):
    inputs.fill_(0.5)
    labels.fill_(0)


def default_type(**ignored):
    torch.set_default_dtype(torch.float64)


def default_device(**ignored):
    torch.set_default_device("meta")


def gradients_off(**ignored):
    torch.set_grad_enabled(False)


def inference(**ignored):
    torch.inference_mode(True).__enter__()


def autocast(**ignored):
    torch.autocast("cpu", torch.bfloat16).__enter__()


def threads(**ignored):
    torch.set_num_threads(3)


def matrix_products(**ignored):
    torch.set_float32_matmul_precision("medium")


def products_by_backend(**ignored):
    torch.backends.mkldnn.conv.fp32_precision = "bf16"


def deterministic(**ignored):
    torch.use_deterministic_algorithms(True)


def convolutions(**ignored):
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = True


def denormals(**ignored):
    torch.set_flush_denormal(True)


def every_operation(**ignored):
    Doubling().__enter__()


def anomalies(**ignored):
    torch.autograd.set_detect_anomaly(True)


def seeds(**ignored):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)


def folder(**ignored):
    os.chdir("/")


def environment(**ignored):
    os.environ["OMP_NUM_THREADS"] = "7"
    os.environ["PYTHONHASHSEED"] = "7"


def handler(**ignored):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)


def silence(**ignored):
    warnings.simplefilter("ignore")


def errors_of_numpy(**ignored):
    np.seterr(all="raise")


def stream(**ignored):
    sys.stdout = None  # type: ignore[assignment]


def import_path(**ignored):
    sys.path.insert(0, "/nowhere")


def collector(**ignored):
    gc.disable()


UNDONE = [
    train_mode, statistics, buffer_in_place, thawed, gradients, spoiled_inputs, default_type,
    default_device, gradients_off, inference, autocast, threads, matrix_products,
    products_by_backend, deterministic, convolutions, denormals, every_operation, anomalies, seeds,
    folder, environment, handler, silence, errors_of_numpy, stream, import_path, collector,
]  # fmt: skip


def misbehaving(misdeed) -> Made:
    def do(model, inputs, labels, eps, noise) -> Tensor:
        made = inputs.clone()
        misdeed(model=model.attacked_model, inputs=inputs, labels=labels)
        return made.expand(len(eps), *made.shape)

    return Made(do, name=misdeed.__name__)


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
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.backends.mkldnn.conv.fp32_precision,
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


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd_ce", "square", "deepfool", "fab", "cw"])
def test_a_model_that_writes_on_its_input_is_attacked_like_one_that_does_not(name: str) -> None:
    short = {"pgd": {"steps": 3}, "apgd_ce": {"steps": 3}, "square": {"queries": 20}}
    short |= {"deepfool": {"steps": 3}, "fab": {"steps": 3}, "cw": {"steps": 3}}
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
