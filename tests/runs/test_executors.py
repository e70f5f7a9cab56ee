"""Worker processes: their threads, and what a run makes of one that is killed."""

import os

import pytest

from robustloss.results.run import load_run
from robustloss.runs import runner
from robustloss.runs.executors.processes import limiting_threads
from robustloss.runs.executors.workers import THREAD_LIMITS
from robustloss.spec.load import load_spec
from tests.small_run import changed, files, numbers

pytestmark = pytest.mark.usefixtures("no_report")

DEADLY = """
import os
import signal
from pathlib import Path

from robustloss.losses.softmax import SoftmaxHead


class Deadly(SoftmaxHead):
    def loss(self, features, labels, *, progress):
        if progress > 0.5 and "DEADLY" in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(features, labels, progress=progress)


class Once(SoftmaxHead):
    def loss(self, features, labels, *, progress):
        mark = Path(__file__).with_name("once")
        if progress > 0.5 and "DEADLY" in os.environ and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(features, labels, progress=progress)
"""


def test_workers_are_told_their_threads_and_the_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with limiting_threads(2):
        assert {os.environ[name] for name in THREAD_LIMITS} == {"2"}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_a_killed_worker_costs_no_cell_but_its_own(one_thread, monkeypatch, tmp_path):
    (tmp_path / "own.py").write_text(DEADLY)
    spec = changed(
        seeds=[0],
        resources={"retries": 1},
        losses=[
            {"name": "own.py:Deadly", "label": "deadly"},
            {"name": "own.py:Once", "label": "once"},
            {"name": "softmax"},
        ],
    )
    path = tmp_path / "spec.toml"
    path.write_text(load_spec(spec).text)
    assert runner.run(path, out=tmp_path / "serial").exit_code == 0
    whole = load_run(tmp_path / "serial")

    monkeypatch.setenv("DEADLY", "1")
    outcome = runner.run(path, out=tmp_path / "run", executor="processes:2")
    assert outcome.exit_code == 1
    (failure,) = outcome.failures
    assert (failure["label"], failure["seed"], failure["stage"]) == ("deadly", 0, "worker")
    assert "ended without a word 2 times" in failure["reason"]
    assert load_run(tmp_path / "run").rows == [r for r in whole.rows if r["label"] != "deadly"]

    monkeypatch.delenv("DEADLY")
    assert runner.run(path, out=tmp_path / "run").exit_code == 0
    assert numbers(tmp_path / "run") == numbers(tmp_path / "serial")
    assert files(tmp_path / "run") == files(tmp_path / "serial")
