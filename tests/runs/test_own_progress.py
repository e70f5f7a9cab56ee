"""Somebody's own progress: called with every event, and unable to end or to change a run."""

import json
import random
import re
import time

import numpy as np
import pytest
import torch

from robustloss.attacks.plugins import PluginError
from robustloss.progress import Event, Silent
from robustloss.runs import runner
from robustloss.runs.watching import own
from robustloss.runs.watching.audience import Audience
from tests.small_run import SPEC, changed, files, numbers

pytestmark = pytest.mark.usefixtures("no_report")
ONE = changed(losses=SPEC["losses"][:1], seeds=[0], model={"backbone": "digits_cnn"})
ONE["attacks"] = [{"name": "fgsm", "eps": [0.1]}, {"name": "pgd", "eps": [0.1]}]
BOARD = """
import json, os, random, sys, time
import numpy as np, torch
class Board:
    def __init__(self, file="board.jsonl"):
        self.file = open(file, "a")
    def start(self, cells):
        self.write("start", cells)
    def __call__(self, event):
        print("printed")
        self.write(event.name, dict(event.values))
        torch.rand(3), np.random.rand(), random.random()
        torch.set_default_dtype(torch.float64)
        os.environ["LEFT"] = "1"
    def stop(self):
        self.write("stop", None)
        self.file.close()
    def write(self, name, values):
        print(json.dumps([name, values]), file=self.file)
class Needs(Board):
    def __init__(self, url):
        pass
class Raises:
    def __call__(self, event):
        if event.name == "attack_started":
            raise KeyError("no such\\ntag")
class Ends:
    def __call__(self, event):
        sys.exit(3)
class Blocks:
    def __call__(self, event):
        if event.name == "epoch":
            time.sleep(3600)
class Deaf:
    pass
"""


@pytest.fixture
def board(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "board.py").write_text(BOARD)
    return tmp_path


def run(progress, folder="run"):
    return runner.run(ONE, out=folder, progress=progress)


def test_a_class_hears_everything_and_changes_nothing(board, capsys, one_thread):
    run(None, "plain")
    assert run("board.py:Board").exit_code == 0
    assert files(board / "run") == files(board / "plain")
    assert numbers(board / "run") == numbers(board / "plain")
    told = [json.loads(line) for line in (board / "board.jsonl").read_text().splitlines()]
    assert told[0] == ["start", 1]
    assert told[-1] == ["stop", None]
    names = [name for name, _ in told[1:-1] if name]
    assert (names[0], names[-1]) == ("run_started", "run_finished")
    assert names.count("epoch") == 3
    assert {"cell_started", "attack_started", "attack_finished", "cell_finished"} < set(names)
    out, err = capsys.readouterr()
    assert out == ""  # where the command line prints results
    assert "printed" in err
    assert torch.get_default_dtype() == torch.float32


def test_random_numbers_of_a_class_are_nobody_elses(board):
    def draw():
        return float(torch.rand(1)), np.random.rand(), random.random()  # noqa: NPY002

    def seed():
        torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002

    seed()
    expected = draw()
    seed()
    audience = Audience("board.py:Board", None)
    audience(Event("a", "train"))
    assert draw() == expected


@pytest.mark.parametrize(("name", "told"), [
    ("Raises", r"board\.py:Raises failed at 'attack_started': KeyError: 'no such\\ntag' "
               r"\(board\.py, line \d+\)\. It hears no more; the run goes on\."),
    ("Ends", r"board\.py:Ends failed at 'run_started': SystemExit: 3"),
    ("Blocks", r"board\.py:Blocks failed at 'epoch': it has not returned after 0\.5 s"),
])  # fmt: skip
def test_one_that_fails_is_said_once_and_left_out(name, told, board, capsys, monkeypatch):
    monkeypatch.setattr(own, "PATIENCE", 0.5)
    began = time.monotonic()
    log = board / "l.jsonl"
    assert runner.run(ONE, out="run", progress=f"board.py:{name}", log=log).exit_code == 0
    assert time.monotonic() - began < 60
    err = capsys.readouterr().err
    assert len(re.findall(told, err)) == 1, err
    assert err.count("\n") == 1
    warnings = [line for line in log.read_text().splitlines() if '"warning"' in line]
    assert len(warnings) == 1


@pytest.mark.parametrize(("name", "told"), [
    ("board.py:Needs", r"cannot be made: TypeError: .*'url'.*give each of them a default"),
    ("board.py:Boord", r"has no 'Boord'; did you mean 'Board'\?"),
    ("bord.py:Board", "there is no file bord.py in"),
    ("no_such_module:Board", "there is no module 'no_such_module'"),
    ("board.py:Deaf", r"must be a class with the method __call__\(self, event\)"),
    ("board.py:BOARD", "has no 'BOARD'"),
    ("Board", "must have the form"),
    ("", "must have the form"),
])  # fmt: skip
def test_what_cannot_hear_is_refused_before_any_work(name, told, board, command):
    with pytest.raises(PluginError, match=told):
        run(name)
    status, out, err = command("run", "quickstart", "--progress", name, "--out", "run")
    assert (status, out) == (2, "")
    assert re.search(told, err)
    assert err.count("\n") <= 3
    assert not (board / "run").exists()


def test_objects_classes_and_functions_hear_in_the_thread_of_the_run(board, capsys):
    heard = []

    class Noted(Silent):
        def __call__(self, event):
            heard.append(event.name)

        def note(self, text):
            heard.append(text)

    def fails(event):
        raise ValueError("mine")

    audience = Audience([Noted, Noted(), fails, heard.append], None)
    audience.note("a note")
    audience(Event("a", "train", name="epoch"))
    assert heard[:2] == ["a note", "a note"]
    assert heard.count("epoch") == 2
    assert "fails failed at 'epoch': ValueError: mine" in capsys.readouterr().err
    with pytest.raises(PluginError, match="int"):
        Audience([3], None)
