"""Error against eps where a minimum-norm attack gives the whole curve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustloss.reports.chapters.errors.radius import minimum_norm
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.legends import LINE, legend_below, legend_shape
from robustloss.reports.drawing.style import CROWD, INK, Look, blank, panel_width, panels, plain
from robustloss.reports.drawing.ticks import percent
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.reading.views import Shown

SOFT = "#5B6470"
POINTS = 400


def add_radius_curves(
    album: Album, numbers: Numbers, shown: Shown, looks: Mapping[str, Look]
) -> None:
    """One panel for each attack that looks for the smallest change."""
    grid = [_panel(numbers, shown, attack) for attack in numbers.attacks if attack.strengths
            and minimum_norm(numbers, attack)]  # fmt: skip
    if not any(panel.curves for panel in grid):
        return
    album.add(
        "error-vs-radius",
        draw_radius_curves(grid, looks),
        _rows(grid),
        title="Error against the smallest change that fools",
        caption="A minimum-norm attack gives every image its radius, so its error is known at "
        "every eps: the curve is the share of images with a radius of at most eps, mean over "
        "seeds; clean mistakes have radius 0. The curve farther to the right belongs to the loss "
        f"that is harder to fool. The median radius is read off where a curve crosses 50 %."
        f"{_worst_words(grid)} Each axis ends where the slowest curve does.",
        alt=f"Rising curves of error against eps, one line per loss. {_in_words(grid)}",
    )


@dataclass(frozen=True)
class RadiusCurve:
    """One loss.

    Attributes:
        label: Of the loss.
        x: (P,) eps from 0.
        y: (P,) error in percent.
        median: Half of the images have a smaller radius; None where fewer have any.
        worst: (eps, error, low, high) in percent of the worst case.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    median: float | None
    worst: Sequence[tuple[float, float, float, float]]


@dataclass(frozen=True)
class RadiusPanel:
    """One attack with the curve of every loss; ``end`` is where the axis ends."""

    title: str
    x_label: str
    curves: Sequence[RadiusCurve]
    end: float


def _worst_words(grid: list[RadiusPanel]) -> str:
    if max(len(panel.curves) for panel in grid) > CROWD:
        return " The worst case over all attacks is in the tables."
    return (
        " Open markers: the worst case over all attacks of the norm, with its 95 % interval; one "
        "above the curve says that another attack found more."
    )


def _panel(numbers: Numbers, shown: Shown, attack: AttackInfo) -> RadiusPanel:
    radii = {label: shown.radii(label, attack) for label in numbers.labels}
    known = {label: by_seed for label, by_seed in radii.items() if by_seed}
    end = curve_end(list(known.values()))
    x = np.linspace(0, end, POINTS)
    curves = [
        RadiusCurve(label, x, error_curve(by_seed, x), _median(numbers, label, attack),
                    _worst(numbers, label, attack))
        for label, by_seed in known.items()
    ]  # fmt: skip
    return RadiusPanel(attack.label, attack.axis, curves, end)


def _median(numbers: Numbers, label: str, attack: AttackInfo) -> float | None:
    found = numbers.get(label, attack.label, None, "median_radius")
    return found.mean if found else None


def _worst(
    numbers: Numbers, label: str, attack: AttackInfo
) -> list[tuple[float, float, float, float]]:
    out = []
    for case in numbers.worst_cases:
        for eps in case.strengths if case.norm == attack.norm else ():
            if found := numbers.get(label, case.label, eps, "error"):
                low = found.mean if found.low is None else found.low
                high = found.mean if found.high is None else found.high
                out.append((eps, 100 * found.mean, 100 * low, 100 * high))
    return out


