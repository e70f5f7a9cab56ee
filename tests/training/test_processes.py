"""Several processes that train together do what one does, and stop together."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robustloss import run
from robustloss.spec.load import load_spec
from robustloss.storage import read_json
from tests.small_run import changed, numbers
from tests.training import processes_worker as worker

ROOT = Path(__file__).parents[2]


def torchrun(*words, cwd):
    """Starts processes as torchrun does; returns what is left of it when it ended."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--nproc-per-node", "2", *map(str, words)],
        cwd=cwd, env=environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def forked():
    """A function that runs a script in two processes: their exit status and what they said."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.training.forked_pair"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip

        def run_pair(words):
            print(json.dumps([*map(str, words)]), file=server.stdin, flush=True)
            return json.loads(server.stdout.readline())

        yield run_pair
        server.stdin.close()


def words_of(folder, spec, *, first=()):
    """A script that runs a spec, and its arguments; first are lines of Python it begins with."""
    toml = folder / "spec.toml"
    toml.write_text(load_spec(spec).text)
    start = folder / "start.py"
    lines = [
        "import os, sys, time",
        "from datetime import timedelta",
        "from robustloss.cli import commands as cli",
        "from robustloss.training import processes",
        "processes._AGREEMENT = timedelta(seconds=3)",
        *first,
        "cli.main(sys.argv[1:])",
    ]
    start.write_text("\n".join(lines))
    return [start, "run", toml, "--out", folder / "run", "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The folders of one process and of two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    ended = torchrun("-m", "tests.training.processes_worker", two, cwd=two)
    assert ended.returncode == 0, ended.stderr
    worker.main(one)
    return one, two


@pytest.mark.parametrize("case", worker.CASES)
def test_the_first_gradients_are_those_of_one_process(pair, case):
    one, two = (torch.load(folder / f"{case}-gradients.pt") for folder in pair)
    assert one.keys() == two.keys()
    assert len(one) >= 4
    largest = max(float(gradient.abs().max()) for gradient in one.values())
    for name, gradient in one.items():
        # A pair loss does not change with a shift of all features: that gradient is rounding.
        rounding = 10 * torch.finfo(torch.float64).eps * largest
        bound = 1e-10 * float(gradient.abs().max()) + rounding
        assert (two[name] - gradient).abs().max() <= bound, name


@pytest.mark.parametrize("case", worker.CASES)
def test_a_training_ends_where_that_of_one_process_ends(pair, case):
    one, two = (torch.load(folder / f"{case}-weights.pt") for folder in pair)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-8, atol=1e-9, msg=name)
    (alone, curve), (both, shared) = (
        json.loads((folder / f"{case}.json").read_text()) for folder in pair
    )
    assert (alone, both) == (1, 2)
    for line, other in zip(curve, shared, strict=True):
        assert line.keys() == other.keys()
        for name, value in line.items():
            assert other[name] == (None if value is None else pytest.approx(value, rel=1e-8)), name


def test_a_run_by_two_processes_is_that_of_one(tmp_path):
    """A loss that fails in both costs its cell alone."""
    (tmp_path / "bad.py").write_text(
        "from robustloss.losses.softmax import SoftmaxHead\n"
        "class Bad(SoftmaxHead):\n"
        "    def loss(self, features, labels, *, progress):\n"
        "        terms = super().loss(features, labels, progress=progress)\n"
        "        return terms._replace(classification=terms.classification * float('nan'))\n"
    )
    losses = [{"name": f"{tmp_path}/bad.py:Bad", "label": "Bad"}, {"name": "softmax"}]
    spec = changed(seeds=[0], losses=losses)
    # torchrun ends all processes when one fails: none may before the first has told everything
    slow = (
        "from robustloss.cli.commands import running; show = running._show_outcome; "
        "running._show_outcome = lambda *a: (time.sleep(1.5), show(*a))"
    )
    ended = torchrun(*words_of(tmp_path, spec, first=[slow]), cwd=tmp_path)
    assert ended.returncode == 1, ended.stderr
    assert "Interrupted" not in ended.stderr
    assert ended.stdout.count("index.html") == 1  # one process tells
    assert ended.stderr.count("failed: Bad seed 0 (train): the loss became NaN") == 1
    together = numbers(tmp_path / "run")
    run(load_spec({**spec, "losses": losses[1:]}), out=tmp_path / "alone", device="cpu")
    alone = numbers(tmp_path / "alone")
    assert len(together["rows"]) == len(alone["rows"]) > 0
    for row, other in zip(together["rows"], alone["rows"], strict=True):
        assert (row["loss"], row["eps"]) == (other["loss"], other["eps"])
        assert row["error"] == pytest.approx(other["error"], abs=0.05)
    cell = read_json(next((tmp_path / "run").rglob("cell.json")), checked=True)
    training = read_json(
        tmp_path / "run" / "cells" / cell["slug"] / "seed-0" / "train.json", checked=True
    )
    assert training["processes"] == 2
    assert [line["processes"] for line in training["curve"]] == [2] * len(training["curve"])
    assert (
        (tmp_path / "run")
        .joinpath("cells", cell["slug"], "seed-0", cell["files"]["model"])
        .name.endswith("-x2.safetensors")
    )


def test_a_mistake_is_told_by_the_first_process_alone(tmp_path, forked):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("of somebody else")
    slow = "tell = cli.complain; cli.complain = lambda text: (time.sleep(1.5), tell(text))[1]"
    statuses, said = forked(words_of(tmp_path, changed(seeds=[0]), first=[slow]))
    assert statuses[0] == 2
    assert said.count(f"{tmp_path / 'run'}") == 1
    assert "Interrupted" not in said
    assert "first process" not in said


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            (
                "from robustloss.runs.executors import torchrun",
                "from robustloss.data.load import load_dataset",
                "from robustloss.spec.data import DataSpec",
                "data = DataSpec(train_size=200, validation_size=61, test_size=80)",
                "other = lambda job: load_dataset(data, quiet=True)",
                "if os.environ['RANK'] == '1': torchrun.dataset_of = other",
            ),
            r"rank 1: on \S+ the checksum of the training data \(='\w+'\) is '\w+' in rank 0.* "
            "give every machine the same data",
        ),
        (
            (
                "from robustloss.runs.executors import torchrun",
                "from robustloss.data.files import DataError",
                "def absent(job): raise DataError('no such file here')",
                "if os.environ['RANK'] == '1': torchrun.dataset_of = absent",
            ),
            "rank 1: no such file here",
        ),
    ],
)
def test_a_process_that_holds_other_data_is_refused(tmp_path, forked, lines, reason):
    spec = changed(seeds=[0], losses=[{"name": "softmax"}])
    statuses, said = forked(words_of(tmp_path, spec, first=lines))
    assert statuses[0] == 1
    assert re.search(reason, said), said
    (failure,) = read_json(tmp_path / "run" / "results.json")["failures"]
    assert re.search(reason, failure["reason"])
    assert not list((tmp_path / "run").rglob("model-*"))


def test_a_process_that_fails_alone_stops_all(tmp_path, forked):
    (tmp_path / "bad.py").write_text(
        "import os\n"
        "from robustloss.losses.softmax import SoftmaxHead\n"
        "class Bad(SoftmaxHead):\n"
        "    def loss(self, features, labels, *, progress):\n"
        "        if os.environ['RANK'] == '1' and progress > 0.5:\n"
        "            raise ValueError('this process alone')\n"
        "        return super().loss(features, labels, progress=progress)\n"
    )
    losses = [{"name": f"{tmp_path}/bad.py:Bad", "label": "Bad"}]
    statuses, said = forked(words_of(tmp_path, changed(seeds=[0], losses=losses)))
    assert 0 not in statuses
    assert "rank 1: this process alone" in said
    assert not list((tmp_path / "run").rglob("cell.json"))
