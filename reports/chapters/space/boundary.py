"""Boundaries and margins of 2-D runs, measured and in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from robustloss.reports.drawing.album import SPACE, Album
from robustloss.reports.drawing.frames import Margins, draw_panels
from robustloss.reports.drawing.legends import Names
from robustloss.reports.drawing.style import (
    INK,
    class_colours,
    columns_of,
    frame_plane,
)
from robustloss.reports.reading.facts import rows
from robustloss.reports.reading.feature_space import Boundary, Space
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.views import Shown
from robustloss.reports.words import short

CLOSED = "#FF2BD6"  # far from every class colour and from the ink under it
MARGIN = "#FFE9A8"


def add_boundaries(album: Album, numbers: Numbers, shown: Shown) -> None:
    """One panel per loss: the two nearest classes, the boundary between them, the margin."""
    cells = [_frontier(numbers, shown, label) for label in numbers.labels]
    if all(cell.gap for cell in cells):
        return
    album.add(
        "boundaries",
        draw_frontiers(cells, numbers.classes or 1),
        _arrays(cells, shown, numbers.labels),
        title="Boundary and margin between the two nearest classes",
        caption="Training images of the two classes whose means are nearest, in the space of each "
        "loss. Solid: where the margin-free logits of the two are equal, which is where the "
        "prediction changes if no third class is more likely. Dashed, in the colour of a class: "
        "where training, which takes the margin off the true class, calls the two equal; an image "
        "of that class beyond it is still pushed. Between the two dashed lines, shaded, lies the "
        "margin; without one all three lines are one. Magenta dots: the closed form of the same "
        "lines, computed from the class vectors alone; it must lie on them. Margin: measured "
        "along the line between the two class means, where the closed form of a loss exists "
        f"beside it. Own scale in every panel. {shown.words(numbers.labels)}",
        alt="Scatter plots of the two nearest classes of each loss with the decision boundary and "
        "the boundaries of training. "
        + "; ".join(f"{c.title}: {c.note}".replace("\n", ", ") for c in cells if not c.gap),
        section=SPACE,
    )


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


def _frontier(numbers: Numbers, shown: Shown, label: str) -> Frontier:
    known = shown.space(label)
    if isinstance(known, str):
        return Frontier(label, gap=known)
    if known.boundary is None:
        return Frontier(label, gap="no boundaries stored")
    if known.train is None or known.train_labels is None:
        return Frontier(label, gap="no training features stored")
    some = np.isin(known.train_labels, known.boundary.pair)
    note = _note(numbers, label, shown.cells[label].seed, known.boundary)
    return Frontier(label, known.boundary, known.train[some], known.train_labels[some], note)


def _note(numbers: Numbers, label: str, seed: int, boundary: Boundary) -> str:
    a, b = boundary.pair
    text = f"classes {a} and {b}"
    found = [
        r for r in rows(numbers, "margins", label, seed=seed)
        if {r["class_a"], r["class_b"]} == {a, b}
    ]  # fmt: skip
    if not found or found[0]["margin"] is None:
        return text + "\nno margin on the line"
    closed = found[0]["closed_margin"]
    beside = "no closed form" if closed is None else f"closed form {short(closed)}"
    return f"{text}\nmargin {short(found[0]['margin'])}, {beside}"


def _arrays(cells: list[Frontier], shown: Shown, labels: list[str]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for cell, label in zip(cells, labels, strict=True):
        if cell.boundary is None or cell.gap:
            continue
        name, lines = shown.cells[label].slug, cell.boundary
        arrays |= {
            f"{name}:pair": np.array(lines.pair), f"{name}:x": lines.x, f"{name}:y": lines.y,
            f"{name}:free": lines.free, f"{name}:a": lines.own[0], f"{name}:b": lines.own[1],
            f"{name}:points": cell.points, f"{name}:labels": cell.labels,
        }  # fmt: skip
        if lines.closed is not None:
            parts = zip(("free", "a", "b"), lines.closed, strict=True)
            arrays |= {f"{name}:closed_{k}": v for k, v in parts}
    return arrays


def nearest_centers(known: Space) -> tuple[int, int, float] | None:
    """The nearest pair of centers and its distance; None without centers."""
    if known.vectors is None or not known.are_centers:
        return None
    points = np.asarray(known.vectors, float)
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    distance[np.tril_indices(len(points))] = np.inf
    a, b = np.unravel_index(distance.argmin(), distance.shape)
    return int(a), int(b), float(distance[a, b])


def margin_region(boundary: Boundary) -> np.ndarray:
    """(G, G) positive where training is content with neither label: inside the margin."""
    return np.minimum(-boundary.own[0], boundary.own[1])


def draw_frontiers(cells: Sequence[Frontier], num_classes: int) -> Figure:
    """One square panel per loss."""
    colours = class_colours(num_classes)
    dash = (0, (4, 1.6))
    handles = [
        Line2D([], [], color=INK, lw=1.8, label="boundary, no margin"),
        Line2D([], [], color="#5B6470", lw=1.9, ls=dash, label="in training (class colour)"),
        Line2D([], [], color=CLOSED, lw=1.4, ls=(0, (0.8, 2.2)), label="closed form"),
        Patch(facecolor=MARGIN, label="margin"),
    ]
    return draw_panels(
        [cell.gap or cell for cell in cells],
        lambda ax, cell, spot: _draw(ax, cell, colours),
        columns=columns_of(len(cells)),
        widest=3.6,
        height=lambda width: width,
        titles=[cell.title for cell in cells],
        title_pad=27,
        legend=Names(handles),
        margins=Margins(left=0.5, right=0.1, top=0.68, bottom=0.45, wgap=0.34, hgap=0.86),
    )


def _draw(ax: Axes, cell: Frontier, colours: Sequence) -> None:
    lines = cell.boundary
    assert lines is not None
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
