"""How a number is written wherever a person reads it: an eps as the spec has it, an interval."""

import math
from fractions import Fraction

_MOST_PARTS = 256  # of a fraction that a person would have written


def eps_text(eps: float) -> str:
    """Return an eps as it was written: ``0.1``, ``8/255``, ``1/3``.

    Up to four digits where they give back the number exactly, else steps of 8-bit pixels, which
    are never shortened (3/255 is not 1/85), else a fraction with a small denominator. What is
    none of these is rounded to four digits.

    Args:
        eps: In the units of the attack's norm.
    """
    if not math.isfinite(eps):
        return str(eps)
    eps = float(eps)
    if eps.is_integer() and abs(eps) < 1e15:
        return f"{eps:.0f}"
    short = f"{eps:.4g}"
    if float(short) == eps:
        return short
    steps = round(255 * eps)
    if steps and abs(255 * eps - steps) <= 1e-7 * abs(steps):  # as exact as float32
        return f"{steps}/255"
    fraction = Fraction(eps).limit_denominator(_MOST_PARTS)
    return str(fraction) if float(fraction) == eps else short


def interval_text(
    mean: float, low: float | None, high: float | None, *, unit: float = 1.0, digits: int = 2
) -> str:
    """Return a mean with its interval: ``0.66 [0.52, 0.84]``, ``13.4 [11.9, 15.0]``.

    Args:
        mean: What is estimated.
        low, high: Ends of its interval; None where there is none: the mean stands alone.
        unit: 100 shows fractions in percent (without the sign).
        digits: Decimals of all three numbers; one fewer where the mean is 10 or more.
    """
    places = digits if abs(unit * mean) < 10 else max(0, digits - 1)
    first, *ends = (
        f"{unit * value:z.{places}f}".replace("-", "−")
        for value in (mean, low, high)
        if value is not None
    )
    return f"{first} [{', '.join(ends)}]" if len(ends) == 2 else first
