"""A model in memory: the numbers of a run, without a spec or files."""

import pytest
import torch
from torch import nn

import robustloss
from robustloss import progress
from robustloss.spec.load import load_spec
from tests import given_models
from tests.models.test_given import HERE, classifier, computed, digits, spec_of  # noqa: F401

QUICK = {"checks": {"images": 0}, "detection": {"noise": False}}
FGSM = {**QUICK, "attacks": [{"name": "fgsm", "eps": [0.1, 0.2]}]}


def rand(n=24, channels=1, size=8):
    made = torch.Generator().manual_seed(0)
    return torch.rand((n, channels, size, size), generator=made), torch.arange(n) % 10


def evaluate(model, images, labels, spec=FGSM, **keys):
    return robustloss.evaluate(model, images, labels, spec, progress=progress.Silent(), **keys)


def test_the_rows_are_those_of_a_run_with_the_same_model(digits, tmp_path):  # noqa: F811
    spec = spec_of({"model": f"{HERE}:plain"})
    ran = computed(spec, digits, tmp_path)["plain"]
    with robustloss.seeding.using_seed("weights", 3):
        model = given_models.plain()
    every = slice(None)
    found = evaluate(
        {"plain": model},
        digits.test.batch(every),
        digits.test.labels,
        {**FGSM, "seeds": [3]},
        validation=(digits.validation.batch(every), digits.validation.labels),
    )
    assert found.rows == ran["rows"]
    assert found.detection == ran["detection"]
    assert not found.path.exists()
    assert str(found.path) not in repr(found) + found._repr_html_()
    assert [row.label for row in found.table().rows] == ["plain"]


def test_a_torchvision_model_and_a_restored_classifier_in_one_call(tmp_path):
    images, labels = rand()
    models = {"A": given_models.resnet().eval(), "B": classifier()}
    before = {k: v.clone() for k, v in models["A"].state_dict().items()}
    training = rand(40)
    run = evaluate(models, images, labels, train=training, out=tmp_path / "out")
    assert {(r["label"], r["attack"], r["eps"]) for r in run.rows} == {
        (label, attack, eps)
        for label in "AB"
        for attack, eps in (("none", 0.0), ("fgsm", 0.1), ("fgsm", 0.2))
    }
    with torch.no_grad():
        wrong = (models["B"].eval()(images).argmax(1) != labels).float().mean().item()
    clean = next(r for r in run.rows if r["label"] == "B" and r["attack"] == "none")
    assert clean["error"] == pytest.approx(wrong, abs=1e-6)
    scores = {r["label"]: set() for r in run.detection}
    for row in run.detection:
        scores[row["label"]].add(row["score"])
    assert "mahalanobis" in scores["B"]
    assert "mahalanobis" not in scores["A"]
    assert all(torch.equal(v, before[k]) for k, v in models["A"].state_dict().items())
    with pytest.raises(ValueError, match="was evaluated from memory"):
        robustloss.load_classifier(tmp_path / "out", loss="B", seed=0, allow_plugins=True)


