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
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from robustloss.reports.drawing.album import Album, Picture
from robustloss.reports.drawing.style import report_style
from robustloss.reports.page.contents import Drawing, leaving_gap, list_drawings
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.views import Shown
from robustloss.results.run import Run

MOST = 4  # processes: each reads the records again, which more would not pay for
_START = (
    "import sys; sys.path[:] = {path!r}; from robustloss.reports.page.press import serve; serve()"
)
_READY = b"ready"


def draw_all(album: Album, numbers: Numbers, shown: Shown) -> None:
    """Draw every figure of the report into the album, in the order of the page.

    Args:
        album: Takes the pictures.
        numbers: Of the run, whose folder the other processes read too.
        shown: The models whose images are shown; takes the gaps that are found on the way.

    Warns:
        Whatever warns while a figure is drawn, wherever that is.
    """
    drawings = list_drawings(numbers, shown)
    made: dict[int, list[Picture]] = {}

    def draw(number: int) -> None:
        made[number] = _pictures(album.folder, album.dpi, drawings[number], shown.gaps)

    with report_style(), _working(numbers.run, album, len(drawings)) as (shares, workers):
        while (number := shares.take(0)) is not None:
            draw(number)
        for worker in workers:
            worker.end()
            made |= worker.made
            shown.gaps += worker.gaps
            for message in worker.warnings:
                warnings.warn(message, stacklevel=2)
        # what a process began and did not bring to its end
        for number in sorted(set(range(len(drawings))) - made.keys()):
            draw(number)
    album.pictures += [picture for number in sorted(made) for picture in made[number]]


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
def _working(run: Run, album: Album, count: int) -> Iterator[tuple[Shares, Sequence["_Worker"]]]:
    """Keep the other processes while the block runs; none where this one has one core."""
    hands = min(MOST, cores(), count) if sys.executable and count else 1
    shares = Shares(count, hands)
    workers: list[_Worker] = []
    try:
        for hand in range(1, hands):
            task = run, album.folder, album.dpi
            with suppress(OSError):  # no room for another process: its share is drawn here
                workers.append(_Worker(task, partial(shares.take, hand)))
        yield shares, workers
    finally:
        for worker in workers:  # all of it: what one still writes lies in a folder that goes
            worker.process.kill()
            worker.join()


class _Worker:
    """One process and the thread that talks to it."""

    def __init__(self, task: tuple[Run, Path, int], take: Callable[[], int | None]) -> None:
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

    def _talk(self, task: tuple[Run, Path, int]) -> None:
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
    run, folder, dpi = pickle.load(given)
    shown = Shown(run)
    drawings = list_drawings(Numbers(run, shown.classes), shown)
    _send(_READY, answers)
    with report_style(), suppress(EOFError):
        while True:
            number = pickle.load(given)
            known = len(shown.gaps)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                pictures = _pictures(folder, dpi, drawings[number], shown.gaps)
            messages = [warning.message for warning in caught]
            _send((pictures, messages, shown.gaps[known:]), answers)


def _pictures(folder: Path, dpi: int, drawing: Drawing, gaps: list[str]) -> list[Picture]:
    album = Album(folder, dpi)
    with leaving_gap("a figure", gaps):
        drawing(album)
    return album.pictures


def _send(value: Any, pipe: Any) -> None:
    pickle.dump(value, pipe)
    pipe.flush()
