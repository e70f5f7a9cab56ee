"""check_loss, proved both ways: sound losses pass, each broken one is caught by its check."""

import pytest
import torch

from robustloss.losses import LOSSES
from robustloss.losses.contract.check import CHECKS, check_loss
from tests.losses.broken_losses import BROKEN, NearestMean, Sound

EXAMPLE = "tests/losses/example_loss.py:CosineSoftmax"


def failed(loss, **params):
    return {check.name: check.detail for check in check_loss(loss, **params) if not check.passed}


@pytest.mark.parametrize("name", LOSSES)
def test_built_in_losses_pass(name):
    assert failed(name) == {}


@pytest.mark.parametrize(
    "params",
    [
        {"covariance": "diagonal", "priors": "counts", "center_init": "zeros"},
        {"covariance": "spherical", "alpha_schedule": "steps", "center_init": "normal"},
    ],
    ids=lambda params: params["covariance"],
)
def test_lgm_variants_pass(params):
    assert failed("lgm", **params) == {}


def test_the_example_of_the_readme_passes(pytestconfig):
    assert failed(EXAMPLE, folders=[pytestconfig.rootpath]) == {}


@pytest.mark.parametrize("loss", [Sound, NearestMean])
def test_sound_plugins_pass(loss):
    assert failed(loss) == {}


@pytest.mark.parametrize("loss", BROKEN, ids=lambda loss: loss.__name__)
def test_broken_plugins_are_caught(loss):
    name, reason = BROKEN[loss]
    caught = failed(loss)
    assert name in caught
    assert reason in caught[name]


def test_every_check_catches_something():
    assert {name for name, _ in BROKEN.values()} == {"builds", *CHECKS}


def test_all_checks_are_listed_in_order():
    assert [check.name for check in check_loss("softmax")] == ["builds", *CHECKS]
    assert [check.name for check in check_loss(next(iter(BROKEN)))] == ["builds"]


def test_global_random_state_and_grad_mode_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with torch.no_grad():
        assert failed("softmax") == {}
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("loss", "params", "message"),
    [
        ("softmx", {}, "did you mean 'softmax'"),
        ("lgm", {"aplha": 1.0}, "lgm.aplha: unknown parameter; did you mean 'alpha'"),
        (torch.nn.Linear, {}, "must be a subclass of robustloss.losses.base.LossHead"),
    ],
)
def test_what_is_no_loss_is_refused(loss, params, message):
    with pytest.raises(ValueError, match=message):
        check_loss(loss, **params)


class MovesBadly(Sound):
    """Its weights are halved whenever it is moved."""

    def _apply(self, fn, recurse=True):
        return super()._apply(lambda value: 0.5 * fn(value), recurse)


def test_an_accelerator_is_compared_with_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cpu"))
    details = {check.name: check.detail for check in check_loss("lgm")}
    assert details["device move"] == "on cpu"
    assert "loss() on cpu differs" in failed(MovesBadly)["device move"]
