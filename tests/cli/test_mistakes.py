"""Mistakes on the command line and in specs: exit status 2, a few lines, nothing written."""

import io
import os
import re
import sys
from pathlib import Path

import pytest
import torch

from robustloss.cli import commands
from robustloss.data.files import DataError, cache_folder
from robustloss.data.load import load_dataset
from robustloss.data.mnist import FILES
from robustloss.runs import runner
from robustloss.spec.load import load_spec
from tests.written import write_results

TINY = """
name = "tiny"
[data]
train_size = 20
validation_size = 20
test_size = 20
[model]
backbone = "digits_cnn"
feature_dim = 4
[train]
epochs = 1
batch_size = 10
precision = "float32"
[[losses]]
name = "softmax"
[[attacks]]
name = "fgsm"
eps = [0.1]
"""


@pytest.fixture
def tiny(tmp_path):
    """Writes the tiny spec with some text replaced; gives its path."""

    def write(old="", new=""):
        path = tmp_path / "tiny.toml"
        assert old in TINY
        path.write_text(TINY.replace(old, new, 1))
        return path

    return write


BAD_LINES = [
    ("rnu mnist", "No such command 'rnu'.*Did you mean 'run'"),
    ("--verbose", "robustloss: No such option: --verbose"),
    ("run", "robustloss run: Missing argument 'SPEC'"),
    ("run quickstart more", "unexpected extra argument.*more"),
    ("run quickstart --sed 1", "No such option: --sed; did you mean '--seeds'"),
    ("run quickstart --out", "robustloss run: Option '--out' requires an argument"),
    ("run quickstrat", "quickstrat: no such file.*did you mean 'quickstart'"),
    ("run quickstart --seeds 0,x", r"--seeds \(=0,x\) must be whole numbers.*Write --seeds 0,1,2"),
    ("run quickstart --seeds -1", r"--seeds \(=-1\) must be whole numbers"),
    ("run quickstart --seeds 1,", r"--seeds \(=1,\) must be whole numbers"),
    ("run quickstart --seeds 4294967296", r"must be whole numbers from 0 to 4294967295"),
    ("run quickstart --seeds 1,1", "names a seed twice"),
    ("run quickstart --device gpu", r"device \(='gpu'\) must be one of auto, cpu, cuda, mps"),
    (
        "run quickstart --executor processes:0",
        r"executor \(='processes:0'\) must be auto, serial or",
    ),
    (
        "run quickstart --executor processes:²",
        r"executor \(='processes:²'\) must be auto, serial or",
    ),
    ("run .", r"\.: is a folder\. Name a TOML file"),
    ("run quickstart --executor threads:2", r"executor \(='threads:2'\) must be auto, serial or"),
    ("report", "robustloss report: Missing argument 'RUN'"),
    ("report no-such-run", r"run \(=no-such-run\) must be a folder"),
    ("show", "show: name a SPEC or a --reference, or use --keys"),
    ("show no-such-spec", "no-such-spec: no such file"),
    ("compare", "robustloss compare: Missing argument"),
    ("list loses", r"list \(=loses\) must be one of losses, .*did you mean 'losses'"),
    ("check-loss", "robustloss check-loss: Missing argument 'NAME'"),
    ("check-loss sofmax", "sofmax.*did you mean 'softmax'"),
    ("check-loss no.such.module:Loss", "no.such.module"),
    ("check-loss nowhere/file.py:Loss", "nowhere/file.py"),
    ("compare a b", r"run \(=a\) must be a folder"),
    ("compare a --html", "No such option: --html"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES, ids=[line for line, _ in BAD_LINES])
def test_bad_command_line(command, tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = command(*line.split())
    assert status == 2
    assert out == ""
    assert re.search(message, err, re.DOTALL), err
    assert len(err.splitlines()) <= 3
    assert list(tmp_path.iterdir()) == []


BAD_TINY = [
    ("softmax", "sofmax", [], "losses.0.*sofmax.*did you mean 'softmax'"),
    (
        '"softmax"',
        '"softmax"\nparams = { biass = true }',
        [],
        "losses.0.*biass.*did you mean 'bias'",
    ),
    ('"softmax"', '"lgm"\nparams = { alpha = -1 }', [], r"losses.0.*alpha \(=-1\)"),
    ('"softmax"', '"no_such_module:Loss"', [], "losses.0.*no_such_module"),
    ('"softmax"', '"broken.py:Loss"', [], "losses.0.*broken.py"),
    ("fgsm", "fsgm", [], "attacks.0.*fsgm"),
    ('"fgsm"', '"fgsm"\nparams = { objective = "mse" }', [], "attacks.0.*objective.*mse"),
    ("digits_cnn", "digits", [], r"backbone \(='digits'\) must be one of .*digits_cnn"),
    ("digits_cnn", "lenet_plus", [], "8x8 pixels are too small"),
    ("[data]", '[data]\nname = "minst"', [], r"data.name \(='minst'\).*[Dd]id you mean 'mnist'"),
    ("train_size = 20", "train_size = 5000", [], r"data.train_size \(=5000\) must be"),
    ("[data]", '[data]\nname = "mnist"', ["--data", "nowhere"], "train-images-idx3-ubyte"),
    ("[train]", "[train]\nlrr = 1", [], "train.lrr: unknown key; did you mean 'lr'"),
    ("[0.1]", "[0.1, 8]", [], r'attacks\[0\].eps\[1\] \(=8\) must lie in .*write "8/255"'),
    ("[train]", "[train", [], "tiny.toml: not valid TOML at line 10"),
    (
        "epochs = 1",
        'epochs = "3"',
        [],
        r'train.epochs \(="3"\) must be an integer. Write 3, without',
    ),
    ("batch_size = 10", "batch_size = 0", [], r"train.batch_size \(=0\) must be >= 1"),
    ("epochs = 1", "epochs = 1\nlr = -1", [], r"train.lr \(=-1\) must be > 0"),
    ("feature_dim = 4", "feature_dim = 0", [], r"model.feature_dim \(=0\) must be >= 1"),
    ('[[losses]]\nname = "softmax"\n', "", [], r"losses: missing. Add at least one \[\[losses\]\]"),
    ("[[attacks]]", '[[losses]]\nname = "Softmax"\n[[attacks]]', [], "names the same files as"),
    ("[train]", '[detection]\nscores = ["likelihod"]\n[train]', [], "must be one of class_log_"),
    ('"fgsm"\neps = [0.1]', '"deepfool"\nparams = { norm = "linf" }\neps = [3]', [], r"\[0, 1\]"),
    ('"softmax"', '"softmax"\nparams = { feature_dim = 3 }', [], "model.feature_dim decides it"),
    ('"softmax"', '"softmax"\nparams = { name = "x" }', [], r"params.name \(=\"x\"\) cannot stand"),
    ("feature_dim = 4", "feature_dim = 4\nparams = { folders = 1 }", [], "folders .*cannot stand"),
    ('"fgsm"', '"fgsm"\nparams = { folders = ["x"] }', [], "params.folders .*cannot stand"),
    ('"softmax"', '"leaves.py:Loss"', [], r"losses.0.*could not be built: SystemExit: 5"),
    ("digits_cnn", "broken.py:Net", [], r"backbone .*importing it failed.*no_such_package"),
    ("digits_cnn", "leaves.py:three", [], "must be a function or class that returns.*int"),
    ("digits_cnn", "leaves.py:Net", [], r"Net could not be built.*ZeroDivisionError: division"),
    ("digits_cnn", "leaves.py:Odd", [], r"Odd could not be built.*unexpected .*image_shape"),
    (
        '"digits_cnn"',
        '"leaves.py:Net"\nparams = { witdh = 3 }',
        [],
        "leaves.py:Net.witdh: unknown parameter; did you mean 'width'",
    ),
    ('"fgsm"', '"broken.py:attack"', [], "attacks.0.*importing it failed.*no_such_package"),
    ('"fgsm"', '"leaves.py:Attack"', [], "attacks.0.*SystemExit: 6"),
]

LEAVES = """
import torch
from robustloss.losses.softmax import SoftmaxHead

three = 3

class Loss(SoftmaxHead):
    def __init__(self, feature_dim, num_classes):
        raise SystemExit(5)

class Net(torch.nn.Module):
    def __init__(self, image_shape, feature_dim, width=1):
        1 / 0

class Odd(torch.nn.Module):
    def __init__(self, feature_dim):
        super().__init__()

class Attack:
    def __init__(self):
        raise SystemExit(6)
"""


@pytest.mark.parametrize(("old", "new", "options", "message"), BAD_TINY)
def test_bad_spec_leaves_nothing(command, tiny, tmp_path, monkeypatch, old, new, options, message):
    monkeypatch.chdir(tmp_path)
    offline_load = offline(load_dataset)
    monkeypatch.setattr("robustloss.data.load.load_dataset", offline_load)
    monkeypatch.setattr(runner, "load_dataset", offline_load)
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    (tmp_path / "leaves.py").write_text(LEAVES)
    status, out, err = command("run", tiny(old, new), "--out", "out", "--quiet", *options)
    assert status == 2
    assert out == ""
    assert re.search(message, err, re.DOTALL), err
    assert len(err.splitlines()) <= 3
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 1", f"epochs = {'9' * 5000}", "an integer is too long. Shorten it."),
        ("epochs = 1", f"epochs = {'[' * 30000}", "nested too deep"),
        ("eps = [0.1]", f'eps = ["{"9" * 4000}/1"]', "must be a number or a fraction"),
        ("eps = [0.1]", f'eps = ["1/{"9" * 4000}"]', "must be a number or a fraction"),
        ("eps = [0.1]", "eps = [8/255]", r'Write a fraction in quotes: "8/255"\.'),
        ("[model]", 'folder = "C:\\Users"\n[model]', "Write a path with / or in single quotes"),
        ("[data]", '[data]\nname = "image_folder"\nfolder = "~nobody9/x"', "is not there; looked"),
    ],
)  # fmt: skip
def test_toml_that_python_cannot_read_is_told(command, tiny, tmp_path, old, new, message):
    status, out, err = command("run", tiny(old, new), "--out", tmp_path / "out", "--quiet")
    assert (status, out) == (2, "")
    assert re.search(message, err), err
    assert not (tmp_path / "out").exists()


