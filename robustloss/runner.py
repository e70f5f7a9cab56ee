"""A run: a spec becomes cells, the cells become files, the files become results and a report."""

import os
import platform
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

import attacks
import robustloss
from attacks.plugins import PluginError
from robustloss import data_parallel, locking, models, results, score_plugins
from robustloss.adversarial import needs_logits
from robustloss.cell_weights import build_of
from robustloss.comparisons import comparison_rows
from robustloss.data import Dataset, load_for_spec
from robustloss.data_parallel import BrokenGroupError
from robustloss.executors import (
    cell_threads,
    check_executor,
    check_shared,
    follow,
    run_jobs,
)
from robustloss.jobs import CellJob, Failure
from robustloss.keys import attack_params
from robustloss.locking import FolderBusyError, held
from robustloss.losses.feasibility import LossWarning, collected
from robustloss.outside import load_outside
from robustloss.parts import run_cells
from robustloss.plugin_names import listed, plugins_of
from robustloss.precision import choose_precision
from robustloss.progress import Progress, Silent
from robustloss.ranks import rank_rows
from robustloss.ray_executor import MARK
from robustloss.results_shape import is_cost
from robustloss.second_stage import run_transfers, transfer_seeds
from robustloss.seeding import seeded
from robustloss.spec import CellSpec, Spec, SpecError, TrialSpec, load_spec
from robustloss.storage import CorruptFile, digest, read_json, remove_leftovers, write_text
from robustloss.transfer import Transfer, transfer_beats_white_box, transfer_rows
from robustloss.trials import read_trial
from robustloss.tuning import trial_rows

DEVICES = ("auto", "cpu", "cuda", "mps")


class RunFolderError(ValueError):
    """The run folder cannot be used for this run."""


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
        BrokenGroupError: Under torchrun, a process failed alone or the first one stopped; a
            BaseException, because the others must stop too.
    """
    if not data_parallel.launched():
        return _run(spec, out, device, data, seeds, executor, reuse, plugins, progress)
    spec = spec if isinstance(spec, Spec) else load_spec(spec)
    chosen = choose_device(device)
    check_shared(spec, executor, chosen)
    with data_parallel.joined(chosen) as group:
        if not group.leads:
            return _told(follow(group))
        try:
            outcome = _run(spec, out, device, data, seeds, executor, reuse, plugins, progress)
        except Exception:  # after anything else, such as Ctrl-C, the others may hear no order
            group.dismiss(None)
            raise
        group.dismiss(outcome)
        return outcome


def _told(outcome: RunOutcome | None) -> RunOutcome:
    if outcome is None:
        raise BrokenGroupError("the run stopped in the first process, which says why.")
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
    wanted = _seeds(spec, folder, seeds)
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
        from reports import build_report

        return RunOutcome(folder, build_report(folder), failed, 1 if failed else 0)


def _tuned(
    spec: Spec, folder: Path, trials: Sequence[TrialSpec], failures: Sequence[Failure]
) -> tuple[Spec, list[dict]]:
    """Returns the spec with the values that the trials chose, and the rows of the trials."""
    reasons = {(failure.label, failure.stage): failure.reason for failure in failures}
    contents = []
    for trial in trials:
        reason = reasons.get((trial.label, f"trial {trial.number}"))
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


def _seeds(spec: Spec, folder: Path, seeds: Sequence[int] | None) -> tuple[int, ...]:
    """Returns the seeds to compute: those asked for, and with them what the folder has."""
    if seeds is None:
        return spec.seeds
    if not seeds or not all(map(_is_seed, seeds)):
        raise ValueError(f"seeds (={seeds!r}) must be whole numbers from 0 to {2**32 - 1}.")
    try:
        had = read_json(folder / "results.json")["provenance"]["seeds"]
    except (CorruptFile, KeyError, TypeError):
        had = None
    if not isinstance(had, list) or not all(map(_is_seed, had)):  # damaged: the cells stay anyway
        had = []
    return tuple(sorted({*seeds, *had}))


def _is_seed(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**32


def check_folder(folder: Path, spec: Spec) -> None:
    """Refuses a folder that holds anything but an earlier state of this run."""
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder} is a file; name another folder with --out.")
    if not folder.is_dir() or all(path.name == locking.NAME for path in folder.iterdir()):
        return
    if not (folder / "spec.toml").exists():
        raise RunFolderError(
            f"{folder} is not empty and holds no spec.toml, so it is no run folder; name another "
            "with --out."
        )
    try:
        before = load_spec(folder / "spec.toml")
    except SpecError as error:
        raise RunFolderError(
            f"{folder}/spec.toml cannot be read, so the folder's run is unknown; name another "
            f"folder with --out. {error}"
        ) from error
    for what, old, new in (
        ("spec", before.name, spec.name),
        ("data set", before.data.name, spec.data.name),
        ("data folder", before.data.folder, spec.data.folder),
    ):
        if old != new:
            raise RunFolderError(
                f"{folder} belongs to {what} {old!r}, this is {what} {new!r}; name another folder "
                "with --out."
            )


@contextmanager
def claimed(folder: Path, spec: Spec) -> Iterator[None]:
    """Makes the folder this run's while the block runs."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(folder))
            remove_leftovers(folder)
            (folder / MARK).unlink(missing_ok=True)
            for unfinished in folder.glob(".report-*"):
                shutil.rmtree(unfinished, ignore_errors=True)
            write_text(folder / "spec.toml", spec.text)
        except FolderBusyError as error:
            raise RunFolderError(str(error)) from None
        except OSError as error:
            raise RunFolderError(
                f"{folder} cannot be written: {error.strerror}; name another folder with --out."
            ) from error
        yield