def _rows(grid: list[RadiusPanel]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for panel in grid:
        for curve in panel.curves:
            place = {"panel": panel.title, "label": curve.label}
            rows += [
                place | {"kind": "curve", "eps": float(x), "error_percent": float(y)}
                for x, y in zip(curve.x, curve.y, strict=True)
            ]
            rows += [
                place | {"kind": "worst case", "eps": eps, "error_percent": error}
                for eps, error, _, _ in curve.worst
            ]
    return rows


def _in_words(grid: list[RadiusPanel]) -> str:
    parts = []
    for panel in grid:
        medians = [f"{c.label} {c.median:.3g}" for c in panel.curves if c.median is not None]
        parts.append(f"{panel.title}, median radius: {', '.join(medians) or 'none'}")
    return "; ".join(parts) + "."


def error_curve(radii: Sequence[np.ndarray], x: np.ndarray) -> np.ndarray:
    """Percent of images with a radius of at most x, mean over seeds.

    Args:
        radii: (N,) a seed; inf where none was found.
        x: (P,) eps.
    """
    shares = [np.searchsorted(np.sort(r), x, side="right") / len(r) for r in radii]
    return 100 * np.mean(shares, axis=0)


def curve_end(radii: Sequence[Sequence[np.ndarray]]) -> float:
    """Where the slowest curve has risen to 99.5 % of its height: beyond it nothing happens.

    Args:
        radii: By loss, by seed: (N,).
    """
    finite = [np.concatenate(list(by_seed)) for by_seed in radii]
    finite = [r[np.isfinite(r)] for r in finite]
    return max((float(np.quantile(r, 0.995)) for r in finite if r.size), default=0.0) * 1.03


def draw_radius_curves(grid: Sequence[RadiusPanel], looks: Mapping[str, Look]) -> Figure:
    """Draw the panels in rows of at most three, with one legend under them."""
    labels = [k for k in looks if any(c.label == k for p in grid for c in p.curves)]
    if len(labels) > CROWD:
        return _draw_crowded(grid, looks)
    columns = min(3, len(grid))
    margins = {"left": 0.75, "right": 0.2, "wgap": 0.75}
    width = panel_width(columns, widest=6.2 if columns == 1 else 4.8, **margins)
    handles = _handles(labels, looks)
    inches = 0.2 + columns * (width + margins["wgap"])
    lines = legend_shape([str(h.get_label()) for h in handles], inches - 0.7)[1]
    figure, axes = panels(
        -(-len(grid) // columns), columns, width=width, height=min(3.8, 0.8 * width), top=0.4,
        bottom=0.68 + LINE * lines, hgap=0.95, **margins,
    )  # fmt: skip
    for ax, panel in zip(axes.flat, grid, strict=False):
        _draw(ax, panel, looks)
    for ax in axes.flat[len(grid) :]:
        ax.set_axis_off()
    legend_below(figure, handles, left=0.7)
    return figure


def _draw_crowded(grid: Sequence[RadiusPanel], looks: Mapping[str, Look]) -> Figure:
    """Two panels in a row; losses are listed beside each, by median radius, farthest first."""
    columns, names = min(2, len(grid)), 2.25
    margins = {"left": 0.75, "right": names, "wgap": names + 0.7}
    width = panel_width(columns, widest=4.6, **margins)
    most = max(len(panel.curves) for panel in grid)
    figure, axes = panels(
        -(-len(grid) // columns), columns, width=width, height=max(3.2, 0.18 * (most + 1)),
        top=0.4, bottom=0.68, hgap=0.95, **margins,
    )  # fmt: skip
    for ax, panel in zip(axes.flat, grid, strict=False):
        _draw(ax, panel, looks)
        if ax.axison:
            _ranking(ax, panel.curves, looks)
    for ax in axes.flat[len(grid) :]:
        ax.set_axis_off()
    return figure


def _ranking(ax: Axes, curves: Sequence[RadiusCurve], looks: Mapping[str, Look]) -> None:
    ordered = sorted(curves, key=lambda c: -np.inf if c.median is None else -c.median)
    step = 1 / (len(ordered) + 1)
    ax.text(1.03, 1 - step / 2, "median radius", transform=ax.transAxes, fontsize=8, color=SOFT,
            va="center")  # fmt: skip
    for i, curve in enumerate(ordered):
        y, look = 1 - (i + 1.5) * step, looks[curve.label]
        ax.plot([1.03, 1.12], [y, y], transform=ax.transAxes, clip_on=False, lw=1.6,
                color=look.colour, ls=look.dash)  # fmt: skip
        ax.plot([1.075], [y], transform=ax.transAxes, clip_on=False, marker=look.marker, ms=4.5,
                color=look.colour, mec="white", mew=0.5)  # fmt: skip
        value = "none" if curve.median is None else f"{curve.median:.3g}"
        ax.text(1.135, y, f"{value}  {plain(curve.label, 22)}", transform=ax.transAxes, fontsize=8,
                va="center")  # fmt: skip


def _draw(ax: Axes, panel: RadiusPanel, looks: Mapping[str, Look]) -> None:
    ax.set_title(plain(panel.title, 60))
    if not panel.curves or panel.end <= 0:
        blank(ax, "no image has a radius")
        return
    ax.axhline(50, color=SOFT, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    for curve in panel.curves:
        look = looks[curve.label]
        ax.step(curve.x, curve.y, where="post", color=look.colour, ls=look.dash, lw=1.8, zorder=3)
        if curve.median is not None and curve.median <= panel.end:
            if len(panel.curves) <= CROWD:
                ax.plot([curve.median] * 2, [0, 50], color=look.colour, lw=0.9, zorder=2)
            ax.plot([curve.median], [50], marker=look.marker, ms=5.5, color=look.colour,
                    mec="white", mew=0.6, zorder=4)  # fmt: skip
        for eps, error, low, high in curve.worst if len(panel.curves) <= CROWD else ():
            if eps <= panel.end:
                ax.errorbar([eps], [error], [[error - low], [high - error]], fmt=look.marker,
                            ms=7, mfc="white", mec=look.colour, ecolor=look.colour, mew=1.4,
                            elinewidth=1, zorder=5)  # fmt: skip
    _medians(ax, panel.curves)
    ax.set_xlim(0, panel.end)
    ax.set_ylim(0, 102)
    ax.yaxis.set_major_formatter(percent)
    ax.set_xlabel(panel.x_label)
    ax.set_ylabel("error")
    ax.grid(True)


def _medians(ax: Axes, curves: Sequence[RadiusCurve]) -> None:
    """The medians in figures, where the curves have already risen."""
    if len(curves) > CROWD:  # more would cover the curves; the table has them
        return
    lines = [
        f"{plain(c.label, 16)} " + ("none" if c.median is None else f"{c.median:.3g}")
        for c in curves
    ]
    ax.text(
        0.98, 0.03, "\n".join(["median radius", *lines]), transform=ax.transAxes, ha="right",
        va="bottom", fontsize=8, color=INK, zorder=6, linespacing=1.35,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )  # fmt: skip


def _handles(labels: Sequence[str], looks: Mapping[str, Look]) -> list[Line2D]:
    out = [
        Line2D([], [], color=looks[k].colour, ls=looks[k].dash, lw=1.8, marker=looks[k].marker,
               ms=5.5, mec="white", mew=0.6, label=plain(k))
        for k in labels
    ]  # fmt: skip
    worst = Line2D([], [], ls="none", marker="o", ms=7, mfc="white", mec=INK, mew=1.4,
                   label="worst case over attacks")  # fmt: skip
    return [*out, worst]
