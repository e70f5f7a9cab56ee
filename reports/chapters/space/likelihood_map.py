"""The likelihood map of a 2-D feature space, with attacked images on it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from robustloss.notation import eps_text
from robustloss.reports.drawing.album import Plot, by_model
from robustloss.reports.drawing.frames import Margins, draw_panels
from robustloss.reports.drawing.legends import ClassColours
from robustloss.reports.drawing.style import INK, Limits, class_colours, square_around, write_above
from robustloss.reports.reading.facts import class_key
from robustloss.reports.reading.scene import Scene
from robustloss.reports.reading.views import Reference, Shown, View

ARROWS = 16

DEPTH = 25.0  # most nats shown below the highest likelihood
CONTOURS = ((0.01, (0, (1, 1.2))), (0.05, (0, (4, 1.5))), (0.5, "-"))  # share of clean, dash


def plot_likelihood_map(scene: Scene) -> Iterator[Plot]:
    """Draw Figure 1f of the paper, for every loss with 2-D features."""
    shown = scene.shown
    if not any(cell.feature_dim == 2 for cell in shown.cells.values()):
        return
    middle = scene.eps[(len(scene.eps) - 1) // 2]
    cells = {k: _map_of(k, scene.views[k, middle], shown) for k in scene.pictured}
    maps = {k: cell for k, cell in cells.items() if isinstance(cell, LikelihoodMap)}
    if not maps:
        return
    yield Plot(
        f"likelihood-map-{scene.attack.slug}",
        _draw(cells, scene.numbers.classes or 1),
        by_model({shown.cells[k].slug: cell.arrays() for k, cell in maps.items()}),
        title=f"Where attacked images land (eps {eps_text(middle)})",
        caption="Log-likelihood over the feature space, brighter where more typical of clean data; "
        "arrows lead from clean images to the same images under attack. A diamond, in the colour "
        "of the class it is taken for, on dark ground is a mistake that the likelihood gives away: "
        "a detector with 5 % false alarms rejects what is darker than the dashed contour. 1, 5 and "
        "50 % of clean validation images are darker than the contours. Drawn are the first "
        "successful attacks, at most two from each class. As Figure 1f of Wan et al. 2018; every "
        f"panel has its own scale. {class_key(scene.numbers)}{scene.words()}",
        alt="Maps of the log-likelihood over the 2-D feature space, one per loss, with arrows "
        "from clean to attacked images. "
        + "; ".join(f"{label}: {cell.note}" for label, cell in maps.items()),
    )


@dataclass(frozen=True)
class LikelihoodMap:
    """One panel."""

    x: np.ndarray  # (G,) grid lines
    y: np.ndarray
    values: np.ndarray  # (G, G) log-likelihood of the predicted class, row = y, column = x; nats
    levels: tuple[float, float, float]  # below which 1, 5 and 50 % of clean validation images lie
    region: np.ndarray  # (2, 2) lower and upper corner of where nearly all clean images lie
    clean: np.ndarray  # (M, 2) positions of the same images before and after the attack
    attacked: np.ndarray
    clean_class: np.ndarray  # (M,) predicted classes
    attacked_class: np.ndarray
    note: str  # one line under the title

    @property
    def limits(self) -> Limits:
        """A square around the clean data and the arrows, as far as they lie on the grid."""
        corners = ([self.x[0], self.y[0]], [self.x[-1], self.y[-1]])
        ends = np.clip(np.vstack([self.clean, self.attacked]), *corners)
        points = np.vstack([self.region, ends])
        return square_around(points.min(0), points.max(0), 0.6)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what is drawn, by name."""
        return {
            "x": self.x, "y": self.y, "log_likelihood": self.values.astype(np.float32),
            "contours": np.asarray(self.levels), "clean": self.clean, "attacked": self.attacked,
            "clean_class": self.clean_class, "attacked_class": self.attacked_class,
        }  # fmt: skip


def _map_of(label: str, attacked: View | str, shown: Shown) -> LikelihoodMap | str:
    """Return the map of one loss, or why there is none."""
    clean, known = shown.clean(label), shown.reference(label)
    for part in (clean, attacked, known):
        if isinstance(part, str):
            return part
    assert isinstance(clean, View)
    assert isinstance(attacked, View)
    assert isinstance(known, Reference)
    if known.grid is None or clean.features is None or attacked.features is None:
        return "features are not 2-D"
    # the first successful attacks, at most two from each class
    found = np.flatnonzero(~clean.wrong & attacked.wrong)
    rank = np.zeros(len(found), int)
    for k in np.unique(clean.labels[found]):
        of_class = clean.labels[found] == k
        rank[of_class] = np.arange(of_class.sum())
    order = np.lexsort((found, rank))
    some = np.sort(found[order[rank[order] < 2]][:ARROWS])
    x, y, values = known.grid
    ends = attacked.features[some]
    inside = (ends >= [x[0], y[0]]).all(1) & (ends <= [x[-1], y[-1]]).all(1)
    passed = int((attacked.score[some] >= known.threshold).sum())
    note = f"{passed} of {len(some)} arrows end unnoticed" if len(some) else "no successful attack"
    if not inside.all():
        note += f"; {int((~inside).sum())} outside"
    region = np.quantile(clean.features, (0.005, 0.995), axis=0)
    return LikelihoodMap(
        x, y, values, known.levels, region,
        clean.features[some], ends, clean.predictions[some], attacked.predictions[some], note,
    )  # fmt: skip


