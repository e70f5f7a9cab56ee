"""One trial of a search: a training, and its errors on the validation images."""

from typing import Any

from robustloss.attacks import build_attack
from robustloss.cells import keys
from robustloss.cells.workplace import Workplace
from robustloss.evaluation import validation
from robustloss.evaluation.probes import DEFAULT_EPS
from robustloss.results.cell_notes import read_trial
from robustloss.spec.spec import Spec, TrialSpec
from robustloss.storage import write_json
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


def choose_fgsm(spec: Spec) -> tuple[dict[str, Any], tuple[float, ...]]:
    """Return parameters and positive eps of the FGSM of trials: the spec's first one.

    Where the spec has none, it is a plain FGSM at checks.eps, or at 0.1.
    """
    for attack in spec.attacks:
        positive = tuple(eps for eps in attack.eps if eps > 0)
        if attack.name == "fgsm" and positive:
            return dict(attack.params), positive
    return {}, (spec.checks.eps or DEFAULT_EPS,)
