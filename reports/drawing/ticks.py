"""What stands at the ticks of an axis: one function for each kind of number."""


def unlabelled(value: float, position: float = 0) -> str:
    """Nothing: for the small ticks of a logarithmic axis."""
    return ""


def number(value: float, position: float = 0) -> str:
    """As short as it can be, with a true minus."""
    return f"{value:g}".replace("-", "−")


def rounded(value: float, position: float = 0) -> str:
    """Three digits."""
    return f"{value:.3g}".replace("-", "−")


def signed(value: float, position: float = 0) -> str:
    """With its sign, but for 0."""
    return f"{value:+g}".replace("-", "−") if value else "0"


def power(value: float, position: float = 0) -> str:
    """A number between 0.01 and 1,000, else a power of ten such as 2e−5."""
    if 0.01 <= value < 1000:
        return f"{value:g}"
    return f"{value:.0e}".replace("e-0", "e−").replace("e+0", "e").replace("e-", "e−")


def percent(value: float, position: float = 0) -> str:
    """Of a number in percent."""
    return f"{value:g} %"


def percent_of_all(value: float, position: float = 0) -> str:
    """Of a number in percent that cannot be more than 100, on an axis that goes on above."""
    return percent(value) if value <= 100 else ""


def hundredths(value: float, position: float = 0) -> str:
    """A share in percent without the sign, which the axis names."""
    return f"{100 * value:g}"
