"""In which order jobs begin, and when none of them can be worth beginning."""

from collections.abc import Iterable, Sequence

from robustloss.cells.jobs import CellJob, Failure, remove_marks
from robustloss.spec.spec import TrialSpec

NOT_BEGUN = "not begun"  # the stage of a failure of a cell that a hopeless run leaves out


class JobQueue:
    """The jobs of a run, as they begin and end.

    They begin in their order. Once one has failed and none has succeeded, those of other losses
    come first: when the first of every loss fails with the same message, the cause is common to
    all, such as an attack that cannot run, and the rest is left out.

    Args:
        jobs: Cells, trials or parts of cells.
    """

    def __init__(self, jobs: Sequence[CellJob]) -> None:
        self.jobs = jobs
        self._waiting = list(range(len(jobs)))
        self._begun: set[str] = set()  # labels of losses
        self._ends: dict[int, Failure | None] = {}

    def take(self) -> int | None:
        """Return the number of the job to begin next; None where none is left."""
        if self.leave_out(self._waiting):
            self._waiting = []
        if not self._waiting:
            return None
        number = self._waiting[0]
        if self._ends and None not in self._ends.values():
            others = (n for n in self._waiting if self.jobs[n].cell.label not in self._begun)
            number = next(others, number)
        self._waiting.remove(number)
        self._begun.add(self.jobs[number].cell.label)
        return number

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