def check_names(spec: Spec, cells: Sequence[CellSpec], dataset: Dataset) -> None:
    """Builds every loss, backbone and attack once, so that a wrong name costs no training.

    Raises:
        SpecError: A name or a parameter that its builder refuses.

    Warns:
        LossWarning: Parameters that cannot do what they are meant to, once for each loss; the
            builds that follow are silent about it.
    """
    lines: list[str] = []
    warned: list[str] = []
    positions = {loss.label: number for number, loss in enumerate(spec.losses)}
    different = {(cell.label, digest(dict(cell.loss.params))): cell for cell in cells}
    for cell in different.values():
        where = f"losses[{positions[cell.label]}]"
        if cell.loss.given:
            lines += _given_mistakes(cell, spec, dataset, where)
            continue
        try:
            backbone = models.build_backbone(
                cell.model.backbone,
                image_shape=dataset.image_shape,
                feature_dim=cell.model.feature_dim,
                folders=(spec.folder,),
                **cell.model.params,
            )
            del backbone
        except (PluginError, ValueError) as error:
            lines.append(f"model.backbone (for {where}): {error}")
        try:
            with collected() as remarks:
                head = models.build_loss(
                    cell.loss.name,
                    feature_dim=cell.model.feature_dim,
                    num_classes=dataset.num_classes,
                    folders=(spec.folder,),
                    **cell.loss.params,
                )
            asked = cell.train.adversarial
            if asked and (problem := needs_logits(asked, head.batching)):
                lines.append(f"{where}: {problem}")
        except (PluginError, ValueError) as error:
            lines.append(f"{where}: {error}")
        warned += [f"{where}: {remark}" for remark in remarks]
    lines += _attack_mistakes(spec, dataset)
    if lines:
        raise SpecError("\n".join(dict.fromkeys(lines)))
    for text in warned:
        warnings.warn(text, LossWarning, stacklevel=3)


def check_attacks(spec: Spec, dataset: Dataset) -> None:
    """Builds every attack and score once.

    Raises:
        SpecError: A name or a parameter that its builder refuses.
    """
    if lines := _attack_mistakes(spec, dataset):
        raise SpecError("\n".join(dict.fromkeys(lines)))


