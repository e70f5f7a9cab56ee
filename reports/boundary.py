"""The boundary between two classes and the margin around it, in a 2-D feature space."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from robustloss.reports.embedding import columns_of
from robustloss.reports.legends import LINE, legend_below, legend_shape
from robustloss.reports.stored_space import Boundary
from robustloss.reports.style import (
    INK,
    blank,
    class_colours,
    frame_plane,
    panel_width,
    panels,
    plain,
)

CLOSED = "#FF2BD6"  # far from every class colour and from the ink under it
MARGIN = "#FFE9A8"


@dataclass(frozen=True)
class Frontier:
    """One panel: points (N, 2) and labels (N,) of the two classes, and what separates them."""

    title: str
    boundary: Boundary | None = None
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    note: str = ""
    gap: str = ""

    @property
    def limits(self) -> np.ndarray:
        """(2, 2) lower and upper corner of a square around the points, inside the grid."""
        low, high = np.quantile(self.points, (0.005, 0.995), axis=0)
        middle, half = (low + high) / 2, 0.62 * float((high - low).max())
        return np.stack([middle - half, middle + half])


def margin_region(boundary: Boundary) -> np.ndarray:
    """(G, G) positive where training is content with neither label: inside the margin."""
    return np.minimum(-boundary.own[0], boundary.own[1])


def draw_frontiers(cells: Sequence[Frontier], num_classes: int) -> Figure:
    """One square panel per loss."""
    columns = columns_of(len(cells))
    margins = {"left": 0.5, "right": 0.1, "wgap": 0.34}
    width = panel_width(columns, widest=3.6, **margins)
    handles = _handles()
    inches = 0.3 + columns * (width + margins["wgap"])
    lines = legend_shape([str(h.get_label()) for h in handles], inches - 0.5)[1]
    figure, axes = panels(
        -(-len(cells) // columns), columns, width=width, height=width, top=0.68,
        bottom=0.45 + LINE * lines, hgap=0.86, **margins,
    )  # fmt: skip
    colours = class_colours(num_classes)
    for place, ax in enumerate(axes.flat):
        if place >= len(cells):
            ax.set_axis_off()
            continue
        cell = cells[place]
        ax.annotate(plain(cell.title, int(width * 15.4)), (0, 1), (0, 27),
                    xycoords="axes fraction", textcoords="offset points", fontweight="bold",
                    fontsize=10 if columns < 5 else 8.5)  # fmt: skip
        if cell.gap or cell.boundary is None:
            blank(ax, cell.gap)
        else:
            _draw(ax, cell, cell.boundary, colours)
    legend_below(figure, handles, left=0.4)
    return figure


def _draw(ax: Axes, cell: Frontier, lines: Boundary, colours: Sequence) -> None:
    ax.text(0, 1.02, cell.note, transform=ax.transAxes, fontsize=7.5, color="#5B6470", va="bottom",
            linespacing=1.25)  # fmt: skip
    (x0, y0), (x1, y1) = cell.limits
    region = margin_region(lines)
    if (region > 0).any():
        ax.contourf(lines.x, lines.y, region, [0, float(region.max())], colors=[MARGIN], zorder=0)
    colour = np.asarray([colours[k] for k in cell.labels])
    ax.scatter(
        cell.points[:, 0],
        cell.points[:, 1],
        c=colour,
        s=6,
        alpha=0.5,
        linewidths=0,
        rasterized=True,
    )
    _zero(ax, lines, lines.free, INK, "-", 1.8, 3)
    for k, values in zip(lines.pair, lines.own, strict=True):
        _zero(ax, lines, values, colours[k], (0, (4, 1.6)), 1.9, 4)
    for values in lines.closed or ():
        _zero(ax, lines, values, CLOSED, (0, (0.8, 2.2)), 1.0, 5)
    ax.set_xlim(x0, x1)
    ax.set_ylim(y0, y1)
    ax.set_aspect("equal")
    frame_plane(ax)


def _zero(
    ax: Axes, lines: Boundary, values: np.ndarray, colour: object, dash: object, width: float,
    order: int,
) -> None:  # fmt: skip
    if values.min() < 0 < values.max():
        ax.contour(lines.x, lines.y, values, [0], colors=[colour], linestyles=[dash],
                   linewidths=[width], zorder=order)  # fmt: skip


def _handles() -> list[Line2D | Patch]:
    return [
        Line2D([], [], color=INK, lw=1.8, label="boundary, no margin"),
        Line2D(
            [], [], color="#5B6470", lw=1.9, ls=(0, (4, 1.6)), label="in training (class colour)"
        ),
        Line2D([], [], color=CLOSED, lw=1.4, ls=(0, (0.8, 2.2)), label="closed form"),
        Patch(facecolor=MARGIN, label="margin"),
    ]
