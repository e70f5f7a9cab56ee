"""A cell that hangs fails after its time, the others go on, and nothing keeps ringing."""

import signal
import threading
import time

import pytest

from robustloss.cells.time_limit import TimeLimitError, time_limit
from robustloss.results.run import load_run
from robustloss.runs import runner
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from tests.small_run import changed

HANGS = """
import time
from robustloss.losses.softmax import SoftmaxHead

class Own(SoftmaxHead):
    def loss(self, features, labels, *, progress):
        while {seconds} and progress > 0.5:
            time.sleep({seconds})
        return super().loss(features, labels, progress=progress)
"""

DEAF = """
import signal
import time
from robustloss.losses.softmax import SoftmaxHead

class Own(SoftmaxHead):
    def loss(self, features, labels, *, progress):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(600)
"""


@pytest.mark.parametrize(
    ("executor", "minutes"),
    # the first cell of a worker loads much before its first step
    [("serial", 0.1), pytest.param("processes:2", 0.5, marks=pytest.mark.slow)],
)
def test_a_hang_ends_with_its_reason_and_the_others_go_on(tmp_path, executor, minutes):
    own, folder = tmp_path / "own.py", tmp_path / "run"
    spec = changed(
        seeds=[0],
        losses=[{"name": "own.py:Own", "label": "own"}, {"name": "softmax"}],
        resources={"minutes": minutes},
    )
    for seconds, failed in ((600, True), (0, False)):
        own.write_text(HANGS.format(seconds=seconds))
        (tmp_path / "spec.toml").write_text(load_spec(spec).text)
        outcome = runner.run(tmp_path / "spec.toml", out=folder, executor=executor)
        labels = [cell.label for cell in load_run(folder).cells]
        if failed:
            (failure,) = outcome.failures
            assert (failure["label"], failure["stage"]) == ("own", "train")
            assert f"resources.minutes (={minutes})" in failure["reason"]
            assert labels == ["Softmax"]
        else:
            assert outcome.failures == []
            assert labels == ["own", "Softmax"]


@pytest.mark.slow
def test_a_worker_that_hears_no_alarm_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("robustloss.runs.executors.processes.GRACE", 1.0)
    (tmp_path / "own.py").write_text(DEAF)
    spec = changed(
        seeds=[0],
        losses=[{"name": "own.py:Own", "label": "own"}, {"name": "softmax"}],
        resources={"minutes": 0.5},
    )
    (tmp_path / "spec.toml").write_text(load_spec(spec).text)
    outcome = runner.run(tmp_path / "spec.toml", out=tmp_path / "run", executor="processes:2")
    (failure,) = outcome.failures
    assert (failure["label"], failure["stage"]) == ("own", "worker")
    assert "resources.minutes (=0.5) inside a library that did not return" in failure["reason"]
    assert [cell.label for cell in load_run(tmp_path / "run").cells] == ["Softmax"]


def test_it_rings_again_where_the_first_error_was_swallowed(monkeypatch):
    monkeypatch.setattr("robustloss.cells.time_limit._AGAIN", 0.05)
    heard = 0
    with time_limit(0.1 / 60):
        while heard < 3:
            try:
                time.sleep(10)
            except TimeLimitError:
                heard += 1
    assert heard == 3


def test_afterwards_nothing_rings_and_the_old_handler_is_back():
    before = signal.getsignal(signal.SIGALRM)
    with time_limit(0.1 / 60):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before
    with time_limit(None):
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_outside_the_main_thread_there_is_no_limit():
    found = []

    def work():
        with time_limit(1e-6):
            time.sleep(0.05)
        found.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["done"]


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(SpecError, match=r"resources\.minutes"):
        load_spec(changed(resources={"minutes": 0}))
    with_limit = load_spec(changed(resources={"minutes": 5}))
    assert with_limit.resources.minutes == 5
    assert load_spec(changed()).resources.minutes is None
