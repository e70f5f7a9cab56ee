"""One cell, a (loss, seed), computed into its folder: weights, records, numbers, done mark.

Every file carries in its name a hash of exactly what decides its content, see `keys`, and inside it
a digest of that content. What is there and whole is used; what is missing, stale or damaged is
computed.
"""

import multiprocessing
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from robustloss.analysis.tables import of_cell
from robustloss.analysis.tables.classes import crop_rows
from robustloss.analysis.tables.shifts import shift_rows
from robustloss.attacks.patches import find_replaced, list_functions
from robustloss.attacks.settings import preserving_settings, reset_settings
from robustloss.cells import measures, records
from robustloss.cells.jobs import (
    CellJob,
    Failure,
    Part,
    cell_name,
    cell_values,
    failed_event,
    remove_marks,
    trial_stage,
)
from robustloss.cells.time_limit import time_limit
from robustloss.cells.trial import run_trial
from robustloss.cells.workplace import Report, Workplace, open_workplace
from robustloss.data.images import Dataset
from robustloss.progress import Event, Stage
from robustloss.results import finished_cell
from robustloss.seeding import using_repeatable_kernels
from robustloss.spec.plugins import describe_plugins, plugins_of_cell
from robustloss.spec.spec import TrialSpec
from robustloss.storage import explain_disk_full, is_disk_full, write_json
from robustloss.training import log
from robustloss.training.processes import BrokenGroupError

Enter = Callable[[str], None]  # notes the stage that begins, for the reason of a failure


def run_cell(job: CellJob, dataset: Dataset, report: Report) -> Failure | None:
    """Compute a cell, or the part of one that the job names, into the cell's folder.

    Args:
        job: What to compute.
        dataset: The job's data.
        report: Called with an Event as the work goes on, and once at its end.

    Returns:
        None, or why the cell failed: an error is returned, not raised.
    """
    place, name = open_workplace(job, dataset, report), cell_name(job.cell)
    place.report_note("cell_started")
    stages: list[str] = []
    try:
        with (
            time_limit(job.spec.resources.minutes),
            # What does not name a GPU means the current one.
            torch.cuda.device(place.device) if place.device.type == "cuda" else nullcontext(),
            using_repeatable_kernels(),
            preserving_settings(),
            torch.inference_mode(False),
        ):
            clean_error = _compute(place, _make_enter(place, stages))
    except BaseException as error:  # a plug-in may call exit(), or raise anything
        if stops_run(error, plugins_of_cell(job.spec, job.cell)):
            raise
        reason = explain_error(error)
        remove_marks(place.folder)
        stage = stages[-1] if stages else "build"
        report(failed_event(job.cell, stage, reason))
        return Failure(job.cell.loss.name, job.cell.label, job.cell.seed, stage, reason)
    end: Stage = "done" if place.weights.fresh else "cached"
    told = {"cached": end == "cached", "clean_error": clean_error, "remark": place.weights.remark}
    told = cell_values(job.cell) | told
    report(Event(name, end, 1, 1, place.weights.remark, name="cell_finished", values=told))
    return None


def _make_enter(place: Workplace, stages: list[str]) -> Enter:
    """Return what notes the stage that begins, and lets nothing of others' code go on into it."""
    threads, foreign = torch.get_num_threads(), plugins_of_cell(place.spec, place.cell)
    before = list_functions() if foreign else None

    def enter(stage: str) -> None:
        stages.append(stage)
        reset_settings()
        torch.set_num_threads(threads)
        if before is not None and (replaced := find_replaced(before)):
            raise ValueError(
                f"code of others ({describe_plugins(foreign)}) replaced {', '.join(replaced[:3])}, "
                "on which all numbers rest; call functions of its own instead."
            )

    return enter


def _compute(place: Workplace, enter: Enter) -> float | None:
    """Do what the job asks for; return the clean error of a whole cell, a fraction."""
    enter("build")
    if isinstance(place.job.task, Part):
        _compute_part(place, place.job.task, enter)
    elif place.job.task == "preparation":
        _prepare_parts(place, enter)
    elif isinstance(place.cell, TrialSpec):
        enter(trial_stage(place.cell))
        run_trial(place)
    else:
        return _compute_cell(place, enter)
    return None


