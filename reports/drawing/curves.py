"""Curves with bands: error and detection against eps, and training against epochs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from robustloss.notation import eps_text
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.legends import Names
from robustloss.reports.drawing.style import CROWD, INK, SOFT, Look, plain
from robustloss.reports.drawing.ticks import number, percent, unlabelled
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import Estimate

NAN = math.nan
NO_NUMBERS = "no numbers for this panel"
Get = Callable[[str, float], Estimate | None]


@dataclass(frozen=True)
class Line:
    """One curve: x (P,), y (P,), and the band low, high (P,); NaN is a gap."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    @property
    def points(self) -> list[tuple[float, float]]:
        """Every (x, y) that has a number."""
        return [(x, y) for x, y in zip(self.x, self.y, strict=True) if math.isfinite(y)]


@dataclass(frozen=True)
class Panel:
    """One frame of curves."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    # lower and upper end of the axis; None lets the data decide (from 0)
    y_range: tuple[float, float] | None = None
    reference: float | None = None  # height of a dotted line, such as the error of guessing
    reference_label: str = ""
    log: bool = False  # the vertical axis is logarithmic; values must be positive
    percent: bool = False  # ticks of that axis carry a percent sign
    whole_x: bool = False
    x_percent: bool = False

    def is_read_on(self, other: "Panel") -> bool:
        """Whether the vertical axis of a panel beside it can be read for this one."""
        own, its = ((p.y_range, p.log, p.percent) for p in (self, other))
        return self.y_range is not None and own == its and self.y_label in ("", other.y_label)


def draw_curves(grid: Sequence[Panel], looks: Mapping[str, Look], *, columns: int = 3) -> Figure:
    """Draw the panels in rows, with one legend under them.

    Losses that are too many to be told apart are named beside the ends of their lines instead, in
    the order of the ends.

    Args:
        grid: The panels.
        looks: Look of every line, by its label.
        columns: Most panels in a row.
    """
    labels = [k for k in looks if any(line.label == k for p in grid for line in p.lines)]
    crowded = len(labels) > CROWD
    titles = [panel.title for panel in grid]
    across = min(2 if crowded else columns, len(grid))
    cells = [panel if any(line.points for line in panel.lines) else NO_NUMBERS for panel in grid]

    def draw(ax: Axes, panel: Panel, spot: Spot) -> None:
        _draw_panel(ax, panel, looks, bands=not crowded)  # of many losses they hide the lines
        first = cells[spot.row * across]
        if spot.column and isinstance(first, Panel) and panel.is_read_on(first):
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
        if crowded:
            ends = [(line.label, line.points[-1]) for line in panel.lines if line.points]
            _name_ends(ax, ends, looks)

    if crowded:
        tall = max(3.2, 0.175 * max(len(panel.lines) for panel in grid))
        return draw_panels(
            cells, draw, columns=2, widest=4.6, height=tall, titles=titles,
            margins=Margins(right=2.3, wgap=3.0),  # with room for the names
        )  # fmt: skip
    handles = [Line2D([], [], label=plain(k), **stroke(looks[k])) for k in labels]
    return draw_panels(
        cells, draw, columns=columns, widest=6.2 if min(columns, len(grid)) == 1 else 4.4,
        height=lambda width: min(3.6, 0.75 * width), titles=titles,
        legend=Names(handles) if labels else None,
    )  # fmt: skip


def _name_ends(
    ax: Axes, ends: Sequence[tuple[str, tuple[float, float]]], looks: Mapping[str, Look]
) -> None:
    """Name lines to the right of a panel, spread so that no name covers another."""
    to_axes = ax.transData + ax.transAxes.inverted()
    places = [(k, *to_axes.transform(at)) for k, at in ends if np.isfinite(at).all()]
    places.sort(key=lambda place: place[2])
    step = 0.165 / (ax.get_position().height * ax.get_figure().get_figheight())  # type: ignore[union-attr]
    heights = spread([min(max(place[2], 0.0), 1.0) for place in places], step)
    for (label, x, y), height in zip(places, heights, strict=True):
        look = looks[label]
        ax.plot([x, 1.015, 1.045], [min(max(y, 0), 1), height, height], transform=ax.transAxes,
                color=look.colour, lw=0.7, clip_on=False, zorder=1)  # fmt: skip
        ax.plot([1.045, 1.13], [height] * 2, transform=ax.transAxes, clip_on=False, lw=1.6,
                color=look.colour, ls=look.dash)  # fmt: skip
        ax.plot([1.0875], [height], transform=ax.transAxes, clip_on=False, marker=look.marker,
                ms=4.5, color=look.colour, mec="white", mew=0.5)  # fmt: skip
        ax.text(1.145, height, plain(label, 24), transform=ax.transAxes, fontsize=8, va="center")


def spread(heights: Sequence[float], step: float) -> list[float]:
    """Move heights as little as keeps them ``step`` apart and, if it fits, in [0, 1].

    Args:
        heights: Rising, in [0, 1].
        step: Least distance of two.
    """
    blocks: list[tuple[float, int]] = []  # where a run of touching names starts, and its length
    for height in heights:
        start, count = height, 1
        while blocks and blocks[-1][0] + blocks[-1][1] * step > start:
            first, before = blocks.pop()
            start = (first * before + (start - before * step) * count) / (before + count)
            count += before
            start = max(0.0, min(start, 1 - (count - 1) * step))
        blocks.append((min(start, 1 - (count - 1) * step), count))
    return [start + i * step for start, count in blocks for i in range(count)]


def stroke(look: Look) -> dict[str, Any]:
    """Return how a line of this look is drawn, for ``plot`` and for the handles of a legend."""
    return {"color": look.colour, "marker": look.marker, "linestyle": look.dash, "linewidth": 1.8,
            "markersize": 5.5, "markeredgecolor": "white", "markeredgewidth": 0.6}  # fmt: skip


def _draw_panel(ax: Axes, panel: Panel, looks: Mapping[str, Look], *, bands: bool) -> None:
    if panel.log:
        ax.set_yscale("log")
    for line in panel.lines:
        look = looks[line.label]
        y = np.asarray(line.y, float)
        style = stroke(look)
        if y.size > 25:  # many epochs: markers would hide the line
            style["markevery"] = max(1, y.size // 10)
        ax.plot(line.x, y, zorder=3, **style)
        if bands:
            ax.fill_between(line.x, line.low, line.high, color=look.colour, alpha=0.15, lw=0)
    if panel.reference is not None:
        ax.axhline(panel.reference, color=INK, linewidth=1, linestyle=(0, (1, 2)), zorder=2)
        low, high = panel.y_range or ax.get_ylim()
        below = panel.reference < low + 0.3 * (high - low)  # words go where the curves do not
        ax.annotate(
            panel.reference_label, (0, panel.reference), xycoords=("axes fraction", "data"),
            xytext=(4, -3 if below else 3), textcoords="offset points",
            va="top" if below else "bottom", fontsize=8, color=SOFT,
        )  # fmt: skip
    ax.set_xlabel(panel.x_label)
    ax.set_ylabel(panel.y_label)
    ax.grid(True)
    _ranges(ax, panel)


def _ranges(ax: Axes, panel: Panel) -> None:
    if panel.y_range is not None:
        ax.set_ylim(*panel.y_range)
    elif not panel.log:
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ticks = sorted({float(x) for line in panel.lines for x in line.x})
    if panel.whole_x:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    elif panel.x_percent:
        ax.set_xticks([0, 25, 50, 75, 100], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    elif len(ticks) <= 7:
        ax.set_xticks(ticks, _names_apart(ax, ticks))
    if panel.log:
        low, high = ax.get_ylim()
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 300 * low else (1.0,)))
        ax.yaxis.set_minor_formatter(unlabelled)
        ax.yaxis.set_major_formatter(percent if panel.percent else number)
    elif panel.percent:
        ax.yaxis.set_major_formatter(percent)


def _names_apart(ax: Axes, ticks: Sequence[float]) -> list[str]:
    """Return every eps as it was written, but for those that would touch the one before."""
    low, high = ax.get_xlim()
    inches = ax.get_position().width * ax.get_figure().get_figwidth()  # type: ignore[union-attr]
    names, end = [], -math.inf
    for tick in ticks:
        name = eps_text(tick)
        middle, half = inches * (tick - low) / (high - low), 0.037 * len(name)
        names.append(name if middle - half > end else "")
        end = middle + half + 0.06 if names[-1] else end
    return names


def curve_numbers(grid: Sequence[Panel]) -> list[dict[str, object]]:
    """Return the numbers behind :func:`draw_curves`, one row per point."""
    return [
        {"panel": panel.title, "label": line.label, "x": x, "y": y, "low": low, "high": high}
        for panel in grid
        for line in panel.lines
        for x, y, low, high in zip(line.x, line.y, line.low, line.high, strict=True)
    ]


BANDS = "Bands are 95 % intervals."


def band_words(numbers: Numbers) -> str:
    """Return the sentence that says what the bands around the curves are."""
    crowd = len(numbers.labels) > CROWD
    return "Losses are named in the order in which their lines end." if crowd else BANDS


def lines_of(labels: Sequence[str], eps: Sequence[float], get: Get, unit: float) -> list[Line]:
    """Return a line for each label that has a number.

    Args:
        labels: Of losses.
        eps: The horizontal axis.
        get: Gives the estimate of a label at an eps.
        unit: Factor of every number, such as 100 for percent.
    """
    lines = []
    for label in labels:
        found = [get(label, e) for e in eps]
        if any(found):
            y = [unit * f.mean if f else NAN for f in found]
            low = [unit * f.low if f and f.low is not None else v for f, v in zip(found, y)]  # noqa: B905
            high = [unit * f.high if f and f.high is not None else v for f, v in zip(found, y)]  # noqa: B905
            lines.append(Line(label, tuple(eps), tuple(y), tuple(low), tuple(high)))
    return lines


def in_words(panel: Panel, unit: str) -> str:
    """Return where each line of a panel begins and ends, for a reader who cannot see it.

    Args:
        panel: Against eps.
        unit: Stands behind every number.
    """
    parts = []
    for line in panel.lines:
        if line.points:
            (x0, y0), (x1, y1) = line.points[0], line.points[-1]
            parts.append(
                f"{line.label} from {y0:.3g}{unit} at eps {eps_text(x0)} to {y1:.3g}{unit} at eps "
                f"{eps_text(x1)}"
            )
    return "; ".join(parts) + "."
