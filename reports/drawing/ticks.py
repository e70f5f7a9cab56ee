"""What stands at the ticks of an axis: one function for each kind of number."""

from robustloss.reports.words import minus


def unlabelled(value: float, position: float = 0) -> str:
    """Return nothing: for the small ticks of a logarithmic axis."""
    return ""


def number(value: float, position: float = 0) -> str:
    """Return a number as short as it can be, with a true minus."""
    return minus(f"{value:g}")


def rounded(value: float, position: float = 0) -> str:
    """Return a number with three digits."""
    return minus(f"{value:.3g}")


def signed(value: float, position: float = 0) -> str:
    """Return a number with its sign, but for 0."""
    return minus(f"{value:+g}") if value else "0"


def power(value: float, position: float = 0) -> str:
    """Return a number between 0.01 and 1,000 as it is, else a power of ten such as 2e−5."""
    if 0.01 <= value < 1000:
        return f"{value:g}"
    return f"{value:.0e}".replace("e-0", "e−").replace("e+0", "e").replace("e-", "e−")


def percent(value: float, position: float = 0) -> str:
    """Return a number in percent with the sign."""
    return f"{value:g} %"


def percent_of_all(value: float, position: float = 0) -> str:
    """Return a number in percent; nothing beyond 100, where the axis goes on."""
    return percent(value) if value <= 100 else ""


def hundredths(value: float, position: float = 0) -> str:
    """Return a share in percent without the sign, which the axis names."""
    return f"{100 * value:g}"
