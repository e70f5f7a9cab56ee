"""Worker processes: how many, their threads, and what a run makes of one that is killed."""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from robustloss.data.images import ImageSet
from robustloss.results.run import STARTED, load_run
from robustloss.runs import runner
from robustloss.runs.executors import automatic
from robustloss.runs.executors.choose import count_processes
from robustloss.runs.executors.processes import limiting_threads
from robustloss.runs.executors.workers import THREAD_LIMITS
from robustloss.spec.load import load_spec
from robustloss.storage import write_json
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


GIB = 2**30
IMAGES = ImageSet(torch.zeros(8, 1, 1, 1, dtype=torch.uint8), *[torch.arange(8)] * 2, 255.0)
DATA = SimpleNamespace(train=IMAGES, validation=IMAGES, test=IMAGES)


@pytest.fixture
def machine(monkeypatch):
    """Sets the threads of torch and the memory of the machine."""

    def set_to(cores, memory=64 * GIB):
        monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
        monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": memory}.get)

    return set_to


def choose(seeds=(0, 1, 2), losses=4, device="cpu", data=DATA, folders=(), **more):
    names = ("softmax", "center", "gm", "lgm")[:losses]
    spec = load_spec(changed(losses=[{"name": name} for name in names], **more))
    return automatic.choose_processes(spec, seeds, data, device, folders)


def test_auto_takes_a_process_a_core_but_no_more_than_there_are_cells(machine):
    machine(1)
    assert choose() == "serial"
    machine(2)
    assert choose() == "processes:2x1"
    assert choose(seeds=[0], losses=1) == "serial"
    machine(16)
    assert choose() == "processes:12x1"
    assert choose(seeds=[0]) == "processes:4x4"
    assert choose(device="cuda") == choose(device="mps") == "serial"
    assert count_processes("processes:4x4") == (4, 4)
    assert count_processes("processes:4") == (4, 4)
    assert count_processes("processes:20") == (20, 1)
    assert count_processes("serial") == (0, 16)


def test_auto_keeps_to_half_the_memory_and_counts_the_data_of_each_process(machine):
    machine(16, memory=9 * GIB)
    assert choose() == "processes:4x4"
    large = replace(IMAGES, images=torch.empty(GIB // 8, 1, 1, 8, dtype=torch.uint8, device="meta"),
                    labels=torch.zeros(GIB // 8, dtype=torch.int64, device="meta"),
                    index=torch.zeros(GIB // 8, dtype=torch.int64, device="meta"))  # fmt: skip
    assert choose(data=SimpleNamespace(train=large, validation=IMAGES, test=IMAGES)) == (
        "processes:2x8"
    )
    machine(16, memory=GIB)
    assert choose() == "serial"


def test_auto_keeps_the_threads_of_a_folder_that_has_cells(machine, tmp_path):
    machine(16)
    noted = {"device": "cpu", "threads": 3}
    write_json(tmp_path / STARTED, noted, checked=True)
    assert choose(folders=[tmp_path]) == "processes:12x1"  # nothing is there that would be lost
    (tmp_path / "cells").mkdir()
    assert choose(folders=[tmp_path]) == "processes:5x3"
    assert choose(folders=[tmp_path / "none", None, tmp_path]) == "processes:5x3"
    assert choose(seeds=[0], losses=1, folders=[tmp_path]) == "processes:1x3"
    machine(2)
    assert choose(folders=[tmp_path]) == "processes:1x3"
    machine(3)
    assert choose(folders=[tmp_path]) == "serial"
    write_json(tmp_path / STARTED, noted | {"device": "NVIDIA H200"}, checked=True)
    assert choose(folders=[tmp_path]) == "processes:3x1"


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
