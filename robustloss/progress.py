"""What a person sees while a run computes: bars in a terminal, lines elsewhere, or nothing."""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

from robustloss.notation import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

Stage = Literal["train", "attack", "score", "done", "failed", "cached", "note"]
Clock = Callable[[], float]

ENDS = ("done", "failed", "cached")
# Where each stage begins and ends within a cell, as measured on small networks: training is most
# of it. Only the estimate of the time left depends on these.
TRAINED = 0.8
_SHARE = {"train": (0.0, TRAINED), "attack": (TRAINED, 0.95), "score": (0.95, 1.0)}
EVENTS = {
    "run_started": "name (of the spec), folder, robustloss (version), seeds, device, executor, "
    "cells (their number, with trials and seeds of transfer), log_version",
    "warning": "text",
    "cell_started": "label, seed; trial in a search, here and in all that follows. It comes "
    "again if a cell is restarted after its process was killed",
    "epoch": "label, seed, epoch, epochs, loss (its parts are classification and regulariser), "
    "train_error, validation_error, lr, seconds, and what else the learning curve has",
    "attack_started": "label, seed, attack, eps, images; once for each eps that is not there yet",
    "attack_finished": "label, seed, attack, eps, images, error, seconds (of all eps together)",
    "cell_finished": "label, seed, cached (all was there), clean_error, remark",
    "cell_failed": "label, seed, stage, reason",
    "transfer_started": "seed",
    "transfer_finished": "seed, cached",
    "transfer_failed": "seed, reason",
    "run_finished": "status (the exit status), failures (label, seed, stage and reason of what has "
    "no numbers); or reason, of a run that was ended by an error or interrupted",
}
"""What happens in a run, by name, with the values that are told of it."""
_LINE_EVERY = 30.0  # seconds between lines of a step that is still going on


@dataclass(frozen=True)
class Event:
    """Something happened in a run, mostly in one of its cells.

    Attributes:
        cell: its label and seed, such as "L-GM seed 0"; "" for the run as a whole.
        stage: the step it is in, or how it ended: done, failed, or cached (found complete). "note"
            for an event that says nothing of how far the cell is.
        done: how much of the step is done, 0 to total.
        total: the size of the step, in any unit.
        text: the numbers to show, such as "epoch 3/5 loss 0.12", or the reason of a failure.
        fraction: how much of the whole cell is done, 0 to 1, where it was counted beforehand.
        name: what happened, one of EVENTS; "" for an event that a log leaves out.
        values: the plain values that go with the name, such as label, seed, loss. Errors are
            fractions, losses are in nats.
    """

    cell: str
    stage: Stage
    done: float = 1.0
    total: float = 1.0
    text: str = ""
    fraction: float | None = None
    name: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


class Progress(Protocol):
    """Takes the events of one run, between `start` and `stop`."""

    def start(self, cells: int) -> None:
        """Take note that a run of so many cells begins."""

    def __call__(self, event: Event) -> None:
        """Take note of what happened."""

    def stop(self) -> None:
        """Take note that the run is over, finished or not."""


def show_note(progress: Progress, text: str) -> None:
    """Show a line of text beside the progress, where the one at hand has a method for that.

    Args:
        progress: Of a run.
        text: One line.
    """
    if callable(note := getattr(progress, "note", None)):
        note(text)


def choose_progress(quiet: bool) -> Progress:
    """Return bars if stderr is a terminal, lines elsewhere, silence when quiet."""
    if quiet:
        return Silent()
    from rich.console import Console

    console = Console(stderr=True)
    # a command in a cell of a notebook has a terminal that cannot move the cursor up
    in_notebook = "JPY_PARENT_PID" in os.environ
    if console.is_terminal and not console.is_dumb_terminal and not in_notebook:
        return Bars(console)
    return Lines(sys.stderr)


