"""Refuse a wrong argument with its name, its value, the rule and the remedy."""

import math
from collections.abc import Iterable

from robustloss.attacks.plugins import did_you_mean


def check_number(
    name: str, value: object, *, at_least: float = 0.0, at_most: float = math.inf
) -> float:
    """Return a value as a float, if it is a finite number in a closed interval.

    Args:
        name: the argument's name as the user wrote it.
        value: what the user gave.
        at_least: smallest value allowed.
        at_most: largest value allowed.

    Raises:
        ValueError: if it is not such a number.
    """
    top = "" if math.isinf(at_most) else f" and at most {at_most:g}"
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} (={value!r}) must be a number.")
    if not at_least <= value <= at_most or math.isinf(value):
        raise ValueError(f"{name} (={value!r}) must be finite and at least {at_least:g}{top}.")
    return float(value)


def check_whole_number(name: str, value: object, *, at_least: int) -> int:
    """Return a value, if it is an int of at least `at_least`; arguments as for `check_number`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} (={value!r}) must be a whole number of at least {at_least}.")
    return value


def check_flag(name: str, value: object) -> bool:
    """Return a value, if it is true or false; arguments as for `check_number`."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} (={value!r}) must be true or false.")
    return value


def check_choice(name: str, value: object, options: Iterable[str]) -> str:
    """Return a value, if it is one of the options; arguments as for `check_number`."""
    known = list(options)
    if not isinstance(value, str) or value not in known:
        near = did_you_mean(str(value), known)
        raise ValueError(f"{name} (={value!r}) must be one of {', '.join(known)}{near}")
    return value
