"""Embeddings (Figure 1): every loss with its training images above its test images."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustloss.reports.drawing.frames import Margins
from robustloss.reports.drawing.legends import ClassColours
from robustloss.reports.drawing.style import (
    INK,
    Limits,
    blank,
    class_colours,
    columns_of,
    frame_plane,
    plain,
    square_around,
    write_above,
)

FULL_RINGS = 200  # mistakes in a panel; the rings of more are smaller and fainter


@dataclass(frozen=True)
class Cloud:
    """Points of one split."""

    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))  # (N, 2) images
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, int))  # (N,) true class
    wrong: np.ndarray | None = None  # (N,) bool misclassified, or None where it is not known
    note: str = ""  # one line above the panel
    gap: str = ""  # why there is nothing to draw


@dataclass(frozen=True)
class Embedding:
    """One loss: its clouds share plane, limits and class vectors."""

    title: str
    clouds: Sequence[Cloud]  # drawn one below the other
    centers: np.ndarray | None = None  # (K, 2) points
    rays: np.ndarray | None = None  # (K, 2, 2) start and end of each class's direction
    explained: tuple[float, float] | None = None  # variance shares; None for 2-D features

    @property
    def limits(self) -> Limits:
        """A square for every panel of this loss; outliers beyond 99.8 % are left outside."""
        drawn = [c.points for c in self.clouds if len(c.points)]
        points = np.concatenate(drawn) if drawn else np.zeros((1, 2))
        low, high = np.quantile(points, (0.001, 0.999), axis=0)
        if self.centers is not None:
            low = np.minimum(low, self.centers.min(0))
            high = np.maximum(high, self.centers.max(0))
        return square_around(low, high, 0.54)

    def arrays(self) -> dict[str, np.ndarray | None]:
        """Return what is drawn of training and test images, by name."""
        train, test = self.clouds
        return {
            "points": test.points, "labels": test.labels, "wrong": test.wrong,
            "train_points": None if train.gap else train.points,
            "train_labels": None if train.gap else train.labels,
            "centers": self.centers, "rays": self.rays,
        }  # fmt: skip


def draw_embeddings(
    cells: Sequence[Embedding], num_classes: int, bands: Sequence[str], *, columns: int = 0
) -> Figure:
    """Draw the losses in rows, each row as high as there are bands.

    Args:
        cells: One per loss, each with a cloud per band.
        num_classes: K.
        bands: Names of the bands, such as "training images".
        columns: Losses side by side; 0 chooses.
    """
    columns = columns or columns_of(len(cells))
    rows, high = -(-len(cells) // columns), len(bands)
    margins = Margins(left=0.72, right=0.1, wgap=0.3 if columns == 5 else 0.36)
    width = margins.panel_width(columns, widest=3.6)
    step, between = width + 0.22, 0.64
    marks = []  # what is drawn beside the points
    if any(c.wrong is not None and c.wrong.any() for k in cells for c in k.clouds):
        marks.append(Line2D([], [], ls="none", marker="o", mfc="none", mec=INK, ms=7,
                            label="misclassified"))  # fmt: skip
    if any(k.centers is not None for k in cells):
        marks.append(Line2D([], [], ls="none", marker="X", mfc="white", mec=INK, ms=8,
                            label="center"))  # fmt: skip
    if any(k.rays is not None for k in cells):
        marks.append(Line2D([], [], color=INK, lw=1.1, label="class weight"))
    legend = ClassColours(num_classes, marks)
    below = 0.35 + legend.room(0.6 + columns * (width + margins.wgap), 0.0)
    tall = 0.62 + rows * (high * step + between) - between - 0.15 + below
    figure = Figure(figsize=(margins.left + columns * (width + margins.wgap), tall))
    colours = np.asarray(class_colours(num_classes))
    total = figure.get_figwidth()
    for i, cell in enumerate(cells):
        row, column = divmod(i, columns)
        x = margins.left + column * (width + margins.wgap)
        for band, cloud in enumerate(cell.clouds):
            y = tall - 0.62 - row * (high * step + between) - band * step - width
            ax = figure.add_axes((x / total, y / tall, width / total, width / tall))
            _draw(ax, cell, cloud, colours, last=band == high - 1)
            if column == 0:
                ax.set_ylabel(bands[band], labelpad=2)
            if band == 0:
                ax.annotate(plain(cell.title, int(width * 15.4)), (0, 1), (0, 15),
                            xycoords="axes fraction", textcoords="offset points",
                            fontsize=10 if columns < 5 else 8.5, fontweight="bold")  # fmt: skip
    legend.draw(figure, 0.0)
    return figure


def _draw(ax: Axes, cell: Embedding, cloud: Cloud, colours: np.ndarray, *, last: bool) -> None:
    if cloud.gap:
        blank(ax, cloud.gap)
        return
    write_above(ax, plain(cloud.note, 60))
    order = np.random.default_rng(0).permutation(len(cloud.points))  # no class covers another
    x, y = cloud.points[order].T
    ax.scatter(x, y, c=colours[cloud.labels[order]], s=4, alpha=0.55, linewidths=0,
               rasterized=True)  # fmt: skip
    if cloud.wrong is not None:
        x, y = cloud.points[cloud.wrong].T
        # many full rings would be one black spot that hides the classes
        share = min(1.0, FULL_RINGS / max(1, len(x)))
        ax.scatter(x, y, s=18 * max(0.4, share), facecolors="none", edgecolors=INK,
                   linewidths=0.6 * max(0.6, share), alpha=max(0.35, share),
                   rasterized=True)  # fmt: skip
    few = max((len(v) for v in (cell.centers, cell.rays) if v is not None), default=0) <= 20
    if cell.rays is not None:
        for start, end in cell.rays:
            # below the points: an arm of the star lies along its weight
            ax.plot(*np.stack([start, end]).T, color=INK, lw=1.0 if few else 0.4, zorder=0.5)
    if cell.centers is not None:
        x, y = cell.centers.T
        ax.scatter(x, y, marker="X", s=38 if few else 12, c="white", edgecolors=INK,
                   linewidths=0.9 if few else 0.5, zorder=5)  # fmt: skip
    frame_plane(ax, cell.limits)
    ax.tick_params(labelbottom=last)


@dataclass(frozen=True)
class Plane:
    """A linear map of features to the page."""

    origin: np.ndarray  # (D,) point that lands on (0, 0)
    axes: np.ndarray  # (D, 2) directions of the page axes
    explained: tuple[float, float] | None  # share of the variance along each; None in 2-D

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
