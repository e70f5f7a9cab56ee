"""Models that change between evaluations or write on their images; attacks that change models."""

import json

import pytest
import torch
from torch import nn

from robustloss.spec.load import load_spec
from tests.runs.test_in_memory import FGSM, QUICK, evaluate, rand

IMAGES, _ = rand(20)


class Plain(nn.Module):
    """Linear, with all that may decide an answer beside the stored tensors."""

    gain = 1.0

    def __init__(self, file=None):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.linear.weight.data = torch.randn(10, 64, generator=torch.Generator().manual_seed(1))
        self.linear.bias.data.zero_()
        self.scale, self.settings, self.sign = 1.0, {"scale": 1.0}, [1.0]
        self.register_buffer("hidden", torch.ones(10), persistent=False)
        self.file = file

    def factor(self):
        stored = json.loads(self.file.read_text()) if self.file else 1.0
        return self.scale * self.settings["scale"] * self.sign[0] * self.gain * stored

    def forward(self, images):
        return self.linear(images.flatten(1)) * self.factor() * self.hidden


def labels_of(model):
    with torch.no_grad():
        return model(IMAGES).argmax(1)


def clean_error(run):
    return next(row["error"] for row in run.rows if row["attack"] == "none")


def negate(model, monkeypatch):
    model.scale = -3.0


def negate_setting(model, monkeypatch):
    model.settings["scale"] = -3.0


def negate_entry(model, monkeypatch):
    model.sign[0] = -3.0


def negate_buffer(model, monkeypatch):
    model.hidden.fill_(-3.0)


def negate_class(model, monkeypatch):
    monkeypatch.setattr(Plain, "gain", -3.0)


def edit_class(model, monkeypatch):
    before = Plain.forward
    monkeypatch.setattr(Plain, "forward", lambda self, images: -before(self, images))


def hook(model, monkeypatch):
    model.linear.register_forward_hook(lambda module, args, out: -out)


def edit_file(model, monkeypatch):
    model.file.write_text("-3.0")


