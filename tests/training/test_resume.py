"""A killed training goes on where it was, and no checkpoint but its own is used."""

import pytest
import torch

from robustloss.models.weight_files import load_tensors, save_tensors
from robustloss.training import loop as training_loop
from robustloss.training import train as training
from robustloss.training.loop import Loop
from tests.small_model import new_model
from tests.training.test_train import CPU, drawing, same, spec, weights


class Killed(Exception):  # noqa: N818
    pass


def killed(*args):
    raise Killed


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("loss", ["center", "lgm", "triplet"])
@pytest.mark.parametrize("stop_at", [3, 6, 13, 18, 23])
def test_killed_training_ends_with_the_same_weights(
    digits, tmp_path, monkeypatch, loss, optimizer, stop_at
):
    settings = spec(optimizer=optimizer, augment="shift")
    undisturbed = new_model(digits, loss)
    log = training.train(undisturbed, digits, settings, seed=0, device=CPU)
    monkeypatch.setattr(training, "CHECK_EVERY", 1)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    path = tmp_path / "checkpoint.safetensors"

    steps = 0
    original = Loop.step

    def step(self, *args, **kwargs):
        nonlocal steps
        if steps == stop_at:
            raise Killed
        steps += 1
        original(self, *args, **kwargs)

    monkeypatch.setattr(Loop, "step", step)
    with pytest.raises(Killed):
        training.train(
            new_model(digits, loss), digits, settings, seed=0, device=CPU, checkpoint=path, key="k"
        )
    monkeypatch.setattr(Loop, "step", original)
    resumed = new_model(digits, loss)
    counted = []
    monkeypatch.setattr(
        Loop, "step", lambda self, *a, **k: (counted.append(1), original(self, *a, **k))
    )
    again = training.train(resumed, digits, settings, seed=0, device=CPU, checkpoint=path, key="k")
    assert len(counted) == log.steps - stop_at  # it went on, it did not begin anew
    assert same(weights(undisturbed), weights(resumed))
    timed = ("seconds", "tuple_seconds")
    timeless = [{k: v for k, v in line.items() if k not in timed} for line in log.curve]
    assert [{k: v for k, v in line.items() if k not in timed} for line in again.curve] == timeless


@pytest.mark.parametrize("stop_at", [4, 6, 15])
def test_a_killed_training_with_dropout_ends_with_the_same_weights(
    digits, tmp_path, monkeypatch, stop_at
):
    undisturbed = drawing(digits)
    training.train(undisturbed, digits, spec(), seed=0, device=CPU)
    monkeypatch.setattr(training, "CHECK_EVERY", 1)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    original = training_loop.Loop.step

    def step(self, *args, **kwargs):
        if self.log.steps == stop_at:
            raise Killed
        original(self, *args, **kwargs)

    path = tmp_path / "checkpoint.safetensors"
    monkeypatch.setattr(training_loop.Loop, "step", step)
    with pytest.raises(Killed):
        training.train(drawing(digits), digits, spec(), seed=0, device=CPU, checkpoint=path)
    monkeypatch.setattr(training_loop.Loop, "step", original)
    resumed = drawing(digits)
    training.train(resumed, digits, spec(), seed=0, device=CPU, checkpoint=path)
    assert same(weights(undisturbed), weights(resumed))


def test_killed_between_the_last_step_and_the_end_of_an_epoch(digits, tmp_path, monkeypatch):
    """The curve of the rest has the rates of the undisturbed one: no step was left to set them."""
    undisturbed = training.train(new_model(digits), digits, spec(), seed=0, device=CPU)
    monkeypatch.setattr(training, "CHECK_EVERY", 1)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    path = tmp_path / "checkpoint.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(training, "error_rate", killed)
        with pytest.raises(Killed):
            training.train(new_model(digits), digits, spec(), seed=0, device=CPU, checkpoint=path)
    assert load_tensors(path)[1]["log"]["steps"] == 6
    again = training.train(new_model(digits), digits, spec(), seed=0, device=CPU, checkpoint=path)
    assert [line["lr"] for line in again.curve] == [line["lr"] for line in undisturbed.curve]


@pytest.mark.parametrize("damage", ["truncate", "flip", "other key"])
def test_a_checkpoint_that_is_damaged_or_anothers_is_not_used(
    digits, tmp_path, monkeypatch, damage
):
    undisturbed = new_model(digits)
    training.train(undisturbed, digits, spec(), seed=0, device=CPU)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    path = tmp_path / "checkpoint.safetensors"
    # A checkpoint of another training: were it used, the weights would differ.
    training.train(new_model(digits), digits, spec(), seed=7, device=CPU, checkpoint=path, key="k")
    assert path.exists()
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[-5] ^= 255
        path.write_bytes(data)
    key = "another" if damage == "other key" else "k"
    model = new_model(digits)
    training.train(model, digits, spec(), seed=0, device=CPU, checkpoint=path, key=key)
    assert same(weights(undisturbed), weights(model))


@pytest.mark.parametrize(
    ("log", "tensors"),
    [
        (None, {}),
        ({"processes": "many"}, {}),
        ({"__class__": 3, "steps": -1}, {}),
        ({"curve": [{}]}, {}),
        ({"curve": [{"epoch": 1}] * 9}, {}),
        ({"curve": [{"epoch": 1, "loss": "x"}], "steps": 10**9}, {}),
        ({}, {"sums": None}),
        ({}, {"sums": torch.zeros(2)}),
        ({}, {"model.mean": None}),
        ({}, {"model.mean": torch.zeros(1)}),
        ({}, {"model.other": torch.zeros(1)}),
        ({}, {"best.other": torch.zeros(1)}),
        ({}, {"optimizer.999.momentum_buffer": torch.zeros(())}),
        ({}, {"optimizer.x": torch.zeros(())}),
        ({}, {"optimizer.0.": torch.zeros(())}),
        ({}, {"optimizer.0.momentum_buffer": torch.zeros(2, 2)}),
    ],
)
def test_a_checkpoint_of_somebody_else_is_not_used(digits, tmp_path, monkeypatch, log, tensors):
    undisturbed = new_model(digits)
    training.train(undisturbed, digits, spec(), seed=0, device=CPU)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    path = tmp_path / "checkpoint.safetensors"
    training.train(new_model(digits), digits, spec(), seed=7, device=CPU, checkpoint=path, key="k")
    whole, meta = load_tensors(path)
    forged = {name: value for name, value in {**whole, **tensors}.items() if value is not None}
    if log is None:
        del meta["log"]
    else:
        meta["log"] |= log
    save_tensors(path, forged, meta)
    model = new_model(digits)
    training.train(model, digits, spec(), seed=0, device=CPU, checkpoint=path, key="k")
    assert same(weights(undisturbed), weights(model))
