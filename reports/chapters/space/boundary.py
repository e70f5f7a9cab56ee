"""Boundaries and margins of 2-D runs, measured and in closed form."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from robustloss.reports.drawing.album import Plot, by_model
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.legends import Names
from robustloss.reports.drawing.style import (
    INK,
    SOFT,
    Limits,
    class_colours,
    columns_of,
    frame_plane,
    square_around,
    write_above,
)
from robustloss.reports.reading.facts import rows
from robustloss.reports.reading.feature_space import Boundary, Space
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import short

CLOSED = "#FF2BD6"  # far from every class colour and from the ink under it
MARGIN = "#FFE9A8"
DASHED, DOTTED = (0, (4, 1.6)), (0, (0.8, 2.2))


def plot_boundaries(numbers: Numbers) -> Iterator[Plot]:
    """Draw a panel per loss: the two nearest classes, the boundary between them, the margin."""
    shown, cells = numbers.shown, {label: _frontier(numbers, label) for label in numbers.labels}
    drawn = {label: cell for label, cell in cells.items() if isinstance(cell, Frontier)}
    if not drawn:
        return
    yield Plot(
        "boundaries",
        _draw(cells, numbers.classes or 1),
        by_model({shown.cells[label].slug: cell.arrays() for label, cell in drawn.items()}),
        title="Where is the boundary between the two nearest classes?",
        caption="Training images of the two nearest classes of each loss, and the boundary between "
        "them. Solid: the boundary of prediction. Dashed, in the colour of a class: where training "
        "calls the two equal for images of that class; beyond it they are still pushed. Shaded "
        "between the dashed lines lies the margin; without one the three lines are one. Magenta "
        "dots, the closed form of these lines, must lie on them. The margin above a panel is "
        "measured between the two class means. Every panel has its own scale. "
        f"{shown.words(numbers.labels)}",
        alt="Scatter plots of the two nearest classes of each loss with the decision boundary and "
        "the boundaries of training. "
        + "; ".join(f"{label}: {c.note}".replace("\n", ", ") for label, c in drawn.items()),
    )


@dataclass(frozen=True)
class Frontier:
    """What one panel shows."""

    boundary: Boundary  # between the two classes
    points: np.ndarray  # (N, 2) their training images
    labels: np.ndarray  # (N,)
    note: str  # two lines above the panel

    @property
    def limits(self) -> Limits:
        """A square around nearly all points, inside the grid."""
        low, high = np.quantile(self.points, (0.005, 0.995), axis=0)
        return square_around(low, high, 0.62)

    def arrays(self) -> dict[str, np.ndarray | None]:
        """Return what is drawn, by name."""
        lines = self.boundary
        closed = lines.closed or (None, None, None)
        return {
            "pair": np.array(lines.pair), "x": lines.x, "y": lines.y,
            "free": lines.free, "a": lines.own[0], "b": lines.own[1],
            "points": self.points, "labels": self.labels,
            "closed_free": closed[0], "closed_a": closed[1], "closed_b": closed[2],
        }  # fmt: skip


def _frontier(numbers: Numbers, label: str) -> Frontier | str:
    """Return what the panel of a loss shows, or why it is empty."""
    known = numbers.shown.space(label)
    if isinstance(known, str):
        return known
    if known.boundary is None:
        return "no boundaries stored"
    if known.train is None or known.train_labels is None:
        return "no training features stored"
    a, b = known.boundary.pair
    margin = "no margin on the line"
    for row in rows(numbers, "margins", label, seed=numbers.shown.cells[label].seed):
        if {row["class_a"], row["class_b"]} == {a, b} and row["margin"] is not None:
            closed = row["closed_margin"]
            beside = "no closed form" if closed is None else f"closed form {short(closed)}"
            margin = f"margin {short(row['margin'])}, {beside}"
    some = np.isin(known.train_labels, (a, b))
    note = f"classes {a} and {b}\n{margin}"
    return Frontier(known.boundary, known.train[some], known.train_labels[some], note)


def nearest_centers(known: Space) -> tuple[int, int, float] | None:
    """Return the nearest pair of centers and its distance; None without centers."""
    if known.vectors is None or not known.are_centers:
        return None
    points = np.asarray(known.vectors, float)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    distance[np.tril_indices(len(points))] = np.inf
    a, b = np.unravel_index(distance.argmin(), distance.shape)
    return int(a), int(b), float(distance[a, b])


def margin_region(boundary: Boundary) -> np.ndarray:
    """Return (G, G), positive where training is content with neither label: in the margin."""
    return np.minimum(-boundary.own[0], boundary.own[1])


def _draw(cells: Mapping[str, Frontier | str], num_classes: int) -> Figure:
    """Draw one square panel per loss."""
    colours = class_colours(num_classes)
    handles = [
        Line2D([], [], color=INK, lw=1.8, label="boundary, no margin"),
        Line2D([], [], color=SOFT, lw=1.9, ls=DASHED, label="in training (class colour)"),
        Line2D([], [], color=CLOSED, lw=1.4, ls=DOTTED, label="closed form"),
        Patch(facecolor=MARGIN, label="margin"),
    ]

    def draw(ax: Axes, cell: Frontier, spot: Spot) -> None:
        lines = cell.boundary
        write_above(ax, cell.note, height=1.02)
        region = margin_region(lines)
        if (region > 0).any():
            levels = [0, float(region.max())]
            ax.contourf(lines.x, lines.y, region, levels, colors=[MARGIN], zorder=0)
        x, y = cell.points.T
        ax.scatter(x, y, c=np.asarray([colours[k] for k in cell.labels]), s=6, alpha=0.5,
                   linewidths=0, rasterized=True)  # fmt: skip
        fields: list[tuple[np.ndarray, object, object, float, int]]
        fields = [(lines.free, INK, "-", 1.8, 3)]
        for k, values in zip(lines.pair, lines.own, strict=True):
            fields.append((values, colours[k], DASHED, 1.9, 4))
        for values in lines.closed or ():
            fields.append((values, CLOSED, DOTTED, 1.0, 5))
        for values, line, dash, width, order in fields:
            if values.min() < 0 < values.max():  # else no point of the grid is on it
                ax.contour(lines.x, lines.y, values, [0], colors=[line], linestyles=[dash],
                           linewidths=[width], zorder=order)  # fmt: skip
        frame_plane(ax, cell.limits)

    return draw_panels(
        [*cells.values()],
        draw, columns=columns_of(len(cells)), widest=3.6, height=lambda width: width,
        titles=[*cells], title_pad=27, legend=Names(handles),
        margins=Margins(left=0.5, right=0.1, top=0.68, bottom=0.45, wgap=0.34, hgap=0.86),
    )  # fmt: skip
