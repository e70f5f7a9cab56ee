"""From trials to the values that each loss keeps: by the clean validation error alone."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from robustloss.results.schema import TABLES, Row
from robustloss.spec.spec import TrialSpec

_Z = NormalDist().inv_cdf(0.975)  # of a two-sided test at the 5 % level


def trial_rows(
    trials: Sequence[TrialSpec], contents: Sequence[Mapping[str, Any]], choose: str | None = None
) -> tuple[list[Row], dict[str, dict[str, Any]]]:
    """Return the rows of the trials, and the values that are chosen.

    A loss keeps the values of the trial with the least validation error; of equal ones that with
    the least validation loss, then the first. Or it keeps those of the first trial whose error is
    not shown to be larger than the least, at the 5 % level: chance then decides less among values
    that are equally good on clean images, but not under attack.

    Args:
        trials: losses in the order of the spec, trials in order.
        contents: what trial.json holds of each, or {"reason": why there is none}.
        choose: "best" or "first", as tuning.choose; None is "best".

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
    if choose == "first":
        best = {
            label: next(n for n in numbers if not _is_worse(contents[n], contents[best[label]]))
            for label, numbers in finished.items()
        }
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


def _is_worse(content: Mapping[str, Any], best: Mapping[str, Any]) -> bool:
    """Return whether a validation error is shown to be larger than the least one.

    Source: two-sided z-test of two proportions with pooled variance, at the 5 % level. Both errors
    are of the same images, but a trial keeps only its error, so the test cannot pair them.
    """
    errors, n = (content["validation_error"], best["validation_error"]), content["n"]
    pooled = sum(errors) / 2
    return errors[0] - errors[1] > _Z * math.sqrt(2 * pooled * (1 - pooled) / n)
