"""The files that `robustloss new` writes work as they are, and its refusals write nothing."""

import re

import pytest

from robustloss.results.run import load_run
from robustloss.runs import runner
from tests.small_run import changed


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_new_loss_passes_its_check_at_once(command, tmp_path):
    status, out, err = command("new", "loss", "wide_margin")
    assert (status, err) == (0, "")
    assert out.startswith("Wrote wide_margin.py with the loss WideMargin.\n")
    named = re.findall(r"robustloss ([a-z-]+) (wide_margin\.py:WideMargin)$", out, re.MULTILINE)
    assert [name for name, _ in named] == ["check-loss", "try"]
    status, out, _ = command(*named[0])
    assert status == 0, out
    assert "wide_margin.py:WideMargin: 15 of 15 checks passed" in out


def test_a_new_attack_and_a_new_score_run_in_a_spec_at_once(command, tmp_path, no_report):
    out = "".join(command("new", kind, f"my_{kind}")[1] for kind in ("attack", "score"))
    assert 'name = "my_attack.py:my_attack"' in out
    assert 'Add "my_score.py:my_score" to the scores under [detection]' in out
    spec = changed(seeds=[0], losses=[{"name": "softmax"}])
    spec["attacks"].append({"name": "my_attack.py:my_attack", "label": "mine", "eps": [0.2]})
    spec["detection"]["scores"] = ["class_log_likelihood", "my_score.py:my_score"]
    outcome = runner.run(spec, out=tmp_path / "run")
    assert outcome.failures == []
    found = load_run(tmp_path / "run")
    errors = {row["attack_label"]: row["error"] for row in found.rows if row["eps"] in (0, 0.2)}
    # Ten steps find at least what one step finds; neither leaves the box, which would be marked.
    assert errors["mine"] >= errors["fgsm"] > errors["none"]
    assert not [flag for flag in found.flags if flag["check"] == "outside_ball_or_box"]
    assert {row["score"] for row in found.detection} >= {"my_score.py:my_score"}


def test_a_new_data_set_runs_in_a_spec_at_once(command, tmp_path, no_report):
    status, out, err = command("new", "data", "my_digits")
    assert (status, err) == (0, "")
    assert out.startswith("Wrote my_digits.py with the data set my_digits.\n")
    assert 'name = "my_digits.py:my_digits"' in out
    data = {"name": "my_digits.py:my_digits", "train_size": 600, "params": {"test_images": 60}}
    spec = changed(seeds=[0], losses=[{"name": "softmax"}], data=data)
    outcome = runner.run(spec, out=tmp_path / "run")
    assert outcome.failures == []
    found = load_run(tmp_path / "run")
    assert {row["n"] for row in found.rows} == {60}
    assert next(row["error"] for row in found.rows if row["eps"] == 0) < 0.6  # of ten classes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("model mine", r"new \(=model\) must be one of loss, attack, score, data\."),
        ("loss my-loss", r"NAME \(=my-loss\) must be a Python name.*Write my_loss\."),
        ("loss my_loss.py", r"NAME \(=my_loss\.py\).*Write my_loss\."),
        ("attack lambda", r"NAME \(=lambda\).*Write my_attack\."),
        ("loss torch", r"NAME \(=torch\) is the name of an installed module.*Write my_torch\."),
        ("loss loss_head", r"NAME \(=loss_head\) gives 'LossHead', which the file uses for"),
        ("attack eps", r"NAME \(=eps\) gives 'eps'.*Write my_eps\."),
        ("score there", r"there\.py is there already\. Choose another name, or remove it\."),
    ],
)
def test_what_cannot_be_written_is_refused(command, tmp_path, words, message):
    (tmp_path / "there.py").write_text("mine = 1\n")
    status, out, err = command("new", *words.split())
    assert (status, out) == (2, "")
    assert re.search(message, err)
    assert [path.name for path in tmp_path.iterdir()] == ["there.py"]
    assert (tmp_path / "there.py").read_text() == "mine = 1\n"