def test_a_log_that_knows_no_accents_shows_a_question_mark(monkeypatch):
    log = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", log)
    with pytest.raises(SystemExit) as end:
        commands.main(["list", "losses"])
    assert end.value.code == 0
    log.flush()
    assert b"?" in log.buffer.getvalue()


def test_a_working_folder_that_is_gone_is_told(command, monkeypatch):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "cwd", gone)
    status, _, err = command("list", "losses")
    assert (status, err) == (
        2, "The working folder cannot be used: No such file or directory. "
        "Change to another folder.\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    "error",
    [MemoryError(), ImportError("libtorch_cpu.so: failed to map segment from shared object")],
)
def test_too_little_memory_is_told(command, monkeypatch, error):
    def fail(**keys):
        raise error

    monkeypatch.setattr(commands, "app", fail)
    status, _, err = command("list", "losses")
    assert (status, err.count("\n")) == (2, 1)
    assert "too little memory" in err


def test_a_user_without_a_home_is_told_where_to_name_the_cache(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(DataError, match="Set XDG_CACHE_HOME to a folder"):
        cache_folder()


@pytest.mark.parametrize("content", [b"\xff\xfe", TINY.encode() + b"# \xff\n"])
def test_a_spec_that_is_no_text(command, tmp_path, content):
    (tmp_path / "odd.toml").write_bytes(content)
    status, _, err = command("run", tmp_path / "odd.toml", "--out", tmp_path / "out")
    assert status == 2
    assert re.fullmatch(
        r".*odd\.toml: is not UTF-8 text \(byte \d+\)\. Name a TOML file in UTF-8\.\n", err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "results.json is not valid JSON"),
        (lambda text: "[]", "holds a JSON list, not an object"),
        (lambda text: '{"schema_version": 99}', "schema_version 99.*Update robustloss"),
        (lambda text: text.replace('"rows": []', '"rows": [{"label": "a"}]'), "has a row .*seed"),
    ],
)
def test_a_report_of_damaged_results(command, tmp_path, damage, message):
    empty = dict.fromkeys(("cells", "training", "failures"), ())
    write_results(tmp_path, name="tiny", provenance={}, **empty)
    file = tmp_path / "results.json"
    file.write_text(damage(file.read_text()))
    status, out, err = command("report", tmp_path)
    assert (status, out) == (2, "")
    assert re.search(message, err, re.DOTALL), err
    assert len(err.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_damaged_images_are_refused(command, tiny, tmp_path):
    raw = tmp_path / "data/MNIST/raw"
    raw.mkdir(parents=True)
    for name in FILES:
        (raw / name).write_bytes(b"no images")
    words = ("--data", tmp_path / "data", "--out", tmp_path / "out")
    status, _, err = command("run", tiny("[data]", '[data]\nname = "mnist"'), *words)
    assert status == 2
    assert re.search(r"train-images-idx3-ubyte: MD5 is \w+, expected 6bbc9ace.*Delete it", err)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made(command, tiny, tmp_path):
    (tmp_path / "file").write_text("precious")
    status, _, err = command("run", tiny(), "--out", tmp_path / "file/out")
    assert status == 2
    assert "file/out cannot be written: Not a directory; name another folder with --out" in err
    assert (tmp_path / "file").read_text() == "precious"


def test_a_broken_loss_fails_its_checks(command, tmp_path):
    (tmp_path / "leaves.py").write_text(LEAVES)
    status, out, err = command("check-loss", tmp_path / "leaves.py:Loss")
    assert (status, err) == (1, "")
    assert re.search(r"FAIL  builds: SystemExit: 5\n.*0 of 1 checks passed", out)


def offline(load):
    return lambda *words, **options: load(*words, **(options | {"download": False}))


def test_a_loss_that_ends_the_process_is_no_success(command, tmp_path):
    (tmp_path / "ends.py").write_text(
        "import os\nfrom robustloss.losses.softmax import SoftmaxHead\n"
        "class Head(SoftmaxHead):\n    def loss(self, *words, **keys):\n        os._exit(0)\n"
    )
    status, out, err = command("check-loss", f"{tmp_path / 'ends.py'}:Head")
    assert (status, out) == (2, "")
    assert "its process ended itself with exit status 0, before the work was done" in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(command, tiny):
    status, _, err = command("run", tiny(), "--device", "cuda")
    assert status == 2
    assert "device (='cuda') is not available" in err


def test_a_folder_of_something_else_is_left_alone(command, tiny, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    status, _, err = command("run", tiny(), "--out", tmp_path)
    assert status == 2
    assert re.search(r"no spec.toml, so it is no run folder; name another with --out", err)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex", "tiny.toml"]


def test_a_folder_of_another_spec_is_left_alone(command, tiny, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "spec.toml").write_text(load_spec("quickstart").text)
    status, _, err = command("run", tiny(), "--out", out)
    assert status == 2
    assert "belongs to spec 'quickstart'" in err
    assert load_spec(out / "spec.toml").name == "quickstart"


def test_an_output_that_is_a_file(command, tiny, tmp_path):
    (tmp_path / "out").write_text("precious")
    status, _, err = command("run", tiny(), "--out", tmp_path / "out")
    assert status == 2
    assert "out is a file; name another folder with --out" in err
