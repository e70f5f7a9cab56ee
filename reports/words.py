"""How numbers are written: percent in tables, an interval beside every mean, "n/a" for nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from robustloss.metrics.intervals import t_interval

NOTHING = "n/a"

NORM_WORDS = {"linf": "L∞, pixel units", "l2": "L2, pixel units"}
NORM_NAMES = {"linf": "L∞", "l2": "L2"}


@dataclass(frozen=True)
class Estimate:
    """A number over seeds, as ``summary`` of results.json has it; low and high may be missing."""

    mean: float
    low: float | None
    high: float | None
    n_seeds: int
    values: tuple[float, ...]
    interval: str | None

    def overlaps(self, other: "Estimate") -> bool | None:
        """Whether the intervals share a point; None where one of them is missing."""
        if None in (self.low, self.high, other.low, other.high):
            return None
        return bool(self.low <= other.high and other.low <= self.high)  # type: ignore[operator]


def estimate(value: Estimate | None, *, unit: float = 1.0, digits: int = 3) -> str:
    """A mean with its interval: "0.957 ± 0.004", or "[low, high]" when that is not symmetric.

    Args:
        value: None gives "n/a".
        unit: 100 shows a fraction in percent (without the sign).
        digits: Decimals.
    """
    if value is None:
        return NOTHING
    mean = f"{unit * value.mean:.{digits}f}"
    if value.low is None or value.high is None:
        return mean
    if value.interval == "t over seeds":
        return f"{mean} ± {unit * (value.high - value.low) / 2:.{digits}f}"
    return f"{mean} [{unit * value.low:.{digits}f}, {unit * value.high:.{digits}f}]"


def estimate_fields(value: Estimate | None, key: str) -> dict[str, object]:
    """Return an estimate as fields of a CSV row: n_seeds, KEY (the mean), low, high, interval."""
    return {
        "n_seeds": value.n_seeds if value else 0,
        key: value.mean if value else None,
        "low": value.low if value else None,
        "high": value.high if value else None,
        "interval": value.interval if value else None,
    }


def short(value: float, digits: int = 3) -> str:
    """A length to so many significant digits: "0.0123", "12.3", and "3,820", not "3.82e+03"."""
    if abs(value) >= 10**digits:
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:.{digits}g}".replace("-", "−")


def percent(value: Estimate | None, digits: int = 2) -> str:
    """An error or a rate for a sentence: "0.39 ± 0.05 %"."""
    text = estimate(value, unit=100.0, digits=digits)
    return text if value is None else f"{text} %"


def number(value: float | None, digits: int = 3) -> str:
    """A plain number, "n/a" when there is none."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def span(values: list[float], digits: int = 0, unit: float = 1.0) -> str:
    """One number, or the lowest and the highest of several."""
    if not values:
        return NOTHING
    low, high = (f"{unit * v:,.{digits}f}" for v in (min(values), max(values)))
    return low if low == high else f"{low}–{high}"


def listed(names: list[str]) -> str:
    """Names as prose: "a", "a and b", "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    return ", ".join(names[:-1]) + " and " + names[-1]


def few(names: list[str], most: int = 5) -> str:
    """Names as prose; of many the first ones and how many there are beside them."""
    if len(names) <= most:
        return listed(names)
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} others"


def duration(seconds: float | None) -> str:
    """Seconds in the units a person would use."""
    if seconds is None:
        return NOTHING
    if seconds < 90:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def significant(value: Estimate | None, digits: int = 3) -> str:
    """A mean with three digits that count, and its half interval to the same place."""
    if value is None:
        return "n/a"
    size = abs(value.mean)
    places = max(0, digits - 1 - math.floor(math.log10(size))) if size > 0 else digits - 1
    if places > 6 or size >= 1e6:
        return f"{value.mean:.{digits}g}".replace("-", "−")
    text = f"{value.mean:,.{places}f}".replace("-", "−")
    if value.low is None or value.high is None or value.low == value.high:
        return text  # seeds that agree exactly would claim a certainty that they do not have
    return f"{text} ± {(value.high - value.low) / 2:,.{places}f}"


def over_seeds(
    values: Sequence[float], *, least: float = 0.0, most: float = 1.0
) -> Estimate | None:
    """A mean over seeds with a t-interval cut to what the number can be; None of nothing."""
    if not values:
        return None
    mean, _, low, high = t_interval(values)
    if len(values) == 1:
        return Estimate(mean, None, None, 1, tuple(values), None)
    low, high = max(least, low), min(most, high)
    return Estimate(mean, low, high, len(values), tuple(values), "t over seeds")


def eps_name(eps: float) -> str:
    """Return the heading of a column or a panel: "eps 0.1", or "clean" at eps 0."""
    return f"eps {eps:.4g}" if eps else "clean"
