"""Kills at random moments, in short; scripts/torture.py does hundreds."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robustloss.runs import runner
from robustloss.spec.load import load_spec
from tests.small_run import changed

SCRIPT = Path(__file__).parents[2] / "scripts" / "torture.py"

PARENT = """
import multiprocessing, time
from robustloss.runs.executors.workers import end_with_parent

def child(told):
    end_with_parent()
    told.set()
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    told = context.Event()
    started = context.Process(target=child, args=(told,))
    started.start()
    told.wait()
    print(started.pid, flush=True)
    time.sleep(60)
"""


def test_three_kills_change_nothing(tmp_path):
    words = [sys.executable, str(SCRIPT), "--kills", "3", "--executors", "serial"]
    done = subprocess.run([*words, "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 3 kills, " in done.stdout
    assert ", 0 problems" in done.stdout


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_worker_ends_with_a_parent_that_was_killed(tmp_path):
    path = tmp_path / "parent.py"
    path.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True)
    with parent.stdout:
        worker = int(parent.stdout.readline())
    assert alive(worker)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 60
    while alive(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(worker)


def test_what_a_killed_run_left_of_its_report_and_its_cluster_goes(tmp_path):
    folder = tmp_path / "run"
    (folder / ".report-abc_4567" / "tables").mkdir(parents=True)
    (folder / ".report-abc_4567" / "index.html").write_text("half")
    spec = changed(seeds=[0], losses=[{"name": "softmax"}])
    (folder / "spec.toml").write_text(load_spec(spec).text)
    (folder / ".ray-run").write_text("mark of a cluster's run")
    runner.run(spec, out=folder)
    assert not list(folder.glob(".*"))
