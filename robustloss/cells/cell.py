"""One cell, a (loss, seed), computed into its folder: weights, records, numbers, done mark.

Every file carries in its name a hash of exactly what decides its content, see `keys`, and inside it
a digest of that content. What is there and whole is used; what is missing, stale or damaged is
computed.
"""

import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from robustloss.analysis.tables import of_cell
from robustloss.analysis.tables.classes import crop_rows
from robustloss.cells import measures, records
from robustloss.cells.jobs import CellJob, Failure, Part, remove_marks, trial_stage
from robustloss.cells.parts import write_plan
from robustloss.cells.time_limit import time_limit
from robustloss.cells.trial import run_trial
from robustloss.cells.workplace import Report, Workplace, open_workplace
from robustloss.data.images import Dataset
from robustloss.progress import Event
from robustloss.results import finished_cell
from robustloss.seeding import using_repeatable_kernels
from robustloss.spec.spec import TrialSpec
from robustloss.storage import explain_disk_full, is_disk_full, write_json
from robustloss.training import log

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
    place = open_workplace(job, dataset, report)
    stages = ["build"]
    try:
        with (
            time_limit(job.spec.resources.minutes),
            # What does not name a GPU means the current one.
            torch.cuda.device(place.device) if place.device.type == "cuda" else nullcontext(),
            using_repeatable_kernels(),
        ):
            _compute(place, stages.append)
    except (Exception, SystemExit) as error:  # a plug-in may call exit()
        reason = reason_of(error)
        remove_marks(place.folder)
        report(Event(place.name, "failed", 0, 1, reason))
        return Failure(job.cell.loss.name, job.cell.label, job.cell.seed, stages[-1], reason)
    report(Event(place.name, "done" if place.weights.fresh else "cached", 1, 1, ""))
    return None


def _compute(place: Workplace, enter: Enter) -> None:
    """Do what the job asks for."""
    if isinstance(place.job.task, Part):
        _compute_part(place, place.job.task, enter)
    elif place.job.task == "preparation":
        _prepare_parts(place, enter)
    elif isinstance(place.cell, TrialSpec):
        enter(trial_stage(place.cell))
        run_trial(place)
    else:
        _compute_cell(place, enter)


def _compute_cell(place: Workplace, enter: Enter) -> None:
    """Compute what is missing of a cell and write cell.json, the mark that it is done."""
    meta = _train(place, enter)
    train_json = {"key": place.weights.key, **meta["log"]}
    write_json(place.folder / "train.json", train_json, checked=True)
    enter("score")
    outputs = place.outputs(meta)
    reference = measures.ensure_reference(place, outputs)
    enter("attack")
    calls = records.CellAttacks(place, outputs, reference.arrays)
    probe = measures.ensure_probe(place, outputs, reference.arrays, calls.built)
    crops = measures.ensure_crops(place, outputs)
    tested = records.ensure_attacked(place, outputs, calls)
    noise = records.ensure_noise(place, tested)
    outside = records.ensure_outside(place, outputs)
    enter("score")
    density = bool(meta["density"])
    scores, scores_file = measures.ensure_scores(
        place, reference, tested, noise, outside, density=density
    )
    files = {
        "model": place.weights.path.name,
        "training": "train.json",
        "reference": reference.file,
        "scores": scores_file,
        "records": tested.entries,
        **({"outside": outside.entries} if outside.entries else {}),
        **({"probe": probe.file} if probe else {}),
        **({"crops": crops.file} if crops else {}),
    }
    content = _describe(place, meta, files)
    content |= of_cell.cell_numbers(
        tested.records,
        reference.arrays,
        content,
        place.spec.detection.scores,
        probe.arrays if probe else None,
        stored=scores,
        temperature=place.spec.detection.temperature,
        training=log.find_chosen_line(meta["log"]),
    )
    if crops:
        clean = tested.records["none", 0.0]
        content["crops"] = crop_rows(content, clean, crops.arrays["rank_10"])
    write_json(place.folder / "cell.json", content, checked=True)
    place.weights.checkpoint.unlink(missing_ok=True)


def _describe(place: Workplace, meta: Mapping[str, Any], files: dict[str, Any]) -> dict[str, Any]:
    """Return what cell.json says of the cell, apart from its numbers.

    Args:
        place: The cell's.
        meta: The metadata of the trained weights.
        files: The names of the cell's files by kind.
    """
    cell = place.cell
    training = {"given": True} if cell.loss.given else {"batch_size": cell.train.batch_size}
    return {
        "schema_version": finished_cell.SCHEMA_VERSION,
        "loss": cell.loss.name,
        "label": cell.label,
        "slug": cell.loss.slug,
        "seed": cell.seed,
        "key": place.weights.key,
        "num_classes": place.dataset.num_classes,
        "feature_dim": meta.get("feature_dim", cell.model.feature_dim),
        **training,
        "density": bool(meta["density"]),
        "weights": meta["tensors"],
        "build": place.weights.build,
        "files": files,
    }


def _prepare_parts(place: Workplace, enter: Enter) -> None:
    """Compute what the parts of a cell need, and write which records they will be parts of."""
    meta = _train(place, enter)
    place.weights.checkpoint.unlink(missing_ok=True)
    enter("score")
    outputs = place.outputs(meta)
    reference = measures.ensure_reference(place, outputs)
    records.ensure_clean(place, outputs)
    enter("attack")
    write_plan(place.folder, records.CellAttacks(place, outputs, reference.arrays).plan())


def _compute_part(place: Workplace, part: Part, enter: Enter) -> None:
    """Compute a part of a cell. Without trained weights do nothing: the cell will compute it."""
    enter("attack")
    if (meta := place.weights.known()) is None:
        return
    outputs = place.outputs(meta)
    reference = measures.ensure_reference(place, outputs)
    clean = records.ensure_clean(place, outputs)[0] if 0 in part.eps else None
    records.CellAttacks(place, outputs, reference.arrays).ensure_part(part, clean)


def _train(place: Workplace, enter: Enter) -> dict[str, Any]:
    """Return the metadata of the trained weights."""
    place.folder.mkdir(parents=True, exist_ok=True)
    _ = place.weights.key  # of a given model it takes building: a failure is one of "build"
    enter("train")
    return place.weights.trained(place.make_reporter("train"))


def reason_of(error: BaseException) -> str:
    """Return an error as one line, with the place in the code unless it is a message to the user.

    Args:
        error: Whatever ended a stage.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return "out of GPU memory; lower train.batch_size or attacks.batch_size."
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, log.TrainingDiverged | ValueError):
        return text
    if is_disk_full(error):
        return explain_disk_full(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(last.filename).name}, line {last.lineno})"
