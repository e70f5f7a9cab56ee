"""What a model is worth on validation images: the numbers of a trial of a search.

The test images are never touched. FGSM shows how sensitive a loss is to its values, and chooses
nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from robustloss.attacks.base import Attack
from robustloss.data.images import ImageSet
from robustloss.evaluation import attacked
from robustloss.evaluation.passes import Report, clean_record
from robustloss.metrics import rates
from robustloss.models.classifier import AnyClassifier

VERSION = 1  # raise when the same training would give another trial.json


def validation_numbers(
    model: AnyClassifier,
    images: ImageSet,
    fgsm: Attack,
    eps: Sequence[float],
    *,
    seed: int,
    report: Report,
) -> dict[str, Any]:
    """Return the errors of a model on validation images, clean and under FGSM.

    Args:
        model: Trained, in eval mode, on the device of the images.
        images: N validation images.
        fgsm: The attack.
        eps: Its budgets, above 0.
        seed: Decides the attack's randomness.
        report: Called with (images done, images, text).

    Returns:
        validation_error, a fraction; validation_loss, the mean cross-entropy of the logits in nats;
        n, the number of images; fgsm, a list of eps and fgsm_error on them, a fraction.
    """
    clean = clean_record(model, images)
    attack_pass = attacked.AttackPass(fgsm, images, eps, seed)
    records = attacked.attacked_records(model, attack_pass, clean=clean, report=report)
    log_posterior = rates.log_posterior(clean.logits)
    true = np.take_along_axis(log_posterior, clean.labels[:, None], axis=1)
    return {
        "validation_error": float((~clean.correct).mean()),
        "validation_loss": float(-true.mean()),
        "n": clean.n,
        "fgsm": [
            {"eps": budget, "fgsm_error": float((~record.correct).mean())}
            for budget, record in records.items()
        ],
    }
