"""`check` on runs in folders: exit status, files for other programs, pytest, the report's line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

import robustloss
from robustloss.analysis.gates.verdict import Verdict, Verdicts
from robustloss.data.load import load_dataset
from robustloss.runs import runner
from robustloss.spec.data import DataSpec
from robustloss.spec.load import load_spec
from robustloss.spec.text import to_toml
from robustloss.storage import digest_content
from tests.small_run import Counted, changed, files

XSD = Path(__file__).with_name("junit.xsd")
XS = "{http://www.w3.org/2001/XMLSchema}"
VALUES = {"string": r"(?s).*", "nonNegativeInteger": r"\d+", "decimal": r"-?\d+(\.\d+)?"}
PASSES = {"metric": "clean_error", "max": 1}
FAILS = {"metric": "worst_case_error", "eps": "1/10", "max": 0.0, "label": "L-GM"}


def validate(text):
    """Holds XML against junit.xsd, whose elements have texts, attributes or one choice."""
    elements = {e.get("name"): e for e in ElementTree.parse(XSD).getroot()}

    def check(node):
        kind = elements[node.tag].find(f"{XS}complexType")
        if kind is None:
            assert (len(node), node.attrib) == (0, {})
            return
        for attribute in kind.iter(f"{XS}attribute"):
            value = node.get(attribute.get("name"))
            assert value is not None or attribute.get("use") != "required", attribute.attrib
            pattern = VALUES[attribute.get("type").removeprefix("xs:")]
            assert value is None or re.fullmatch(pattern, value), (attribute.attrib, value)
        assert set(node.attrib) <= {a.get("name") for a in kind.iter(f"{XS}attribute")}
        assert kind.get("mixed") or not (node.text or "").strip()
        assert {c.tag for c in node} <= {e.get("ref") for e in kind.iter(f"{XS}element")}
        for child in node:
            check(child)

    root = ElementTree.fromstring(text)
    assert root.tag == "testsuites"
    check(root)
    return root


@pytest.fixture(scope="module")
def finished(make_once):
    """A finished run with a gate of each outcome in its spec."""
    gates = [PASSES, FAILS, {**FAILS, "severity": "warn", "name": "soft"}]
    spec = changed(gates=gates, checks={"images": 0}, detection={"noise": False})
    spec["train"] |= {"epochs": 6}

    def run(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder.parent)
            runner.run(load_spec(spec), out=folder)

    return make_once("gated", run)


@pytest.fixture
def gated(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "gated"))


@pytest.fixture
def gates(tmp_path):
    def write(*tables):
        (tmp_path / "gates.toml").write_text(to_toml({"gates": list(tables)}))
        return tmp_path / "gates.toml"

    return write


def test_the_status_is_that_of_the_worst_gate(command, gated, gates):
    status, out, err = command("check", gated)
    assert (status, err) == (1, "")
    lines = out.splitlines()
    assert lines[0].startswith(
        "Gates of small: 2 of 4 passed. Failed: worst_case_error at eps 0.1 "
    )
    assert lines[2].split() == ["gate", "loss", "measured", "bound", "verdict"]
    assert [line.split()[-1] for line in lines[3:7]] == ["pass", "pass", "FAIL", "warn"]
    assert re.search(r"L-GM +\d.* % +at most 0 % +FAIL", lines[5])
    assert command("check", gated, "--gates", gates(PASSES))[0] == 0
    assert command("check", gated, "--gates", gates({**FAILS, "severity": "warn"}))[0] == 0
    # a spec is a file of gates too
    assert command("check", gated, "--gates", gated / "spec.toml")[0] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no gates. Write for example"),
        ("[[gate]]\nmetric = 'ece'", "gate: unknown key; did you mean 'gates'?"),
        ("[gates]\nmetric = 'ece'", "Write [[gates]], with double brackets"),
        ("[[gates]]\nmetric = ece", "not valid TOML at line 2"),
        (
            "[[gates]]\nmetrik = 'ece'\nmax = 1",
            "gates[0].metrik: unknown key; did you mean 'metric'?",
        ),
        ("[[gates]]\nmetric = 'clean_error'\nmax = nan", "gates[0].max (=nan) must be a finite"),
        ("[[gates]]\nmetric = 'clean_error'\nmax = '1'", "must be a number. Write 1, without"),
        ("[[gates]]\nmetric = 'clean_error'\nmax = 1\nmin = 0", "are two bounds. Write two gates"),
        ("[[gates]]\nmetric = 'clean_error'", "needs max or min. Write for example max = 0.05"),
        ("[[gates]]\nmetric = 'clean_eror'\nmax = 1", "did you mean 'clean_error'?"),
        ("[[gates]]\nmetric = 'error'\nmax = 1\neps = 0.3", "eps (=0.3) is not an eps of fgsm"),
        (
            "[[gates]]\nmetric = 'error'\nmax = 1\neps = 8/255",
            'Write a fraction in quotes: "8/255"',
        ),
    ],
)
def test_a_mistake_in_the_gates_ends_with_2_and_the_remedy(command, gated, tmp_path, text, said):
    (tmp_path / "gates.toml").write_text(text)
    out = tmp_path / "gates.xml"
    status, shown, err = command("check", gated, "--gates", tmp_path / "gates.toml", "--junit", out)
    assert (status, shown) == (2, "")
    assert said in err
    assert len(err.splitlines()) <= 3
    assert not out.exists()


def test_a_run_or_file_that_is_not_there_ends_with_2(command, gated, tmp_path):
    (tmp_path / "empty").mkdir()
    npz = tmp_path / "b.npz"
    npz.write_bytes(b"PK")
    for words, said in (
        ([tmp_path / "gone"], "must be a folder that `robustloss run` wrote"),
        ([tmp_path / "empty"], "has no results.json (no run folder)"),
        ([gated / "spec.toml"], "must be a folder"),
        ([gated, "--gates", tmp_path / "gone.toml"], "no such file. Write one"),
        ([gated, "--gates", tmp_path], "is a folder. Write one"),
        ([gated, "--gates", gated], f"is named by --baseline {gated} (in Python"),
        ([gated, "--gates", npz], ": is an .npz. A baseline, which is an earlier run or"),
        ([gated, "--junit", tmp_path], f"--junit (={tmp_path}) cannot be written: Is a directory"),
        ([gated, "--json", gated / "spec.toml" / "x"], "cannot be written: Not a directory"),
    ):
        status, _, err = command("check", *words)
        assert status == 2, words
        assert said in err
    spec = load_spec(changed(gates=[])).plain()
    results = json.loads((gated / "results.json").read_text())
    results["provenance"]["spec"] = spec
    del results["digest"], results["provenance"]["cells"]
    (gated / "results.json").write_text(json.dumps(results))
    status, _, err = command("check", gated)
    assert status == 2
    assert "run (=small) has no gates. Name a file of gates or a baseline, or add" in err


def test_what_is_missing_or_altered_fails_and_is_named(command, gated, gates):
    """A cell whose file is gone, and a number that somebody changed."""
    file = gates(PASSES)
    (gated / "results.json").unlink()
    assert command("check", gated, "--gates", file)[0] == 0  # put together from the cells
    (gated / "cells" / "l-gm" / "seed-1" / "cell.json").unlink()
    status, out, _ = command("check", gated, "--gates", file)
    assert status == 1
    assert "clean_error, L-GM: No value for seed 1: its cell is not finished." in out


def test_numbers_of_an_earlier_state_of_the_run_do_not_pass(command, gated, gates):
    spec = load_spec(gated / "spec.toml").as_written()
    spec["losses"].append({"name": "center"})
    (gated / "spec.toml").write_text(to_toml(spec))  # as a run that was asked for more leaves it
    status, out, _ = command("check", gated, "--gates", gates(PASSES))
    assert status == 1
    assert "The numbers are of an earlier, finished state of this run" in out
    assert "Center seed 0" in out


def test_an_altered_number_does_not_pass(command, gated, gates):
    text = (gated / "results.json").read_text()
    (gated / "results.json").write_text(text.replace('"error": 0.', '"error": 0.0', 1))
    status, out, _ = command("check", gated, "--gates", gates(PASSES))
    assert status == 1
    assert "results.json: results.json was altered after it was written" in out


def test_the_junit_file_fits_the_schema_and_so_does_pytest(command, gated, tmp_path):
    xml = tmp_path / "gates.xml"
    assert command("check", gated, "--junit", xml)[0] == 1
    root = validate(xml.read_text())
    suite = root[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "0")
    names = [case.get("name") for case in suite]
    assert len({*names}) == 4
    assert names[0] == "clean_error [softmax]"
    (failure,) = root.iter("failure")
    assert re.fullmatch(r"\d.* %, at most 0 %\.", failure.get("message"))
    before = xml.read_bytes()
    assert command("check", gated, "--junit", xml)[0] == 1
    assert xml.read_bytes() == before
    (tmp_path / "test_own.py").write_text(
        "import pytest\ndef test_a(): print('said')\ndef test_b(): assert not 1\n"
        "@pytest.mark.skip\ndef test_c(): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--junitxml=own.xml",
         "-o", "junit_logging=all", "test_own.py"],
        cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert len([*validate((tmp_path / "own.xml").read_text()).iter("testcase")]) == 3


def test_a_pipe_is_written_to_and_stays_one(command, gated, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDWR)
    try:
        assert command("check", gated, "--junit", pipe)[0] == 1
        validate(os.read(end, 1 << 16).decode())
    finally:
        os.close(end)
    assert pipe.is_fifo()


def test_the_schema_finds_what_is_wrong():
    good = Verdicts("run", (Verdict("gate", "L-GM", "fail", "5 %", "at most 4 %"),)).as_junit()
    validate(good)
    for old, new in (
        ('tests="1"', 'tests="one"'),
        (' name="gate [L-GM]"', ""),
        ("<failure", "<wrong"),
        ("testcase classname", "testcase klass"),
    ):
        with pytest.raises((AssertionError, ElementTree.ParseError, KeyError)):
            validate(
                good.replace(old, new).replace(
                    "</failure", "</wrong" if "wrong" in new else "</failure"
                )
            )


def test_hostile_labels_stay_text_everywhere():
    label = 'a\x00b\x1b[2J\u202e]]>\ud800\ufffe<&"\n\x85é 損失'
    found = Verdicts("r\x07un", (Verdict("g\x1f", label, "fail", "n/a", "at most 1", "why\x0b\n"),))
    root = validate(found.as_junit())
    (case,) = root.iter("testcase")
    assert case.get("name") == ('g\\u001f [a\\u0000b\\u001b[2J\\u202e]]>\\ud800\\ufffe<&"  é 損失]')
    found.as_junit().encode("utf-8")
    assert "\x1b" not in found.as_text()
    assert len(found.as_text().splitlines()) == 5 + 1
    assert json.loads(json.dumps(found.as_json()))["verdicts"][0]["label"] == label


def test_the_json_file_holds_the_verdicts(command, gated, tmp_path):
    file = tmp_path / "gates.json"
    assert command("check", gated, "--json", file)[0] == 1
    found = json.loads(file.read_text())
    assert (found["run"], found["passed"]) == ("small", False)
    assert found["counts"] == {"pass": 2, "warn": 1, "fail": 1}
    lgm = found["verdicts"][2]
    error = {row["seed"]: row["error"] for row in robustloss.load_run(gated).worst_case
             if (row["label"], row["eps"]) == ("L-GM", 0.1)}  # fmt: skip
    assert lgm["mean"] == lgm["judged"] == pytest.approx(sum(error.values()) / 2)
    assert (lgm["metric"], lgm["column"], lgm["eps"]) == (
        "worst_case_error", "worst_case.error", 0.1,
    )  # fmt: skip


def test_a_failing_assert_shows_the_table_under_pytest(gated, tmp_path):
    (tmp_path / "test_own.py").write_text(
        "import robustloss\n"
        "def test_robustness():\n"
        f"    assert robustloss.check({str(gated)!r})\n"
        "def test_kept():\n"
        f"    assert robustloss.check({str(gated)!r}, [{PASSES!r}])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(robustloss.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_own.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert re.search(r"^worst_case_error at eps 0.1 +L-GM +\d.* FAIL$", done.stdout, re.MULTILINE)
    assert "assert Gates of small: 2 of 4 passed. Failed: worst_case_error" in done.stdout


def test_a_run_and_what_evaluate_returns_are_checked_as_they_are(gated):
    loaded = robustloss.load_run(gated)
    assert [v.status for v in robustloss.check(loaded)] == ["pass", "pass", "fail", "warn"]
    assert robustloss.check(gated, [PASSES])
    assert robustloss.check(str(gated), {"gates": [PASSES]})
    digits = load_dataset(DataSpec(name="digits", test_size=20)).test
    model = robustloss.load_classifier(gated, loss="L-GM", seed=0)
    found = robustloss.evaluate(
        {"mine": model}, digits.batch(slice(None)), digits.labels, ["fgsm"], quick=True
    )
    verdicts = robustloss.check(found, [PASSES, {"metric": "error", "eps": 0.1, "max": 0}])
    assert [(v.label, v.status) for v in verdicts] == [("mine", "pass"), ("mine", "fail")]


def noise(model):
    weight = model.backbone[0].weight
    weight.add_(
        2 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    )


def scale(model):
    model.backbone[0].weight.mul_(0.2)


def normalise_otherwise(model):
    model.mean.add_(1.0)


@pytest.mark.parametrize("spoil", [noise, scale, normalise_otherwise])
def test_a_model_made_worse_fails_the_gate_that_it_kept(gated, spoil):
    digits = load_dataset(DataSpec(name="digits", test_size=200)).test
    model = robustloss.load_classifier(gated, loss="softmax", seed=0)

    def evaluate():
        images, attacks = digits.batch(slice(None)), [{"name": "fgsm", "eps": [0.05]}]
        return robustloss.evaluate({"m": model}, images, digits.labels, attacks, quick=True)

    good = evaluate()
    (clean,) = (row for row in good.rows if row["attack"] == "none")
    # only a model that is shown to be worse, beyond both intervals, fails
    gates = [{"metric": "clean_error", "max": clean["error_high"], "interval": "lower"}]
    assert robustloss.check(good, gates)
    with torch.no_grad():
        spoil(model)
    assert not robustloss.check(evaluate(), gates)


def test_a_changed_gate_computes_nothing_and_is_judged(gated, monkeypatch, no_report):
    spec = load_spec(gated / "spec.toml").as_written()
    before, counted = files(gated), Counted(monkeypatch)
    outcome = runner.run(load_spec(spec | {"gates": [{**FAILS, "max": 1}]}), out=gated)
    assert (counted.trained, counted.attacked) == (0, [])
    assert files(gated) == before
    assert [v.label for v in robustloss.check(outcome)] == ["L-GM"]
    assert robustloss.check(outcome)


def test_a_run_refuses_a_gate_of_its_spec_before_it_computes(command, tmp_path):
    spec = changed(gates=[{**FAILS, "eps": 0.3}, {"metric": "clean_error", "max": 5}])
    (tmp_path / "own.toml").write_text(to_toml(spec))
    status, _, err = command("run", tmp_path / "own.toml", "--out", tmp_path / "out")
    assert status == 2
    assert "gates[0].eps (=0.3) is not an eps of worst case, L∞, which has 0.1, 0.2." in err
    assert "gates[1].max (=5.0) must lie in [0, 1]: clean_error is a share. Write 0.05" in err
    assert not (tmp_path / "out").exists()


def test_page_summary_and_terminal_name_the_gates_that_fail(command, gated):
    assert "\nGates: 2 of 4 passed. Failed: worst_case_error" in command("report", gated)[1]
    report = gated / "report" / "index.html"
    line = "2 of 4 passed. Failed: worst_case_error at eps 0.1 (L-GM). Warned: soft (L-GM)."
    page, summary = report.read_text(), (report.parent / "summary.md").read_text()
    assert f'<p class="care"><strong>Gates.</strong> {line}</p>' in page
    assert page.index("Gates.") < page.index("<table")
    assert f"**Gates:** {line}".replace("_", "\\_") in summary
    results = json.loads((gated / "results.json").read_text())
    results["provenance"]["spec"]["gates"] = []
    del results["digest"]
    results["digest"] = digest_content(results)
    (gated / "results.json").write_text(json.dumps(results))
    report = robustloss.build_report(gated)
    assert "Gates" not in report.read_text().split("<pre")[0]
    assert "Gates" not in (report.parent / "summary.md").read_text()
