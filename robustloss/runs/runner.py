"""A run: a spec becomes cells, the cells become files, the files become results and a report.

`run` checks what it was asked for and then goes through three stages: `prepare`, `compute`,
`finish`.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import robustloss
from robustloss.analysis.tables.trials import trial_rows
from robustloss.attacks.settings import using_default_settings
from robustloss.cells.jobs import CellJob, Failure, trial_stage
from robustloss.cells.transfer import run_transfers, transfer_seeds
from robustloss.data.images import Dataset
from robustloss.data.load import load_dataset
from robustloss.data.outside import load_outside
from robustloss.data.shifts import load_shifts
from robustloss.losses.feasibility import LossWarning
from robustloss.notation import one_line
from robustloss.progress import Event
from robustloss.results.cell_notes import read_trial
from robustloss.results.result_table import as_paragraphs
from robustloss.results.run import STARTED, Run, load_run
from robustloss.results.transfers import Transfer
from robustloss.runs.comparable import check_data
from robustloss.runs.errors import RunError
from robustloss.runs.executors import alone, torchrun
from robustloss.runs.executors.automatic import AUTO, choose_processes
from robustloss.runs.executors.choose import run_jobs
from robustloss.runs.executors.server import start_early
from robustloss.runs.executors.splitting import run_cells
from robustloss.runs.folder import claiming, describe_replaced
from robustloss.runs.merge import check_out, merge_runs
from robustloss.runs.preflight import check_names, find_remarks
from robustloss.runs.provenance import Start, provenance_at_start, provenance_of, write_started
from robustloss.runs.references.find import Reference, open_reference
from robustloss.runs.references.match import check_conditions, check_seeds
from robustloss.runs.settings import RunSettings, choose_device, choose_settings
from robustloss.runs.watching.audience import Audience, Watcher, gathering
from robustloss.runs.watching.first_seed import FirstSeed
from robustloss.runs.write import write_run
from robustloss.seeding import using_seed
from robustloss.spec.load import load_spec
from robustloss.spec.plugins import plugins_of
from robustloss.spec.spec import Spec
from robustloss.training import processes


@dataclass(frozen=True, repr=False)
class RunOutcome:
    """What a run left behind.

    Attributes:
        path: The run folder.
        report: The report's index.html.
        failures: One dict for each cell without numbers: loss, label, seed, stage, reason.
        exit_code: 0, or 1 when a cell failed.
        beside: The folder that has the losses of a reference too, whose report it is; or None.
        notes: What a reader must know of the two together.
    """

    path: Path
    report: Path
    failures: list[dict]
    exit_code: int
    beside: Path | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        place = self.beside or self.path
        there = (place / "results.json").is_file()
        table = load_run(place).table().as_html() if there else ""
        return table + as_paragraphs(self._lines())

    def _lines(self) -> list[str]:
        """Say what was run, which cells failed, and what to call next."""
        if not (self.path / "results.json").is_file():
            return ["Finished run, which is no longer where it was written."]
        lines = [f"Finished run in {self.path}"]
        if self.report.is_file():
            lines[0] += f", its report in {self.report}"
        for failure in self.failures:
            where = f"{failure['label']} seed {failure['seed']}"
            lines.append(f"Failed: {where} ({failure['stage']}): {failure['reason']}")
        lines.append(
            f"Next: robustloss.load_run({str(self.path)!r}) has every number, with .table() the "
            "result by loss."
        )
        return [*map(one_line, lines)]


@using_default_settings()
def run(
    spec: Spec | str | Path | dict,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    data: str | Path | None = None,
    seeds: Sequence[int] | None = None,
    executor: str = AUTO,
    reuse: str | Path | None = None,
    plugins: bool = True,
    report: bool = True,
    progress: Watcher | Sequence[Watcher] | None = None,
    log: str | Path | None = None,
    beside: str | Path | None = None,
    like: Run | None = None,
) -> RunOutcome:
    """Train, attack and report everything that a spec asks for and that is not there yet.

    Under torchrun each process calls this: they share every training, and the first does the rest.

    Args:
        spec: A Spec, or what load_spec takes.
        out: The run folder; runs/NAME by default. A run that was stopped goes on from its files.
        device: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda" or "mps".
        data: The folder with the data sets; see load_dataset.
        seeds: Training seeds instead of the spec's; seeds that the folder already has are kept.
        executor: "serial", "processes:N", "ray" or "ray:ADDRESS"; or "auto": as many processes as
            cores and cells call for, with the threads that the files of a folder have already.
        reuse: Another run folder. Where it has the very weights that a cell would be trained to
            (the same data, network, loss, training and seed), they are copied from there.
        plugins: False refuses a spec that names code of its own, before any of it is loaded.
        report: False leaves out the report, for a run that is shown together with others.
        progress: Receives every event: an object or a function that takes `Event`s, a class of such
            objects, or "module:Name" or "file.py:Name" of one; several in a list. Where one fails,
            that is said once, and the run goes on without it. Silent by default.
        log: A file FILE.jsonl, to which every event that has a name is added as a line of JSON.
        beside: A reference instead of the spec's: a name, or a file that `robustloss baseline`
            wrote. The report then stands in OUT-beside-NAME, with its losses too.
        like: A finished run that this one will be merged with: other data than it had are refused.

    Returns:
        The run folder, the report and the failed cells.

    Raises:
        SpecError: The spec, or a name in it, is wrong; nothing was computed.
        DataError: The data are absent or damaged.
        RunFolderError: The folder belongs to something else, or another run is writing to it.
        NoReferenceError: No such reference, or a damaged one.
        NotComparableError: The reference is of other data, another network, training or attacks;
            or `like` is of other data. Nothing was computed.
        PluginError: `progress` names no code, or what cannot be made.
        RunError: No such device, executor or seeds, the cluster cannot be used, or the log cannot
            be written.
        BrokenGroupError: Under torchrun, a process failed alone (LeaderStoppedError: the first one
            stopped, and raises why); a BaseException, because the others must stop too.
    """
    start = Start()
    spec = spec if isinstance(spec, Spec) else load_spec(spec)
    reference = None
    if beside is not None:
        reference = open_reference(beside)
    elif spec.reference.beside is not None:
        reference = open_reference(spec.reference.beside, spec.folder)

    def run_all() -> RunOutcome:
        settings = choose_settings(
            spec,
            out=out,
            device=device,
            data=data,
            seeds=seeds,
            executor=executor,
            reuse=reuse,
            plugins=plugins,
        )
        start_early(settings.executor, settings.device, _count_cells(settings))
        with gathering(progress, log, _count_cells(settings), _log_facts(settings)) as audience:
            dataset = prepare(settings, quiet=audience.silent)
            settings = settle_executor(settings, dataset)
            known = provenance_at_start(settings, spec, dataset, start)
            asked = Run(settings.folder, {"name": spec.name, "provenance": known})
            if like is not None:
                check_data(like, asked)
            if reference is not None:
                check_conditions(asked, reference.rows.run)
                check_seeds(asked.path, settings.seeds, reference.rows)
                check_out(_folder_beside(settings.folder, reference), [settings.folder])
            if replaced := describe_replaced(settings.folder, settings.spec):
                audience.note(replaced)
                audience.tell("warning", {"text": replaced})
            with claiming(settings.folder, settings.spec):
                write_started(settings, dataset, start)
                computed = compute(settings, dataset, audience)
                own = report and reference is None
                outcome = finish(settings, dataset, computed, start, report=own)
            if reference is not None:
                outcome = stand_beside(outcome, reference, report=report)
            told = {"status": outcome.exit_code, "failures": outcome.failures}
            audience.tell("run_finished", told)
        return outcome

    if not processes.is_launched():
        return run_all()
    chosen = choose_device(device)
    torchrun.check_shared(spec, executor, chosen)
    return torchrun.lead_or_follow(run_all, chosen)


def _count_cells(settings: RunSettings) -> int:
    """Return how many cells, trials and seeds with transfers a run has."""
    spec = settings.spec
    jobs = [settings.job(spec, cell) for cell in spec.cells(settings.seeds)]
    return len(spec.trials()) + len(jobs) + len(transfer_seeds(spec, jobs))


def _log_facts(settings: RunSettings) -> dict[str, Any]:
    """Return what a log says first of a run."""
    return {
        "name": settings.spec.name,
        "folder": str(settings.folder),
        "robustloss": robustloss.__version__,
        "seeds": list(settings.seeds),
        "device": settings.device,
        "executor": settings.executor,
    }


def prepare(settings: RunSettings, *, quiet: bool) -> Dataset:
    """Load the data, and build once whatever the spec names, so that a mistake costs no training.

    Args:
        settings: Of the run.
        quiet: Whether to fetch data without showing it.
    """
    spec, root = settings.spec, settings.data_root
    dataset = load_dataset(spec.data, near=spec.folder, root=root, quiet=quiet)
    cells = [*spec.trials(), *spec.first_trial.cells(settings.seeds)]
    if alone.spec_needs_own_process(spec):
        empty = {name: getattr(dataset, name).take(slice(0, 0)) for name in ("train", "validation")}
        small = replace(dataset, test=dataset.test.take(slice(0, 1)), held_out=None, **empty)
        arguments = (spec, cells, small)
        for text in alone.call_alone(find_remarks, *arguments, foreign=plugins_of(spec)):
            warnings.warn(text, LossWarning, stacklevel=2)
    else:
        with using_seed("names"):  # building the networks must not move the caller's random state
            check_names(spec, cells, dataset)
    load_outside(spec, dataset, root)
    for _ in load_shifts(spec, dataset, root):
        pass  # an absent or damaged folder is told before anything is trained
    return dataset


def settle_executor(settings: RunSettings, dataset: Dataset) -> RunSettings:
    """Return the settings with an executor that says how many processes compute.

    Args:
        settings: Of the run.
        dataset: As `prepare` loaded it.
    """
    if settings.executor != AUTO:
        return settings
    folders = (settings.folder, settings.reuse)
    chosen = choose_processes(settings.spec, settings.seeds, dataset, settings.device, folders)
    return replace(settings, executor=chosen)


@dataclass(frozen=True)
class Computed:
    """What a run computed beside the files of its cells.

    Attributes:
        spec: The spec with the values that its searches chose.
        trials: The rows of the searches.
        failures: Why cells have no numbers.
        transfers: What the images of each loss do to the models of the others.
        lost: Why trials and transfers have no numbers.
    """

    spec: Spec
    trials: list[dict]
    failures: list[Failure]
    transfers: list[Transfer]
    lost: list[Failure]


def compute(settings: RunSettings, dataset: Dataset, progress: Audience) -> Computed:
    """Compute the trials, then the cells with the values that these chose, then the transfers.

    Args:
        settings: Of the run.
        dataset: As `prepare` loaded it.
        progress: Receives every event.
    """
    spec, seeds, executor = settings.spec, settings.seeds, settings.executor
    trials = [settings.job(spec, trial) for trial in spec.trials()]
    progress.start(_count_cells(settings))
    try:
        lost = run_jobs(trials, dataset, executor, progress)
        spec, rows, untuned = _choose_values(settings, lost)
        cells = spec.cells(seeds)
        failures = [
            Failure(cell.loss.name, cell.label, cell.seed, "tuning", untuned[trained])
            for cell in cells
            if (trained := cell.loss.of or cell.label) in untuned
        ]
        jobs = [
            settings.job(spec, cell)
            for cell in cells
            if (cell.loss.of or cell.label) not in untuned
        ]
        watcher = FirstSeed(settings.folder, jobs, progress)
        # A network is trained before it gets another head, however many processes compute.
        networks = [job for job in jobs if not job.cell.loss.of]
        heads = [job for job in jobs if job.cell.loss.of]
        for stage in filter(None, (networks, heads)):
            failures += run_cells(stage, dataset, executor, watcher)
        transfers, without = _transfer(spec, jobs, failures, dataset, progress)
    finally:
        progress.stop()
    return Computed(spec, rows, failures, transfers, [*without, *lost])


def _transfer(
    spec: Spec,
    jobs: Sequence[CellJob],
    failures: Sequence[Failure],
    dataset: Dataset,
    progress: Audience,
) -> tuple[list[Transfer], list[Failure]]:
    """Compute the transfers as `run_transfers`; each seed alone where others' code takes part."""
    if not alone.spec_needs_own_process(spec):
        return run_transfers(spec, jobs, failures, dataset, progress)
    transfers: list[Transfer] = []
    lost: list[Failure] = []
    for seed in transfer_seeds(spec, jobs):
        own = [job for job in jobs if job.cell.seed == seed]
        arguments = (spec, own, list(failures))
        try:
            made, without = alone.call_alone(
                alone.transfer_alone, *arguments, foreign=plugins_of(spec), report=progress
            )
        except RunError as error:
            cell = own[0].cell
            made = []
            without = [Failure(cell.loss.name, cell.label, seed, "transfer", str(error))]
            told = {"seed": seed, "reason": str(error)}
            name = f"transfer seed {seed}"
            progress(Event(name, "failed", text=str(error), name="transfer_failed", values=told))
        transfers += made
        lost += without
    return transfers, lost


