"""Outcomes of attacks made by hand, for tests of what compares them."""

import numpy as np

from robustloss.analysis.outcomes import Outcome
from robustloss.spec.attack_kinds import attack_kind
from robustloss.spec.detection import LIKELIHOOD

CELL = {"loss": "lgm", "label": "L-GM", "seed": 3}


def made(
    attack="none", eps=0.0, wrong=(), *, label=None, norm="linf", radius=None, scores=None, **shares
):
    """An Outcome; the clean pass by default. An adaptive attack aims at the likelihood."""
    aim = LIKELIHOOD if attack_kind(attack) == "adaptive" else None
    return Outcome(
        attack=attack,
        attack_label=label or attack,
        norm=None if attack == "none" else norm,
        eps=eps,
        wrong=np.asarray(wrong, bool),
        radius=None if radius is None else np.asarray(radius, np.float32),
        scores={name: np.asarray(values, float) for name, values in (scores or {}).items()},
        **{"zero_gradient_fraction": 0.005, "outside_fraction": 0.0, "aim": aim, **shares},
    )


def first(count: int, n: int = 200) -> np.ndarray:
    """(n,) bool, the first `count` images."""
    return np.arange(n) < count
