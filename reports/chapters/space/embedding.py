"""Where training and test images lie in the space of each loss, and where they started."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustloss.reports.drawing.album import Plot, by_model
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
from robustloss.reports.reading.facts import class_key
from robustloss.reports.reading.feature_space import MOST_POINTS, Space, evenly
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.views import Shown, View
from robustloss.reports.words import listed, short

BANDS = ("training images", "test images")
MOST_STARTS = 4
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


def plot_embedding(numbers: Numbers) -> Iterator[Plot]:
    """Draw Figure 1 of the paper: where the clean images lie in feature space."""
    shown = numbers.shown
    cells = [_embedding(label, shown) for label in numbers.pictured]
    drawn = [cell for cell in cells if not all(cloud.gap for cloud in cell.clouds)]
    if not drawn:
        return
    how = "The axes are the two features."
    if all(cell.explained is not None for cell in drawn):
        how = (
            "The axes are the two leading principal components of the test features and show only "
            "a part of the variance (“seen”): clusters that overlap here may be apart."
        )
    yield Plot(
        "embedding",
        draw_embeddings(cells, numbers.classes or 1, BANDS),
        by_model({shown.cells[cell.title].slug: cell.arrays() for cell in drawn}),
        title="Where do the classes lie?",
        caption="Clean images in the feature space of each loss, coloured by their class: training "
        f"images above, test images below. {how} Compact clusters far apart are what the center "
        "and Gaussian losses aim for. A ring marks a mistake on a test image, a cross the center "
        "of a class, a line from the origin the direction of its weight. Every loss has its own "
        "scale; 95 % of its features are no longer than the norm above the panel. As Figure 1 of "
        f"Wan et al. 2018, with at most {MOST_POINTS:,} images a panel. "
        f"{class_key(numbers)}{shown.words(numbers.labels)}",
        alt="Scatter plots of the clean features, training images above test images, one column "
        "per loss, coloured by class. "
        + "; ".join(f"{cell.title}: {cell.clouds[1].note}" for cell in drawn),
    )


def _embedding(label: str, shown: Shown) -> Embedding:
    """Return a loss in the plane of its test images."""
    clean, known = shown.clean(label), shown.space(label)
    if isinstance(clean, str) or clean.features is None:
        gap = clean if isinstance(clean, str) else "no features stored"
        return Embedding(label, [Cloud(gap=gap)] * 2)
    view, reach = plane(clean.features), _reach(clean.features)
    some = evenly(clean.n, MOST_POINTS)
    test = Cloud(
        view(clean.features[some]), clean.labels[some], clean.wrong[some],
        f"error {100 * clean.wrong.mean():.2f} %, norm to {short(reach)}",
    )  # fmt: skip
    if isinstance(known, str):
        return Embedding(label, [Cloud(gap=known), test], explained=view.explained)
    train = Cloud(gap="no training features stored")
    if known.train is not None and known.train_labels is not None:
        seen = "" if view.explained is None else f"{100 * sum(view.explained):.0f} % seen, "
        note = f"{seen}norm to {short(_reach(known.train))}"
        train = Cloud(view(known.train), known.train_labels, note=note)
    centers = rays = None
    if known.vectors is not None and known.are_centers:
        centers = view(known.vectors)
    elif known.vectors is not None:  # directions: lines from the origin
        lengths = np.maximum(np.linalg.norm(known.vectors, axis=1, keepdims=True), 1e-12)
        ends = view(reach * known.vectors / lengths)
        start = view(np.zeros((1, known.vectors.shape[1])))
        rays = np.stack([np.repeat(start, len(ends), 0), ends], 1)
    return Embedding(label, [train, test], centers, rays, view.explained)


def _reach(features: np.ndarray) -> float:
    """Return the norm that 95 % of the features do not exceed."""
    return float(np.quantile(np.linalg.norm(np.asarray(features, float), axis=1), 0.95))


def same_start(shown: Shown, labels: Sequence[str]) -> list[list[str]]:
    """Return the losses in groups whose untrained networks have the same features bit for bit.

    Args:
        shown: The models.
        labels: Of losses; those without stored features are left out.
    """
    groups: list[tuple[np.ndarray, list[str]]] = []
    for label in labels:
        known = shown.space(label)
        if isinstance(known, str) or known.untrained is None:
            continue
        for features, members in groups:
            if np.array_equal(features, known.untrained):
                members.append(label)
                break
        else:
            groups.append((known.untrained, [label]))
    return [members for _, members in groups]


def plot_untrained(numbers: Numbers) -> Iterator[Plot]:
    """Draw the untrained network's features beside those that training made of them."""
    shown = numbers.shown
    groups = same_start(shown, numbers.labels)
    if not groups:
        return
    alone = len(groups) == 1
    cells: list[Embedding] = []
    arrays: dict[str, dict[str, np.ndarray | None]] = {}
    for number, members in enumerate(groups[:MOST_STARTS], 1):
        known = shown.space(members[0])
        assert isinstance(known, Space)
        assert known.untrained is not None
        assert known.untrained_labels is not None
        note = f"at the start, norm to {short(_reach(known.untrained))}"
        points = plane(known.untrained)(known.untrained)
        before = Cloud(points, known.untrained_labels, note=note)
        title = f"untrained (all {len(members)})" if alone else f"untrained {number}"
        cells.append(Embedding(title, [before]))
        cells += [Embedding(k, [_trained(shown, k)]) for k in members[: 4 if alone else 1]]
        arrays[str(number)] = {"points": before.points, "labels": before.labels}
    columns = min(len(cells), 5)
    yield Plot(
        "untrained",
        draw_embeddings(cells, numbers.classes or 1, ["test images"],
                        columns=columns if alone else columns_of(columns)),
        by_model(arrays),
        title="What did training change?",
        caption="Features of clean test images before training and after it. Classes that are "
        f"apart before it were not learned to be so. {_start_words(groups)} Every panel has its "
        "own scale and, in more than two dimensions, its own principal plane. "
        f"{class_key(numbers)}{shown.words(numbers.labels)}",
        alt=f"Scatter plots of the untrained and the trained features. {_start_words(groups)}",
    )  # fmt: skip


def _start_words(groups: Sequence[Sequence[str]]) -> str:
    if len(groups) == 1 and len(groups[0]) == 1:
        return f"One network: {groups[0][0]}."
    if len(groups) == 1:
        return (
            f"Checked: all {len(groups[0])} losses start from the same network, their untrained "
            "features are equal bit for bit."
        )
    parts = [f"{i + 1}: {listed(list(members))}" for i, members in enumerate(groups)]
    more = f" (the first {MOST_STARTS} are drawn)" if len(groups) > MOST_STARTS else ""
    return f"The losses start from {len(groups)} different networks{more}: {'; '.join(parts)}."


def _trained(shown: Shown, label: str) -> Cloud:
    """Return as many test images as there are of the untrained network, after training."""
    clean, known = shown.clean(label), shown.space(label)
    if not isinstance(clean, View) or clean.features is None:
        return Cloud(gap="no features stored")
    assert isinstance(known, Space)
    some = evenly(clean.n, len(known.untrained) if known.untrained is not None else MOST_POINTS)
    note = f"trained, norm to {short(_reach(clean.features))}"
    view = plane(clean.features)
    return Cloud(view(clean.features[some]), clean.labels[some], clean.wrong[some], note)
