"""A model in memory: the numbers of a run, without a spec or files."""

import re

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robustloss
from robustloss import progress
from robustloss.evaluation import unit_test
from robustloss.reports.page.run_facts import list_facts
from robustloss.reports.reading.numbers import Numbers
from robustloss.spec.load import load_spec
from tests import given_models
from tests.models.test_given import HERE, classifier, computed, digits, spec_of  # noqa: F401

QUICK = {"checks": {"images": 0}, "detection": {"noise": False}}
FGSM = {**QUICK, "attacks": [{"name": "fgsm", "eps": [0.1, 0.2]}]}


def rand(n=24, channels=1, size=8):
    made = torch.Generator().manual_seed(0)
    return torch.rand((n, channels, size, size), generator=made), torch.arange(n) % 10


def loader(*tensors, **keys):
    return DataLoader(TensorDataset(*tensors), **keys)


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
        ({"labels": lambda y: y[:, None]}, r"must be int64 of shape .* Write labels\[:, 0\]"),
        ({"model": given_models.plain(probabilities=True)}, "Sequential: the model returns prob"),
        ({"model": nn.Conv2d(3, 10, 8)}, "Conv2d: the model fails on images of shape"),
        ({"model": nn.Conv2d(1, 10, 3)}, r"must return logits of shape .*got \(4, 10, 6, 6\)"),
        ({"model": len}, "must be a torch.nn.Module"),
        ({"spec": [{"name": "fgsm", "eps": [8]}]}, "must lie in .0, 1."),
        ({"spec": [{"name": "fgms", "eps": [0.1]}]}, "fgms"),
        ({"spec": "fgsm"}, r"attacks \(='fgsm'\) must be a list. Write \['fgsm'\]"),
        ({"images": lambda x: (x * 255).byte().numpy()}, r"uint8. must be .*astype\('float32'\)"),
        ({"images": lambda x: x[:, 0].numpy()}, r"Write images\[:, None\] for grey images"),
        ({"images": lambda x: x.permute(0, 2, 3, 1)}, r"must .* Write images.permute\(0, 3, 1"),
        ({"labels": lambda y: y.int().numpy()}, r"int64 of shape .*labels.astype\('int64'\)"),
        ({"labels": lambda y: None}, r"labels of images \(=None\) must be given with a tensor"),
        ({"labels": lambda y: ["fgsm"]}, r"labels of images \(=\['fgsm'\]\) must be int64"),
        ({"images": lambda x: "x.npz", "labels": lambda y: None}, r"images \(=str\) must be a ten"),
        ({"images": lambda x: x[:, 0]}, r"Write images.unsqueeze\(1\) for grey images"),
        ({"images": lambda x: loader(x)}, "labels of images .* must be left out: the batches of D"),
        ({"labels": lambda y: y.int()}, r"must be int64 of shape .* Write labels.long\(\)"),
        ({"spec": 5}, r"attacks \(=5\) must be a list of attacks, a spec, or its name"),
        ({"spec": [len]}, r"attacks\[0\] \(=builtin_.*\) must be a name, .* by its file"),
        ({"spec": {"name": "fgsm", "eps": [0.1]}}, "attacks must be a list. Write .*'eps'"),
        ({"spec": {"fgsm": 0.1}}, "attacks must be a list. Write .*'eps'"),
        ({"model": [nn.Linear(2, 2)]}, r"model \(=list\) .* Give several by label"),
        ({"checks": "yes"}, r"checks \(='yes'\) must be True, False or a number of images"),
        ({"images": lambda x: "x.npz"}, r"images \(=str\) must be a tensor"),
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
            checks=change.get("checks", True),
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


def test_the_report_counts_no_validation_images_where_none_were_given():
    images, labels = rand(12)
    own = evaluate(classifier(), images, labels, checks=False, noise=False)
    given = evaluate(classifier(), images, labels, validation=rand(8), checks=False, noise=False)
    assert dict(list_facts(Numbers(own)))["Data"] == "images in memory: 12 test images"
    told = dict(list_facts(Numbers(given)))["Data"]
    assert told == "images in memory: 8 validation, 12 test images"


class Counted(nn.Module):
    """Logits linear in the pixels; every image that passes is counted, in copies too."""

    seen = 0

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 10)

    def forward(self, images):
        Counted.seen += len(images)
        return self.linear(images.flatten(1))


def counted(count, **keys):
    """How many images pass the model while so many are evaluated."""
    images, labels = rand(count)
    Counted.seen = 0
    evaluate(Counted().eval(), images, labels, **keys)
    return Counted.seen


def test_what_is_beside_the_attacks_passes_fewer_images_than_they_do():
    """Forward, FGSM passes an image once and PGD 124 times, and each attacked image passes."""
    attacks = {"attacks": ["fgsm", {"name": "pgd", "params": {"objective": "margin"}}]}
    own = 64 * (1 + 124 + 6)
    every = counted(64, spec=attacks)
    assert own < every < 1.3 * own
    # A trial attack leaves an image that it has fooled, so that fewer pass than are counted.
    assert counted(64, spec=attacks, checks=64) > 1.5 * own
    quick = counted(64, spec=attacks, quick=True)
    # Beside the attacks the clean images pass once. Fixed images stand for the model in its key,
    # and random ones show whether it works at all.
    assert own + 64 < quick < own + 64 + 150
    # One gradient leaves no room for trial attacks; noise and clean images cost no more than it.
    assert counted(64, spec=["fgsm"]) == counted(64, spec=["fgsm"], checks=False)


