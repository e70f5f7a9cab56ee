"""Settings for all tests: one thread, and the real data where it is."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from robustloss.data.files import data_root

# Before torch is imported, and for subprocesses too: the tensors of a test are too small to share.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_FILE = "train-images-idx3-ubyte"


def _real_data() -> Path | None:
    folder = data_root(None) / "MNIST" / "raw"
    found = any((folder / name).is_file() for name in (_FILE, f"{_FILE}.gz"))
    return data_root(None) if found else None


_REAL_DATA = _real_data()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if _REAL_DATA is not None:
        return
    absent = pytest.mark.skip(
        reason="the MNIST files are not here; ROBUSTLOSS_DATA names their folder"
    )
    for item in items:
        if item.get_closest_marker("mnist"):
            item.add_marker(absent)


def pytest_collection_finish() -> None:
    """Leave torch, matplotlib and the collected tests out of every later garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds MNIST/raw; for tests marked mnist."""
    assert _REAL_DATA is not None, "mark the test with pytest.mark.mnist"
    return _REAL_DATA


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a folder once for all processes of a test run; the tests only read it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def make(name: str, write: Callable[[Path], object]) -> Path:
        folder, whole = shared / name, shared / f"{name}.whole"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed half-way
                write(folder)
                whole.touch()
        return folder

    return make


@pytest.fixture(scope="session", autouse=True)
def _undrawn() -> Iterator[None]:
    """Reports without pictures; tests.drawing makes them with theirs."""
    from robustloss.reports.page import build

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "draw_all", lambda folder, contents, **how: [])
        yield


@pytest.fixture(scope="session", autouse=True)
def _unsynced() -> Iterator[None]:
    """Files are handed to the system, and nobody waits for the disk: no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _in_this_process() -> Iterator[None]:
    """Cells with code of others are computed here, where tests replace functions."""
    from robustloss.runs.executors import alone

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alone, "needs_own_process", lambda job: False)
        patch.setattr(alone, "spec_needs_own_process", lambda spec: False)
        yield


@pytest.fixture
def own_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells with code of others have processes of their own, as they do for everybody."""
    from robustloss.runs.executors import alone
    from robustloss.spec.plugins import plugins_of_cell

    monkeypatch.setattr(
        alone, "needs_own_process", lambda job: bool(plugins_of_cell(job.spec, job.cell))
    )


@pytest.fixture
def own_processes(own_cells: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All work with code of others is done in processes of its own, as it is for everybody."""
    from robustloss.runs.executors import alone
    from robustloss.spec.plugins import plugins_of

    monkeypatch.setattr(alone, "spec_needs_own_process", lambda spec: bool(plugins_of(spec)))


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without a report."""
    from robustloss import reports

    def build_report(run_dir: str | Path) -> Path:
        return Path(run_dir) / "report/index.html"

    monkeypatch.setattr(reports, "build_report", build_report, raising=False)


@pytest.fixture(scope="session")
def small_run(make_once: Callable[..., Path]) -> Path:
    """An undisturbed run of `tests.small_run.SPEC`, without a report; the tests only read it."""

    def compute(root: Path) -> None:
        from robustloss import reports
        from robustloss.runs import runner
        from tests.small_run import SPEC

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reports, "build_report", lambda path: Path(path), raising=False)
            assert runner.run(SPEC, out=root / "run").exit_code == 0

    return make_once("small-run", compute) / "run"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch computes with one thread, as in a worker: then numbers are the same to the last bit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int | str | None, str, str]]:
    """Runs the command line; gives (exit status, stdout, stderr)."""
    from robustloss.cli import commands

    def run(*words: object) -> tuple[int | str | None, str, str]:
        with pytest.raises(SystemExit) as end:
            commands.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run