def _compute_cell(place: Workplace, enter: Enter) -> float:
    """Compute what is missing of a cell and write cell.json, the mark that it is done.

    Returns:
        The clean error.
    """
    _train(place, enter)
    enter("score")
    reference = measures.ensure_reference(place)
    enter("attack")
    probe = measures.ensure_probe(place, reference.content)
    crops = measures.ensure_crops(place)
    tested = records.ensure_attacked(place, reference.content)
    noise = records.ensure_noise(place, tested)
    outside = records.ensure_outside(place)
    shifted = records.ensure_shifts(place)
    enter("score")
    scores = measures.ensure_scores(place, reference, tested, noise, outside, shifted)
    files = {
        "model": place.weights.path.name,
        "training": "train.json",
        "reference": reference.file,
        "scores": scores.file,
        "records": tested.entries,
        **({"outside": outside.entries} if outside.entries else {}),
        **({"shifts": shifted.entries} if shifted.entries else {}),
        **({"probe": probe.file} if probe else {}),
        **({"crops": crops.file} if crops else {}),
        **({"worst": list(tested.worst)} if tested.worst else {}),
    }
    content = _describe(place, files)
    content |= of_cell.cell_numbers(
        tested.records,
        reference.content,
        content,
        place.spec.detection.scores,
        probe.content if probe else None,
        stored=scores.content,
        temperature=place.spec.detection.temperature,
        training=log.find_chosen_line(place.weights.meta["log"]),
    )
    if crops:
        clean = tested.records["none", 0.0]
        content["crops"] = crop_rows(content, clean, crops.content["rank_10"])
    if shifted.entries:
        content["shifts"] = shift_rows(content, shifted.records, scores.content)
    # Last, because it says that all files it names are there; then the checkpoint has served.
    write_json(place.folder / "cell.json", content, checked=True)
    place.weights.checkpoint.unlink(missing_ok=True)
    return next(row["error"] for row in content["rows"] if row["attack"] == "none")


def _describe(place: Workplace, files: Mapping[str, Any]) -> dict[str, Any]:
    """Return what cell.json says of the cell, apart from its numbers.

    Args:
        place: The cell's.
        files: The names of the cell's files by kind.
    """
    cell, weights = place.cell, place.weights
    training = {"given": True} if cell.loss.given else {"batch_size": cell.train.batch_size}
    return {
        "schema_version": finished_cell.SCHEMA_VERSION,
        "loss": cell.loss.name,
        "label": cell.label,
        "slug": cell.loss.slug,
        "seed": cell.seed,
        "key": weights.key,
        "num_classes": place.dataset.num_classes,
        "feature_dim": weights.meta.get("feature_dim", cell.model.feature_dim),
        **training,
        "density": place.density,
        "weights": weights.meta["tensors"],
        "build": weights.network,
        "files": files,
        "digests": finished_cell.digest_files(place.folder, files),
    }


def _prepare_parts(place: Workplace, enter: Enter) -> None:
    """Compute what the parts of a cell need, and write which records they will be parts of."""
    _train(place, enter)
    place.weights.checkpoint.unlink(missing_ok=True)
    enter("score")
    measures.ensure_reference(place)
    records.ensure_clean(place)
    enter("attack")
    records.plan_parts(place)


def _compute_part(place: Workplace, part: Part, enter: Enter) -> None:
    """Compute a part of a cell. Without trained weights do nothing: the cell will compute it."""
    enter("attack")
    if place.weights.find():
        reference = measures.ensure_reference(place)
        clean = records.ensure_clean(place)[0] if 0 in part.eps else None
        records.ensure_part(place, reference.content, part, clean)


def _train(place: Workplace, enter: Enter) -> None:
    """Train the weights if they are not there."""
    # The key of a model from elsewhere takes building it. If that fails, the stage is "build".
    _ = place.weights.key
    enter("train")
    place.train()


def stops_run(error: BaseException, foreign: Mapping[str, str]) -> bool:
    """Return whether an error must end the whole run, not its cell alone.

    In a worker nobody types Ctrl-C: there a KeyboardInterrupt comes from the code of others.

    Args:
        error: Whatever ended a stage.
        foreign: The code of others that ran, by key of the spec; without any, an error that is no
            Exception comes from the caller.
    """
    if isinstance(error, Exception | SystemExit):
        return False
    if isinstance(error, KeyboardInterrupt):
        return multiprocessing.parent_process() is None
    return isinstance(error, BrokenGroupError) or not foreign


def explain_error(error: BaseException) -> str:
    """Return an error as one line, with the place in the code unless it is a message to the user.

    Args:
        error: Whatever ended a stage.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return "out of GPU memory; lower train.batch_size or attacks.batch_size."
    try:
        text = " ".join(str(error).split()) or type(error).__name__
    except Exception:  # an error of others may fail to say what it is
        return f"{type(error).__name__}, whose text cannot be made{_name_place(error)}"
    if isinstance(error, log.TrainingDiverged | ValueError):
        return text
    if is_disk_full(error):
        return explain_disk_full(error)
    return f"{type(error).__name__}: {text}{_name_place(error)}"


def _name_place(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f" ({Path(last.filename).name}, line {last.lineno})"