def _choose_values(
    settings: RunSettings, failures: Sequence[Failure]
) -> tuple[Spec, list[dict], dict[str, str]]:
    """Return the spec with the values that its trials chose, and what else they came to.

    Args:
        settings: Of the run.
        failures: Of the trials; what the others found is in their folders.

    Returns:
        The spec; the rows of the trials; and by label, why a loss has no values: none of its trials
        finished.
    """
    reasons = {(failure.label, failure.stage): failure.reason for failure in failures}
    trials = settings.spec.trials()
    contents = []
    for trial in trials:
        reason = reasons.get((trial.label, trial_stage(trial)))
        found = {"reason": reason} if reason else read_trial(settings.folder / trial.folder)
        contents.append(found or {"reason": "it left no result."})
    rows, chosen = trial_rows(trials, contents, settings.spec.tuning.choose)
    untuned = {
        row["label"]: f"no trial finished, the last because: {row['reason']}"
        for row in rows
        if row["label"] not in chosen
    }
    return settings.spec.substitute(chosen), rows, untuned


def finish(
    settings: RunSettings,
    dataset: Dataset,
    computed: Computed,
    start: Start,
    *,
    report: bool = True,
) -> RunOutcome:
    """Write results.json and the report.

    Args:
        settings: Of the run.
        dataset: Its data.
        computed: What its cells came to.
        start: When it began.
        report: Whether to make the report.
    """
    from robustloss.reports import build_report

    spec = computed.spec
    write_run(
        settings.folder,
        spec,
        spec.cells(settings.seeds),
        computed.failures,
        provenance_of(settings, spec, dataset, start),
        computed.transfers,
        computed.lost,
        computed.trials,
    )
    (settings.folder / STARTED).unlink(missing_ok=True)
    failed = [asdict(failure) for failure in (*computed.failures, *computed.lost)]
    if report:
        build_report(settings.folder)
    index = settings.folder / "report" / "index.html"
    return RunOutcome(settings.folder, index, failed, 1 if failed else 0)


def stand_beside(outcome: RunOutcome, reference: Reference, *, report: bool) -> RunOutcome:
    """Put a finished run into a folder with the losses of a reference.

    Args:
        outcome: Of the run; without any number it keeps a report of its own.
        reference: Of the same conditions.
        report: Whether to make the report.
    """
    from robustloss.reports import build_report

    if load_run(outcome.path).rows:
        beside = _folder_beside(outcome.path, reference)
        notes = merge_runs([outcome.path], beside, beside=reference).notes
        index = beside / "report" / "index.html"
        outcome = replace(outcome, report=index, beside=beside, notes=notes)
    if report:
        build_report(outcome.beside or outcome.path)
    return outcome


def _folder_beside(run: Path, reference: Reference) -> Path:
    return run.with_name(f"{run.name}-beside-{reference.name}")
