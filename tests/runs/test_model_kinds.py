"""Models in other forms than a plain module: how each is attacked, or told that it cannot be."""

import zipfile
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import robustloss
from robustloss.progress import Lines
from robustloss.runs import runner
from robustloss.runs.rerun import plan_rerun
from robustloss.spec.errors import SpecError
from tests.models.test_given import spec_of
from tests.runs.test_in_memory import evaluate, rand
from tests.runs.test_odd_models import plain, quantised, scripted

IMAGES, LABELS = rand(20)
pytestmark = pytest.mark.filterwarnings("ignore")


class Notes(Lines):
    """Keeps what is said beside the progress."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def note(self, text):
        self.lines.append(text)


@dataclass
class Answer:
    loss: Any
    logits: torch.Tensor


class Wrapped(nn.Module):
    """Returns what a function makes of the logits."""

    def __init__(self, make):
        super().__init__()
        self.inner, self.make = plain(), make

    def forward(self, images):
        return self.make(self.inner(images))


PGD = {"name": "pgd", "eps": [0.1], "params": {"steps": 3, "objective": "margin"}}


@cache
def rows_of_plain(attack):
    attacks = [PGD if attack == "pgd" else attack]
    return evaluate({"model": plain()}, IMAGES, LABELS, attacks, quick=True).rows


OUTPUTS = {
    "a dataclass": (lambda z: Answer(None, z), "its output is an Answer, whose logits are taken"),
    "a dict": (lambda z: {"loss": 0.0, "logits": z}, "its output is a dict, whose logits are"),
    "a tuple": (lambda z: (z, z.sum()), "its output is a tuple of 2 entries, of which the first"),
    "a list": (lambda z: [z], "its output is a list of 1 entry, of which the first is taken"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OUTPUTS)
def test_logits_in_a_larger_answer_are_taken_and_said_once(kind):
    make, said = OUTPUTS[kind]
    notes = Notes()
    found = robustloss.evaluate(
        {"model": Wrapped(make)}, IMAGES, LABELS, ["fgsm"], quick=True, progress=notes
    )
    assert found.rows == rows_of_plain("fgsm")
    assert sum(said in note for note in notes.lines) == 1
    assert said in str([row["note"] for row in found.results["training"]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda z: {"scores": z, "n": 3}, r"got dict of scores: \(4, 10\), n: int. Wrap it so"),
        (lambda z: (z.sum(), z), r"got tuple of \(\), \(4, 10\). Wrap it"),
        (lambda z: None, "got NoneType. Wrap it"),
        (lambda z: (), "got tuple of nothing. Wrap it"),
        (lambda z: {"logits": z[0]}, r"must return logits of shape .*, got \(10,\)"),
        (lambda z: (z[:, :1], 0), r"must return logits of shape .*, got \(4, 1\)"),
        (lambda z: {"logits": z.softmax(1)}, "returns probabilities"),
        (lambda z: (z * float("nan"), 0), "with NaN or infinite values"),
    ],
)
def test_an_answer_without_logits_is_told_with_what_came(make, message):
    with pytest.raises(ValueError, match=message):
        evaluate(Wrapped(make), IMAGES, LABELS)


def compiled():
    return torch.compile(plain(), backend=refuse_to_compile)


def refuse_to_compile(graph, inputs):
    raise AssertionError("an attack asks with many sizes of batches, each of which is compiled")


WITH_GRADIENT = {
    "compiled": compiled,
    "data parallel": lambda: nn.DataParallel(plain()),
    "frozen TorchScript": lambda: torch.jit.freeze(torch.jit.script(plain())),
    "half": lambda: plain().half(),
    "bfloat16": lambda: plain().bfloat16(),
    "double": lambda: plain().double(),
}


@pytest.mark.parametrize("kind", WITH_GRADIENT)
def test_a_model_with_a_gradient_is_attacked_like_a_plain_one(kind):
    """Up to rounding: an image in twenty for eight bits of precision."""
    found = evaluate({"model": WITH_GRADIENT[kind]()}, IMAGES, LABELS, [PGD], quick=True)
    for one, other in zip(rows_of_plain("pgd"), found.rows, strict=True):
        assert other["error"] == pytest.approx(one["error"], abs=0.051)
        assert not other["zero_gradient_fraction"]


def test_a_compiled_model_is_called_by_what_is_in_it():
    run = evaluate(compiled(), IMAGES, LABELS, ["fgsm"], quick=True)
    assert {row["label"] for row in run.rows} == {"Sequential"}


class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = plain()

    def forward(self, images):
        return self.inner(images.detach())


class Numpy(nn.Module):
    """Leaves torch, as a runtime of another library does, and has no tensors."""

    def forward(self, images):
        table = torch.arange(640.0).reshape(64, 10).numpy() % 7
        return torch.from_numpy(images.detach().flatten(1).numpy() @ table)


WITHOUT_GRADIENT = {"quantised": quantised, "detached": Detached, "of numpy": Numpy}


@pytest.mark.parametrize("kind", WITHOUT_GRADIENT)
def test_a_model_without_a_gradient_gets_black_box_attacks_only(kind, monkeypatch):
    if kind == "quantised" and torch.backends.quantized.supported_engines[-1] == "none":
        pytest.skip("this torch has no engine for quantised layers")
    model, notes = WITHOUT_GRADIENT[kind](), Notes()
    with pytest.raises(ValueError, match=r"attacks\[1\] \(=pgd\) needs a gradient, and none comes"):
        evaluate(model, IMAGES, LABELS, ["square", "pgd"])
    with pytest.raises(
        ValueError, match=r"^attacks\[0\], attacks\[2\] \(=fgsm, cw\) need a gradient"
    ):
        evaluate(model, IMAGES, LABELS, ["fgsm", "square", {"name": "cw", "eps": [0.5]}])
    square = [{"name": "square", "eps": [0.3], "params": {"queries": 50}}]
    run = robustloss.evaluate(model, IMAGES, LABELS, square, progress=notes)
    clean, attacked = sorted((row["eps"], row["error"]) for row in run.rows)
    assert attacked[1] > clean[1] or clean[1] == 1
    assert any("no gradient comes back to the images, so black-box" in line for line in notes.lines)


def test_the_default_attack_of_a_model_without_a_gradient_is_square():
    notes = Notes()
    run = robustloss.evaluate(Detached(), IMAGES[:2], LABELS[:2], quick=True, progress=notes)
    assert {row["attack"] for row in run.rows} == {"none", "square"}
    assert "Attack: square, because the default ones need a gradient." in notes.lines


class Rounding(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = plain()

    def forward(self, images):
        return self.inner((images * 255).round() / 255)


def test_a_gradient_that_is_0_everywhere_is_a_remark():
    notes = Notes()
    robustloss.evaluate(Rounding(), IMAGES, LABELS, ["fgsm"], quick=True, progress=notes)
    assert sum("is exactly 0, as behind a rounding" in line for line in notes.lines) == 1
    robustloss.evaluate(plain(), IMAGES, LABELS, ["fgsm"], quick=True, progress=(other := Notes()))
    assert not any("exactly 0" in line for line in other.lines)


def save_scripted(path):
    torch.jit.save(scripted(), path)


def save_exported(path):
    size = {0: torch.export.Dim("batch", min=1, max=4096)}
    torch.export.save(torch.export.export(plain(), (IMAGES[:2],), dynamic_shapes=(size,)), path)


@pytest.mark.parametrize(("save", "name"), [(save_scripted, "n.pt"), (save_exported, "n.pt2")])
def test_a_file_of_a_whole_model_in_a_spec_is_a_plug_in(tmp_path, save, name):
    save(tmp_path / name)
    torch.save(plain().state_dict(), tmp_path / "w.pth")
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    spec = spec_of(
        {"model": str(tmp_path / name)},
        {"model": f"{tmp_path}/mine.py:make", "weights": str(tmp_path / "w.pth")},
    )
    assert [loss.label for loss in spec.losses] == ["n", "make"]
    with pytest.raises(SpecError, match=rf"losses\[0\].model = .*{name}"):
        runner.run(spec, out=tmp_path / "run", plugins=False)
    outcome = runner.run(spec, out=tmp_path / "run", device="cpu")
    rows = robustloss.load_run(outcome.path).rows
    found = {label: [r["error"] for r in rows if r["label"] == label] for label in ("n", "make")}
    assert found["n"] == found["make"]
    lines = plan_rerun(outcome.path).lines
    assert any(line.startswith('Same: losses[0].model = "') for line in lines), lines
    with pytest.raises(ValueError, match="executes it with your rights"):
        robustloss.load_classifier(outcome.path, loss="n", seed=3)


def test_a_quantised_model_of_a_spec_is_told_before_it_is_computed(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\nclass Make(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.last = nn.Linear(64, 10)\n"
        "    def forward(self, images):\n        return self.last(images.detach().flatten(1))\n"
    )
    spec = spec_of({"model": f"{tmp_path}/mine.py:Make"})
    with pytest.raises(SpecError, match=r"attacks\[0\] \(=fgsm\) needs a gradient.* from Make"):
        runner.run(spec, out=tmp_path / "run", device="cpu")
    square = [{"name": "square", "eps": [0.1], "params": {"queries": 20}}]
    spec = spec_of({"model": f"{tmp_path}/mine.py:Make"}, attacks=square)
    outcome = runner.run(spec, out=tmp_path / "run", device="cpu")
    assert outcome.exit_code == 0
    page = (outcome.path / "report/index.html").read_text()
    assert "no gradient comes back to the images, so black-box attacks only" in page


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: torch.save(plain().state_dict(), path), "holds weights or a pickled module"),
        (
            lambda path: torch.save(plain(), path),
            r"holds weights or a pickled .*weights_only=False",
        ),
        (lambda path: path.write_bytes(b"abc"), "is no program of TorchScript or torch.export"),
        (lambda path: None, r"there is no file n\.pt in"),
    ],
)
def test_a_file_that_is_no_whole_model_is_told(tmp_path, make, message):
    make(tmp_path / "n.pt")
    spec = spec_of({"model": str(tmp_path / "n.pt")})
    with pytest.raises(SpecError, match=message):
        runner.run(spec, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_damaged_program_is_told(tmp_path):
    save_scripted(tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "n.pt", "w") as part,
    ):
        for name in whole.namelist():
            content = whole.read(name)
            part.writestr(name, b"not python" if name.endswith(".py") else content)
    with pytest.raises(SpecError, match="cannot be loaded by torch"):
        runner.run(spec_of({"model": str(tmp_path / "n.pt")}), out=tmp_path / "run", device="cpu")


class NeedsMore(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = plain()

    def forward(self, images, lengths, *, mask, scale=1.0):
        return self.inner(images)


def test_a_forward_that_needs_more_than_images_is_told():
    with pytest.raises(ValueError, match="Its forward also needs lengths, mask: the wrapper must"):
        evaluate(NeedsMore(), IMAGES, LABELS)


def test_what_evaluate_changes_or_doubts_is_a_remark():
    notes = Notes()
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 1000))
    assert model.training
    robustloss.evaluate({"A": model}, IMAGES, LABELS, ["fgsm"], quick=True, progress=notes)
    assert model.training
    assert "Remark: A: it was in training mode and is evaluated in eval mode." in notes.lines
    assert "Remark: A: it has 1,000 classes, and no label is above 9." in notes.lines
    robustloss.evaluate(
        {"A": plain()}, IMAGES, LABELS, ["fgsm"], quick=True, progress=(quiet := Notes())
    )
    assert not any("Remark: A: it" in line for line in quiet.lines)


class OddFeatures(nn.Module):
    """Its features are of something else, and fail on images."""

    def __init__(self):
        super().__init__()
        self.inner = plain()

    def features(self, images):
        return {}["missing"]

    def forward(self, images):
        return self.inner(images)


def test_features_that_are_for_something_else_are_left_alone():
    found = evaluate({"A": OddFeatures()}, IMAGES, LABELS, ["fgsm"], train=rand(30))
    expected = evaluate({"A": plain()}, IMAGES, LABELS, ["fgsm"], train=rand(30))
    assert found.rows == expected.rows


def test_normalize_takes_what_a_library_has(tmp_path):
    from torchvision.models import ResNet18_Weights
    from torchvision.transforms import Normalize

    images, model = IMAGES.expand(-1, 3, -1, -1), nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    values = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    runs = [
        evaluate(model, images, LABELS, ["fgsm"], quick=True, normalize=each).rows
        for each in (values, ResNet18_Weights.DEFAULT, Normalize(**values), "imagenet")
    ]
    assert all(rows == runs[0] for rows in runs)
    with pytest.raises(ValueError, match=r"does not say with which mean and std it was trained"):
        evaluate(model, images, LABELS, normalize="weights")