def _attack_mistakes(spec: Spec, dataset: Dataset) -> list[str]:
    lines: list[str] = []
    for number, attack in enumerate(spec.attacks):
        where = f"attacks[{number}]"
        try:
            built = attacks.build_attack(attack.name, **attack_params(attack, spec.folder))
        except (PluginError, ValueError) as error:
            lines.append(f"{where}: {error}")
            continue
        if attack.eight_bit and dataset.test.scale != 255:
            lines.append(
                f"{where}.eight_bit (=true) needs images of 8 bits; the pixels of {dataset.name} "
                f"have {dataset.test.scale:g} steps. Take the key out."
            )
        if built.norm == "linf" and max(attack.eps) > 1:
            lines.append(
                f"{where}.eps (={max(attack.eps):g}) must lie in [0, 1]: pixel units, not 0–255."
            )
    for number, score in enumerate(spec.detection.scores):
        try:
            score_plugins.check([score], (spec.folder,))
        except PluginError as error:
            lines.append(f"detection.scores[{number}]: {error}")
    return lines


def _given_mistakes(cell: CellSpec, spec: Spec, dataset: Dataset, where: str) -> list[str]:
    """Returns why a model from elsewhere cannot be used: it is loaded and looked over."""
    key = f"model (={cell.loss.factory})" if cell.loss.factory else "weights"
    try:
        models.build_for(cell.loss.weights, build_of(cell, dataset), (spec.folder,))
    except ValueError as error:
        text = str(error)
        return [f"{where}.{text}" if text.startswith("weights (=") else f"{where}.{key}: {text}"]
    return []


def provenance_of(
    spec: Spec,
    dataset: Dataset,
    device: str,
    seeds: Sequence[int],
    started: datetime,
    clock: float,
) -> dict:
    """Returns where the numbers come from: versions, machine, data, spec and times.

    Args:
        spec: Of the run.
        dataset: Its data.
        device: "cpu", "cuda" or "mps".
        seeds: Training seeds.
        started: When it began.
        clock: time.monotonic() of then: a date may be set back while it runs.
    """
    precision = choose_precision(spec.train.precision, torch.device(device))
    return {
        "robustloss": robustloss.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "precision": precision,
        "data": {
            "name": dataset.name,
            "label": dataset.label or dataset.name,
            **({"summary": dataset.summary} if dataset.summary else {}),
            "checksum": dataset.checksum,
            "train": dataset.train.n,
            "validation": dataset.validation.n,
            "test": dataset.test.n,
            "class_names": list(dataset.class_names),
            "class_counts": dataset.class_counts,
            **({"converted": _some(dataset.converted)} if dataset.converted else {}),
        },
        "seeds": list(seeds),
        "command": _command(),
        "spec": spec.plain(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 1),
    }


def _some(files: Sequence[str]) -> dict:
    return {"count": len(files), "files": list(files[:10])}


def _command() -> list[str]:
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return ["python", "-m", program.parent.name, *sys.argv[1:]]
    return [program.name, *sys.argv[1:]]


def attack_cost(folder: Path, spec: Spec, cells: Sequence[CellSpec]) -> list[dict]:
    """Returns what each attack spent on each cell when it was last computed there."""
    found = []
    for cell in cells:
        for attack in spec.attacks:
            try:
                cost = read_json(folder / cell.folder / f"{attack.slug}-cost.json", checked=True)
            except CorruptFile:
                continue
            if is_cost(cost):
                found.append({**cost, "label": cell.label, "seed": cell.seed})
    return found


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
    done, trainings = [], []
    for cell in cells:
        if (cell.label, cell.seed) in failed:
            continue
        content = read_json(folder / cell.folder / "cell.json", checked=True)
        log = read_json(folder / cell.folder / "train.json", checked=True)
        identity = {"loss": cell.loss.name, "label": cell.label, "seed": cell.seed}
        done.append(content)
        trainings.append({**{k: v for k, v in log.items() if k != "key"}, **identity})
    found = [results.load_cell(folder / cell.folder / "cell.json") for cell in cells
             if (cell.label, cell.seed) not in failed]  # fmt: skip
    rows = (row for content in done for row in content["rows"] if row["attack"] == "none")
    clean = {(row["label"], row["seed"]): row["error"] for row in rows}
    compared = comparison_rows(found)
    results.write_results(
        folder,
        name=spec.name,
        provenance=provenance,
        cells=done,
        training=trainings,
        failures=[asdict(failure) for failure in (*failures, *lost)],
        transfer=transfer_rows(transfers, clean),
        comparisons=compared,
        ranks=rank_rows(compared),
        trials=trials,
        flags=transfer_beats_white_box(transfers, {loss.label: loss.name for loss in spec.losses}),
    )
