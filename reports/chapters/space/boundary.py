"""Boundaries and margins: of 2-D runs, measured and in closed form, and the effect of alpha."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from robustloss.reports.drawing.album import Plot, by_model
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.legends import Names
from robustloss.reports.drawing.style import (
    BLUE,
    INK,
    ORANGE,
    SOFT,
    VERMILLION,
    Limits,
    class_colours,
    columns_of,
    frame_plane,
    panels,
    plain,
    square_around,
    write_above,
)
from robustloss.reports.drawing.ticks import percent
from robustloss.reports.reading.facts import loss_spec, rows
from robustloss.reports.reading.feature_space import Boundary, Space
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import short

CLOSED = "#FF2BD6"  # far from every class colour and from the ink under it
MARGIN = "#FFE9A8"
DASHED, DOTTED = (0, (4, 1.6)), (0, (0.8, 2.2))


def plot_boundaries(numbers: Numbers) -> Iterator[Plot]:
    """Draw a panel per loss: the two nearest classes, the boundary between them, the margin."""
    shown, cells = numbers.shown, {label: _frontier(numbers, label) for label in numbers.pictured}
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


ALPHAS = (0.0, 0.1, 0.3, 1.0)


def _alpha_of(numbers: Numbers, label: str) -> float | None:
    """Return alpha of a GM or L-GM loss; None for any other."""
    name = numbers.names.get(label)
    if name == "gm":
        return 0.0
    if name == "lgm":
        return float((loss_spec(numbers, label).get("params") or {}).get("alpha", 1.0))
    return None


def plot_alpha(numbers: Numbers) -> Iterator[Plot]:
    """Draw Figure 2 of the paper, on the nearest pair of centers of the run's own L-GM."""
    known = [
        (alpha, label, found, pair)
        for label in numbers.labels
        if (alpha := _alpha_of(numbers, label)) is not None
        and isinstance(found := numbers.shown.space(label), Space)
        and (pair := nearest_centers(found)) is not None
    ]
    if not known:
        return
    own, label, found, pair = max(known, key=lambda entry: entry[0])
    alphas = sorted({*ALPHAS, *(alpha for alpha, *_ in known)})
    points, classes = _between_centers(found, *pair)
    measured = [m for alpha, k, *_ in known if (m := _measured(numbers, k, alpha))]
    yield Plot(
        "alpha",
        _draw_alpha(alphas, points, classes, measured),
        [{"kind": "closed form", "label": "", "alpha": a, "boundary": own_boundary(a),
          "margin_share": float(margin_share(a)), "low": None, "high": None} for a in alphas]
        + [{"kind": "measured", "label": m.label, "alpha": m.alpha, "boundary": None,
            "margin_share": m.nearest, "low": m.low, "high": m.high} for m in measured],
        title="How does alpha widen the margin?",
        caption="Left: where training calls two classes equal, for several alpha; the gap between "
        "the solid and the dashed line of a colour is the margin. Right: its width between the "
        "centers. Figure 2 of Wan et al. 2018 sketches the left half; here it stands for the "
        f"nearest centers of {label} (classes {pair[0]} and {pair[1]}, {pair[2]:.3g} apart, alpha "
        f"{own:g}). On each line (1+alpha) times the squared distance to the true center equals "
        "that to the other: straight at alpha 0, else a circle around the true center. Diamonds "
        "are measured between the class means of the training images; they leave the curve where "
        "these are not the centers, or where variances are learned. "
        + ("Dots are the training images of the two classes. " if len(points) else "")
        + numbers.shown.words([label]),
        alt="Circles around two centers for several alpha, and the margin as a share of their "
        "distance: "
        + ", ".join(f"{100 * float(margin_share(a)):.1f} % at alpha {a:g}" for a in alphas)
        + "".join(f"; measured {m.label} {100 * m.nearest:.1f} %" for m in measured) + ".",
    )  # fmt: skip