def map_range(values: np.ndarray, lowest_level: float) -> tuple[float, float]:
    """Return a colour range in nats: four times as deep as 99 % of clean data, at most ``DEPTH``.

    Every contour shows, however deep the lowest of them lies.

    Args:
        values: Log-likelihoods in view.
        lowest_level: The score below which 1 % of clean images lie.
    """
    top = float(values.max())
    clean = max(top - lowest_level, 1e-6)
    return top - max(min(DEPTH, 4 * clean), 1.25 * clean), top


def _draw(cells: Mapping[str, LikelihoodMap | str], num_classes: int) -> Figure:
    """Draw one square map per loss, each with its own colour bar in nats."""
    colours = np.asarray(class_colours(num_classes))
    marks = [
        Line2D([], [], color=INK, lw=1.2, ls=dash, label=f"{100 * share:g} %")
        for share, dash in CONTOURS
    ]
    return draw_panels(
        [*cells.values()], lambda ax, cell, spot: _draw_map(ax, cell, colours),
        columns=3 if len(cells) == 5 else 4, widest=4.6, height=lambda width: width,
        titles=[*cells], title_pad=18,
        legend=ClassColours(num_classes, marks, "contours: share of clean images below"),
        margins=Margins(left=0.5, top=0.5, bottom=0.95, wgap=0.4, hgap=1.35),
    )  # fmt: skip


def _draw_map(ax: Axes, cell: LikelihoodMap, colours: np.ndarray) -> None:
    across, up = cell.limits
    seen = np.outer(_within(cell.y, up), _within(cell.x, across))
    low, high = map_range(cell.values[seen], cell.levels[0])
    half_x, half_y = (0.5 * (v[-1] - v[0]) / max(len(v) - 1, 1) for v in (cell.x, cell.y))
    image = ax.imshow(
        cell.values, origin="lower", cmap="cividis", vmin=low, vmax=high, aspect="auto",
        extent=(cell.x[0] - half_x, cell.x[-1] + half_x, cell.y[0] - half_y, cell.y[-1] + half_y),
        interpolation="bilinear",
    )  # fmt: skip
    for level, (_, dash) in zip(cell.levels, CONTOURS, strict=True):
        if low < level < high:
            lines = ax.contour(
                cell.x, cell.y, cell.values, [level], colors="white", linewidths=1.1,
                linestyles=[dash],
            )  # fmt: skip
            lines.set_path_effects([withStroke(linewidth=2.4, foreground=f"{INK}CC")])
    _draw_arrows(ax, cell, colours)
    ax.set_facecolor("#DDE1E6")  # outside the computed grid
    ax.set_xlim(across)
    ax.set_ylim(up)
    write_above(ax, cell.note, size=8.5, height=1.02)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5))
    box, figure = ax.get_position(), ax.figure
    assert isinstance(figure, Figure)
    inch = 1 / figure.get_figheight()
    below = figure.add_axes((box.x0, box.y0 - 0.42 * inch, box.width, 0.09 * inch))
    bar = figure.colorbar(image, cax=below, orientation="horizontal", extend="min")
    bar.set_label("log-likelihood (nats)", fontsize=8, labelpad=1)
    below.tick_params(labelsize=7.5, length=2, pad=1.5)
    below.xaxis.set_major_locator(MaxNLocator(nbins=5))


def _within(line: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    inside = (line >= limits[0]) & (line <= limits[1])
    return inside if inside.any() else np.ones(len(line), bool)


def _draw_arrows(ax: Axes, cell: LikelihoodMap, colours: np.ndarray) -> None:
    for start, end in zip(cell.clean, cell.attacked, strict=True):
        arrow = FancyArrowPatch(
            tuple(start), tuple(end), arrowstyle="-|>", color="white", linewidth=0.9,
            shrinkA=0, shrinkB=3, mutation_scale=8, zorder=3,
        )  # fmt: skip
        arrow.set_path_effects([withStroke(linewidth=2.0, foreground=f"{INK}AA")])
        ax.add_patch(arrow)
    for points, classes, size, marker, edge, order in (
        (cell.clean, cell.clean_class, 14, "o", 0.4, 4),
        (cell.attacked, cell.attacked_class, 34, "D", 0.9, 5),
    ):
        x, y = points.T
        ax.scatter(x, y, s=size, marker=marker, c=colours[classes], edgecolors="white",
                   linewidths=edge, zorder=order)  # fmt: skip
