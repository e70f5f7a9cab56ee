"""Schedules of margins and weights, driven by the training's progress."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from robustloss.losses.arguments import number


def _constant(done: float) -> float:
    return 1.0


def _linear(done: float) -> float:
    return done


def _steps(done: float) -> float:
    # 1e-9: a third of the way must count as reached although 0.075 / 0.225 < 1/3 in floats.
    return 10.0 ** (math.floor(3.0 * done + 1e-9) - 3)


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": _constant,
    "linear": _linear,
    "steps": _steps,
}


def schedule_factor(schedule: str, progress: float, until: float) -> float:
    """What a scheduled value is multiplied by.

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
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress (={progress}) must lie in [0, 1]: steps done / steps in all.")
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
            number("anneal_min" if name == "minimum" else f"anneal_{name}", value)

    def at(self, progress: float) -> float:
        """lambda at a progress in [0,1].

        Raises:
            ValueError: if progress is not in [0,1].
        """
        if not 0.0 <= progress <= 1.0:
            raise ValueError(f"progress (={progress}) must lie in [0, 1]: steps done / in all.")
        decay = (1.0 + self.gamma * progress * self.steps) ** -self.power
        return max(self.minimum, self.base * decay)

    def note(self, loss: str, factor: int) -> str:
        """Start and end of lambda in one sentence, as every table must say; "" without margin."""
        if factor == 1:
            return ""
        first, last = (f"{float(f'{self.at(at):.3g}'):g}" for at in (0.0, 1.0))
        values = f"lambda {last} throughout" if first == last else f"lambda from {first} to {last}"
        return f"{loss} m {factor}: {values}"
