"""A run: a spec becomes cells, the cells become files, the files become results and a report."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from robustloss.analysis.tables.trials import trial_rows
from robustloss.cells.jobs import CellJob, Failure, trial_stage
from robustloss.cells.transfer import run_transfers, transfer_seeds
from robustloss.cells.trial import read_trial
from robustloss.data.load import load_dataset
from robustloss.data.outside import load_outside
from robustloss.progress import Progress, Silent
from robustloss.runs.executors.choose import cell_threads, check_executor, run_jobs
from robustloss.runs.executors.splitting import run_cells
from robustloss.runs.executors.torchrun import check_shared, follow
from robustloss.runs.folder import RunFolderError, check_folder, claimed, wanted_seeds
from robustloss.runs.preflight import check_names
from robustloss.runs.provenance import attack_cost, provenance_of
from robustloss.runs.write import write_run
from robustloss.seeding import using_seed
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from robustloss.spec.plugins import listed, plugins_of
from robustloss.spec.spec import CellSpec, Spec, TrialSpec
from robustloss.training import processes
from robustloss.training.processes import LeaderStoppedError

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class RunOutcome:
    """What a run left behind.

    Attributes:
        path: The run folder.
        report: The report's index.html.
        failures: One dict for each cell without numbers: loss, label, seed, stage, reason.
        exit_code: 0, or 1 when a cell failed.
    """

    path: Path
    report: Path
    failures: list[dict]
    exit_code: int


def run(
    spec: Spec | str | Path | dict,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    data: str | Path | None = None,
    seeds: Sequence[int] | None = None,
    executor: str = "serial",
    reuse: str | Path | None = None,
    plugins: bool = True,
    progress: Progress | None = None,
) -> RunOutcome:
    """Trains, attacks and reports everything that a spec asks for and that is not there yet.

    Under torchrun each process calls this; they share each training, and the first does the rest.

    Args:
        spec: A Spec, or what load_spec takes.
        out: Run folder; runs/NAME by default. A run that was stopped goes on from its files.
        device: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda" or "mps".
        data: Folder with the data sets; see load_dataset.
        seeds: Training seeds instead of the spec's; seeds that the folder already has are kept.
        executor: "serial", "processes:N", "ray" or "ray:ADDRESS".
        reuse: Another run folder; where it has the very weights that a cell would be trained to
            (the same data, network, loss, training and seed), they are copied from there.
        plugins: False refuses a spec that names code of its own, before any of it is loaded.
        progress: Told of every step; silent by default.

    Returns:
        The run folder, the report and the failed cells.

    Raises:
        SpecError: The spec, or a name in it, is wrong; nothing was computed.
        DataError: The data are absent or damaged.
        RunFolderError: The folder belongs to something else, or another run is writing to it.
        ValueError: No such device or executor, or the cluster cannot be used.
        BrokenGroupError: Under torchrun, a process failed alone (LeaderStoppedError: the first one
            stopped, and raises why); a BaseException, because the others must stop too.
    """
    if not processes.is_launched():
        return _run(spec, out, device, data, seeds, executor, reuse, plugins, progress)
    spec = spec if isinstance(spec, Spec) else load_spec(spec)
    chosen = choose_device(device)
    check_shared(spec, executor, chosen)
    with processes.joining(chosen) as group:
        if group.leads:
            try:
                outcome = _run(spec, out, device, data, seeds, executor, reuse, plugins, progress)
            except Exception:  # after anything else, such as Ctrl-C, the others may hear no order
                group.dismiss(None)
                group.close()
                raise
            group.dismiss(outcome)
        else:
            outcome = follow(group)
    if outcome is None:
        raise LeaderStoppedError("the run stopped in the first process, which says why.")
    return outcome


def _run(
    spec: Spec | str | Path | dict,
    out: str | Path | None,
    device: str,
    data: str | Path | None,
    seeds: Sequence[int] | None,
    executor: str,
    reuse: str | Path | None,
    plugins: bool,
    progress: Progress | None,
) -> RunOutcome:
    started, clock = datetime.now(UTC), time.monotonic()
    spec = spec if isinstance(spec, Spec) else load_spec(spec)
    folder = Path(out) if out is not None else Path("runs") / spec.name
    if not plugins and (named := plugins_of(spec)):
        raise SpecError(
            f"the spec names code of its own: {listed(named)}. Read it, then run it without "
            "--no-plugins."
        )
    check_executor(executor)
    chosen = choose_device(device)
    wanted = wanted_seeds(spec, folder, seeds)
    check_folder(folder, spec)
    if reuse is not None and not (Path(reuse) / "spec.toml").is_file():
        raise RunFolderError(f"reuse (={reuse}) is no run folder: it holds no spec.toml.")
    root = Path(data) if data is not None else None
    dataset = load_dataset(
        spec.data, near=spec.folder, root=root, quiet=isinstance(progress, Silent | None)
    )
    cells = spec.cells(wanted)
    trials = spec.trials()
    with using_seed("names"):  # the networks that it builds must not move the caller's random state
        check_names(spec, [*trials, *spec.tried.cells(wanted)], dataset)
    load_outside(spec, dataset, root)  # whatever is wrong with them is told before any training
    with claimed(folder, spec):
        other = None if reuse is None else Path(reuse)
        tries = [CellJob(spec, trial, folder, chosen, root, other) for trial in trials]
        jobs = [CellJob(spec, cell, folder, chosen, root, other) for cell in cells]
        progress = progress or Silent()
        progress.start(len(tries) + len(jobs) + len(transfer_seeds(spec, jobs)))
        try:
            untried = run_jobs(tries, dataset, executor, progress)
            spec, rows = _tuned(spec, folder, trials, untried)
            cells = spec.cells(wanted)
            untuned = _untuned(rows, cells)
            without = {failure.label for failure in untuned}
            jobs = [
                CellJob(spec, cell, folder, chosen, root, other)
                for cell in cells
                if cell.label not in without
            ]
            failures = [*untuned, *run_cells(jobs, dataset, executor, progress)]
            transfers, lost = run_transfers(spec, jobs, failures, dataset, progress)
        finally:
            progress.stop()
        lost = [*lost, *untried]
        failed = [asdict(failure) for failure in (*failures, *lost)]
        provenance = provenance_of(spec, dataset, chosen, wanted, started, clock)
        provenance["threads"] = cell_threads(executor, spec)
        provenance["attack_cost"] = attack_cost(folder, spec, cells)
        write_run(folder, spec, cells, failures, provenance, transfers, lost, rows)
        from robustloss.reports import build_report

        return RunOutcome(folder, build_report(folder), failed, 1 if failed else 0)


def _tuned(
    spec: Spec, folder: Path, trials: Sequence[TrialSpec], failures: Sequence[Failure]
) -> tuple[Spec, list[dict]]:
    """Returns the spec with the values that the trials chose, and the rows of the trials."""
    reasons = {(failure.label, failure.stage): failure.reason for failure in failures}
    contents = []
    for trial in trials:
        reason = reasons.get((trial.label, trial_stage(trial)))
        found = {"reason": reason} if reason else read_trial(folder / trial.folder)
        contents.append(found or {"reason": "it left no result."})
    rows, chosen = trial_rows(trials, contents)
    return spec.tuned(chosen), rows


def _untuned(rows: Sequence[Mapping[str, Any]], cells: Sequence[CellSpec]) -> list[Failure]:
    """Returns a failure for each cell of a loss of which no trial finished."""
    chosen = {row["label"] for row in rows if row["chosen"]}
    reasons = {row["label"]: row["reason"] for row in rows if row["label"] not in chosen}
    return [
        Failure(
            cell.loss.name,
            cell.label,
            cell.seed,
            "tuning",
            f"no trial finished, the last because: {reasons[cell.label]}",
        )
        for cell in cells
        if cell.label in reasons
    ]


def choose_device(name: str) -> str:
    """Returns "cpu", "cuda" or "mps".

    Raises:
        ValueError: No such device, or not on this machine.
    """
    if name not in DEVICES:
        raise ValueError(f"device (={name!r}) must be one of {', '.join(DEVICES)}.")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device (='cuda') is not available: torch sees no GPU. Use cpu or auto.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device (='mps') is not available on this machine. Use cpu or auto.")
    return name
