"""Square tables of numbers as colour: the transfer matrix, one panel an eps."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from robustloss.reports.drawing.style import CROWD, FAINT, INK, PAGE_WIDTH, panels, plain

COLOURS = "Blues"  # grows darker steadily, so it survives a grey print
DARK = 58.0  # percent from which on black letters are lost
LETTER = 0.075  # inches
TURN, UPRIGHT = 35, 90  # degrees


@dataclass(frozen=True)
class Heat:
    """One panel.

    Attributes:
        title: Above it.
        values: (S, T) percent; NaN is a gap.
        marked: (S, T) bool: a † stands beside the number.
    """

    title: str
    values: np.ndarray
    marked: np.ndarray


def draw_heatmaps(
    grid: Sequence[Heat], rows: Sequence[str], columns: Sequence[str], *, scale: str
) -> Figure:
    """Draw the panels side by side, as many as fit, over one colour bar from 0 to 100 %.

    Args:
        grid: Panels of one shape.
        rows: S names; where a column has the same place as a row, the cell is framed.
        columns: T names, a second line after "\\n".
        scale: What the colour means.
    """
    left = 0.55 + LETTER * max(len(plain(name, 26)) for name in rows)
    longest = max(len(part) for name in columns for part in _two_lines(name).split("\n"))
    below = 0.35 + np.sin(np.radians(_turn(len(columns)))) * LETTER * longest
    gap = 0.3
    across, side = _layout(len(grid), len(columns), PAGE_WIDTH - left - 0.35 + gap, gap)
    width, height = side * len(columns), side * len(rows)
    figure, axes = panels(
        -(-len(grid) // across), across, width=width, height=height, left=left, right=0.35,
        top=0.45, bottom=below + 0.75, wgap=gap, hgap=below + 0.4,
    )  # fmt: skip
    for place, ax in enumerate(axes.flat):
        if place >= len(grid):
            ax.set_axis_off()
            continue
        _draw(ax, grid[place], columns)
        ax.set_yticks(range(len(rows)), [plain(name, 26) for name in rows])
        ax.tick_params(labelleft=place % across == 0)
        if place % across == 0:
            ax.set_ylabel("images made on")
    _colour_bar(figure, left, scale)
    return figure


def _layout(count: int, columns: int, free: float, gap: float) -> tuple[int, float]:
    """Panels in a row and inches of a cell: as many panels as leave a cell 0.5 inches wide."""
    across = max(1, min(count, int(free / (0.5 * columns + gap))))
    return across, max(0.42, min(0.72, (free / across - gap) / columns))


def _draw(ax: Axes, heat: Heat, columns: Sequence[str]) -> None:
    ax.set_title(heat.title, fontweight="normal", pad=6)
    ax.imshow(heat.values, cmap=COLOURS, vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(heat.values):
        if np.isnan(value):
            ax.add_patch(_gap(row, column))
            continue
        ax.text(
            column, row, f"{value:.0f}" + ("†" if heat.marked[row, column] else ""), ha="center",
            va="center", fontsize=9.5, color="white" if value > DARK else INK,
            fontweight="bold" if row == column else "normal",
        )  # fmt: skip
    for place in range(min(heat.values.shape)):
        ax.add_patch(Rectangle((place - 0.46, place - 0.46), 0.92, 0.92, fill=False,
                               edgecolor=INK, linewidth=1.6))  # fmt: skip
    ax.set_xticks(range(len(columns)), [_two_lines(name) for name in columns], 
                  rotation=_turn(len(columns)), ha="right", rotation_mode="anchor",
                  va="center" if _turn(len(columns)) == UPRIGHT else "top")  # fmt: skip
    ax.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(heat.values.shape[0] + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=1.5)
    ax.tick_params(which="both", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _turn(columns: int) -> int:
    """Of the names below: two slanted lines of many columns would run into each other."""
    return TURN if columns <= CROWD else UPRIGHT


def _gap(row: int, column: int) -> Rectangle:
    """A hatched square where there is no number."""
    return Rectangle((column - 0.5, row - 0.5), 1, 1, hatch="////", facecolor="white",
                     edgecolor=FAINT, linewidth=0)  # fmt: skip


def _two_lines(name: str) -> str:
    return "\n".join(plain(part, 26) for part in name.split("\n"))


def _colour_bar(figure: Figure, left: float, label: str) -> None:
    width, height = figure.get_figwidth(), figure.get_figheight()
    inches = min(3.2, width - left - 0.35)
    axes = figure.add_axes((left / width, 0.5 / height, inches / width, 0.12 / height))
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 100), matplotlib.colormaps[COLOURS]),
        cax=axes, orientation="horizontal", ticks=[0, 25, 50, 75, 100],
    )  # fmt: skip
    bar.set_label(label)
    bar.outline.set_visible(False)
