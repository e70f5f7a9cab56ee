"""What an attack of somebody else's may do to a model or a process: each misdeed is a function."""

import builtins
import gc
import os
import random
import signal
import sys
import warnings

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from robustloss.attacks import harness
from tests.attacks.models import Made

OLD = not hasattr(torch.backends.mkldnn, "conv")  # torch 2.8: one switch for all backends


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
    if OLD:
        torch.backends.cudnn.allow_tf32 = False
    else:
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
