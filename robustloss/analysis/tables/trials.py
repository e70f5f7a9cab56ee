"""From trials to the values that each loss keeps: by the clean validation error alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from robustloss.results.schema import TABLES, Row
from robustloss.spec.spec import TrialSpec


def trial_rows(
    trials: Sequence[TrialSpec], contents: Sequence[Mapping[str, Any]]
) -> tuple[list[Row], dict[str, dict[str, Any]]]:
    """The rows of the trials, and the values that are chosen.

    Args:
        trials: losses in the order of the spec, trials in order.
        contents: what trial.json holds of each, or {"reason": why there is none}.

    Returns:
        One row for each trial and eps of its FGSM, one for a trial without numbers; and by label
        the chosen values. A loss of which no trial finished is left out.
    """
    best = {label: _best(trials, contents, label) for label in {t.label for t in trials}}
    rows = [
        dict.fromkeys(TABLES["trials"].names)
        | {
            "loss": trial.loss.name,
            "label": trial.label,
            "seed": trial.seed,
            "trial": trial.number,
            "settings": dict(trial.values),
            "chosen": number == best[trial.label],
            "reason": content.get("reason"),
        }
        | {name: content.get(name) for name in ("validation_error", "validation_loss", "n")}
        | attacked
        for number, (trial, content) in enumerate(zip(trials, contents, strict=True))
        for attacked in content.get("fgsm") or [{}]
    ]
    chosen = {
        label: dict(trials[number].values) for label, number in best.items() if number is not None
    }
    return rows, chosen


def _best(
    trials: Sequence[TrialSpec], contents: Sequence[Mapping[str, Any]], label: str
) -> int | None:
    """The trial of the least validation error; ties: the least validation loss, then the first."""
    known = [
        number
        for number, (trial, content) in enumerate(zip(trials, contents, strict=True))
        if trial.label == label and content.get("validation_error") is not None
    ]

    def rank(number: int) -> tuple[float, float, int]:
        content = contents[number]
        loss = content["validation_loss"]
        return content["validation_error"], math.inf if loss is None else loss, number

    return min(known, key=rank, default=None)
