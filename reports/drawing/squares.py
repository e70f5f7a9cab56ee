"""Numbers as coloured squares: what heat maps of any two axes share."""

from functools import cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.typing import ColorType

from robustloss.reports.drawing.style import FAINT, INK, contrast


def frame_squares(
    ax: Axes, shape: tuple[int, ...], *, colour: str = "white", width: float = 1.5
) -> None:
    """Draw lines between the squares of an image, instead of a frame and ticks.

    Args:
        ax: Shows an image whose pixels are the squares.
        shape: (rows, columns).
        colour, width: Of the lines.
    """
    rows, columns = np.array(shape[:2]) - 0.5
    lines = [[(x, -0.5), (x, rows)] for x in np.arange(shape[1] + 1) - 0.5]
    lines += [[(-0.5, y), (columns, y)] for y in np.arange(shape[0] + 1) - 0.5]
    ax.add_collection(LineCollection(lines, colors=colour, linewidths=width, zorder=0.5),
                      autolim=False)  # fmt: skip
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


@cache
def ink_on(colour: ColorType) -> str:
    """Return the colour in which text on a square is read best: dark as everywhere, or white."""
    inks = (INK, "white", "black")  # one of the last two always has 4.5:1
    return next(ink for ink in inks if contrast(ink, colour) >= 4.5)


def hatch_square(ax: Axes, row: int, column: int) -> None:
    """Hatch a square that has no number."""
    corner = (column - 0.5, row - 0.5)
    ax.add_patch(Rectangle(corner, 1, 1, hatch="////", fc="white", ec=FAINT, linewidth=0))


def colour_bar(
    figure: Figure, scale: Normalize, colours: str | Colormap, label: str, *, left: float,
    widest: float = 3.2, ticks: list[float] | None = None,
) -> None:  # fmt: skip
    """Draw a horizontal colour bar at the bottom of a figure, which has 0.75 inches free there.

    Args:
        figure: With its panels.
        scale: From numbers to [0, 1].
        colours: From [0, 1] to colours.
        label: What the colour means.
        left: Inches from the left edge.
        widest: Inches.
        ticks: Numbers to write; None chooses some.
    """
    width, height = figure.get_figwidth(), figure.get_figheight()
    inches = min(widest, width - left - 0.35)
    axes = figure.add_axes((left / width, 0.5 / height, inches / width, 0.12 / height))
    bar = figure.colorbar(
        ScalarMappable(scale, colours), cax=axes, orientation="horizontal", ticks=ticks
    )
    bar.set_label(label)
    bar.outline.set_visible(False)
