"""The server of worker processes: it imports what they need once, and each is a fork of it.

A process that is started afresh imports torch for seconds, on every core at the same time. The
server begins to import when it is started, so start it early: the caller's own imports, and the
loading of the data, go on beside it. It computes nothing, so it has no threads that a fork would
lose. It ends with this process. This module imports no torch, so that a command can start it first.
"""

import os
import signal
import sys
import threading
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext

THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which libraries are told their number of threads; they are read at import."""

SAFE_PATH = "PYTHONSAFEPATH"
"""If this variable is set, Python looks for no module in the working directory."""

PRELOADED = [
    "robustloss.runs.executors.processes",
    "torch._dynamo",  # an optimiser of torch imports it when it is built
    "sklearn.neighbors",
    "sklearn.covariance",
]
"""Modules that every cell needs and that take a second or more to import."""


def start_early(executor: str, device: str, cells: int) -> None:
    """Start the server if a run is likely to need workers; return at once.

    Args:
        executor: As asked for, see `check_executor`.
        device: As asked for.
        cells: How many cells and trials the run has.
    """
    asked = executor.startswith("processes:")
    several = (os.cpu_count() or 1) > 1 and os.environ.get("OMP_NUM_THREADS") != "1"
    launched = "TORCHELASTIC_RUN_ID" in os.environ
    likely = executor == "auto" and device in ("auto", "cpu") and several and not launched
    if cells > 1 and (asked or likely):
        start_server()


def start_server() -> ForkServerContext | None:
    """Start the server unless it runs, and return what makes processes from it.

    Returns:
        None where processes cannot be forked from another; they are spawned there.
    """
    if sys.platform != "linux":  # macOS forbids what its libraries do after a fork
        return None
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    before = dict(os.environ)
    # NumPy's and scikit-learn's libraries, which read these when they are loaded, get one thread.
    os.environ.update(dict.fromkeys(THREAD_LIMITS, "1"))
    # It must find the modules that this process would, and none in the working directory first: a
    # file pickle.py beside somebody's spec would run.
    os.environ.update(
        {SAFE_PATH: "robustloss", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    )
    in_main = threading.current_thread() is threading.main_thread()
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None  # for the server
    try:
        forkserver.ensure_running()
    finally:
        if in_main:
            signal.signal(signal.SIGINT, heard)
        os.environ.clear()
        os.environ.update(before)
    return context
