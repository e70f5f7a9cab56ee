"""Somebody's own progress: loaded by its name, called by the run, and kept from harming it."""

import random
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import torch

from robustloss.attacks.plugins import PluginError, load_object
from robustloss.attacks.settings import preserving_settings
from robustloss.progress import Event

PATIENCE = 60.0  # seconds in which a call must return


class OwnFailedError(Exception):
    """A call of somebody's own progress came to nothing; the text is one line."""


class OwnProgress:
    """Somebody's own progress, as a run calls it.

    It may have any of the methods of `Progress` but must take events; a function does. What it
    changes of the process, random numbers included, is put back after each call.

    Args:
        progress: An object, a class that is made without arguments, or the name of either,
            "package.module:Name" or "path/to/file.py:Name". What has a name is called in a thread
            of its own, so that the run goes on where a call does not return, and what it prints
            goes to stderr. An object is called in the thread of the run.

    Raises:
        PluginError: There is no such code, it cannot be made, or it takes no events.
    """

    def __init__(self, progress: Any) -> None:
        kind = progress if hasattr(progress, "__name__") else type(progress)
        self.name = progress if isinstance(progress, str) else kind.__name__
        self._thread = _Thread() if isinstance(progress, str) else None
        found = load_object(progress, [Path.cwd()]) if isinstance(progress, str) else progress
        if isinstance(found, type):
            try:
                found = self._call(found)
            except OwnFailedError as error:
                raise PluginError(
                    f"progress (={self.name}) cannot be made: {error}. It is called without "
                    "arguments, so give each of them a default."
                ) from error
        if not callable(found):
            raise PluginError(
                f"progress (={self.name}) must be a class with the method __call__(self, event), "
                "or a function of an event; see `robustloss guide watching`."
            )
        self._own = found

    def start(self, cells: int) -> None:
        """Tell how many cells the run has."""
        self._call_method("start", cells)

    def __call__(self, event: Event) -> None:
        """Pass an event on."""
        self._call(self._own, event)

    def note(self, text: str) -> None:
        """Pass a line of text on."""
        self._call_method("note", text)

    def stop(self) -> None:
        """Tell that the run is over."""
        self._call_method("stop")

    def _call_method(self, name: str, *arguments: object) -> None:
        if callable(method := getattr(self._own, name, None)):
            self._call(method, *arguments)

    def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Return function(*arguments).

        Raises:
            OwnFailedError: It raised something, or has not returned in time.
        """
        try:
            with _preserving_process():
                if self._thread is None:
                    return function(*arguments)
                with redirect_stdout(sys.stderr):
                    return self._thread.call(lambda: function(*arguments))
        except (Exception, SystemExit) as error:
            raise OwnFailedError(_describe(error)) from error


class _Thread:
    """A thread that makes one call after another while the caller waits, up to PATIENCE."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._waiting = False
        threading.Thread(target=self._work, daemon=True).start()

    def call(self, function: Callable[[], Any]) -> Any:
        """Return what the function returns, or raise as an Exception what it raises."""
        if self._waiting:  # Ctrl-C came during the last call, which may still go on
            raise TimeoutError("it is still busy")
        self._waiting = True
        self._calls.put(function)
        try:
            value, error = self._answers.get(timeout=PATIENCE)
        except Empty:
            raise TimeoutError(f"it has not returned after {PATIENCE:g} s") from None
        self._waiting = False
        if isinstance(error, Exception | SystemExit) or error is None:
            if error is not None:
                raise error
            return value
        raise RuntimeError(_describe(error)) from error  # nobody typed Ctrl-C in this thread

    def _work(self) -> None:
        while True:
            function = self._calls.get()
            try:
                self._answers.put((function(), None))
            except BaseException as error:
                self._answers.put((None, error))


@contextmanager
def _preserving_process() -> Iterator[None]:
    """Put back at the end what the block changed of the settings and random states of the process.

    What a run computes may draw from them: dropout, and the attacks of others.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    before = random.getstate(), np.random.get_state()  # noqa: NPY002  (others may draw from it)
    try:
        with preserving_settings(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002


def _describe(error: BaseException) -> str:
    """Return an error in one line, with the place in the code that raised it."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # an error of others may fail to say what it is
        text = ""
    if isinstance(error, TimeoutError):
        return text
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{f': {text}' if text else ''}{place}"
