"""In which order jobs begin, and when none of them can be worth beginning."""

from collections import deque
from collections.abc import Iterable, Sequence

from robustloss.cells.jobs import CellJob, Failure, remove_marks
from robustloss.spec.spec import TrialSpec

NOT_BEGUN = "not begun"  # the stage of a failure of a cell that a hopeless run leaves out


class JobQueue:
    """The jobs of a run, as they begin and end.

    They begin seed by seed: those of every loss with the first seed, then with the second. So all
    losses can be compared early. When the first of every loss fails with the same message, the
    cause is common to all, such as an attack that cannot run, and the rest is left out.

    Args:
        jobs: Cells, trials or parts of cells.

    Attributes:
        order: Numbers of the jobs, in the order in which they begin.
    """

    def __init__(self, jobs: Sequence[CellJob]) -> None:
        self.jobs = jobs
        seeds = list(dict.fromkeys(job.cell.seed for job in jobs))
        self.order = sorted(range(len(jobs)), key=lambda n: seeds.index(jobs[n].cell.seed))
        self._waiting = deque(self.order)
        self._ends: dict[int, Failure | None] = {}

    def take(self) -> int | None:
        """Return the number of the job to begin next; None where none is left."""
        if self.leave_out(self._waiting):
            self._waiting.clear()
        return self._waiting.popleft() if self._waiting else None

    def end(self, number: int, failure: Failure | None) -> None:
        """Take note of how a job ended: None, or why it failed."""
        self._ends[number] = failure

    def ends(self) -> list[Failure | None]:
        """Return how each job ended, in the order of the jobs."""
        return [self._ends[number] for number in range(len(self.jobs))]

    def leave_out(self, numbers: Iterable[int]) -> bool:
        """End jobs without computing them, if the first of every loss failed, all in one way.

        Args:
            numbers: The jobs.

        Returns:
            Whether that was so.
        """
        failures = [failure for failure in self._ends.values() if failure is not None]
        labels = {failure.label for failure in failures}
        reasons = {(failure.stage, failure.reason) for failure in failures}
        succeeded = len(failures) < len(self._ends)
        # One failure of the only loss may be bad luck of its seed, and trials differ in settings.
        trials = any(isinstance(job.cell, TrialSpec) for job in self.jobs)
        if succeeded or trials or len(failures) < 2 or len(reasons) > 1:
            return False
        if labels != {job.cell.label for job in self.jobs}:
            return False
        for number in numbers:
            job = self.jobs[number]
            remove_marks(job.folder / job.cell.folder)
            self._ends[number] = Failure(
                job.cell.loss.name,
                job.cell.label,
                job.cell.seed,
                NOT_BEGUN,
                "the first cell of every loss failed with the same message.",
            )
        return True
