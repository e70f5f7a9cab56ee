"""A replayed step is the step: the same weights, or it is not captured."""

import pytest
import torch
from torch import nn

from robustloss.losses.softmax import SoftmaxHead
from robustloss.models.classifier import Classifier
from robustloss.seeding import using_repeatable_kernels
from robustloss.spec.training import TrainSpec
from robustloss.training import captured_step, loop
from robustloss.training import train as training
from robustloss.training.captured_step import CapturedStep
from robustloss.training.objective import is_known
from tests.small_model import new_model

CPU = torch.device("cpu")
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
SPEC = {"epochs": 4, "batch_size": 50, "precision": "float32", "lr": 0.02, "max_grad_norm": 5.0}


class Silent(SoftmaxHead):
    """Inherits a phase that need not be its own."""


class Spoken(SoftmaxHead):
    def phase(self, progress):
        return ()


class Waiting(Spoken):
    def phase(self, progress):
        return ()

    def loss(self, features, labels, *, progress):
        terms = super().loss(features, labels, progress=progress)
        assert float(terms.classification.detach().mean()) >= 0  # waits for the device
        return terms


class Own(nn.Sequential):
    """A backbone of the user's."""


def test_on_a_cpu_every_step_is_plain(digits):
    seen = []
    step = CapturedStep(lambda *given: seen.append(given), new_model(digits, "softmax"), CPU)
    for _ in range(10):
        step(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64), 0.5)
    assert len(seen) == 10
    assert not step.replays


def test_only_a_class_that_tells_its_phase_itself_is_trusted():
    assert captured_step.has_own_phase(SoftmaxHead(2, 2))
    assert captured_step.has_own_phase(Spoken(2, 2))
    assert not captured_step.has_own_phase(Silent(2, 2))


def test_modules_of_the_user_are_not_captured(digits):
    model = new_model(digits, "softmax")
    assert is_known(model, head=False)
    model.backbone = Own(model.backbone)
    assert not is_known(model, head=False)


def train(model, digits, monkeypatch, plain=False, place="cuda", **keys):
    """Trains and returns the log, the weights and the CapturedStep."""
    made = []

    class Watched(CapturedStep):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)
            self.usable = self.usable and not plain

    monkeypatch.setattr(loop, "CapturedStep", Watched)
    spec = TrainSpec.model_validate({**SPEC, **keys})
    with using_repeatable_kernels():
        log = training.train(model, digits, spec, seed=0, device=torch.device(place))
    return log, {name: value.cpu() for name, value in model.state_dict().items()}, made[0]


def test_a_training_on_a_cpu_takes_plain_steps(digits, monkeypatch):
    log, _, step = train(new_model(digits, "softmax"), digits, monkeypatch, place="cpu")
    assert log.steps == 24
    assert not step.replays
    assert step.reason == "not offered"


@on_gpu
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("loss", "params"),
    [
        ("softmax", {}),
        ("center", {}),
        ("gm", {"covariance": "spherical"}),
        ("lgm", {"alpha_schedule": "steps"}),
        ("l_softmax", {}),
        ("arcface", {}),
        ("normface", {}),
        ("mmc", {}),
        ("label_smoothing", {}),
        ("focal", {}),
        ("logit_norm", {}),
        ("one_vs_rest", {}),
        ("triplet", {}),
        ("contrastive", {}),
    ],
)
def test_captured_steps_give_the_weights_of_plain_ones(
    digits, monkeypatch, loss, params, optimizer
):
    keys = {"optimizer": optimizer, "lr": 0.02 if optimizer == "sgd" else 0.002}
    model, other = new_model(digits, loss, **params), new_model(digits, loss, **params)
    log, replayed, step = train(model, digits, monkeypatch, **keys)
    again, plain, unused = train(other, digits, monkeypatch, plain=True, **keys)
    assert step.replays or loss == "l_softmax", step.reason
    assert not unused.replays
    assert log.steps == again.steps == 24
    for name, value in plain.items():
        torch.testing.assert_close(replayed[name], value, rtol=1e-5, atol=1e-6)
    first, second = log.curve[-1], again.curve[-1]
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
    assert first["train_error"] == second["train_error"]


@on_gpu
def test_random_numbers_keep_a_step_plain(digits, monkeypatch):
    model = new_model(digits, "softmax")
    model.backbone = nn.Sequential(model.backbone, nn.Dropout(0.5))
    _, _, step = train(model, digits, monkeypatch)
    assert "random" in step.reason


@on_gpu
def test_a_step_that_waits_for_the_device_stays_plain(digits, monkeypatch):
    model = new_model(digits, "softmax")
    waiting = Classifier(model.backbone, Waiting(8, 10), digits.mean, digits.std)
    log, _, step = train(waiting, digits, monkeypatch)
    assert "waits" in step.reason
    assert log.peak_bytes is not None
    weights = sum(p.numel() for p in waiting.parameters()) * 4
    assert log.peak_bytes > weights + digits.train.images.nbytes
    assert log.curve[-1]["train_error"] < 0.9


@on_gpu
def test_augmented_and_resumed_training(digits, monkeypatch, tmp_path):
    """A training that is stopped and goes on has the weights of one that was not."""
    model, other = new_model(digits, "softmax"), new_model(digits, "softmax")
    _, whole, _ = train(model, digits, monkeypatch, augment="shift")

    class StopError(Exception):
        pass

    def stop(done, total, text, line):
        if done >= 2:
            raise StopError

    spec = TrainSpec.model_validate({**SPEC, "augment": "shift"})
    device, file = torch.device("cuda"), tmp_path / "c"
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    with using_repeatable_kernels():
        with pytest.raises(StopError):
            training.train(
                other, digits, spec, seed=0, device=device, checkpoint=file, key="k", report=stop
            )
        fresh = new_model(digits, "softmax")
        training.train(fresh, digits, spec, seed=0, device=device, checkpoint=file, key="k")
    for name, value in fresh.state_dict().items():
        torch.testing.assert_close(value.cpu(), whole[name], rtol=1e-5, atol=1e-6)
