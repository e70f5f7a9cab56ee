"""One trial of a search: a training, its clean validation error, and FGSM to look at.

The test images are never touched, and FGSM is made of validation images: it shows how sensitive a
loss is to its values, and chooses nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustloss import attacks
from robustloss.cells.workplace import Workplace
from robustloss.evaluation import passes
from robustloss.evaluation.attacked import attacked_records
from robustloss.evaluation.probes import DEFAULT_EPS
from robustloss.metrics import rates
from robustloss.results.records import Record
from robustloss.spec.spec import Spec, TrialSpec
from robustloss.storage import CorruptFile, digest, read_json, write_json
from robustloss.training.log import TrainingDiverged

VERSION = 1  # raise when the same training would give another trial.json


def run_trial(place: Workplace) -> dict[str, Any]:
    """Computes what is missing of a trial, and writes trial.json.

    Args:
        place: The trial's.

    Returns:
        The content of trial.json: validation_error, a fraction; validation_loss, the mean
        cross-entropy of the logits in nats; n validation images; fgsm, a list of eps and
        fgsm_error on them. Of a training that diverged the reason alone.
    """
    cell = place.cell
    assert isinstance(cell, TrialSpec)
    key = place.weights.key
    params, eps = fgsm_of(place.spec)
    own = digest("trial", [VERSION, passes.VERSION, attacks.VERSION], key, params, list(eps))
    path = place.folder / "trial.json"
    if (known := _read(path, own)) is not None:
        return known
    place.folder.mkdir(parents=True, exist_ok=True)
    try:
        content = _measured(place, params, eps)
    except TrainingDiverged as error:  # a result of these values, no fault of the run
        content = {"reason": str(error)}
    write_json(path, {"key": own, "trial": cell.number, **content}, checked=True)
    return content


def read_trial(folder: Path) -> dict[str, Any] | None:
    """Returns what a finished trial left, None where there is nothing."""
    try:
        found = read_json(folder / "trial.json", checked=True)
    except CorruptFile:
        return None
    return found if _is_result(found) else None


def _is_result(found: Mapping[str, Any]) -> bool:
    """Whether it is what `run_trial` writes: a run folder may come from somebody else."""
    if "validation_error" not in found:
        return isinstance(found.get("reason"), str)
    fgsm = found.get("fgsm")
    numbers = [found["validation_error"]]
    if found.get("validation_loss") is not None:  # null where it is infinite
        numbers.append(found["validation_loss"])
    if not isinstance(fgsm, list) or not all(isinstance(each, dict) for each in fgsm):
        return False
    if type(found.get("n")) is not int or "validation_loss" not in found:
        return False
    numbers += [each.get(name) for each in fgsm for name in ("eps", "fgsm_error")]
    return all(type(number) in (int, float) for number in numbers)


def fgsm_of(spec: Spec) -> tuple[dict[str, Any], tuple[float, ...]]:
    """Returns parameters and positive eps of the FGSM of trials: the spec's first, or a plain one.

    Where the spec attacks with no FGSM it is at checks.eps, or 0.1.
    """
    for attack in spec.attacks:
        positive = tuple(eps for eps in attack.eps if eps > 0)
        if attack.name == "fgsm" and positive:
            return dict(attack.params), positive
    return {}, (spec.checks.eps or DEFAULT_EPS,)


def _measured(place: Workplace, params: dict[str, Any], eps: Sequence[float]) -> dict[str, Any]:
    meta = place.weights.trained(place.make_reporter("train"))
    write_json(place.folder / "train.json", {"key": place.weights.key, **meta["log"]}, checked=True)
    place.weights.checkpoint.unlink(missing_ok=True)
    model = place.weights.loaded()
    images = place.dataset.validation.to(place.device)
    clean = passes.clean_record(model, images)
    attacked = attacked_records(
        model,
        images,
        attacks.build_attack("fgsm", **params),
        eps=eps,
        seed=place.cell.seed,
        batch_size=500,
        clean=clean,
        report=place.make_reporter("attack", "FGSM on validation images,"),
    )
    return {
        "validation_error": _error(clean),
        "validation_loss": _cross_entropy(clean),
        "n": clean.n,
        "fgsm": [{"eps": e, "fgsm_error": _error(record)} for e, record in attacked.items()],
    }


def _error(record: Record) -> float:
    return float((~record.correct).mean())


def _cross_entropy(record: Record) -> float:
    log_p = rates.log_posterior(record.logits)
    return float(-np.take_along_axis(log_p, record.labels[:, None], axis=1).mean())


def _read(path: Path, key: str) -> dict[str, Any] | None:
    found = read_trial(path.parent)
    return found if found is not None and found.get("key") == key else None
