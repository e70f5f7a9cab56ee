"""The likelihood map of a 2-D feature space, with attacked images on it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.frames import Margins, draw_panels
from robustloss.reports.drawing.legends import ClassColours
from robustloss.reports.drawing.style import INK, class_colours
from robustloss.reports.reading.facts import class_key
from robustloss.reports.reading.scene import Scene
from robustloss.reports.reading.views import Reference, Shown, View

ARROWS = 16

DEPTH = 25.0  # most nats shown below the highest likelihood
CONTOURS = ((0.01, (0, (1, 1.2))), (0.05, (0, (4, 1.5))), (0.5, "-"))  # share of clean, dash


def add_likelihood_map(album: Album, scene: Scene) -> None:
    """Figure 1f of the paper, for every loss with 2-D features."""
    shown = scene.shown
    if not any(cell.feature_dim == 2 for cell in shown.cells.values()):
        return
    middle = scene.eps[(len(scene.eps) - 1) // 2]
    cells = [_map(label, scene.views[(label, middle)], shown) for label in scene.labels]
    if all(cell.gap for cell in cells):
        return
    album.add(
        f"likelihood-map-{scene.attack.slug}",
        draw_likelihood_maps(cells, scene.numbers.classes or 1),
        _map_arrays(cells, shown, scene.labels),
        title=f"Where attacked images land (eps {middle:.4g})",
        caption="Log-likelihood of the predicted class over the 2-D feature space (Figure 1f of "
        "Wan et al. 2018); brighter is more typical of clean data. 1, 5 and 50 % of clean "
        "validation images lie on the darker side of the white contours: a detector with 5 % "
        "false alarms rejects whatever lands on the darker side of the dashed one. Arrows lead "
        "from clean images (dots) to the same images under attack (diamonds, in the colour of "
        "the class they are taken for): the first successful attacks, at most two from each "
        "class. A diamond in a dark region is a mistake that the likelihood gives away. Each "
        f"panel has its own scale in nats. {class_key(scene.numbers)}{scene.words()}",
        alt="Maps of the log-likelihood over the 2-D feature space, one per loss, with arrows "
        "from clean to attacked images. "
        + "; ".join(f"{cell.title}: {cell.note}" for cell in cells if not cell.gap),
        section=scene.attack.label,
    )


@dataclass(frozen=True)
class LikelihoodMap:
    """One panel.

    Attributes:
        x, y: (G,) grid lines.
        values: (G, G) log-likelihood of the predicted class, row = y, column = x; nats.
        levels: Log-likelihood below which 1, 5 and 50 % of clean validation images lie.
        region: (2, 2) lower and upper corner of where nearly all clean images lie.
        clean, attacked: (M, 2) positions of the same images before and after the attack.
        clean_class, attacked_class: (M,) predicted classes.
        note: One line under the title.
        gap: Why there is nothing to draw.
    """

    title: str
    x: np.ndarray = field(default_factory=lambda: np.zeros(0))
    y: np.ndarray = field(default_factory=lambda: np.zeros(0))
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    levels: tuple[float, float, float] = (0.0, 0.0, 0.0)
    region: np.ndarray = field(default_factory=lambda: np.zeros((2, 2)))
    clean: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    attacked: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    clean_class: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    attacked_class: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    note: str = ""
    gap: str = ""


def _map(label: str, attacked: View | str, shown: Shown) -> LikelihoodMap:
    clean, known = shown.clean(label), shown.reference(label)
    for part in (clean, attacked, known):
        if isinstance(part, str):
            return LikelihoodMap(label, gap=part)
    assert isinstance(clean, View)
    assert isinstance(attacked, View)
    assert isinstance(known, Reference)
    if known.grid is None or clean.features is None or attacked.features is None:
        return LikelihoodMap(label, gap="features are not 2-D")
    some = _first_successes(clean, attacked)
    x, y, values = known.grid
    ends = attacked.features[some]
    inside = (ends >= [x[0], y[0]]).all(1) & (ends <= [x[-1], y[-1]]).all(1)
    passed = int((attacked.score[some] >= known.threshold).sum())
    note = f"{passed} of {len(some)} arrows end unnoticed" if len(some) else "no successful attack"
    if not inside.all():
        note += f"; {int((~inside).sum())} outside"
    return LikelihoodMap(
        label,
        x,
        y,
        values,
        known.levels,
        np.quantile(clean.features, (0.005, 0.995), axis=0),
        clean.features[some],
        ends,
        clean.predictions[some],
        attacked.predictions[some],
        note,
    )


def _first_successes(clean: View, attacked: View) -> np.ndarray:
    """Positions of the first successful attacks, at most two from each class."""
    found = np.flatnonzero(~clean.wrong & attacked.wrong)
    rank = np.zeros(len(found), int)
    for k in np.unique(clean.labels[found]):
        of_class = clean.labels[found] == k
        rank[of_class] = np.arange(of_class.sum())
    order = np.lexsort((found, rank))
    return np.sort(found[order[rank[order] < 2]][:ARROWS])


def _map_arrays(
    cells: Sequence[LikelihoodMap], shown: Shown, labels: Sequence[str]
) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for cell, label in zip(cells, labels, strict=True):
        if not cell.gap:
            name = shown.cells[label].slug
            arrays |= {
                f"{name}:x": cell.x, f"{name}:y": cell.y,
                f"{name}:log_likelihood": cell.values.astype(np.float32),
                f"{name}:contours": np.asarray(cell.levels), f"{name}:clean": cell.clean,
                f"{name}:attacked": cell.attacked, f"{name}:clean_class": cell.clean_class,
                f"{name}:attacked_class": cell.attacked_class,
            }  # fmt: skip
    return arrays


def map_range(values: np.ndarray, lowest_level: float) -> tuple[float, float]:
    """Colour range in nats: four times as deep as 99 % of clean data, and ``DEPTH`` at most.

    Every contour shows, however deep the lowest of them lies.

    Args:
        values: Log-likelihoods in view.
        lowest_level: The score below which 1 % of clean images lie.
    """
    top = float(values.max())
    clean = max(top - lowest_level, 1e-6)
    return top - max(min(DEPTH, 4 * clean), 1.25 * clean), top


def draw_likelihood_maps(cells: Sequence[LikelihoodMap], num_classes: int) -> Figure:
    """Draw one square map per loss, each with its own colour bar in nats."""
    colours = np.asarray(class_colours(num_classes))
    marks = [
        Line2D([], [], color=INK, lw=1.2, ls=dash, label=f"{100 * share:g} %")
        for share, dash in CONTOURS
    ]
    return draw_panels(
        [cell.gap or cell for cell in cells],
        lambda ax, cell, spot: _draw(ax, cell, colours),
        columns=3 if len(cells) == 5 else 4,
        widest=4.6,
        height=lambda width: width,
        titles=[cell.title for cell in cells],
        title_pad=18,
        legend=ClassColours(num_classes, marks, "contours: share of clean images below"),
        margins=Margins(left=0.5, top=0.5, bottom=0.95, wgap=0.4, hgap=1.35),
    )


def _draw(ax: Axes, cell: LikelihoodMap, colours: np.ndarray) -> None:
    view = _view(cell)
    seen = np.outer(_within(cell.y, view[1]), _within(cell.x, view[0]))
    low, high = map_range(cell.values[seen], cell.levels[0])
    half_x, half_y = (0.5 * (v[-1] - v[0]) / max(len(v) - 1, 1) for v in (cell.x, cell.y))
    extent = (
        cell.x[0] - half_x, cell.x[-1] + half_x, cell.y[0] - half_y, cell.y[-1] + half_y
    )  # fmt: skip
    image = ax.imshow(
        cell.values, extent=extent, origin="lower", cmap="cividis", vmin=low, vmax=high,
        aspect="auto", interpolation="bilinear",
    )  # fmt: skip
    for level, (_, dash) in zip(cell.levels, CONTOURS, strict=True):
        if low < level < high:
            lines = ax.contour(
                cell.x, cell.y, cell.values, [level], colors="white", linewidths=1.1,
                linestyles=[dash],
            )  # fmt: skip
            lines.set_path_effects([withStroke(linewidth=2.4, foreground="#22272ECC")])
    _arrows(ax, cell, colours)
    ax.set_facecolor("#DDE1E6")  # outside the computed grid
    ax.set_xlim(view[0])
    ax.set_ylim(view[1])
    ax.text(0, 1.02, cell.note, transform=ax.transAxes, fontsize=8.5, color="#5B6470", va="bottom")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5))
    box, figure = ax.get_position(), ax.figure
    assert isinstance(figure, Figure)
    per_inch = 1 / figure.get_figheight()
    bar_axes = figure.add_axes((box.x0, box.y0 - 0.42 * per_inch, box.width, 0.09 * per_inch))
    bar = figure.colorbar(image, cax=bar_axes, orientation="horizontal", extend="min")
    bar.set_label("log-likelihood (nats)", fontsize=8, labelpad=1)
    bar_axes.tick_params(labelsize=7.5, length=2, pad=1.5)
    bar_axes.xaxis.set_major_locator(MaxNLocator(nbins=5))


def _view(cell: LikelihoodMap) -> tuple[tuple[float, float], tuple[float, float]]:
    """Square limits around the clean data and the arrows, so that panels stay equal in size."""
    corners = ([cell.x[0], cell.y[0]], [cell.x[-1], cell.y[-1]])
    points = np.vstack([cell.region, np.clip(np.vstack([cell.clean, cell.attacked]), *corners)])
    low, high = points.min(0), points.max(0)
    middle, half = 0.5 * (low + high), 0.6 * float((high - low).max())
    return tuple((float(m - half), float(m + half)) for m in middle)  # type: ignore[return-value]


def _within(line: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    inside = (line >= limits[0]) & (line <= limits[1])
    return inside if inside.any() else np.ones(len(line), bool)


def _arrows(ax: Axes, cell: LikelihoodMap, colours: np.ndarray) -> None:
    for start, end in zip(cell.clean, cell.attacked, strict=True):
        arrow = FancyArrowPatch(
            tuple(start), tuple(end), arrowstyle="-|>", color="white", linewidth=0.9,
            shrinkA=0, shrinkB=3, mutation_scale=8, zorder=3,
        )  # fmt: skip
        arrow.set_path_effects([withStroke(linewidth=2.0, foreground="#22272EAA")])
        ax.add_patch(arrow)
    ax.scatter(
        cell.clean[:, 0],
        cell.clean[:, 1],
        s=14,
        c=colours[cell.clean_class],
        edgecolors="white",
        linewidths=0.4,
        zorder=4,
    )
    ax.scatter(
        cell.attacked[:, 0],
        cell.attacked[:, 1],
        s=34,
        marker="D",
        c=colours[cell.attacked_class],
        edgecolors="white",
        linewidths=0.9,
        zorder=5,
    )
