"""Weights by the attacked validation error: measured as it says, and the lowest is kept."""

from types import SimpleNamespace

import pytest
import torch

from robustloss.attacks import build_attack, perturb
from robustloss.training import selection as selecting
from robustloss.training import train as training
from robustloss.training.log import find_chosen_line
from robustloss.training.selection import Selection
from tests.small_model import new_model
from tests.training.test_adversary import CPU, adversarial, spec


def trained(digits, **keys):
    table = {"eps": 0.1, "steps": 1, "select_images": 40, "select_steps": 3, **keys}
    model = new_model(digits, "softmax")
    log = training.train(model, digits, spec(epochs=4, adversarial=table), seed=0, device=CPU)
    return model, log


def test_the_error_is_that_of_pgd_on_the_margin_on_a_fixed_stratified_part(digits):
    model = new_model(digits, "softmax")
    chosen = Selection(adversarial(select_images=50, select_steps=4), digits.validation, seed=3)
    assert chosen.images.n == 50
    assert set(torch.bincount(chosen.images.labels).tolist()) <= {4, 5, 6}
    assert set(chosen.images.index.tolist()) <= set(digits.validation.index.tolist())
    log = SimpleNamespace(curve=[], chosen_epoch=None)
    found = chosen.measure(model, 1, 1, log)["validation_robust_error"]
    attack = build_attack("pgd", objective="margin", steps=4)
    images, labels = chosen.images.batch(slice(None)), chosen.images.labels
    moved = perturb(attack, model.eval(), images, labels, eps=[0.2], seed=3,
                    index=chosen.images.index).adv_inputs[0]  # fmt: skip
    assert found == float((model(moved).argmax(1) != labels).float().mean())
    assert found > float((model(images).argmax(1) != labels).float().mean())


def errors_in_turn(monkeypatch, errors):
    """Lets the epochs have these errors; remembers the weights that they were measured with."""
    seen = []

    def error(self, model, attack):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return errors[len(seen) - 1]

    monkeypatch.setattr(selecting.Selection, "_error", error)
    return seen


@pytest.mark.parametrize(
    ("errors", "epoch"), [([0.9, 0.3, 0.5, 0.4], 2), ([0.3, 0.3, 0.3, 0.3], 1), ([4, 3, 2, 1], 4)]
)
def test_robust_keeps_the_first_epoch_with_the_fewest_errors(digits, monkeypatch, errors, epoch):
    seen = errors_in_turn(monkeypatch, errors)
    model, log = trained(digits, select="robust")
    assert log.chosen_epoch == epoch
    kept = model.state_dict()
    assert [all(torch.equal(kept[n], v) for n, v in each.items()) for each in seen] == [
        number == epoch for number in (1, 2, 3, 4)
    ]
    assert [line["validation_robust_error"] for line in log.curve] == errors


def test_last_keeps_the_last_epoch_and_measures_all_the_same(digits, monkeypatch):
    seen = errors_in_turn(monkeypatch, [0.1, 0.9, 0.9, 0.9])
    model, log = trained(digits)
    assert log.chosen_epoch is None
    assert all(torch.equal(value, seen[3][name]) for name, value in model.state_dict().items())
    assert [line["validation_robust_error"] for line in log.curve] == [0.1, 0.9, 0.9, 0.9]


def test_epochs_between_two_measurements_are_left_out_but_never_the_last(digits):
    _, log = trained(digits, select_every=3)
    measured = [line["validation_robust_error"] is not None for line in log.curve]
    assert measured == [False, False, True, True]


def test_measuring_changes_no_weight(digits):
    model, _ = trained(digits, select_every=99, select_images=10)
    other, _ = trained(digits)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_one_step_training_is_also_measured_under_its_step(digits):
    _, log = trained(digits, attack="fgsm")
    assert all(0 <= line["validation_one_step_error"] <= 1 for line in log.curve)
    _, log = trained(digits)
    assert "validation_one_step_error" not in log.curve[0]


def test_the_kept_line_is_that_of_the_weights():
    curve = [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.0}, {"epoch": 3, "loss": 1.0}]
    for chosen, loss in ((2, 2.0), (None, 1.0)):
        assert find_chosen_line({"curve": curve, "chosen_epoch": chosen})["loss"] == loss
    assert find_chosen_line({"curve": curve})["loss"] == 1.0  # a log of before
    assert find_chosen_line({"curve": []}) == {}
