"""Refuse a wrong argument with its name, its value, the rule and the remedy."""

import math
from collections.abc import Iterable

from robustloss.attacks.plugins import did_you_mean


def number(name: str, value: object, *, at_least: float = 0.0, at_most: float = math.inf) -> float:
    """Check that a value is a finite number in a closed interval.

    Args:
        name: the argument's name as the user wrote it.
        value: what the user gave.
        at_least: smallest value allowed.
        at_most: largest value allowed.

    Returns:
        The value as a float.

    Raises:
        ValueError: if it is not such a number.
    """
    top = "" if math.isinf(at_most) else f" and at most {at_most:g}"
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} (={value!r}) must be a number.")
    if not at_least <= value <= at_most or math.isinf(value):
        raise ValueError(f"{name} (={value!r}) must be finite and at least {at_least:g}{top}.")
    return float(value)


def whole_number(name: str, value: object, *, at_least: int) -> int:
    """Check that a value is an int of at least `at_least`; see `number`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name} (={value!r}) must be a whole number of at least {at_least}.")
    return value


def flag(name: str, value: object) -> bool:
    """Check that a value is true or false; see `number`."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} (={value!r}) must be true or false.")
    return value


def choice(name: str, value: object, options: Iterable[str]) -> str:
    """Check that a value is one of the options; see `number`."""
    known = list(options)
    if not isinstance(value, str) or value not in known:
        near = did_you_mean(str(value), known)
        raise ValueError(f"{name} (={value!r}) must be one of {', '.join(known)}{near}")
    return value
