"""Confusion matrices, row-normalised, in which the errors are what one sees."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from robustloss.reports.style import INK, blank, panel_width, panels, plain

MOST_CLASSES = 20  # more do not fit as numbers in a matrix
COLOURS = "YlOrRd"
SOFT = "#5B6470"


@dataclass(frozen=True)
class Confusion:
    """One loss: (K, K) share in percent of row class's images that were given the column class."""

    title: str
    percent: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    note: str = ""
    gap: str = ""


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """(K, K) counts: true class by predicted class."""
    flat = np.bincount(labels * classes + predictions, minlength=classes**2)
    return flat.reshape(classes, classes)


def row_percent(counts: np.ndarray) -> np.ndarray:
    """Percent of each row; a class without images has NaN."""
    total = counts.sum(1, keepdims=True).astype(float)
    return np.divide(100.0 * counts, total, out=np.full(counts.shape, np.nan), where=total > 0)


def off_diagonal(percent: np.ndarray) -> np.ndarray:
    """The errors only."""
    return percent[~np.eye(len(percent), dtype=bool)]


def draw_confusions(cells: Sequence[Confusion], names: Sequence[str]) -> Figure:
    """One matrix per loss; one colour scale for all, of errors only.

    Args:
        cells: One per loss.
        names: Of the K classes.
    """
    count = len(names)
    words = [plain(name, 11) for name in names]
    longest = max(len(word) for word in words)
    columns = min(len(cells), 3 if count <= 10 else 2)
    side = 0.24 + 0.062 * longest
    margins = {"left": 0.25 + side, "right": 0.1, "wgap": 0.2 + side}
    width = panel_width(columns, widest=4.2 if count <= 10 else 6.0, **margins)
    below = 0.1 + (0.062 * longest if longest > 2 else 0.16)
    figure, axes = panels(
        -(-len(cells) // columns), columns, width=width, height=width, top=0.62,
        bottom=below + 0.95, hgap=below + 0.72, **margins,
    )  # fmt: skip
    highest = max((np.nanmax(off_diagonal(c.percent)) for c in cells if not c.gap), default=1.0)
    scale = PowerNorm(0.5, 0, max(float(highest), 0.1))
    letters = min(8.5, 72 * width / count / 2.9)
    for place, ax in enumerate(axes.flat):
        if place >= len(cells):
            ax.set_axis_off()
            continue
        cell = cells[place]
        ax.set_title(plain(cell.title, 34), pad=19)
        if cell.gap:
            blank(ax, cell.gap)
            continue
        _draw(ax, cell, words, scale, letters)
        if place % columns == 0:
            ax.set_ylabel("true class")
    _colour_bar(figure, margins["left"], scale)
    return figure


def _draw(
    ax: Axes, cell: Confusion, words: Sequence[str], scale: PowerNorm, letters: float
) -> None:
    count = len(cell.percent)
    errors = cell.percent.copy()
    np.fill_diagonal(errors, np.nan)
    errors[errors <= 0] = np.nan  # white: no such mistake
    ax.imshow(errors, cmap=COLOURS, norm=scale, aspect="auto")
    for (row, column), value in np.ndenumerate(cell.percent):
        if np.isnan(value) or (row != column and value <= 0):
            continue
        if row == column:
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color="#EEF0F3", lw=0))
        dark = row != column and scale(value) > 0.62
        colour = "#8A93A0" if row == column else "white" if dark else INK
        ax.text(column, row, short(value), ha="center", va="center", fontsize=letters, color=colour)
    ax.text(0, 1.015, cell.note, transform=ax.transAxes, fontsize=8.5, color=SOFT, va="bottom")
    turn = 90 if max(len(word) for word in words) > 2 else 0
    ax.set_xticks(range(count), list(words), rotation=turn, fontsize=min(8, letters + 1))
    ax.set_yticks(range(count), list(words), fontsize=min(8, letters + 1))
    ax.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="#E3E6EA", linewidth=0.6)
    ax.tick_params(which="both", length=0, pad=2)
    for spine in ax.spines.values():
        spine.set_visible(False)


def short(percent: float) -> str:
    """At most three characters; a share reads 0 where it is 0, and only there."""
    if percent == 0 or percent >= 9.95:
        return f"{percent:.0f}"
    text = f"{percent:.1f}"
    return "<.1" if text == "0.0" else text.lstrip("0") if percent < 0.95 else text


def _colour_bar(figure: Figure, left: float, scale: PowerNorm) -> None:
    width, height = figure.get_figwidth(), figure.get_figheight()
    inches = min(3.2, width - left - 0.4)
    axes = figure.add_axes((left / width, 0.5 / height, inches / width, 0.12 / height))
    bar = figure.colorbar(
        ScalarMappable(scale, matplotlib.colormaps[COLOURS]), cax=axes, orientation="horizontal"
    )
    bar.set_label("errors: share of the row's class given the column's class (%)")
    bar.outline.set_visible(False)
