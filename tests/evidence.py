"""What the checks of a cell look at, by default of a sound model; tests change one thing in it."""

from dataclasses import replace

import numpy as np

from robustloss.analysis.checks.catalogue import Evidence
from robustloss.analysis.checks.from_probe import PROBE_CHECKS
from robustloss.analysis.checks.from_records import RECORD_CHECKS
from tests.outcomes import CELL, first, made

N, M = 200, 100


LABELS = np.arange(N) % 10
CLEAN = first(4)  # images that are wrong without an attack


def sound_probe() -> dict:
    """A deterministic model with logits, finite gradients, and attacks that arrive."""
    rng = np.random.default_rng(0)
    labels = np.arange(M) % 10
    logits = rng.normal(size=(M, 10))
    logits[np.arange(M), labels] += 8
    steps = np.arange(1, 41)[:, None]
    return {
        "labels": labels,
        "eps": np.array(0.1),
        "logits": logits,
        "logits_again": logits.copy(),
        "gradient_zero": first(1, M),
        "gradient_not_finite": first(0, M),
        "wrong_clean": first(2, M),
        "wrong_cross_entropy": first(50, M),
        "wrong_margin": first(51, M),
        "temperatures": np.array([10.0, 100.0]),
        "wrong_rescaled": np.stack([first(49, M), first(51, M)]),
        "wrong_unbounded": first(100, M),
        # half the images are fooled; the others level off at a margin of -1
        "trace_pgd": np.where(first(50, M), 0.5, -1) - 8 * np.exp(-steps / 4),
        "trace_pgd_eps": np.array(0.1),
    }


SOUND_TRAINING = {
    "validation_error": 0.01, "validation_one_step_error": 0.2, "validation_robust_error": 0.4,
    "zero_gradient_fraction": 0.04,
}  # fmt: skip


def evidence(outcomes=None, probe=None, clean=CLEAN, **training) -> Evidence:
    """By default of a sound model: strong attacks find more, and more at a larger eps."""
    if outcomes is None:
        outcomes = [
            made("fgsm", 0.1, first(60)), made("fgsm", 0.2, first(100)),
            made("pgd", 0.1, first(100)), made("pgd", 0.2, first(180)),
            made("square", 0.1, first(70)), made("square", 0.2, first(150)),
            made("cw", 1.0, first(50), norm="l2", radius=np.where(first(150), 0.5, np.inf)),
            made("fmn", 0.1, first(90), radius=np.where(LABELS == 3, 0.9, 0.5)),
        ]  # fmt: skip
    probe = sound_probe() if probe is None else probe
    training = SOUND_TRAINING | training
    return Evidence(CELL, made(wrong=clean), outcomes, probe, training, labels=LABELS)


def fired(given: Evidence) -> dict[str, list[dict]]:
    found = [row for check in (*RECORD_CHECKS, *PROBE_CHECKS) for row in check(given)]
    return {
        name: [row for row in found if row["check"] == name] for name in {r["check"] for r in found}
    }


def claimed(unnoticed: int, alone: int) -> Evidence:
    """At eps 0.2 so many of 200 images pass the detector, at 0.1 the network errs on so many."""
    high, low = np.ones(N), -np.ones(N)
    score = "class_log_likelihood"
    passing = {score: np.where(first(unnoticed), high, low)}
    outcomes = [made("pgd", 0.1, first(alone), scores={score: low}),
                made("pgd", 0.2, first(N), scores=passing)]  # fmt: skip
    seen = evidence(outcomes)
    clean = made(wrong=first(0), scores={score: high})
    return replace(seen, clean=clean, validation_scores={score: high})


PGD = made("pgd", 0.1, first(100))


def of_outcome(**changes) -> Evidence:
    return evidence([replace(PGD, **changes)])


def of_probe(**changes) -> Evidence:
    return evidence(probe=sound_probe() | changes)


PROBABILITIES = np.full((M, 10), 0.02) + 0.8 * np.eye(10)[np.arange(M) % 10]
RISING = -8 + np.linspace(0, 4, 40)[:, None] * np.ones(M)
