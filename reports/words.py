"""How numbers are written: percent in tables, an interval beside every mean, "n/a" for nothing."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustloss.metrics.intervals import t_interval
from robustloss.notation import NORM_NAMES as NORM_NAMES
from robustloss.notation import eps_text, interval_text

NOTHING = "n/a"

NORM_WORDS = {norm: f"{name}, pixel units" for norm, name in NORM_NAMES.items()}


@dataclass(frozen=True)
class Estimate:
    """A number over seeds, as ``summary`` of results.json has it; low and high may be missing."""

    mean: float
    low: float | None
    high: float | None
    n_seeds: int
    values: tuple[float, ...]
    interval: str | None


def over_seeds(
    values: Sequence[float], *, least: float = 0.0, most: float = 1.0
) -> Estimate | None:
    """Return the mean over seeds with a 95 % t-interval; None for no values.

    Args:
        values: One for each seed; a single one has no interval.
        least, most: What the number can be at all; the interval is cut there.
    """
    if not values:
        return None
    mean, _, low, high = t_interval(values)
    if len(values) == 1:
        return Estimate(mean, None, None, 1, tuple(values), None)
    low, high = max(least, low), min(most, high)
    return Estimate(mean, low, high, len(values), tuple(values), "t over seeds")


def over_rows(
    rows: Sequence[Mapping[str, Any]], key: str, *, ends: tuple[str, str] = ("", ""),
    interval: str | None = None, most: float = 1.0,
) -> Estimate | None:  # fmt: skip
    """Return a column over seeds; that of one seed keeps its own interval.

    Args:
        rows: One a seed; those without the number are left out.
        key: The column.
        ends: Columns of the interval of a single seed.
        interval: What that is taken over.
        most: What the number can be at most; the interval over seeds is cut there.
    """
    known = [row for row in rows if row.get(key) is not None]
    if len(known) == 1 and known[0].get(ends[0]) is not None:
        mean, low, high = (float(known[0][name]) for name in (key, *ends))
        return Estimate(mean, low, high, 1, (mean,), interval)
    return over_seeds([float(row[key]) for row in known], most=most)


def estimate(value: Estimate | None, *, unit: float = 1.0, digits: int = 3) -> str:
    """Return a mean with its interval: "0.957 [0.953, 0.961]".

    Args:
        value: None gives "n/a".
        unit: 100 shows a fraction in percent (without the sign).
        digits: Decimals; one fewer from 10 on.
    """
    if value is None:
        return NOTHING
    return interval_text(value.mean, value.low, value.high, unit=unit, digits=digits)


def in_percent(value: Estimate | None) -> str:
    """Return an error or a rate for a table: "0.66 [0.52, 0.84]", "13.4 [11.9, 15.0]"."""
    return estimate(value, unit=100.0, digits=2)


def percent(value: Estimate) -> str:
    """Return an error or a rate for a sentence: "0.39 [0.34, 0.44] %"."""
    return f"{in_percent(value)} %"


def significant(value: Estimate | None, digits: int = 3) -> str:
    """Return a mean with so many significant digits, and its interval to the same place."""
    if value is None:
        return NOTHING
    size = abs(value.mean)
    places = max(0, digits - 1 - math.floor(math.log10(size))) if size > 0 else digits - 1
    if places > 6 or size >= 1e6:
        return minus(f"{value.mean:.{digits}g}")
    text = minus(f"{value.mean:,.{places}f}")
    if value.low is None or value.high is None or value.low == value.high:
        return text  # seeds that agree exactly would claim a certainty that they do not have
    low, high = (minus(f"{end:,.{places}f}") for end in (value.low, value.high))
    return f"{text} [{low}, {high}]"


def estimate_fields(value: Estimate | None, key: str) -> dict[str, object]:
    """Return an estimate as fields of a CSV row: n_seeds, KEY (the mean), low, high, interval."""
    return {
        "n_seeds": value.n_seeds if value else 0,
        key: value.mean if value else None,
        "low": value.low if value else None,
        "high": value.high if value else None,
        "interval": value.interval if value else None,
    }


def fixed(value: float | None, digits: int = 3, unit: float = 1.0) -> str:
    """Return ``unit`` times a number with so many decimals; "n/a" for None."""
    return NOTHING if value is None else f"{unit * value:.{digits}f}"


def seed_count(found: Sequence[Estimate | None]) -> str:
    """Return over how many seeds some estimates are: "3", or "2–3" where they differ."""
    return span([value.n_seeds for value in found if value])


def short(value: float, digits: int = 3) -> str:
    """Return a length to so many significant digits: "0.0123", "12.3", but "3,820" in full."""
    return minus(f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}")


def minus(text: str) -> str:
    """Return a written number with a true minus sign."""
    return text.replace("-", "−")


def span(values: Sequence[float], digits: int = 0, unit: float = 1.0) -> str:
    """Return one number, or the lowest and the highest of several: "0.41–0.93"."""
    if not values:
        return NOTHING
    low, high = (f"{unit * v:,.{digits}f}" for v in (min(values), max(values)))
    return low if low == high else f"{low}–{high}"


def listed(names: Sequence[str]) -> str:
    """Return names as prose: "a", "a and b", "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    return ", ".join(names[:-1]) + " and " + names[-1]


def few(names: Sequence[str], most: int = 5) -> str:
    """Return names as prose; of many the first ones and how many others there are."""
    if len(names) <= most:
        return listed(names)
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} others"


def counted(count: int, name: str) -> str:
    """Return a count with the word for what is counted: "1 seed", "3 seeds"."""
    plural = f"{name}es" if name.endswith("s") else f"{name}s"
    return f"{count} {name if count == 1 else plural}"


def duration(seconds: float) -> str:
    """Return a time in the units a person would use."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def eps_name(eps: float) -> str:
    """Return the heading of a column or a panel: "eps 0.1", or "clean" at eps 0."""
    return f"eps {eps_text(eps)}" if eps else "clean"


# From a root or a home: "/a/b/", "C:\\a\\", "~/a/"; not within a word, a URL or a fraction.
_FOLDERS = re.compile(r"(?<![\w.:~/\\-])(?:~[\w.-]*|[A-Za-z]:)?[/\\](?:[^\s/\\'\"`,;()=]+[/\\])+")


def name_files(text: str) -> str:
    """Return a text with each file named without the folders above it.

    They are those of the machine that a run was made on. Where its report is read they need not
    exist, and nobody needs to know them. What begins at no root stays: `runs/mnist`, `8/255`.
    """
    return _FOLDERS.sub("", text)


def file_name(name: str) -> str:
    """Return a file, or what is taken from one, by its name alone: "heads.py:Mine"."""
    return re.split(r"[/\\]", name)[-1] or name
