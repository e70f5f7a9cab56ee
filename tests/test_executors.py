"""Worker processes: how many threads each may use, and that nothing of it stays behind."""

import os

from robustloss.executors import _thread_limit
from robustloss.worker_data import THREAD_LIMITS


def test_workers_are_told_their_threads_and_the_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with _thread_limit(2):
        assert {os.environ[name] for name in THREAD_LIMITS} == {"2"}
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "OPENBLAS_NUM_THREADS" not in os.environ
