"""The example of continuous integration: its files as pasted, run line by line."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.answered import answering

PAGE = Path(__file__).parents[2] / "robustloss" / "guide" / "ci.md"
FILE = re.compile(r"^`([\w./-]+)`[^`]*?:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
YAML = ".github/workflows/robustness.yml"


def files():
    """The files that the page names, each with its content."""
    return dict(FILE.findall(PAGE.read_text("utf-8")))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A repository with the files of the page, and a folder for the program."""
    folder = tmp_path_factory.mktemp("ci")
    for name, text in files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    (folder / "bin").mkdir()
    return folder


@pytest.fixture
def run(project, command):
    """Runs lines of a shell; gives (exit status, stdout, stderr)."""
    path = f"{project / 'bin'}:{os.environ['PATH']}"
    summary = project / "summary.md"
    settings = os.environ | {"PATH": path, "GITHUB_STEP_SUMMARY": str(summary)}

    def run(text):
        summary.unlink(missing_ok=True)
        words = ["bash", "-c", text]
        how = {"cwd": project, "env": settings, "capture_output": True, "text": True}
        done = answering(
            project / "bin/robustloss", command, lambda: subprocess.run(words, check=False, **how)
        )
        return done.returncode, done.stdout, done.stderr

    return run


def edit(path, old, new):
    text = path.read_text("utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), "utf-8")


def test_the_files_of_the_page_are_those_that_a_step_needs():
    names = ["ci/robustness.toml", "ci/gates.toml", "ci/robustness.sh", YAML]
    assert list(files()) == names


def test_the_script_passes_as_pasted_and_fails_where_the_model_is_worse(project, run):
    (first,) = re.findall(r"^```\n(export .*?)^```$", PAGE.read_text(), re.S | re.M)
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    status, _, err = run(f"set -e\n{first}")
    assert status == 0, err
    assert (project / "ci/baseline.npz").stat().st_size < 50_000
    status, out, err = run("bash ci/robustness.sh")
    assert status == 0, out + err
    assert (project / "summary.md").read_text("utf-8").startswith("# robustness\n")
    junit = ElementTree.parse(project / "runs/gates.xml").getroot()
    assert {case.find("failure") for case in junit.iter("testcase")} == {None}
    for kept in re.findall(r"^ {12}(runs/\S+)$", files()[YAML], re.M):
        assert (project / kept).is_file(), kept
    edit(project / "ci/robustness.toml", "epochs = 20", "epochs = 1")
    status, out, _ = run("bash ci/robustness.sh")
    assert status == 1
    assert "Failed: clean_error (L-GM)" in out
    junit = ElementTree.parse(project / "runs/gates.xml").getroot()
    failed = [case.get("name") for case in junit.iter("testcase") if len(case)]
    assert any("clean_error" in name for name in failed), failed
    assert len(failed) > 2  # the baseline says so too
    edit(project / "ci/gates.toml", "clean_error", "clean_eror")
    assert run("bash ci/robustness.sh")[0] == 2


def test_the_workflow_is_yaml_and_runs_the_script():
    text = files()[YAML]
    commands = re.findall(r"^ +(?:- )?run: (.*)$", text, re.M)
    assert [line.split()[0] for line in commands] == ["pip", "pip", "bash", "gh"]
    assert commands[2] == "bash ci/robustness.sh"
    assert "--body-file runs/robustness/report/summary.md" in commands[3]
    if importlib.util.find_spec("yaml") is None:
        return
    import yaml

    (job,) = yaml.safe_load(text)["jobs"].values()
    steps = job["steps"]
    assert [step["run"] for step in steps if "run" in step] == commands
    assert all(re.fullmatch(r"[\w/-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    (cache,) = (step["with"]["path"] for step in steps if "cache@" in step.get("uses", ""))
    assert job["env"]["ROBUSTLOSS_DATA"].endswith(f"/{cache}")