CHANGES = [
    negate, negate_setting, negate_entry, negate_buffer, negate_class, edit_class, hook, edit_file,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_model_that_answers_otherwise_is_evaluated_anew(change, tmp_path, monkeypatch):
    (tmp_path / "factor.json").write_text("1.0")
    model = Plain(tmp_path / "factor.json")
    labels = labels_of(model)
    first = evaluate(model, IMAGES, labels, out=tmp_path / "out")
    again = evaluate(model, IMAGES, labels, out=tmp_path / "out")
    assert clean_error(first) == clean_error(again) == 0
    files = sorted(path.name for path in (tmp_path / "out/cells").rglob("*.npz"))
    change(model, monkeypatch)
    assert clean_error(evaluate(model, IMAGES, labels, out=tmp_path / "out")) == 1
    assert set(files) < {path.name for path in (tmp_path / "out/cells").rglob("*.npz")}


def test_a_model_of_its_own_chance_is_not_evaluated_anew_each_time(tmp_path):
    class Random(Plain):
        def forward(self, images):
            made = torch.Generator()
            made.seed()
            return super().forward(images) + 1e-3 * torch.rand(len(images), 10, generator=made)

    model = Random()
    labels = labels_of(model)
    for _ in range(2):
        evaluate(model, IMAGES, labels, out=tmp_path)
    assert len(list(tmp_path.rglob("none-0-*.npz"))) == 1


class Writing(nn.Module):
    """Changes what it is asked about in place, in every way that it can be asked."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place, self.plain = in_place, Plain()

    def prepare(self, images):
        return images.sub_(0.5).div_(0.5) if self.in_place else (images - 0.5) / 0.5

    def features(self, images):
        return self.prepare(images).flatten(1)

    def forward(self, images):
        return self.plain(self.features(images))

    def class_log_likelihood(self, images):
        return self.plain(self.features(images)).log_softmax(1)


ATTACKS = [
    {"name": "fgsm", "eps": [0.1]},
    {"name": "pgd", "eps": [0.1], "params": {"steps": 3}},
    {"name": "square", "eps": [0.1], "params": {"queries": 30}},
]


def test_a_model_that_writes_on_its_images_has_the_numbers_of_one_that_does_not():
    labels = labels_of(Writing(False))
    pixels = IMAGES.clone()
    spec = {"attacks": ATTACKS, "checks": {"images": 8}}
    found = [
        evaluate({"model": Writing(in_place)}, IMAGES, labels, spec, train=rand(30))
        for in_place in (False, True)
    ]
    assert found[0].rows == found[1].rows
    assert found[0].detection == found[1].detection
    assert clean_error(found[1]) == 0
    assert torch.equal(IMAGES, pixels)


POISON = """\
def poison(model, inputs, labels, eps):
    model.attacked_model.model.linear.weight.data.mul_(-1)
    return inputs
"""


def test_no_record_of_an_attack_that_changed_the_model_is_kept(tmp_path, monkeypatch):
    (tmp_path / "poison.py").write_text(POISON)
    monkeypatch.chdir(tmp_path)
    model = Plain()
    labels = labels_of(model)
    honest = FGSM["attacks"][0]
    poison = {"name": "poison.py:poison", "eps": [0.1]}
    pgd = {"name": "pgd", "eps": [0.1], "params": {"steps": 2}}
    expected = evaluate(model, IMAGES, labels, {**QUICK, "attacks": [honest, pgd]})
    spec = {**QUICK, "attacks": [honest, poison, pgd]}
    with pytest.raises(RuntimeError, match=r"attack 'poison\.py:poison' changed the model's p"):
        evaluate(model, IMAGES, labels, spec, out=tmp_path / "out")
    assert not list((tmp_path / "out").rglob("poison*.npz"))
    found = evaluate(
        model, IMAGES, labels, {**QUICK, "attacks": [honest, pgd]}, out=tmp_path / "out"
    )
    assert found.rows == expected.rows


def test_a_plug_in_that_replaces_a_function_when_it_is_imported_is_refused(tmp_path, monkeypatch):
    (tmp_path / "patching.py").write_text(
        "import torch\ntorch.nn.functional.linear = lambda *args: None\n"
        "def attack(model, inputs, labels, eps):\n    return inputs\n"
    )
    monkeypatch.chdir(tmp_path)
    before = nn.functional.linear
    spec = {**QUICK, "attacks": [{"name": "patching.py:attack", "eps": [0.1]}]}
    with pytest.raises(ValueError, match=r"importing it replaces torch\.nn\.functional\.linear"):
        evaluate(Plain(), IMAGES, labels_of(Plain()), spec)
    assert nn.functional.linear is before


def test_what_a_plug_in_sets_when_it_is_imported_reaches_nobody(tmp_path, monkeypatch):
    (tmp_path / "setting.py").write_text(
        "import os, torch\ntorch.set_default_dtype(torch.float64)\ntorch.set_grad_enabled(False)\n"
        "torch.set_float32_matmul_precision('medium')\nos.chdir('/')\n"
        "def attack(model, inputs, labels, eps):\n    return inputs\n"
    )
    monkeypatch.chdir(tmp_path)
    model = Plain()
    labels = labels_of(model)
    attacks = [{"name": "setting.py:attack", "eps": [0.1]}, *FGSM["attacks"]]
    found = evaluate(model, IMAGES, labels, {**QUICK, "attacks": attacks})
    assert [r for r in found.rows if r["attack"] == "fgsm"] == [
        r for r in evaluate(model, IMAGES, labels).rows if r["attack"] == "fgsm"
    ]
    assert torch.get_default_dtype() == torch.float32
    assert load_spec("quickstart").name == "quickstart"


SCORES = """\
import numpy as np
import torch


def writing(record, reference):
    record.logits[:] = 0
    record.labels[:] = 0
    for array in reference.values():
        array[...] = 0
    return np.arange(len(record.labels), dtype=float)


def setting(record):
    torch.set_default_dtype(torch.float64)
    np.seterr(all="ignore")
    return record.logits.max(1)


def patching(record):
    np.sort = np.argsort
    return record.logits.max(1)
"""


def test_a_score_that_writes_on_what_it_is_given_changes_no_other_score(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(SCORES)
    monkeypatch.chdir(tmp_path)
    model, labels = Plain(), labels_of(Plain())
    plain = ["max_logit", "energy"]

    def scored(names):
        keys = {**FGSM, "detection": {"noise": False, "scores": names}}
        return evaluate({"model": model}, IMAGES, labels, keys)

    expected = scored(plain)
    found = scored(["own.py:writing", "own.py:setting", *plain])
    assert found.rows == expected.rows
    own = [row for row in found.detection if not row["score"].startswith("own.py")]
    assert own == expected.detection
    assert torch.get_default_dtype() == torch.float32
    with pytest.raises(RuntimeError, match=r"score 'own\.py:patching' replaced numpy\.sort"):
        scored(["own.py:patching", *plain])


# --- offers that disagree, and batches that matter ----------------------------------------------


class Offering(Plain):
    """Offers features and joint outputs; each test makes one of them wrong."""

    def features(self, images):
        return images.flatten(1)[:, :32].cumsum(1)

    def forward(self, images):
        return self.linear(images.flatten(1))

    def joint(self, images):
        return self(images), self(images).log_softmax(1)


OFFERS = [
    ({"joint": lambda images: (-torch.ones(len(images), 10), torch.zeros(len(images), 10))},
     "joint.images. gives other logits than the model itself"),
    ({"joint": lambda images: 3}, "of the model fails"),
    ({"joint": lambda images: (torch.ones(len(images), 9), torch.zeros(len(images), 9))},
     "must have the shape of the logits|gives other logits"),
    ({"features": lambda images: torch.ones(len(images), 3)},
     "features.images. are the same for images with other logits"),
    ({"features": lambda images: images.flatten(1) / 0}, "features.images. are NaN or infinite"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "message"), OFFERS)
def test_offers_that_disagree_with_the_logits_are_refused(wrong, message):
    model = Offering()
    labels = labels_of(model)
    evaluate(model, IMAGES, labels, FGSM, train=rand(20))
    for name, offer in wrong.items():
        setattr(model, name, offer)
    with pytest.raises(ValueError, match=message):
        evaluate(model, IMAGES, labels, FGSM, train=rand(20))


def normalised(tracked):
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=tracked), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(144, 10)).eval()


class Centred(Plain):
    def forward(self, images):
        return super().forward(images - images.mean(0))


class Counting(Plain):
    def forward(self, images):
        return super().forward(images) + len(images)


BATCHES = [
    (normalised(True), False), (Plain(), False), (normalised(False), True), (Centred(), True),
    (Counting(), True),
]  # fmt: skip


@pytest.mark.parametrize(("model", "fires"), BATCHES)
def test_a_model_whose_answers_depend_on_the_batch_is_marked(model, fires):
    spec = {"attacks": FGSM["attacks"], "checks": {"images": 16}}
    run = evaluate(model, IMAGES, torch.arange(20) % 10, spec)
    assert ("output_depends_on_batch" in {flag["check"] for flag in run.flags}) == fires
