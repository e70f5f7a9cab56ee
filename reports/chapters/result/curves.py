"""Curves of error against eps: the worst case and the featured attacks, then all others."""

from collections.abc import Iterator

from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.curves import (
    Panel,
    band_words,
    curve_numbers,
    draw_curves,
    in_words,
    lines_of,
)
from robustloss.reports.drawing.style import looks
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.reading.scene import featured
from robustloss.reports.words import Estimate


def plot_error_curves(numbers: Numbers) -> Iterator[Plot]:
    """Draw error against eps, one panel per attack; of many attacks some have their own figure."""
    shown = [a.label for a in featured(numbers)]
    attacks = [a for a in numbers.attacks if not shown or a.label in shown or not a.strengths]
    others = [a for a in numbers.attacks if a not in attacks]
    look, chance, guess = looks(numbers.labels), None, ""
    if numbers.classes:
        chance = 100 * (1 - 1 / numbers.classes)
        guess = f" The dotted line is guessing among {numbers.classes} classes ({chance:.3g} %)."
    grid = [_error_panel(numbers, a, chance) for a in (*numbers.worst_cases, *attacks)]
    if not any(panel.lines for panel in grid):
        return
    set_aside = f" The other {len(others)} attacks have their own figure below." if others else ""
    yield Plot(
        "error-vs-eps",
        draw_curves(grid, look, columns=4),
        curve_numbers(grid),
        title="Error against eps",
        caption="Error when an attack may change the image by up to eps. "
        f"Lower is better; eps 0 is the clean test set. {band_words(numbers)}{guess} A line that "
        f"stays low under one attack may only mean that this attack missed the errors.{set_aside}",
        alt="Line chart of error in percent against eps, one line per loss: "
        + in_words(grid[0], "%"),
    )
    if others:
        grid = [_error_panel(numbers, attack, chance) for attack in others]
        yield Plot(
            "error-vs-eps-others",
            draw_curves(grid, look),
            curve_numbers(grid),
            title="Error against eps under the other attacks",
            caption=f"Error against eps under each other attack. {band_words(numbers)}{guess}",
            alt="Line charts of error in percent against eps, one panel per attack, one line per "
            f"loss. {grid[0].title}: {in_words(grid[0], '%')}",
        )


def _error_panel(numbers: Numbers, attack: AttackInfo, chance: float | None) -> Panel:
    def get(label: str, eps: float) -> Estimate | None:
        return numbers.error(label, attack, eps)

    lines = lines_of(numbers.labels, attack.with_clean, get, 100.0)
    return Panel(attack.label, attack.axis, "error", lines, (0.0, 100.0), reference=chance,
                 reference_label="guessing", percent=True)  # fmt: skip
