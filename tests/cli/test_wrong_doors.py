"""What people bring, and bring wrong: each is told in one to three lines, with exit status 2."""

import json

import pytest
import safetensors.torch
from torch import nn

from robustloss.spec.text import to_toml
from tests.small_run import changed

ROW = {"loss": "L-GM", "attack": "fgsm", "eps": 0.1, "error": 23.6}
PAPER = {"source": "Doe et al. 2030, Table 2", "unit": "percent", "rows": [ROW]}
CODE = """
from torch import nn
import torch

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def colour():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(10))

def five():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))

def half(logits, labels):
    return logits[0, 0]
"""


def published(**keys):
    return {"report": {"published": "paper.json"}}, PAPER | keys


def outside(**keys):
    return {"outside": [{"label": "Other", **keys}]}, PAPER


def given(**keys):
    return {"losses": [{"label": "Mine", **keys}]}, PAPER


def start(**keys):
    return {"model": {"backbone": "digits_cnn", "feature_dim": 4, **keys}}, PAPER


def criterion(name, **keys):
    return {"losses": [{"name": f"criterion:{name}", **keys}]}, PAPER


@pytest.mark.parametrize(
    ("made", "key", "remedy"),
    [
        (published(rows=[ROW | {"loss": "ArcFace"}]), "paper.json", "Write them so, or take the"),
        (published(rows=[ROW | {"error": 236}]), "rows[0].error (=236", "as \"unit\": \"percent\""),
        (published(rows=[ROW, ROW]), "rows[1]", "Remove one"),
        (published(rows=[ROW | {"low": 25, "high": 22}]), "rows[0].error", "Swap the ends"),
        (published(rows=[ROW | {"auroc": 91}]), "rows[0].auroc", "Divide percent by 100"),
        (published(source=None), "source", "must be text"),
        (outside(name="arrays", file="none.npz"), "file (='none.npz')", "Name an .npz"),
        (outside(name="mine.py:none"), "mine.py:none", "none"),
        (outside(name="torchvision:SVNH"), "torchvision:SVNH", "did you mean 'SVHN'"),
        (outside(name="mnist", layout="nchw"), "outside[0].layout", "Remove it"),
        (outside(name="digits"), "outside[0].name", "held_out_classes"),
        (given(model="mine.py:none"), "mine.py", "none"),
        (given(model="mine.py:colour"), "mine.py:colour", "wrap the model"),
        (given(model="mine.py:five"), "logits of shape", "one output for each class"),
        (given(model="mine.py:flat", normalize={"mean": [0.5] * 3, "std": [0.5] * 3}),
         "normalize.mean", "one number for each channel"),
        (given(model="mine.py:flat", weights="five.safetensors"), "weights (=five", "trained with"),
        (given(model="torchvision:resnt18"), "resnt18", "did you mean 'resnet18'"),
        (start(weights="five.safetensors", normalize="data"), "weights (=five", "do not fit"),
        (start(weights="five.safetensors"), "normalize", "\"imagenet\""),
        (start(weights="DEFAULT"), "weights (=DEFAULT)", "only torchvision: and timm:"),
        (start(freeze=True), "freeze", "Write weights"),
        (criterion("torch.nn:CrossEntropyLos"), "CrossEntropyLos", "did you mean"),
        (criterion("mine.py:half"), "half", "Write it as a loss head"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_ends_with_two(command, tmp_path, monkeypatch, made, key, remedy):
    monkeypatch.chdir(tmp_path)
    tables, paper = made
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "paper.json").write_text(json.dumps(paper))
    five = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    safetensors.torch.save_file(five.state_dict(), tmp_path / "five.safetensors")
    (tmp_path / "spec.toml").write_text(to_toml(changed(**tables)))
    status, out, err = command("run", "spec.toml", "--out", "run", "--device", "cpu")
    assert (status, out) == (2, "")
    lines = err.strip().splitlines()
    assert 1 <= len(lines) <= 3
    assert "Traceback" not in err
    assert key in err
    assert remedy in err
    assert not (tmp_path / "run" / "cells").exists()
