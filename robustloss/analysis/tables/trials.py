"""From trials to the values that each loss keeps: by the clean validation error alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.results.schema import TABLES, Row
from robustloss.spec.spec import TrialSpec


def trial_rows(
    trials: Sequence[TrialSpec], contents: Sequence[Mapping[str, Any]]
) -> tuple[list[Row], dict[str, dict[str, Any]]]:
    """Return the rows of the trials, and the values that are chosen.

    A loss keeps the values of the trial with the least validation error; of equal ones that with
    the least validation loss, then the first.

    Args:
        trials: losses in the order of the spec, trials in order.
        contents: what trial.json holds of each, or {"reason": why there is none}.

    Returns:
        One row for each trial and eps of its FGSM, one for a trial without numbers; and by label
        the chosen values. A loss of which no trial finished is left out.
    """

    def merit(number: int) -> tuple[float, float, int]:
        content = contents[number]
        loss = content["validation_loss"]
        return content["validation_error"], math.inf if loss is None else loss, number

    finished: dict[str, list[int]] = {}
    for number, (trial, content) in enumerate(zip(trials, contents, strict=True)):
        if content.get("validation_error") is not None:
            finished.setdefault(trial.label, []).append(number)
    best = {label: min(numbers, key=merit) for label, numbers in finished.items()}
    rows = [
        dict.fromkeys(TABLES["trials"].names)
        | {
            "loss": trial.loss.name,
            "label": trial.label,
            "seed": trial.seed,
            "trial": trial.number,
            "settings": dict(trial.values),
            "chosen": number == best.get(trial.label),
            "reason": content.get("reason"),
        }
        | {name: content.get(name) for name in ("validation_error", "validation_loss", "n")}
        | attacked
        for number, (trial, content) in enumerate(zip(trials, contents, strict=True))
        for attacked in content.get("fgsm") or [{}]
    ]
    return rows, {label: dict(trials[number].values) for label, number in best.items()}
