"""Square tables of numbers as colour: the transfer matrix, one panel an eps."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from robustloss.reports.drawing.squares import colour_bar, frame_squares, hatch_square, ink_on
from robustloss.reports.drawing.style import CROWD, INK, PAGE_WIDTH, panels, plain

COLOURS = "Blues"  # grows darker steadily, so it survives a grey print
LETTER = 0.075  # inches


@dataclass(frozen=True)
class Heat:
    """One panel, percent; NaN is a gap."""

    title: str
    values: np.ndarray  # (S, T)
    marked: np.ndarray  # (S, T) bool: a † stands beside the number


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
    names = ["\n".join(plain(part, 26) for part in name.split("\n")) for name in columns]
    # two slanted lines of many columns would run into each other
    turn = 35 if len(columns) <= CROWD else 90
    longest = max(len(line) for name in names for line in name.split("\n"))
    below = 0.35 + np.sin(np.radians(turn)) * LETTER * longest
    left = 0.55 + LETTER * max(len(plain(name, 26)) for name in rows)
    gap = 0.3
    free = PAGE_WIDTH - left - 0.35 + gap
    # as many panels in a row as leave a cell half an inch wide
    across = max(1, min(len(grid), int(free / (0.5 * len(columns) + gap))))
    side = max(0.42, min(0.72, (free / across - gap) / len(columns)))
    figure, axes = panels(
        -(-len(grid) // across), across, width=side * len(columns), height=side * len(rows),
        left=left, right=0.35, top=0.45, bottom=below + 0.75, wgap=gap, hgap=below + 0.4,
    )  # fmt: skip
    for place, ax in enumerate(axes.flat):
        if place >= len(grid):
            ax.set_axis_off()
            continue
        _draw_heat(ax, grid[place])
        ax.set_xticks(range(len(names)), names, rotation=turn, ha="right",
                      rotation_mode="anchor", va="center" if turn == 90 else "top")  # fmt: skip
        ax.set_yticks(range(len(rows)), [plain(name, 26) for name in rows])
        ax.tick_params(labelleft=place % across == 0)
        if place % across == 0:
            ax.set_ylabel("images made on")
    ticks = [0.0, 25.0, 50.0, 75.0, 100.0]
    colour_bar(figure, Normalize(0, 100), COLOURS, scale, left=left, ticks=ticks)
    return figure


def _draw_heat(ax: Axes, heat: Heat) -> None:
    ax.set_title(heat.title, fontweight="normal", pad=6)
    colours = matplotlib.colormaps[COLOURS]
    ax.imshow(heat.values, cmap=colours, vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(heat.values):
        if np.isnan(value):
            hatch_square(ax, row, column)
            continue
        ax.text(
            column, row, f"{value:.0f}" + ("†" if heat.marked[row, column] else ""), ha="center",
            va="center", fontsize=9.5, color=ink_on(colours(value / 100)),
            fontweight="bold" if row == column else "normal",
        )  # fmt: skip
    for place in range(min(heat.values.shape)):
        ax.add_patch(Rectangle((place - 0.46, place - 0.46), 0.92, 0.92, fill=False,
                               edgecolor=INK, linewidth=1.6))  # fmt: skip
    frame_squares(ax, heat.values.shape)
