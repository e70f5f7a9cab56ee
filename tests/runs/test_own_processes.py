"""Code of others has a process of its own: what it leaves there, or ends, is its own cell alone."""

import _thread
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from robustloss.results.run import load_run
from robustloss.runs import runner
from robustloss.runs.errors import RunError
from robustloss.runs.executors import alone
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from tests.small_run import changed

pytestmark = pytest.mark.usefixtures("no_report", "one_thread")

OWN = """
import os
import signal
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from robustloss.losses.softmax import SoftmaxHead


class Silent(BaseException):
    def __str__(self):
        raise RuntimeError("no text")


class Leaving(SoftmaxHead):
    def loss(self, features, labels, *, progress):
        found = super().loss(features, labels, progress=progress)
        if progress > 0.5:
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(True)
            torch.set_num_threads(2)
            torch.set_float32_matmul_precision("medium")
            torch.nn.modules.module.register_module_forward_hook(lambda module, args, out: None)
            np.seterr(all="raise")
            os.environ["OMP_NUM_THREADS"] = "5"
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.chdir("/")
            warnings.simplefilter("error")
        return found


class Exiting(SoftmaxHead):
    def loss(self, features, labels, *, progress):
        os._exit(0)


class Raising(SoftmaxHead):
    def loss(self, features, labels, *, progress):
        raise Silent


class Interrupting(SoftmaxHead):
    def loss(self, features, labels, *, progress):
        raise KeyboardInterrupt


class Patching(SoftmaxHead):
    def loss(self, features, labels, *, progress):
        torch.argmax = torch.argmin
        return super().loss(features, labels, progress=progress)


class Deaf(SoftmaxHead):
    def loss(self, features, labels, *, progress):
        Path(__file__).with_name("begun").touch()
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass
"""
SMALL = {
    "seeds": [0],
    "data": {"name": "digits", "train_size": 40, "validation_size": 20, "test_size": 20},
    "train": {"epochs": 2, "batch_size": 20, "precision": "float32", "lr": 0.02},
    "detection": {"fit_size": 20, "noise": False},
    "checks": {"images": 0},
    "attacks": [{"name": "fgsm", "eps": [0.1]}],
}


def write(folder, losses, **keys):
    (folder / "own.py").write_text(OWN)
    path = folder / "spec.toml"
    path.write_text(load_spec(changed(**SMALL, losses=losses) | keys).text)
    return path


REASONS = {
    "Leaving": (),
    "Exiting": ("ended itself with exit status 0", '.name = "own.py:Exiting"'),
    "Raising": ("Silent, whose text cannot be made (own.py",),
    "Interrupting": ("KeyboardInterrupt (own.py",),
    "Patching": ("own.py:Patching", "replaced torch.argmax"),
}


@pytest.mark.parametrize(
    "names", [("Leaving", "Exiting"), pytest.param(tuple(REASONS), marks=pytest.mark.slow)]
)
def test_what_code_of_others_leaves_or_ends_is_its_own_cell_alone(own_cells, tmp_path, names):
    honest = [{"name": "softmax"}, {"name": "gm"}]
    own = [{"name": f"own.py:{name}", "label": name} for name in names]
    spec = write(tmp_path, [honest[0], *own, honest[1]], resources={"retries": 0})
    before = Path.cwd(), os.environ["OMP_NUM_THREADS"], torch.get_num_threads()
    outcome = runner.run(spec, out=tmp_path / "run")
    assert (Path.cwd(), os.environ["OMP_NUM_THREADS"], torch.get_num_threads()) == before
    reasons = {failure["label"]: failure["reason"] for failure in outcome.failures}
    failed = {name for name in names if REASONS[name]}
    assert set(reasons) - {"Leaving"} == failed  # which may break its own cell
    assert all(text in reasons[name] for name in failed for text in REASONS[name])
    assert outcome.exit_code == 1
    spec = write(tmp_path, honest)
    runner.run(spec, out=tmp_path / "honest")
    found, expected = load_run(tmp_path / "run").rows, load_run(tmp_path / "honest").rows
    assert [row for row in found if row["label"] in ("Softmax", "GM")] == expected


@pytest.mark.parametrize(
    ("text", "message", "kind"),
    [
        (
            "import os; os._exit(0)",
            "ended itself with exit status 0, before the work was",
            RunError,
        ),
        ("raise BaseException", "importing it failed: BaseException", SpecError),
    ],
)
def test_a_plug_in_that_ends_the_process_when_it_is_imported_is_told(
    own_processes, tmp_path, text, message, kind
):
    spec = write(tmp_path, [{"name": "own.py:Exiting"}])
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(kind, match=message):
        runner.run(spec, out=tmp_path / "run")
    assert not (tmp_path / "run/results.json").exists()


def test_the_limit_of_minutes_ends_what_swallows_every_error(own_cells, tmp_path, monkeypatch):
    monkeypatch.setattr("robustloss.runs.executors.processes.GRACE", 0.5)
    losses = [{"name": "own.py:Deaf", "label": "deaf"}, {"name": "softmax"}]
    spec = write(tmp_path, losses, resources={"minutes": 0.1, "retries": 0})
    outcome = runner.run(spec, out=tmp_path / "run")
    (failure,) = outcome.failures
    assert failure["label"] == "deaf"
    assert "longer than resources.minutes (=0.1)" in failure["reason"]
    assert [cell.label for cell in load_run(tmp_path / "run").cells] == ["Softmax"]


def test_ctrl_c_ends_what_swallows_every_error(own_cells, tmp_path):
    spec = write(tmp_path, [{"name": "own.py:Deaf", "label": "deaf"}])

    def press():
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        _thread.interrupt_main()

    pressing = threading.Thread(target=press, daemon=True)
    # Where the tests run in the background, SIGINT is ignored and Ctrl-C would do nothing.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        pressing.start()
        with pytest.raises(KeyboardInterrupt):
            runner.run(spec, out=tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    pressing.join(1)
    assert not pressing.is_alive()


@pytest.mark.slow
def test_transfers_of_code_of_others_are_computed_elsewhere(own_processes, tmp_path):
    (tmp_path / "attack.py").write_text(
        "import os\n\ndef nudge(model, inputs, labels, eps):\n"
        "    with open(__file__ + '.pids', 'a') as file:\n"
        "        print(os.getpid(), file=file)\n"
        "    return (inputs + eps).clamp(0, 1)\n"
    )
    attacks = [{"name": "attack.py:nudge", "eps": [0.1], "transfer": True, "batch_size": 20}]
    spec = write(tmp_path, [{"name": "softmax"}, {"name": "gm"}], attacks=attacks)
    assert runner.run(spec, out=tmp_path / "run").exit_code == 0
    numbers = (tmp_path / "attack.py.pids").read_text().split()
    assert len(set(numbers)) == 3  # two cells and their transfers
    assert str(os.getpid()) not in numbers


def test_a_new_process_takes_no_module_from_the_working_directory(tmp_path, monkeypatch):
    trap = f"open({str(tmp_path / 'executed')!r}, 'w').close()"
    for module in ("multiprocessing", "pickle", "socket", "signal", "torch"):
        (tmp_path / f"{module}.py").write_text(trap)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    environment = dict(os.environ)
    checks = alone.call_alone(alone.check_loss_alone, "softmax", {}, foreign={})
    assert all(check.passed for check in checks)
    assert not (tmp_path / "executed").exists()
    assert dict(os.environ) == environment
