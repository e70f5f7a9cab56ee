"""Attacks that keep the predicted class and change how sure the model is of it."""

import pytest
import torch
from torch import nn

import robustloss
from robustloss.attacks import ATTACKS, PluginError, build_attack, perturb
from robustloss.results.schema import KEEPING_LABEL
from robustloss.spec.attack_kinds import ATTACK_FACTS
from tests.attacks.models import SHAPE, BinaryLinear, convolutional

DUAL = {"linf": 1.0, "l2": 2.0}


def odds(model: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The logarithm of p / (1 − p) of some classes."""
    posterior = model(images).detach().double().softmax(1).gather(1, classes[:, None])[:, 0]
    return torch.logit(posterior)


@pytest.mark.parametrize("norm", DUAL)
def test_linear_model_gives_the_confidence_of_the_closed_form(norm):
    """Of a linear model the odds change by eps ‖w‖, or down to the boundary if that is nearer."""
    model = BinaryLinear()
    images = 0.5 + 0.1 * torch.randn(30, *SHAPE, generator=torch.Generator().manual_seed(1))
    labels = model(images).argmax(1)
    most = torch.linalg.vector_norm(model.weight.detach(), DUAL[norm]).item()
    lead = odds(model, images, labels)
    eps = float(lead.median()) / most  # within reach of half of the images
    found = {
        direction: perturb(
            build_attack("confidence", direction=direction, norm=norm), model, images, labels,
            eps=[eps],
        )
        for direction in ("over", "under")
    }  # fmt: skip
    over, under = (odds(model, found[way].adv_inputs[0], labels) for way in ("over", "under"))
    torch.testing.assert_close(over, lead + eps * most, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(under, (lead - eps * most).clamp(min=0), rtol=2e-2, atol=2e-2)
    assert (under > 0).all()
    assert not any(each.success.any() for each in found.values())


@pytest.mark.parametrize("direction", ["under", "over", "worst"])
def test_every_predicted_class_is_kept(direction):
    model = convolutional().eval()
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(60, *SHAPE, generator=generator)
    labels = torch.randint(5, (60,), generator=generator)
    classes = model(images).argmax(1)
    attack = build_attack("confidence", direction=direction, steps=15)
    found = perturb(attack, model, images, labels, eps=[0.02, 0.1, 0.5])
    before = odds(model, images, classes)
    towards_doubt = {"under": True, "over": False, "worst": classes == labels}[direction]
    sign = torch.where(torch.as_tensor(towards_doubt), -1, 1)
    last = torch.zeros(60)
    for adv_inputs in found.adv_inputs:
        assert model(adv_inputs).argmax(1).equal(classes)
        gain = sign * (odds(model, adv_inputs, classes) - before)
        assert (gain >= 0).all()
        assert gain.mean() > last.mean()
        last = gain
    # Another batch changes no class either.
    assert torch.cat([model(each[None]) for each in found.adv_inputs[2]]).argmax(1).equal(classes)
    assert found.queries.forward <= 60 * attack.passes(3).forward
    assert found.queries.backward == 60 * attack.passes(3).backward


def test_errors_stay_and_calibration_suffers():
    """The clean error is that of the attacked images, and the worst case knows nothing of them."""
    model, generator = convolutional().eval(), torch.Generator().manual_seed(3)
    for parameter in model[-1].parameters():
        parameter.data *= 20  # else it is sure of nothing
    images = torch.rand(80, *SHAPE, generator=generator)
    labels = model(images).argmax(1)
    labels[:8] = (labels[:8] + 1) % 5
    attacks = [
        {"name": "fgsm", "eps": [0.1]},
        {"name": "confidence", "eps": [0.3], "params": {"steps": 10}},
    ]
    run = robustloss.evaluate(model, images, labels, attacks, checks=False)
    rows = {row["attack"]: row for row in run.rows}
    assert rows["confidence"]["error"] == rows["none"]["error"] == 0.1
    assert rows["fgsm"]["error"] > 0.1
    ece = {row["attack"]: row for row in run.calibration}
    assert ece["confidence"]["ece_low"] > ece["none"]["ece_high"]
    assert [row["attacks"] for row in run.worst_case] == [["FGSM"]]
    assert {row["attack"] for row in run.results["radii"]} == {"fgsm", "worst_case"}
    # Noise of its size fools more than it does, and that doubts nothing.
    assert not [flag for flag in run.flags if flag["attack_label"] == "Confidence"]
    assert "Confidence" not in str(run.table())


def test_kinds_and_tables_name_the_same_attacks():
    kept = [name for name, facts in ATTACK_FACTS.items() if facts.kind == "confidence"]
    assert kept == [*KEEPING_LABEL]
    assert set(kept) <= set(ATTACKS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"direction": "down"}, r"direction \(='down'\) must be one of 'under', 'over', 'worst'"),
        ({"steps": 0}, r"steps \(=0\) must be at least 1"),
        ({"step_size": 0}, "step_size .* must be positive"),
        ({"eot": 3}, "confidence.eot: confidence keeps the class .* Leave eot out"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(PluginError, match=message):
        build_attack("confidence", **params)
