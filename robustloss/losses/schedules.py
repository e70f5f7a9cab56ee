"""Schedules: how a margin or a weight grows with the training's progress, in [0,1]."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from robustloss.losses.arguments import check_number

SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: done,
    # 1e-9: a third of the way must count as reached although 0.075 / 0.225 < 1/3 in floats.
    "steps": lambda done: 10.0 ** (math.floor(3.0 * done + 1e-9) - 3),
}
"""From the share of the way that is done, in [0,1], to the share of the full value."""


def schedule_factor(schedule: str, progress: float, until: float) -> float:
    """Return what a scheduled value is multiplied by.

    "constant" is always 1. "linear" grows from 0. "steps" is the growth of Wan et al.'s released
    code: 1/1000 at first, times 10 at each third of the way; its MNIST run reaches the full
    value after 4,500 of 20,000 steps, which is `until` = 0.225.

    Args:
        schedule: a key of SCHEDULES.
        progress: fraction of the training that is done, in [0,1].
        until: fraction of the training after which the full value stands, in [0,1].

    Returns:
        The factor, in [0,1].

    Raises:
        ValueError: if progress is not in [0,1].

    Source: WeitaoVan/L-GM-loss, class_distance_layer.cu and examples/mnist (STEPUP).
    """
    _check_progress(progress)
    return SCHEDULES[schedule](progress / until if progress < until else 1.0)


@dataclass(frozen=True)
class Annealing:
    """lambda = max(minimum, base · (1 + gamma · it)^−power), it = progress · steps.

    Training blends cos(theta) and psi(theta) as (lambda cos + psi) / (1 + lambda), so that the
    margin grows from almost none. `steps` is how many iterations the published run had; a run of
    any other length goes through the same lambdas.
    """

    base: float
    gamma: float
    power: float
    minimum: float
    steps: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_number("anneal_min" if name == "minimum" else f"anneal_{name}", value)

    def at(self, progress: float) -> float:
        """Return lambda at a progress in [0,1].

        Raises:
            ValueError: if progress is not in [0,1].
        """
        _check_progress(progress)
        decay = (1.0 + self.gamma * progress * self.steps) ** -self.power
        return max(self.minimum, self.base * decay)


def _check_progress(progress: float) -> None:
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress (={progress}) must lie in [0, 1]: steps done / steps in all.")
