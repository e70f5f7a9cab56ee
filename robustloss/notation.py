"""How numbers and other people's texts are written wherever a person reads them.

An eps stands as the spec has it, an interval in one form; a label, a file's name or a message can
neither steer a terminal nor become markup.
"""

import math
import re
import unicodedata
from fractions import Fraction

NORM_NAMES = {"linf": "L∞", "l2": "L2", "l1": "L1"}
"""The norms in which eps can be measured, as tables call them."""

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
        digits: Decimals of all three numbers; one fewer, but for the last, from a mean of
            10 on.
    """
    places = digits if abs(unit * mean) < 10 else max(digits - 1, min(digits, 1))
    first, *ends = (
        f"{unit * value:z.{places}f}".replace("-", "−")
        for value in (mean, low, high)
        if value is not None
    )
    return f"{first} [{', '.join(ends)}]" if len(ends) == 2 else first


def printable(text: str) -> str:
    """Return a text as a terminal may show it: what is not visible becomes its escape in TOML.

    Labels, names of files and messages may be somebody else's. An escape sequence in them could
    clear the screen or write other words over ours, and a mark of direction turns words around.
    Line feeds and tabs stay: messages have several lines.
    """
    if text.isprintable():
        return text
    return "".join(map(_show_character, text))


def one_line(text: str) -> str:
    """Return a text as `printable` does, in one line: a name must not look like lines of ours."""
    return printable(" ".join(text.splitlines()))


def _show_character(char: str) -> str:
    # Category Zs: the spaces of other scripts, which str.isprintable counts as not printable.
    if char in "\n\t" or char.isprintable() or unicodedata.category(char) == "Zs":
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def markdown_text(text: str) -> str:
    """Escape whatever Markdown or the HTML in it would read as markup."""
    text = re.sub(r"\s+", " ", text).strip()
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|~!$])", r"\\\1", text)
