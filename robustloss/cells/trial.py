"""One trial of a search: a training, and its errors on the validation images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustloss.attacks import build_attack
from robustloss.cells import keys
from robustloss.cells.workplace import Workplace
from robustloss.evaluation import validation
from robustloss.evaluation.probes import DEFAULT_EPS
from robustloss.spec.spec import Spec, TrialSpec
from robustloss.storage import CorruptFile, read_json, write_json
from robustloss.training.log import TrainingDiverged


def run_trial(place: Workplace) -> None:
    """Compute what is missing of a trial, and write trial.json.

    It holds what `validation_numbers` returns, or the reason alone where the training diverged.

    Args:
        place: The trial's.
    """
    assert isinstance(place.cell, TrialSpec)
    weights = place.weights
    params, eps = choose_fgsm(place.spec)
    key = keys.trial_key(weights.key, params, eps)
    known = read_trial(place.folder)
    if known is not None and known.get("key") == key:
        return
    try:
        place.train()
        weights.checkpoint.unlink(missing_ok=True)
        content = validation.validation_numbers(
            weights.load(),
            place.dataset.validation.to(place.device),
            build_attack("fgsm", **params),
            eps,
            seed=place.cell.seed,
            report=place.make_reporter("attack", "FGSM on validation images,"),
        )
    except TrainingDiverged as error:  # a result of these values, no fault of the run
        content = {"reason": str(error)}
    trial = {"key": key, "trial": place.cell.number, **content}
    write_json(place.folder / "trial.json", trial, checked=True)


def read_trial(folder: Path) -> dict[str, Any] | None:
    """Return the content of a finished trial's trial.json, or None where it is not whole."""
    try:
        found = read_json(folder / "trial.json", checked=True)
    except CorruptFile:
        return None
    return found if _is_result(found) else None


def _is_result(found: Mapping[str, Any]) -> bool:
    """Return whether it is what `run_trial` writes: a run folder may come from somebody else."""
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


def choose_fgsm(spec: Spec) -> tuple[dict[str, Any], tuple[float, ...]]:
    """Return parameters and positive eps of the FGSM of trials: the spec's first one.

    Where the spec has none, it is a plain FGSM at checks.eps, or at 0.1.
    """
    for attack in spec.attacks:
        positive = tuple(eps for eps in attack.eps if eps > 0)
        if attack.name == "fgsm" and positive:
            return dict(attack.params), positive
    return {}, (spec.checks.eps or DEFAULT_EPS,)
