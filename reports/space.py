"""Pictures of the feature space: embedding (Figure 1) and likelihood map (Figure 1f)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.legends import class_legend, class_legend_height
from reports.style import INK, blank, class_colours, panel_width, panels, plain


@dataclass(frozen=True)
class Plane:
    """A linear map of features to the page.

    Attributes:
        origin: (D,) point that lands on (0, 0).
        axes: (D, 2) directions of the page axes.
        explained: Share of the variance along each, or None when the features are 2-D already.
    """

    origin: np.ndarray
    axes: np.ndarray
    explained: tuple[float, float] | None

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Map (N, D) features to (N, 2)."""
        return (np.asarray(points, float) - self.origin) @ self.axes


def plane(features: np.ndarray) -> Plane:
    """Choose the plane to look at: the features themselves in 2-D, else the leading two PCs.

    Args:
        features: (N, D) clean features, D >= 1. With D = 1 the second axis is empty.
    """
    dim = features.shape[1]
    if dim <= 2:
        return Plane(np.zeros(dim), np.eye(dim, 2), None)
    points = np.asarray(features, float)
    origin = points.mean(0)
    values, vectors = np.linalg.eigh((points - origin).T @ (points - origin) / len(points))
    axes = vectors[:, [-1, -2]]
    # an eigenvector has no sign of its own: the largest entry is made positive
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), [0, 1]])
    total = max(float(values.sum()), 1e-300)
    return Plane(origin, axes, (float(values[-1] / total), float(values[-2] / total)))


@dataclass(frozen=True)
class Embedding:
    """One panel of points.

    Attributes:
        points: (N, 2) drawn images; labels (N,) true class; wrong (N,) bool misclassified.
        centers: (K, 2) or None.
        explained: Variance shares of the two axes, None for 2-D features.
        note: One line under the title.
        gap: Why there is nothing to draw.
    """

    title: str
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    wrong: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    centers: np.ndarray | None = None
    explained: tuple[float, float] | None = None
    note: str = ""
    gap: str = ""


def draw_embeddings(cells: Sequence[Embedding], num_classes: int) -> Figure:
    """Draw one square panel per loss, equal aspect, with one legend of classes."""
    columns = min(len(cells), 4) if len(cells) != 5 else 3
    rows = -(-len(cells) // columns)
    margins = {"left": 0.75, "right": 0.15, "wgap": 0.5}
    width = panel_width(columns, widest=4.6, **margins)
    lines = 1 + max(cell.note.count("\n") for cell in cells)
    inches = 0.4 + columns * (width + margins["wgap"])
    figure, axes = panels(
        rows,
        columns,
        width=width,
        height=width,
        top=0.4 + 0.15 * lines,
        bottom=0.5 + class_legend_height(num_classes, inches),
        hgap=0.75 + 0.15 * lines,
        **margins,
    )
    colours = np.asarray(class_colours(num_classes))
    for i, (ax, cell) in enumerate(zip(axes.flat, cells, strict=False)):
        ax.set_title(plain(cell.title, 26), pad=18 if lines == 1 else 30)
        if cell.gap:
            blank(ax, cell.gap)
            ax.set_title(plain(cell.title, 26))
        else:
            _draw_embedding(ax, cell, colours, first=i % columns == 0)
    for ax in axes.flat[len(cells) :]:
        ax.set_axis_off()
    shown = [c for c in cells if not c.gap]
    marks = []
    if any(c.wrong.any() for c in shown):
        marks.append(Line2D([], [], ls="none", marker="o", mfc="none", mec=INK, ms=7,
                            label="misclassified"))  # fmt: skip
    if any(c.centers is not None for c in shown):
        marks.append(Line2D([], [], ls="none", marker="X", mfc="white", mec=INK, ms=8,
                            label="center of the loss"))  # fmt: skip
    class_legend(figure, num_classes, marks)
    return figure


def _draw_embedding(ax: Axes, cell: Embedding, colours: np.ndarray, *, first: bool) -> None:
    ax.text(0, 1.02, cell.note, transform=ax.transAxes, fontsize=8.5, color="#5B6470", va="bottom")
    ax.scatter(
        cell.points[:, 0],
        cell.points[:, 1],
        c=colours[cell.labels],
        s=5,
        alpha=0.55,
        linewidths=0,
        rasterized=True,
    )
    wrong = cell.points[cell.wrong]
    ax.scatter(
        wrong[:, 0],
        wrong[:, 1],
        s=22,
        facecolors="none",
        edgecolors=INK,
        linewidths=0.7,
        rasterized=True,
    )
    if cell.centers is not None:
        ax.scatter(
            cell.centers[:, 0],
            cell.centers[:, 1],
            marker="X",
            s=62 if len(cell.centers) <= 20 else 14,
            c="white",
            edgecolors=INK,
            linewidths=1.1 if len(cell.centers) <= 20 else 0.6,
            zorder=4,
        )
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.06)
    name = "feature" if cell.explained is None else "PC"
    for axis, number in ((ax.xaxis, 1), (ax.yaxis, 2)):
        axis.set_major_locator(MaxNLocator(nbins=5))
        if number == 1 or first:
            axis.set_label_text(f"{name} {number}")
