"""What scripts/demo.sh says: cost before it starts, how to activate at its end."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import robustloss

ROOT = Path(robustloss.__file__).parent.parent


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose environment is there, with programs that do nothing but write a report."""
    for name in ("scripts/demo.sh", "scripts/setup.sh", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    report = tmp_path / "runs/quickstart/report"
    python = '#!/bin/sh\ncase "$*" in *"import torch"*) exit 1 ;; esac\n'
    run = f"#!/bin/sh\nmkdir -p {report}\necho page > {report}/index.html\nexit $STATUS\n"
    for name, text in (("python", python), ("robustloss", run)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return tmp_path


def demo(checkout, status=0, **environment):
    kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    return subprocess.run(
        ["bash", "scripts/demo.sh"],
        cwd=checkout,
        env=kept | {"STATUS": str(status)} | environment,
        capture_output=True,
        text=True,
    )


def test_the_demo_says_what_it_costs_and_how_to_go_on(checkout):
    done = demo(checkout)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert "some minutes and about 6 GB of disk" in lines[0]
    own = f"  {checkout}/.venv/bin/python -m pip install torch torchvision"
    assert lines[2] == f"{own} --index-url https://download.pytorch.org/whl/cpu"
    assert "about a minute on 2 CPU cores, 100 MB" in lines[3]
    assert lines[-3] == f"The report: {checkout}/runs/quickstart/report/index.html"
    assert lines[-1] == f"  source {checkout}/.venv/bin/activate"
    assert "Installing" not in demo(checkout).stdout  # the second time nothing is installed


def test_the_demo_ends_as_the_run_and_says_nothing_of_an_active_environment(checkout):
    done = demo(checkout, status=1, VIRTUAL_ENV=str(checkout / ".venv"))
    assert done.returncode == 1
    assert "activate" not in done.stdout
