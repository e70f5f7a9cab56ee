"""The figures of a report, drawn by several processes.

Most of the time of a report goes into its figures. Each process is given the results and draws its
share of them, then what is left of the others'. None reads results.json or a cell.json again: a run
that goes on meanwhile may have written others. The processes are started as a command and not
by multiprocessing, which would run the main module again: in a short script that is the very
caller of ``build_report``.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from robustloss.reports.drawing.album import Album, Picture
from robustloss.reports.drawing.style import report_style
from robustloss.reports.page.contents import Contents, Item, leaving_gap
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.run import Run

MOST = 4  # processes: each reads the records again, which more would not pay for
_START = (
    "import sys; sys.path[:] = {path!r}; from robustloss.reports.page.press import serve; serve()"
)
_READY = b"ready"


def draw_all(
    folder: Path, contents: Contents, *, dpi: int, details: bool
) -> list[tuple[Item, list[Picture]]]:
    """Draw the figures of a report, and return them with the items that they belong to.

    Args:
        folder: Where the files go.
        contents: Of the report; what cannot be drawn is a gap of its models.
        dpi: Pixels per inch.
        details: Also draw the figures under Details.

    Warns:
        Whatever warns while a figure is drawn, wherever that is.
    """
    drawings = contents.list_drawings(details=details)
    made: dict[int, list[Picture]] = {}
    gaps = contents.numbers.shown.gaps
    task = Task(contents.numbers.run, folder, dpi, details)

    with report_style(), _working(task, len(drawings)) as (shares, workers):
        while (number := shares.take(0)) is not None:
            made[number] = _pictures(task, drawings[number], gaps)
        for worker in workers:
            worker.end()
            made |= worker.made
            gaps += worker.gaps
            for message in worker.warnings:
                warnings.warn(message, stacklevel=2)
        # what a process began and did not bring to its end
        for number in sorted(set(range(len(drawings))) - made.keys()):
            made[number] = _pictures(task, drawings[number], gaps)
    return [(drawings[number], made[number]) for number in sorted(made)]


@dataclass(frozen=True)
class Task:
    """What every process draws: the figures of a run, and how."""

    run: Run  # the results, and the folder that they came from
    folder: Path  # see `draw_all`
    dpi: int
    details: bool


class Shares:
    """Which process draws which figures: neighbours stay together, as they read the same files."""

    def __init__(self, count: int, hands: int) -> None:
        bounds = [count * hand // hands for hand in range(hands + 1)]
        self._left = [deque(range(*pair)) for pair in pairwise(bounds)]
        self._lock = threading.Lock()

    def take(self, hand: int) -> int | None:
        """Return the next number of a process, or one that another would come to last."""
        with self._lock:
            if self._left[hand]:
                return self._left[hand].popleft()
            longest = max(self._left, key=len)
            return longest.pop() if longest else None


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _working(task: Task, count: int) -> Iterator[tuple[Shares, Sequence["_Worker"]]]:
    """Keep the other processes while the block runs; none where this one has one core."""
    hands = min(MOST, cores(), count) if sys.executable and count else 1
    shares = Shares(count, hands)
    workers: list[_Worker] = []
    try:
        for hand in range(1, hands):
            with suppress(OSError):  # no room for another process: its share is drawn here
                workers.append(_Worker(task, partial(shares.take, hand)))
        yield shares, workers
    finally:
        for worker in workers:  # all of it: what one still writes lies in a folder that goes
            worker.process.kill()
            worker.join()


class _Worker:
    """One process and the thread that talks to it."""

    def __init__(self, task: Task, take: Callable[[], int | None]) -> None:
        self.made: dict[int, list[Picture]] = {}
        self.warnings: list[Warning] = []
        self.gaps: list[str] = []
        self._take = take
        self._ready = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._thread = threading.Thread(target=self._talk, args=(task,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Wait for the figure that the process draws, if it has begun any."""
        if not self._ready.is_set():
            self.process.kill()
        self.join()

    def join(self) -> None:
        """Wait for the thread, which waits for the process."""
        self._thread.join()

    def _talk(self, task: Task) -> None:
        """Send the task, then one number after the other, and take the answers."""
        given, answers = self.process.stdin, self.process.stdout
        assert given is not None
        assert answers is not None
        # It was killed, or met what this process will meet when it draws the figure itself.
        with suppress(OSError, EOFError, pickle.UnpicklingError):
            _send(task, given)
            if pickle.load(answers) == _READY:
                self._ready.set()
                while (number := self._take()) is not None:
                    _send(number, given)
                    self.made[number], messages, gaps = pickle.load(answers)
                    self.warnings += messages
                    self.gaps += gaps
        self.process.kill()
        self.process.wait()
        for pipe in (given, answers):
            with suppress(OSError):
                pipe.close()


def serve() -> None:
    """Draw the figures whose numbers come in by the standard input: what another process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears Ctrl-C and ends us
    given, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what anybody prints is no answer
    task: Task = pickle.load(given)
    numbers = Numbers(task.run)
    gaps = numbers.shown.gaps
    drawings = Contents(numbers).list_drawings(details=task.details)
    _send(_READY, answers)
    with report_style(), suppress(EOFError):
        while True:
            number = pickle.load(given)
            known = len(gaps)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                pictures = _pictures(task, drawings[number], gaps)
            messages = [warning.message for warning in caught]
            _send((pictures, messages, gaps[known:]), answers)


def _pictures(task: Task, item: Item, gaps: list[str]) -> list[Picture]:
    album = Album(task.folder, task.dpi)
    with leaving_gap("a figure", gaps):
        album.add(item.make())
    return album.pictures


def _send(value: Any, pipe: Any) -> None:
    pickle.dump(value, pipe)
    pipe.flush()