def test_attacks_may_be_named_alone_and_have_the_usual_budgets():
    images, labels = rand(8)
    run = evaluate(given_models.plain().eval(), images, labels, ["fgsm"])
    assert [r["eps"] for r in run.rows if r["attack"] == "fgsm"] == [0.1, 0.2, 0.3]
    assert {r["label"] for r in run.rows} == {"Sequential"}
    colour, labels = rand(8, channels=3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    run = evaluate(model, colour, labels, ["fgsm"])
    eps = [r["eps"] for r in run.rows if r["attack"] == "fgsm"]
    assert eps == [2 / 255, 4 / 255, 8 / 255]
    assert run.provenance["data"]["summary"].startswith("thresholds")


def test_a_shipped_spec_lends_its_attacks():
    images, labels = rand(6)
    spec = load_spec("quickstart")
    run = evaluate(given_models.plain().eval(), images, labels, spec.model_copy(
        update={"attacks": spec.attacks[:1], "checks": spec.checks.override({"images": 0})}
    ))  # fmt: skip
    assert {r["attack_label"] for r in run.rows} == {"none", "FGSM"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": lambda x: x * 255}, r"images \(from 0.* to 25.*\) must lie in \[0, 1\]"),
        ({"images": lambda x: (x * 255).byte()}, "must be floating, in .0, 1.. Write images.float"),
        ({"images": lambda x: x[0]}, r"must be a tensor of shape \(N, C, H, W\)"),
        ({"images": lambda x: x * float("nan")}, r"must lie in \[0, 1\]. Some pixels are NaN"),
        ({"images": lambda x: x / x.max() + 1e-6}, r"to 1\.0000.* rounding: write images.clamp"),
        ({"images": lambda x: 4 * x - 2}, "must lie in .0, 1.. They look normalised"),
        ({"labels": lambda y: y % 10 + 1}, "from 1 to 10.* counted from 1: subtract 1"),
        ({"validation": torch.rand(4, 1, 8, 8)}, r"Write validation=\(images, labels\)"),
        ({"labels": lambda y: y + 5}, r"labels of images \(from 5 to 14\) must lie in \[0, 9\]"),
        ({"labels": lambda y: y - 1}, "labels of images .from -1 to 8"),
        ({"labels": lambda y: y.float()}, "must be int64 of shape"),
        ({"labels": lambda y: y[1:]}, "must be int64 of shape"),
        ({"model": given_models.plain(probabilities=True)}, "Sequential: the model returns prob"),
        ({"model": nn.Conv2d(3, 10, 8)}, "Conv2d: the model fails on images of shape"),
        ({"model": nn.Conv2d(1, 10, 3)}, r"must return logits of shape .*got \(4, 10, 6, 6\)"),
        ({"model": len}, "must be a torch.nn.Module"),
        ({"spec": [{"name": "fgsm", "eps": [8]}]}, "must lie in .0, 1."),
        ({"spec": [{"name": "fgms", "eps": [0.1]}]}, "fgms"),
        ({"spec": "fgsm"}, r"must be a list of attacks. Write \['fgsm'\]"),
        ({"spec": {"attacks": "fgsm"}}, "attacks .='fgsm'. must be a list"),
        ({"spec": {"attacks": ["fgsm"], "cheks": {}}}, "cheks: unknown key; did you mean 'checks'"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_told(change, message, tmp_path):
    images, labels = rand(12)
    images, labels = (
        change.get(name, lambda each: each)(value)
        for name, value in (("images", images), ("labels", labels))
    )
    model = change.get("model") or given_models.plain()
    with pytest.raises(ValueError, match=message):
        evaluate(
            model,
            images,
            labels,
            change.get("spec", FGSM),
            validation=change.get("validation"),
            out=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "params", "classes", "least"),
    [
        ("fgsm", {"objective": "dlr"}, 2, 3),
        ("pgd", {"objective": "dlr"}, 2, 3),
        ("apgd_dlr", {}, 2, 3),
        ("apgd_dlr", {"targets": 2}, 3, 4),
        ("autoattack", {}, 3, 4),
        ("torchattacks:APGDT", {}, 3, 4),
        ("torchattacks:APGD", {"loss": "dlr"}, 2, 3),
    ],
)
def test_an_attack_that_needs_more_classes_is_refused_before_anything_is_computed(
    name, params, classes, least
):
    images, labels = rand(8, 3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, classes)).eval()
    attacks = [{"name": name, "params": params, "eps": [0.1]}]
    with pytest.raises(ValueError, match=f"needs at least {least} classes, the data have"):
        evaluate(model, images, labels % classes, {**QUICK, "attacks": attacks})


def test_a_classifier_without_training_images_keeps_its_own_likelihood():
    images, labels = rand(12)
    run = evaluate(classifier(), images, labels)
    scores = {row["score"] for row in run.detection}
    assert "marginal_log_likelihood" in scores  # of a density, which a Gaussian mixture has
    assert "mahalanobis" not in scores
    plain = evaluate(given_models.plain(), images, labels)
    assert "marginal_log_likelihood" not in {row["score"] for row in plain.detection}