def test_trial_attacks_have_as_many_images_as_was_asked():
    images, labels = rand(24)

    def tried(attacks, **keys):
        run = evaluate(Counted().eval(), images, labels, attacks, **keys)
        return run.provenance["spec"]["checks"]["images"]

    pgd = [{"name": "pgd", "eps": [0.1]}]
    assert tried(pgd) == tried(pgd) == 1
    assert tried(pgd, checks=12) == 12
    assert tried({"attacks": pgd, "checks": {"images": 9}}) == 9
    assert tried({"attacks": pgd, "checks": {"eps": 0.2}}) == 1
    assert tried({"attacks": pgd, "checks": {"images": 9}}, checks=False) == 0
    assert tried({"attacks": pgd, "checks": {"images": 9}}, quick=True) == 0


def test_quick_has_the_same_errors_and_the_auroc_of_the_likelihood():
    images, labels = rand(24)
    model = Counted().eval()
    full = evaluate(model, images, labels, ["fgsm"], checks=10)
    quick = evaluate(model, images, labels, ["fgsm"], quick=True)
    assert quick.rows == [{**row, "auroc_noise": None, "error_noise": None} for row in full.rows]
    assert {row["score"] for row in quick.detection} == {"class_log_likelihood"}
    assert len({row["score"] for row in full.detection}) > 3
    assert any(row["auroc_noise"] is not None for row in full.rows)
    assert evaluate(model, images, labels, ["fgsm"], noise=False).rows == quick.rows


def test_spec_is_another_name_of_attacks():
    images, labels = rand(8)
    keys = {"progress": progress.Silent(), "quick": True}
    one = robustloss.evaluate(Counted().eval(), images, labels, spec=["fgsm"], **keys)
    other = robustloss.evaluate(Counted().eval(), images, labels, attacks=["fgsm"], **keys)
    assert one.rows == other.rows
    with pytest.raises(ValueError, match="spec is another name of attacks"):
        robustloss.evaluate(Counted(), images, labels, ["fgsm"], spec=["fgsm"], **keys)


def test_cost_and_checks_are_said_before_anything_is_attacked(capsys):
    images, labels = rand(64)

    def lines(*attacks, **keys):
        robustloss.evaluate(Counted().eval(), images, labels, *attacks, device="cpu", **keys)
        return capsys.readouterr().err.splitlines()

    said = lines()
    assert said[0].startswith("Evaluating Counted on 64 images of 1 × 8 × 8 (cpu")
    # 64 images: a gradient, 1 + 3 * 40 gradients and 3 last points, 6 attacked images; clean; noise
    passes = 64 * (2 + 124 + 121 + 6 + 1 + 6) + 8 * (158 + 142)
    told = f"{passes:,} passes of an image, forward or back (attacks 85 %, checks 13 %, noise 2 %)."
    assert re.fullmatch(r"Cost: about \d+ (s|min): " + re.escape(told), said[1])
    assert said[2] == (
        "Checks by trial attacks: on 8 of 64 images, for a sixth of the attacks' passes at most; "
        "checks=64 tries 64."
    )
    assert said[3] == "1 cell"
    assert "Checks by trial attacks: none" in "".join(lines(["fgsm"]))
    assert not any("Checks by" in line for line in lines(["fgsm"], quick=True))


def test_a_model_that_guesses_gets_a_remark_that_names_what_may_be_wrong(capsys):
    images, labels = rand(64)
    right = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        labels = right(images).argmax(1)
    keys = {"device": "cpu", "quick": True}
    models = {"right": right, "guessing": Counted().eval()}
    robustloss.evaluate(models, images, labels, ["fgsm"], **keys)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Remark")]
    assert len(said) == 1
    assert re.match(r"Remark: guessing .*: clean error \d+ %, guessing is \d+ %\.", said[0])
    assert 'normalize = "imagenet"' in said[0]
    shifted = (labels + 1) % 10  # classes in another order
    wrong = {"normalize": {"mean": [0.0], "std": [1.0]}}
    robustloss.evaluate(right, images, shifted, ["fgsm"], **keys, **wrong)
    assert "Look at its weights, the order of its classes and how" in capsys.readouterr().err


def test_the_share_that_is_done_never_falls():
    events = []

    class Noting(progress.Silent):
        def __call__(self, event):
            events.append(event)

    images, labels = rand(8)
    attacks = ["fgsm", {"name": "pgd", "params": {"steps": 5}}]
    keys = {"checks": 4, "train": rand(20), "progress": Noting()}
    robustloss.evaluate(Counted().eval(), images, labels, attacks, **keys)
    known = [event.fraction for event in events if event.fraction is not None]
    assert known == sorted(known)
    assert {event.stage for event in events if event.fraction is not None} == {"attack", "score"}
    assert known[0] < 0.1
    assert 0.8 < known[-1] <= 1


def test_attacks_prove_themselves_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(unit_test, "INNER", 40)
    monkeypatch.setattr(unit_test, "RANDOM", 10)
    lame = {
        "name": "pgd",
        "label": "lame",
        "params": {"steps": 2, "step_size": 0.01},
        "eps": [0.05],
    }
    asked = {"attacks": [{"name": "fgsm", "eps": [0.05, 0.1]}, lame], "detection": {"noise": False}}
    images, labels = rand(30)
    checks = {"images": 30, "unit_test": True}
    run = evaluate(classifier(dim=16), images, labels, asked | {"checks": checks})
    found = run.results["unit_tests"]
    assert [(row["attack_label"], row["eps"]) for row in found] == [
        ("FGSM", 0.05), ("FGSM", 0.1), ("lame", 0.05)
    ]  # fmt: skip
    rows = {row["attack_label"]: row for row in found if row["eps"] == 0.05}
    assert rows["FGSM"]["success"] > 0.9 > 0.5 > rows["lame"]["success"]
    assert rows["lame"]["n_networks"] >= 20
    flags = {row["attack_label"] for row in run.flags if row["check"] == "unit_test_failed"}
    assert "lame" in flags
