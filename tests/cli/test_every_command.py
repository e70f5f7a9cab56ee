"""The commands list, show, check-loss and report, and one whole run, for real."""

import re
import subprocess
import sys

import pytest

from robustloss.cli import listing
from robustloss.results import run
from robustloss.spec.load import load_spec, shipped_specs


def test_list(command):
    status, out, _ = command("list", "scores")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        *("class_log_likelihood", "marginal_log_likelihood", "max_log_posterior", "max_logit"),
        *("energy", "mahalanobis", "relative_mahalanobis", "knn", "gaussian_mixture"),
        "feature_norm",
    ]


def test_list_alone_prints_every_list(command):
    status, out, _ = command("list")
    assert status == 0
    kinds = [line for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert kinds == [f"{kind}:" for kind in listing.KINDS]
    for kind in ("Losses", "attacks", "specs"):
        _, one, _ = command("list", kind)
        assert {f"  {line}" for line in one.splitlines()} <= set(out.splitlines())


def test_names_on_the_command_line_may_be_in_any_case(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    show, new = ("show", "QuickStart", "--data"), ("new", "Loss", "my_loss")
    for words in (show, new, ("check-loss", "Softmax")):
        status, out, err = command(*words)
        assert (status, err) == (0, ""), err
    assert out.splitlines()[-1].startswith("softmax: ")


def test_show_data(command, tmp_path, monkeypatch):
    status, out, _ = command("show", "quickstart", "--data")
    assert status == 0
    lines = [re.split(r"  +", line.strip()) for line in out.splitlines()]
    assert lines[0][0].startswith("digits: 1,797 handwritten digits")
    assert lines[1] == ["train", "997 images to learn from"]
    assert lines[3] == ["test", "500 images to attack"]
    assert lines[4] == ["images", "8 x 8 pixels, grey, 17 levels a channel"]
    assert lines[5][1].startswith("10, with training images: 0 (98), 1 (101), ")
    assert re.match(r"[0-9a-f]{16}, ", lines[6][1])
    monkeypatch.setenv("ROBUSTLOSS_DATA", str(tmp_path))
    status, out, err = command("show", "mnist", "--data")
    assert (status, out) == (2, "")
    assert f"{tmp_path}/MNIST/raw lacks 4 of the 4 files" in err
    assert not list(tmp_path.iterdir())  # nothing is fetched


@pytest.mark.mnist
def test_show_data_names_the_folder(command, real_data):
    _, out, _ = command("show", "mnist", "--data")
    assert f"  files       {real_data}/MNIST/raw\n" in out


@pytest.mark.parametrize("name", shipped_specs())
def test_a_shown_spec_in_a_file_is_the_spec(command, tmp_path, monkeypatch, name):
    """robustloss show NAME > mine.toml"""
    monkeypatch.setattr(listing, "cost_lines", lambda *words: ["# not now"])
    status, out, _ = command("show", name)
    assert status == 0
    (tmp_path / "mine.toml").write_text(out)
    mine, spec = load_spec(tmp_path / "mine.toml"), load_spec(name)
    assert mine.plain() == spec.plain()
    assert [cell.folder for cell in mine.cells()] == [cell.folder for cell in spec.cells()]


def test_help_says_how_a_spec_of_ones_own_begins_and_what_the_exit_status_means(command):
    _, out, _ = command("show", "--help")
    assert "robustloss show mnist > mine.toml" in out
    _, out, _ = command("run", "--help")
    said = " ".join(out.split())
    assert "1 when cells failed and have no numbers" in said
    assert "not whether a model is robust" in said


def test_show_keys(command):
    status, out, _ = command("show", "--keys")
    assert status == 0
    (line,) = [line for line in out.splitlines() if line.startswith("train.batch_size ")]
    assert re.split(r"  +", line.strip()) == [
        "train.batch_size",
        "integer >= 1, <= 1000000",
        "128",
        "images per optimizer step",
    ]
    assert "losses[].label" in out


def test_check_loss_of_a_good_and_a_bad_loss(command, tmp_path):
    status, out, _ = command("check-loss", "softmax")
    assert status == 0
    assert "FAIL" not in out
    (tmp_path / "mine.py").write_text(
        "from robustloss.losses.base import LossTerms\n"
        "from robustloss.losses.softmax import SoftmaxHead\n"
        "class Averaged(SoftmaxHead):\n"
        "    def loss(self, features, labels, *, progress):\n"
        "        terms = super().loss(features, labels, progress=progress)\n"
        "        return LossTerms(*(term.mean() for term in terms))\n"
    )
    status, out, err = command("check-loss", tmp_path / "mine.py:Averaged")
    assert status == 1
    assert err == ""
    assert re.search(r"^FAIL  shapes: ", out, re.MULTILINE)
    assert re.search(r"mine.py:Averaged: \d+ of \d+ checks passed", out)


def test_check_loss_tells_one_reason_once(command, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from robustloss.losses.softmax import SoftmaxHead\n"
        "class NoProgress(SoftmaxHead):\n"
        "    def loss(self, features, labels):\n"
        "        raise AssertionError\n"
    )
    status, out, _ = command("check-loss", tmp_path / "mine.py:NoProgress")
    assert status == 1
    assert out.count("unexpected keyword argument 'progress'") == 1
    assert re.search(r"^FAIL  shapes: TypeError: ", out, re.MULTILINE)
    assert out.count("FAIL") == 1
    assert re.search(r"^skip  .*, learns a toy problem: judged once 'shapes' passes$", out, re.M)


def test_check_loss_of_a_mean_tells_its_cause_and_remedy_once(command, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch.nn.functional import cross_entropy\n"
        "from robustloss.losses.softmax import SoftmaxHead\n"
        "class Mean(SoftmaxHead):\n"
        "    def loss(self, features, labels, *, progress):\n"
        "        return cross_entropy(self.logits(features), labels)\n"
    )
    status, out, _ = command("check-loss", tmp_path / "mine.py:Mean")
    (line,) = [line for line in out.splitlines() if line.startswith("FAIL")]
    assert status == 1
    assert line.startswith("FAIL  shapes: ValueError: loss() returned one tensor of shape ().")
    assert 'reduction="none"' in line
    assert "zeros_like" in line


WHOLE = """
name = "whole"
[data]
train_size = 40
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
[[losses]]
name = "mine.py:Wrong"
label = "Wrong shape"
[[attacks]]
name = "fgsm"
eps = [0.1]
"""


def test_a_run_with_a_broken_plug_in_and_its_report_again_without_torch(command, tmp_path):
    (tmp_path / "whole.toml").write_text(WHOLE)
    (tmp_path / "mine.py").write_text(
        "from robustloss.losses.softmax import SoftmaxHead\n"
        "class Wrong(SoftmaxHead):\n"
        "    def class_log_likelihood(self, features):\n"
        "        return self.logits(features)[:, :3]\n"
    )
    out = tmp_path / "out"
    status, said, err = command("run", tmp_path / "whole.toml", "--out", out)
    assert status == 1
    assert re.search(r"^Softmax +\d", said, re.MULTILINE)
    assert said.endswith(f"Report: {out}/report/index.html\n")
    assert f"Tables: {out}/report/tables\n" in said
    assert "details.html" not in said  # which nobody asked for
    assert re.search(r"^failed: Wrong shape seed 0 .*\(20, 3\).*\(20, 10\)", err, re.MULTILINE)
    assert "Traceback" not in err
    assert [cell.label for cell in run.load_run(out).cells] == ["Softmax"]

    (out / "report" / "index.html").unlink()
    code = (
        "import sys\n"
        "from robustloss.cli.commands import main\n"
        "try:\n"
        f"    main(['report', {str(out)!r}])\n"
        "except SystemExit as end:\n"
        "    print(end.code, 'torch' in sys.modules)"
    )
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert again.stdout.splitlines()[-1] == "0 False"
    assert "Wrong shape" in (out / "report" / "index.html").read_text()