def _between_centers(known: Space, a: int, b: int, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Return training images of two classes in the frame of their centers; none beyond 2-D."""
    if known.vectors is None or known.train is None or known.train.shape[1] != 2:
        return np.zeros((0, 2)), np.zeros(0, int)
    assert known.train_labels is not None
    some = np.isin(known.train_labels, (a, b))
    along = (known.vectors[b] - known.vectors[a]).astype(float) / length
    frame = np.stack([along, [-along[1], along[0]]], 1) / length
    points = (known.train[some] - known.vectors[a]) @ frame
    return points, (known.train_labels[some] == b).astype(int)


@dataclass(frozen=True)
class Measured:
    """Margin over distance of the class means of one loss: nearest pair, lowest, highest pair."""

    label: str
    alpha: float
    nearest: float
    low: float
    high: float


def _measured(numbers: Numbers, label: str, alpha: float) -> Measured | None:
    found = [r for r in rows(numbers, "margins", label) if r["margin"] is not None]
    if not found:
        return None
    shares = [r["margin"] / r["length"] for r in found]
    nearest = [
        min((r for r in found if r["seed"] == seed), key=lambda r: r["length"])
        for seed in sorted({r["seed"] for r in found})
    ]
    at = float(np.mean([r["margin"] / r["length"] for r in nearest]))
    return Measured(label, alpha, at, min(shares), max(shares))


def own_boundary(alpha: float) -> float:
    """Return where (1+alpha) d_a = d_b on the segment from a to b, as a share of its length."""
    return 1 / (1 + np.sqrt(1 + alpha))


def margin_share(alpha: np.ndarray | float) -> np.ndarray | float:
    """Return margin over distance of the centers: between the two boundaries of training."""
    return 1 - 2 * own_boundary(alpha)  # type: ignore[arg-type]


def apollonius(alpha: float) -> tuple[float, float]:
    """Return center (on the line from a=0 to b=1) and radius of the circle (1+alpha) d_a = d_b.

    All points whose distances to a and b have the ratio 1 : sqrt(1+alpha); alpha > 0.
    """
    return -1 / alpha, float(np.sqrt(1 + alpha)) / alpha


def _draw_alpha(
    alphas: Sequence[float], points: np.ndarray, classes: np.ndarray, measured: Sequence[Measured]
) -> Figure:
    """Draw boundaries between two centers at (0, 0) and (1, 0), and the margin against alpha.

    Alphas rise. Points are (N, 2) training images of the two classes, 0 and 1, in units of the
    distance of the centers; there may be none.
    """
    figure, axes = panels(1, 2, width=4.5, height=2.9, left=0.55, wgap=0.85, top=0.45, bottom=1.0)
    _draw_circles(axes[0, 0], alphas, points, classes)
    _draw_widths(axes[0, 1], alphas, measured)
    return figure


def _tone(alphas: Sequence[float], alpha: float) -> tuple[float, float, float, float]:
    place = list(alphas).index(alpha) / max(1, len(alphas) - 1)
    return matplotlib.colormaps["viridis"](0.85 * (1 - place))


def _draw_circles(
    ax: Axes, alphas: Sequence[float], points: np.ndarray, classes: np.ndarray
) -> None:
    ax.set_title("Where training calls the two classes equal")
    if len(points):
        colours = np.where(classes == 0, BLUE, ORANGE)
        x, y = points.T
        ax.scatter(x, y, s=5, c=colours, alpha=0.35, linewidths=0, rasterized=True)
    ax.plot([0, 1], [0, 0], ls="none", marker="X", ms=9, mfc="white", mec=INK, zorder=6)
    for alpha in alphas:
        tone = _tone(alphas, alpha)
        if alpha == 0:
            ax.axvline(0.5, color=tone, lw=1.8)
            continue
        center, radius = apollonius(alpha)
        reach = np.arcsin(min(1.0, 0.95 / radius))
        angle = np.linspace(-reach, reach, 181)
        x, y = center + radius * np.cos(angle), radius * np.sin(angle)
        ax.plot(x, y, color=tone, lw=1.8)
        ax.plot(1 - x, y, color=tone, lw=1.8, ls=(0, (4, 1.6)))
    ax.set_xlim(-0.42, 1.42)
    ax.set_ylim(-0.8, 0.8)
    ax.set_aspect("equal")
    ax.set_xlabel("distance of the two centers = 1")
    handles = [Line2D([], [], color=_tone(alphas, a), lw=1.8, label=f"alpha {a:g}") for a in alphas]
    handles += [
        Line2D([], [], color=INK, lw=1.4, label="true class left"),
        Line2D([], [], color=INK, lw=1.4, ls=(0, (4, 1.6)), label="true class right"),
    ]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.06, -0.12), ncols=3,
              fontsize=8.5)  # fmt: skip


def _draw_widths(ax: Axes, alphas: Sequence[float], measured: Sequence[Measured]) -> None:
    ax.set_title("Width of the margin")
    end = 1.15 * max(1.0, *alphas, *(m.alpha for m in measured))
    x = np.linspace(0, end, 300)
    share = 100 * margin_share(x)
    ax.plot(x, share, color=INK, lw=1.6, label="closed form: 1 − 2/(1+√(1+alpha))")
    for alpha in alphas:
        height = 100 * float(margin_share(alpha))
        ax.plot([alpha], [height], marker="o", ms=4.5, color=_tone(alphas, alpha), zorder=3)
    diamond: dict[str, Any] = {"marker": "D", "ms": 6, "mfc": "white", "mec": VERMILLION,
                               "mew": 1.5}  # fmt: skip
    for m in measured:
        ax.plot([m.alpha] * 2, [100 * m.low, 100 * m.high], color=VERMILLION, lw=1.4, zorder=4)
        ax.plot([m.alpha], [100 * m.nearest], zorder=5, **diamond)
        last = m.alpha > 0.8 * end  # its name goes to the left, where there is room
        ax.annotate(plain(m.label, 24), (m.alpha, 100 * m.nearest),
                    xytext=(-9, -4) if last else (9, -11), textcoords="offset points",
                    fontsize=8.5, ha="right" if last else "left")  # fmt: skip
    ax.set_xlim(-0.02 * end, end)
    ax.set_ylim(min([-1.5, *(100 * m.low - 2 for m in measured)]), None)
    ax.set_xlabel("alpha")
    ax.set_ylabel("margin, share of the distance")
    ax.yaxis.set_major_formatter(percent)
    ax.grid(True)
    if measured:
        name = "measured, nearest pair (line: all pairs)"
        ax.plot([], [], ls="none", label=name, **diamond)
    ax.legend(loc="upper left", bbox_to_anchor=(-0.06, -0.12), fontsize=8.5)
