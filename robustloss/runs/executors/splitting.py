"""Cells of which several workers attack some images each: prepared, attacked in parts, joined."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from robustloss.cells.jobs import CellJob, Failure, Part, cell_name
from robustloss.cells.parts import ranges, read_plan
from robustloss.data.images import Dataset
from robustloss.progress import ENDS, Event
from robustloss.runs.executors.choose import run_jobs
from robustloss.runs.executors.workers import Report


def run_cells(
    jobs: Sequence[CellJob], dataset: Dataset, executor: str, report: Report
) -> list[Failure]:
    """Compute the cells and return the failures, at most one of a cell, in the order of the jobs.

    Where the spec splits the cells (resources.split) and there are workers, there are three rounds:
    every cell is trained and prepared, then the missing parts of all are computed, then each cell
    joins its parts and ends as it always does. One process alone has nothing to share out: there a
    cell computes its parts by itself.

    Args:
        jobs: Cells of one run.
        dataset: Its data.
        executor: See check_executor.
        report: Receives the events of the cells; each cell ends once.
    """
    if not jobs or jobs[0].spec.resources.split is None or executor == "serial":
        return run_jobs(jobs, dataset, executor, report)
    failed: dict[tuple[str, int], Failure] = {}

    def run(round_jobs: Sequence[CellJob], report_round: Report) -> None:
        for failure in run_jobs(round_jobs, dataset, executor, report_round):
            failed.setdefault((failure.label, failure.seed), failure)

    def unfailed() -> list[CellJob]:
        return [job for job in jobs if (job.cell.label, job.cell.seed) not in failed]

    rounds = _Rounds(report)
    run([replace(job, task="preparation") for job in jobs], rounds.report_preparation)
    parts = [part for job in unfailed() for part in missing_parts(job, dataset.test.n)]
    rounds.expect(parts)
    run(parts, rounds.report_part)
    run(unfailed(), rounds.report_cell)
    places = [(job.cell.label, job.cell.seed) for job in jobs]
    return [failed[place] for place in places if place in failed]


def missing_parts(job: CellJob, images: int) -> list[CellJob]:
    """Return the parts of a prepared cell that are neither there nor in a whole file.

    Args:
        job: Of the cell; its spec says how many images a part has.
        images: How many the test set has.
    """
    split = job.spec.resources.split
    assert split is not None
    folder = job.folder / job.cell.folder
    plan = read_plan(folder)
    missing = []
    for number, attack in enumerate(job.spec.attacks):
        planned = plan.get(attack.slug, {})
        absent = {eps: files for eps, files in planned.items() if files.missing_files(folder)}
        for start, stop in ranges(images, split):
            asked = [
                eps for eps, files in absent.items() if files.missing_parts(folder, start, stop)
            ]
            if asked:
                missing.append(replace(job, task=Part(number, tuple(asked), start, stop)))
    return missing


class _Rounds:
    """Makes the events of three rounds look like those of cells that one worker each computes.

    Args:
        report: Receives the events; each cell ends once.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self.fresh: dict[str, str] = {}  # cells for which something was computed, with a remark
        self.expected: Counter[str] = Counter()  # parts, by cell
        self.ended: Counter[str] = Counter()  # likewise
        self.failed: set[str] = set()

    def report_preparation(self, event: Event) -> None:
        """Pass an event on, except the good end of a preparation: the cell goes on."""
        if event.stage == "done":
            self.fresh[event.cell] = event.text
        elif event.stage != "cached":
            self.report(event)

    def expect(self, parts: Sequence[CellJob]) -> None:
        """Learn which parts will be computed."""
        self.expected = Counter(cell_name(part.cell) for part in parts)
        self.fresh = dict.fromkeys(self.expected, "") | self.fresh

    def report_part(self, event: Event) -> None:
        """Report how many parts of the cell are there, and once that one failed."""
        name = event.cell
        if name in self.failed or event.stage == "note":
            return
        if event.stage == "failed":
            self.failed.add(name)
            self.report(event)
            return
        self.ended[name] += event.stage in ENDS
        done, total = self.ended[name], self.expected[name]
        text = f"{done} of {total} parts  {event.text}".strip()
        self.report(Event(name, "attack", done, total, text))

    def report_cell(self, event: Event) -> None:
        """Pass an event on; a cell for which something was computed before is done, not cached."""
        if event.name == "cell_started":
            return  # the preparation was its start
        if event.stage in ("cached", "done") and event.cell in self.fresh:
            remark = self.fresh[event.cell] or event.text
            told = {**event.values, "cached": False, "remark": remark}
            event = replace(event, stage="done", text=remark, values=told)
        self.report(event)
