"""A run: a spec becomes cells, the cells become files, the files become results and a report."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from robustloss import data_parallel, results
from robustloss.comparisons import comparison_rows
from robustloss.data import load_for_spec
from robustloss.data_parallel import LeaderStoppedError
from robustloss.executors import (
    cell_threads,
    check_executor,
    check_shared,
    follow,
    run_jobs,
)
from robustloss.jobs import CellJob, Failure, trial_stage
from robustloss.outside import load_outside
from robustloss.parts import run_cells
from robustloss.plugin_names import listed, plugins_of
from robustloss.progress import Progress, Silent
from robustloss.provenance import attack_cost, provenance_of
from robustloss.ranks import rank_rows
from robustloss.run_folder import RunFolderError, check_folder, claimed, wanted_seeds
from robustloss.second_stage import run_transfers, transfer_seeds
from robustloss.seeding import seeded
from robustloss.spec import CellSpec, Spec, SpecError, TrialSpec, load_spec
from robustloss.spec_names import check_names
from robustloss.storage import read_json
from robustloss.transfer import Transfer, transfer_beats_white_box, transfer_rows
from robustloss.trials import read_trial
from robustloss.tuning import trial_rows

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
    if not data_parallel.launched():
        return _run(spec, out, device, data, seeds, executor, reuse, plugins, progress)
    spec = spec if isinstance(spec, Spec) else load_spec(spec)
    chosen = choose_device(device)
    check_shared(spec, executor, chosen)
    with data_parallel.joined(chosen) as group:
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
    dataset = load_for_spec(
        spec.data, near=spec.folder, root=root, quiet=isinstance(progress, Silent | None)
    )
    cells = spec.cells(wanted)
    trials = spec.trials()
    with seeded("names"):  # the networks that it builds must not move the caller's random state
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


def write_run(
    folder: Path,
    spec: Spec,
    cells: Sequence[CellSpec],
    failures: Sequence[Failure],
    provenance: dict,
    transfers: Sequence[Transfer] = (),
    lost: Sequence[Failure] = (),
    trials: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Assembles results.json from the finished cells.

    Args:
        folder: Of the run.
        spec: Of the run.
        cells: All of them, finished or failed.
        failures: The cells that failed.
        provenance: See provenance_of.
        transfers: What the second stage found.
        lost: Sources without transfers, trials without numbers.
        trials: Rows of the search for the losses' values.
    """
    failed = {(failure.label, failure.seed) for failure in failures}
    done = [cell for cell in cells if (cell.label, cell.seed) not in failed]
    compared = comparison_rows([results.load_cell(folder / c.folder / "cell.json") for c in done])
    contents, trainings = deque[dict[str, Any]](), []
    for cell in done:
        contents.append(read_json(folder / cell.folder / "cell.json", checked=True))
        log = read_json(folder / cell.folder / "train.json", checked=True)
        identity = {"loss": cell.loss.name, "label": cell.label, "seed": cell.seed}
        trainings.append({**{k: v for k, v in log.items() if k != "key"}, **identity})
    rows = (row for content in contents for row in content["rows"] if row["attack"] == "none")
    clean = {(row["label"], row["seed"]): row["error"] for row in rows}
    results.write_results(
        folder,
        name=spec.name,
        provenance=provenance,
        cells=(contents.popleft() for _ in done),  # handed over: of many cells they are much
        training=trainings,
        failures=[asdict(failure) for failure in (*failures, *lost)],
        transfer=transfer_rows(transfers, clean),
        comparisons=compared,
        ranks=rank_rows(compared),
        trials=trials,
        flags=transfer_beats_white_box(transfers, {loss.label: loss.name for loss in spec.losses}),
    )