def duration(seconds: float) -> str:
    """Return a time as a person says it: "12 s", "3 min", "2 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class Pace:
    """How far a run is and how long the rest will take, at the pace of the cells so far.

    Cells found complete count as finished but say nothing about the pace. Trials of a search come
    first and may be shorter than the cells after them: their pace is a lower bound for the rest,
    and the cells begin a new one.
    """

    def __init__(self, cells: int, clock: Clock = time.monotonic) -> None:
        self.cells = cells
        self.finished = 0
        self.failed = 0
        self._cached = 0
        self._earlier = 0  # cells that were finished before this pace began
        self._skipped: dict[str, float] = {}  # of a cell, what was there before its pace began
        self._active: dict[str, float] = {}
        self._clock = clock
        self._began: float | None = None
        self._in_trials = False

    def take(self, event: Event) -> None:
        """Take note of one event that is no note."""
        self._count(event)
        if "trial" in event.values:
            self._in_trials = True
        elif self._in_trials and event.name:
            self._in_trials = False
            self._began = None if event.stage in ENDS else self._clock()
            self._earlier, self._skipped = self.finished - self._cached, dict(self._active)

    def _count(self, event: Event) -> None:
        if event.stage in ENDS:
            self._active.pop(event.cell, None)
            self.finished += 1
            self.failed += event.stage == "failed"
            if event.stage == "cached":
                self._cached += 1
                self._skipped.pop(event.cell, None)
                if self._work <= 0:  # the time so far went into reading what was there
                    self._began = None
            return
        if self._began is None:
            self._began = self._clock()
        if event.fraction is None:
            low, high = _SHARE[event.stage]
            self._active[event.cell] = low + (high - low) * event.done / max(event.total, 1e-9)
            return
        if event.cell not in self._active:
            self._skipped[event.cell] = event.fraction
        self._active[event.cell] = event.fraction

    @property
    def fraction(self) -> float:
        """Share of the run that is done, 0 to 1."""
        return (self.finished + self._partial) / max(self.cells, 1)

    @property
    def _partial(self) -> float:
        """How many cells those under way come to."""
        return sum(self._active.values())

    @property
    def _work(self) -> float:
        """How many cells the work comes to that was done at this pace."""
        done = self.finished - self._cached - self._earlier + self._partial
        return done - sum(self._skipped.values())

    def left(self) -> str:
        """Return the estimated time to the end, as "3 min left"; "" while nothing is known."""
        work = self._work
        if self._began is None or work < 0.01:
            return ""
        rest = self.cells - self.finished - self._partial
        least = "at least " if self._in_trials else ""
        return f"{least}{duration((self._clock() - self._began) * rest / work)} left"


class Silent:
    """Shows nothing."""

    def start(self, cells: int) -> None:
        """Show nothing."""

    def __call__(self, event: Event) -> None:
        """Show nothing."""

    def stop(self) -> None:
        """Show nothing."""


class Lines:
    """One line per finished step, and one now and then within a long step. For logs."""

    def __init__(self, stream: TextIO | None = None, clock: Clock = time.monotonic) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._last = clock()
        self._pace = Pace(0, clock)

    def start(self, cells: int) -> None:
        """Print how many cells there are."""
        self._pace = Pace(cells, self._clock)
        self._print(f"{cells} cell{'' if cells == 1 else 's'}")

    def note(self, text: str) -> None:
        """Print a line."""
        self._print(text)

    def __call__(self, event: Event) -> None:
        """Print a line if a step or a cell ended, or if there was none for a while."""
        if event.stage == "note":
            return
        self._pace.take(event)
        ended = event.stage in ENDS
        finished_step = event.done >= event.total and event.stage != "score"
        if not (ended or finished_step or self._clock() - self._last > _LINE_EVERY):
            return
        head = f"[{self._pace.finished}/{self._pace.cells}] {event.cell}: {event.stage}"
        left = self._pace.left() if self._pace.finished < self._pace.cells else ""
        parts = [head, event.text, f"({left})" if left else ""]
        self._print("  ".join(part for part in parts if part))

    def stop(self) -> None:
        """Print nothing: the last cell has had its line."""

    def _print(self, line: str) -> None:
        self._last = self._clock()
        print(printable(line), file=self._stream, flush=True)


@dataclass
class _Step:
    """The bar of a cell: which step it shows, since when."""

    task: "TaskID"
    stage: str
    began: float


class Bars:
    """One bar over all cells, and one for the current step of each cell that is computed."""

    def __init__(self, console: "Console", clock: Clock = time.monotonic) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column

        self._clock = clock
        self._pace = Pace(0, clock)
        self._steps: dict[str, _Step] = {}
        self._overall: TaskID | None = None
        self._bars = RichProgress(
            # Labels may hold square brackets, so no markup. The text of changing length comes
            # last, so that the bars stay where they are.
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn(
                "{task.fields[left]}", markup=False, style="cyan", table_column=Column(min_width=11)
            ),
            TextColumn(
                "{task.fields[info]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            console=console,
            transient=True,
            expand=True,
        )

    def start(self, cells: int) -> None:
        """Show the bar over all cells."""
        self._pace = Pace(cells, self._clock)
        self._overall = self._bars.add_task("cells", total=1.0, info=f"0/{cells}", left="")
        self._bars.start()

    def note(self, text: str) -> None:
        """Leave a line above the bars."""
        text = printable(text)
        self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __call__(self, event: Event) -> None:
        """Move the bars; a failure, or an end with a remark, also leaves a line above them."""
        if event.stage == "note":
            return
        self._pace.take(event)
        if event.stage in ENDS:
            if step := self._steps.pop(event.cell, None):
                self._bars.remove_task(step.task)
            if event.stage == "failed" or event.text:
                text = printable(f"{event.cell} {event.stage}: {event.text}")
                style = "red" if event.stage == "failed" else None
                self._bars.console.print(text, style=style, markup=False, highlight=False)
        else:
            step = self._steps.get(event.cell)
            if step is None:
                task = self._bars.add_task("", total=event.total, info="", left="")
                step = self._steps[event.cell] = _Step(task, "", 0.0)
            if step.stage != event.stage:
                step.stage, step.began = event.stage, self._clock()
            elapsed, rest = self._clock() - step.began, event.total - event.done
            known = min(event.done, rest) > 0
            self._bars.update(
                step.task,
                description=printable(f"{event.cell} {event.stage}"),
                total=event.total,
                completed=event.done,
                info=printable(event.text),
                left=f"{duration(elapsed * rest / event.done)} left" if known else "",
            )
        if self._overall is not None:
            failed = f", {self._pace.failed} failed" if self._pace.failed else ""
            info = f"{self._pace.finished}/{self._pace.cells}{failed}"
            self._bars.update(
                self._overall, completed=self._pace.fraction, info=info, left=self._pace.left()
            )

    def stop(self) -> None:
        """Take the bars off the screen."""
        self._bars.stop()
