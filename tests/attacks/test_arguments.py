from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustloss.attacks import build_attack, perturb
from robustloss.attacks.arguments import checked_eps
from robustloss.attacks.base import NORMS
from robustloss.notation import NORM_NAMES
from tests.attacks.models import BinaryLinear, classes, images

GOOD: dict[str, Any] = {
    "attack": build_attack("fgsm"),
    "model": BinaryLinear(),
    "inputs": images(8),
    "labels": classes(8, k=2),
    "eps": [0.1],
}

BAD = {
    "eps in 0-255": ({"eps": [8]}, r"eps \(=8\) must lie in \[0, 1\]: pixel units, not 0–255\."),
    "eps below 0": ({"eps": [0.1, -0.1]}, r"eps \(=-0.1\) must lie in \[0, 1\]"),
    "eps nan": ({"eps": [float("nan")]}, r"eps \(=nan\) must lie in \[0, 1\]"),
    "eps a number": ({"eps": 0.1}, r"eps \(=0.1\) must be a sequence of numbers, such as \[0.1"),
    "eps text": ({"eps": "0.1"}, r"eps \(='0.1'\) must be a sequence of numbers"),
    "eps of text": ({"eps": ["8/255"]}, r"eps \(='8/255'\) must be a number"),
    "eps of flags": ({"eps": [True]}, r"eps \(=True\) must be a number"),
    "eps empty": ({"eps": []}, r"eps \(=\[\]\) must hold at least one budget"),
    "eps a 0-d tensor": ({"eps": torch.tensor(0.1)}, "eps .* must hold at least one budget"),
    "inputs no tensor": (
        {"inputs": np.zeros((8, 1, 6, 6))},
        r"inputs \(=ndarray\) must be a torch",
    ),
    "inputs rank": (
        {"inputs": images(8)[:, 0]},
        r"inputs \(shape \(8, 6, 6\)\) must have 4 dimensions",
    ),
    "inputs uint8": (
        {"inputs": torch.zeros(8, 1, 6, 6, dtype=torch.uint8)},
        r"inputs \(dtype torch.uint8\) must be float32 in \[0, 1\]; divide uint8 images by 255",
    ),
    "inputs none": (
        {"inputs": images(8)[:0], "labels": classes(8, k=2)[:0]},
        "must hold at least one image",
    ),
    "inputs normalised": (
        {"inputs": images(8) * 4 - 2},
        r"inputs \(from -\S+ to \S+\) must lie in \[0, 1\]; normalisation belongs inside the model",
    ),
    "inputs nan": ({"inputs": images(8) * torch.nan}, r"inputs \(from nan to nan\) must lie in"),
    "labels no tensor": ({"labels": [0] * 8}, r"labels \(=list\) must be a torch.Tensor"),
    "labels dtype": (
        {"labels": classes(8, k=2).float()},
        r"labels \(dtype torch.float32\) must be int64; use labels.long\(\)",
    ),
    "labels shape": (
        {"labels": classes(8, k=2)[:, None]},
        r"labels \(shape \(8, 1\)\) must have shape \(8,\)",
    ),
    "labels negative": (
        {"labels": classes(8, k=2) - 1},
        r"labels \(lowest -1\) must be at least 0",
    ),
    "labels too high": (
        {"labels": classes(8, k=2) + 5},
        r"labels \(highest 6\) must lie in 0..1: the model returns 2 logits",
    ),
    "index length": ({"index": [1, 2]}, r"index \(shape \(2,\)\) must have shape \(8,\)"),
    "index dtype": (
        {"index": np.ones(8)},
        r"index \(dtype torch.float64\) must hold whole numbers",
    ),
    "index negative": ({"index": range(-1, 7)}, r"index \(lowest -1\) must be at least 0"),
    "batch_size": ({"batch_size": 0}, r"batch_size \(=0\) must be at least 1"),
    "batch_size text": ({"batch_size": 0.5}, r"batch_size \(=0.5\) must be an integer"),
    "seed": ({"seed": None}, r"seed \(=None\) must be an integer"),
    "model": ({"model": lambda x: x}, r"model \(=function\) must be a torch.nn.Module"),
    "attack class": ({"attack": type(GOOD["attack"])}, "attack 'FGSM' is a class, not an instance"),
    "attack text": ({"attack": "fgsm"}, "attack 'str' has no name, norm, needs; an attack is a"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        perturb(**{**GOOD, **change})


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan")])
@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_other_budgets_are_finite_and_not_negative(norm, value: float) -> None:
    assert checked_eps([0, 1.5, 40], norm) == (0.0, 1.5, 40.0)
    message = f"must be finite and at least 0: an {norm.upper()} length in pixel"
    with pytest.raises(ValueError, match=message):
        checked_eps([value], norm)


def test_every_norm_has_a_name() -> None:
    assert tuple(NORM_NAMES) == NORMS


@pytest.mark.parametrize(
    "eps", [(0.1, 0.5), np.array([0.1, 0.5]), torch.tensor([0.1, 0.5], dtype=torch.float64)]
)
def test_any_sequence_of_numbers_will_do(eps) -> None:
    assert checked_eps(eps, "linf") == (0.1, 0.5)


OUTPUTS = {
    "not logits": (lambda images, z: images, r"model output \(=\(8, 1, 6, 6\)\) must be a tensor"),
    "a tuple": (lambda images, z: (z, z), r"model output \(=tuple\) must be a tensor of logits"),
    "another batch": (lambda images, z: z[:4], r"must be a tensor of logits \(8, K\)"),
    "one logit": (lambda images, z: z[:, :1], "must have at least 2 logits"),
}


@pytest.mark.parametrize(("output", "message"), OUTPUTS.values(), ids=OUTPUTS)
def test_a_model_without_logits_is_refused(output, message: str) -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = BinaryLinear()

        def forward(self, images: Tensor) -> Any:
            return output(images, self.model(images))

    with pytest.raises(ValueError, match=message):
        perturb(**{**GOOD, "model": Wrong()})
