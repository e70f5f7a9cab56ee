"""The result of the first seed, shown while the other seeds are computed."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from robustloss.analysis.unfinished import open_seed
from robustloss.cells.jobs import CellJob, cell_name
from robustloss.progress import ENDS, Event
from robustloss.runs.watching.audience import Audience

_NO_TERMINAL = (200, 24)  # columns and lines: a log or a pipe has no edge to wrap at


class FirstSeed:
    """Passes the events of cells on, and shows the result table once when a first seed is whole.

    Nothing is shown where there is one seed only, or where all cells of the first were there
    already: then it has been shown before.

    Args:
        folder: Of the run.
        jobs: Its cells, with the first seed of the run first.
        audience: Receives the events and the table.
    """

    def __init__(self, folder: Path, jobs: Sequence[CellJob], audience: Audience) -> None:
        self.folder, self.audience = folder, audience
        self.seeds = list(dict.fromkeys(job.cell.seed for job in jobs))
        several = len(self.seeds) > 1 and not audience.silent
        first = [job.cell for job in jobs if several and job.cell.seed == self.seeds[0]]
        self._open = {cell_name(cell): folder / cell.folder / "cell.json" for cell in first}
        self._awaited: list[Path] = []  # done marks of cells that have ended with numbers
        self._fresh = False

    def __call__(self, event: Event) -> None:
        """Pass an event on; show the table if it was the last of the first seed."""
        self.audience(event)
        if not self._open and not self._awaited:
            return
        if event.stage in ENDS and event.cell in self._open:
            mark = self._open.pop(event.cell)
            if event.stage != "failed":
                self._awaited.append(mark)
            self._fresh |= event.stage == "done"
        # A node of a cluster reports an end before the cell's files are here.
        if self._open or not all(mark.exists() for mark in self._awaited):
            return
        if self._awaited and self._fresh:
            self._show()
        self._awaited = []

    def _show(self) -> None:
        table = open_seed(self.folder, self.seeds[0]).table()
        width = shutil.get_terminal_size(_NO_TERMINAL).columns
        head = (
            f"First of {len(self.seeds)} seeds: the numbers of seed {self.seeds[0]} alone. "
            "Those of all seeds follow at the end."
        )
        self.audience.note(f"\n{head}\n{table.as_text(width)}\n")
