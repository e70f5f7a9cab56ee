"""Two runs in one folder: the second is told who is first, and a killed one holds nothing."""

import os
import signal
import subprocess
import sys

import pytest

from robustloss.runs import folder, runner
from robustloss.runs.folder import RunFolderError, locking
from tests.small_run import changed

pytestmark = pytest.mark.skipif(folder.fcntl is None, reason="no such locks on this system")
HOLDER = """
import sys
from pathlib import Path
from robustloss.runs.folder import locking
with locking(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with process:
        yield process
        process.kill()


def test_a_folder_has_one_holder_and_is_clean_afterwards(tmp_path):
    with locking(tmp_path):
        assert (tmp_path / folder.LOCK).exists()
        with pytest.raises(RunFolderError, match=f"process {os.getpid()} on "), locking(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
    with locking(tmp_path):  # and is free again
        pass


def test_an_error_lets_go_of_the_folder(tmp_path):
    def fail():
        with locking(tmp_path):
            raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            fail()


def test_another_process_is_named_and_a_killed_one_holds_nothing(holder, tmp_path):
    with (
        pytest.raises(RunFolderError, match=f"process {holder.pid} on .*since 20"),
        locking(tmp_path),
    ):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locking(tmp_path):
        assert str(os.getpid()) in (tmp_path / folder.LOCK).read_text()


def test_the_second_run_is_refused_and_touches_nothing(holder, tmp_path):
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(RunFolderError, match=f"being written by process {holder.pid}"):
        runner.run(changed(seeds=[0]), out=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(folder.fcntl, "flock", refuse)
    with locking(tmp_path):
        pass
