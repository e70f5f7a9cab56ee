"""Models and callers that are unusual but right, and those that are told plainly what is wrong."""

import threading
import warnings
from contextlib import suppress

import pytest
import torch
from torch import nn

from robustloss.models.given import copy_module
from tests.runs.test_in_memory import FGSM, evaluate, rand

IMAGES, LABELS = rand(20)


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


class Keeping(nn.Module):
    """Keeps a result of its last call, which copy.deepcopy refuses."""

    def __init__(self):
        super().__init__()
        self.linear, self.last = plain(), None

    def forward(self, images):
        self.last = self.linear(images)
        return self.last


def keeping():
    model = Keeping()
    model(IMAGES[:2])
    return model


def locked():
    model = plain()
    model.lock = threading.Lock()
    return model


def normalised_weights():
    model = plain()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(model[1])
    model(IMAGES[:2])
    return model


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(plain(), IMAGES[:2])


def exported():
    size = {0: torch.export.Dim("batch", min=1, max=4096)}
    return torch.export.export(plain(), (IMAGES[:2],), dynamic_shapes=(size,)).module()


class Extra(nn.Sequential):
    def get_extra_state(self):
        return {"version": 3, "names": ["a"]}

    def set_extra_state(self, state):
        assert state["version"] == 3


def extra_state():
    return Extra(*plain())


def with_buffer(make):
    model = plain()
    model.register_buffer("odd", make())
    return model


def quantised():
    layer = plain()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.quantized.engine = torch.backends.quantized.supported_engines[-1]
        return torch.ao.quantization.quantize_dynamic(layer, {nn.Linear}, dtype=torch.qint8)


WHOLE = {
    "a kept result": keeping,
    "a lock": locked,
    "weight_norm": normalised_weights,
    "TorchScript": scripted,
    "an exported program": exported,
    "an extra state": extra_state,
    "a sparse buffer": lambda: with_buffer(lambda: torch.eye(3).to_sparse()),
    "an expanded buffer": lambda: with_buffer(lambda: torch.ones(1).expand(4)),
    "a complex buffer": lambda: with_buffer(lambda: torch.ones(2, dtype=torch.complex64)),
    "an empty buffer": lambda: with_buffer(lambda: torch.zeros(0, 3)),
    "a buffer of tensors": lambda: with_buffer(
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
    ),
    "half precision": lambda: plain().bfloat16().float(),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.filterwarnings("ignore")
def test_an_unusual_model_has_the_numbers_of_a_plain_one(kind, tmp_path):
    expected = evaluate({"model": plain()}, IMAGES, LABELS)
    model = WHOLE[kind]()
    found = evaluate({"model": model}, IMAGES, LABELS, out=tmp_path)
    again = evaluate({"model": model}, IMAGES, LABELS, out=tmp_path)
    if kind not in ("half precision", "weight_norm"):  # which round
        assert found.rows == expected.rows
    assert again.rows == found.rows
    assert len(list(tmp_path.rglob("none-0-*.npz"))) == 1


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_model_is_judged_or_told():
    if torch.backends.quantized.supported_engines[-1] == "none":
        pytest.skip("no engine")
    model = quantised()
    found = evaluate({"model": model}, IMAGES, LABELS, [{"name": "square", "eps": [0.1]}])
    with torch.no_grad():
        wrong = float((model(IMAGES).argmax(1) != LABELS).float().mean())
    clean = next(row for row in found.rows if row["attack"] == "none")
    assert clean["error"] == pytest.approx(wrong)


@pytest.mark.filterwarnings("ignore")
def test_a_program_of_one_batch_size_is_told_what_to_do():
    model = torch.export.export(plain(), (IMAGES[:8],)).module()
    with suppress(Exception):
        copy_module(model)(IMAGES[:3])
        pytest.skip("of this torch, as 2.8, a copied program takes any number of images")
    with pytest.raises(ValueError, match="It takes 8 images at a time: export or trace it for a"):
        evaluate(model, IMAGES, LABELS)


def test_a_tensor_without_values_is_told():
    model = with_buffer(lambda: torch.empty(3, device="meta"))
    with pytest.raises(ValueError, match="odd of the model is a tensor without values"):
        evaluate(model, IMAGES, LABELS)


def test_what_cannot_be_copied_at_all_is_told():
    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("no copies")

    with pytest.raises(ValueError, match=r"Stubborn\) cannot be copied.*no copies"):
        evaluate(Stubborn(8, 10), IMAGES, LABELS)


class DefaultType:
    """Sets float64 for the block, as scientific scripts do for the whole program."""

    def __enter__(self):
        torch.set_default_dtype(torch.float64)

    def __exit__(self, *error):
        assert torch.get_default_dtype() == torch.float64
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("around", [torch.inference_mode, torch.no_grad, DefaultType])
def test_the_callers_settings_change_no_number(around):
    attacks = [*FGSM["attacks"], {"name": "pgd", "eps": [0.1], "params": {"steps": 2}}]
    spec = {"attacks": attacks, "checks": {"images": 8}}
    model = plain()
    expected = evaluate({"model": model}, IMAGES, LABELS, spec, train=rand(30))
    with around():
        images, labels = IMAGES.clone(), LABELS.clone()
        copied = plain().float()
        copied.load_state_dict(model.state_dict())
        for each in (model, copied):
            found = evaluate({"model": each}, images, labels, spec, train=rand(30))
            assert found.rows == expected.rows
            assert found.detection == expected.detection
