"""Cells of which several workers attack some images each: prepared, computed in parts, joined."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from robustloss.cells.jobs import CellJob, Failure, Part, cell_name
from robustloss.cells.parts import part_path, ranges, read_plan
from robustloss.data.images import Dataset
from robustloss.progress import ENDS, Event
from robustloss.runs.executors.choose import run_jobs

Report = Callable[[Event], None]


def run_cells(
    jobs: Sequence[CellJob], dataset: Dataset, executor: str, report: Report
) -> list[Failure]:
    """Computes the cells and returns the failures, one of a cell, in the order of the jobs.

    Where the spec splits them (resources.split) and there are workers, every cell is first trained,
    then the parts of all are computed, then each cell finds its parts and ends as it always does.
    In one process there is nothing to share out: there a cell computes its parts by itself.

    Args:
        jobs: Cells of one run.
        dataset: Its data.
        executor: See `run_jobs`.
        report: Called with events of the cells; each ends once.
    """
    if not jobs or jobs[0].spec.resources.split is None or executor == "serial":
        return run_jobs(jobs, dataset, executor, report)
    failed: dict[tuple[str, int], Failure] = {}

    def run(pieces: Sequence[CellJob], told: Report) -> None:
        for failure in run_jobs(pieces, dataset, executor, told):
            failed.setdefault((failure.label, failure.seed), failure)

    def left() -> list[CellJob]:
        return [job for job in jobs if (job.cell.label, job.cell.seed) not in failed]

    fresh: set[str] = set()
    run([replace(job, task="preparation") for job in jobs], _unended(report, fresh))
    parts = [part for job in left() for part in missing_parts(job, dataset.test.n)]
    fresh |= {cell_name(part.cell) for part in parts}
    run(parts, _counted(report, Counter(cell_name(part.cell) for part in parts)))
    run(left(), _ended(report, fresh))
    places = [(job.cell.label, job.cell.seed) for job in jobs]
    return [failed[place] for place in places if place in failed]


def missing_parts(job: CellJob, images: int) -> list[CellJob]:
    """Returns the parts of a prepared cell whose files are not there, nor the whole records.

    Args:
        job: Of the cell; its spec says how many images a part has.
        images: In the test set.
    """
    split = job.spec.resources.split
    assert split is not None
    folder = job.folder / job.cell.folder
    plan = read_plan(folder)
    found = []
    for number, attack in enumerate(job.spec.attacks):
        records = [(eps, folder / name) for eps, name in plan.get(attack.slug, {}).items()]
        absent = [(eps, path) for eps, path in records if not path.exists()]
        for start, stop in ranges(images, split):
            asked = [eps for eps, path in absent if not part_path(path, start, stop).exists()]
            if asked:
                found.append(replace(job, task=Part(number, tuple(asked), start, stop)))
    return found


def _unended(report: Report, fresh: set[str]) -> Report:
    """Returns what passes events on, but for the good end of jobs after which others come.

    Args:
        report: Is told.
        fresh: Takes the names of the cells for which something was computed.
    """

    def told(event: Event) -> None:
        if event.stage not in ("done", "cached"):
            report(event)
        elif event.stage == "done":
            fresh.add(event.cell)

    return told


def _ended(report: Report, fresh: Collection[str]) -> Report:
    """Returns what passes events on; a cell for which something was computed before is done."""

    def told(event: Event) -> None:
        if event.stage == "cached" and event.cell in fresh:
            event = replace(event, stage="done")
        report(event)

    return told


def _counted(report: Report, parts: Mapping[str, int]) -> Report:
    """Returns what tells how many parts of a cell are there, and once that one failed.

    Args:
        report: Is told.
        parts: How many there will be, by name of the cell.
    """
    ended: Counter[str] = Counter()
    failed: set[str] = set()

    def told(event: Event) -> None:
        name = event.cell
        if name in failed:
            return
        if event.stage == "failed":
            failed.add(name)
            report(event)
            return
        ended[name] += event.stage in ENDS
        done, total = ended[name], parts[name]
        text = f"{done} of {total} parts  {event.text}".strip()
        report(Event(name, "attack", done, total, text))

    return told
