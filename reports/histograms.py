"""Histograms of single images in two groups: confidence when right and wrong (Figure 3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from robustloss.reports.style import ADVERSARIAL, CROWD, NORMAL, blank, panel_width, panels, plain
from robustloss.reports.ticks import percent_of_all

FLOAT32_LIMIT = 16.6  # nats: above this log-odds a float32 posterior reads exactly 1.0


@dataclass(frozen=True)
class Bins:
    """Equal inner bins with one open bin at either end when something falls outside.

    Attributes:
        edges: (J+1,) inner edges, rising.
        below, above: Whether an open bin is drawn at that end.
    """

    edges: np.ndarray
    below: bool
    above: bool

    def shares(self, values: np.ndarray, total: int) -> np.ndarray:
        """Percent of ``total`` images in each bin, open bins included: (J + below + above,)."""
        inner, _ = np.histogram(values, self.edges)
        below = [np.count_nonzero(values < self.edges[0])] if self.below else []
        above = [np.count_nonzero(values > self.edges[-1])] if self.above else []
        return 100.0 * np.array([*below, *inner, *above], float) / max(total, 1)

    def drawn(self) -> np.ndarray:
        """Edges as drawn: an open bin is two inner bins wide, so that it is seen as special."""
        step = self.edges[1] - self.edges[0]
        below = [self.edges[0] - 2 * step] if self.below else []
        above = [self.edges[-1] + 2 * step] if self.above else []
        return np.array([*below, *self.edges, *above])


def pooled_bins(
    groups: Sequence[np.ndarray],
    *,
    count: int = 40,
    quantiles: tuple[float, float] = (0.5, 99.5),
    around: np.ndarray | None = None,
) -> Bins:
    """Bins shared by several groups, from quantiles of all groups with equal weight.

    Args:
        groups: Arrays of any length; infinite values only count for the open bins.
        count: Inner bins.
        quantiles: Percentiles that bound the inner bins.
        around: A group that must stay legible: the inner bins then reach at most four times its
            1 to 99 % range beyond it, and what lies farther falls into the open bins.
    """
    groups = [np.asarray(g, float) for g in groups if np.size(g)]
    finite = [g[np.isfinite(g)] for g in groups]
    finite = [g for g in finite if g.size] or [np.zeros(1)]
    even = np.linspace(0, 100, 2001)
    pooled = np.concatenate([np.percentile(g, even) for g in finite])
    low, high = np.percentile(pooled, quantiles)
    if around is not None and np.isfinite(around).any():
        first, last = np.percentile(around[np.isfinite(around)], (1, 99))
        low, high = max(low, 5 * first - 4 * last), min(high, 5 * last - 4 * first)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, count + 1)
    below = any((g < edges[0]).any() for g in groups)
    above = any((g > edges[-1]).any() for g in groups)
    return Bins(edges, below, above)


@dataclass(frozen=True)
class Histogram:
    """Two groups of images over the same bins.

    Attributes:
        first, second: Percent per bin, drawn one on the other.
        notes: Short lines written into the panel.
        gap: Why there is nothing to draw; empty when there is.
    """

    bins: Bins
    first: np.ndarray
    second: np.ndarray
    notes: Sequence[str] = ()
    gap: str = ""


@dataclass(frozen=True)
class HistogramGrid:
    """Rows of losses, columns of eps, and the words around them."""

    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[Histogram]]
    x_label: str
    y_label: str
    names: tuple[str, str]
    same_height: bool = False
    note_at: str = "left"


def draw_histograms(grid: HistogramGrid, *, ticks: str = "number") -> Figure:
    """Draw the grid; the panels of a row share the vertical axis, or all do (same_height).

    Args:
        grid: What to draw.
        ticks: "number", "percent" (posterior in percent) or "odds" (posterior on a logit axis).
    """
    margins = {"left": 0.85, "right": 0.15, "wgap": 0.22}
    width = panel_width(len(grid.columns), widest=4.2, **margins)
    figure, axes = panels(
        len(grid.rows), len(grid.columns), width=width,
        height=1.45 if len(grid.rows) <= CROWD else 1.05, top=0.88, bottom=0.6,
        hgap=0.55 if ticks == "number" else 0.42, **margins,
    )  # fmt: skip
    tops = [_top(grid, row) for row in grid.cells]
    for r, row in enumerate(grid.cells):
        for c, cell in enumerate(row):
            ax = axes[r, c]
            if cell.gap:
                blank(ax, cell.gap)
            else:
                _draw_cell(ax, cell, grid, ticks, width)
                ax.set_ylim(0, max(tops) if grid.same_height else tops[r])
            if r == 0:
                ax.annotate(grid.columns[c], (0.5, 1), (0, 22), xycoords="axes fraction",
                            textcoords="offset points", ha="center", fontsize=10)  # fmt: skip
            if c == 0:
                ax.set_title(plain(grid.rows[r], 40), pad=4)
            elif not row[0].gap:
                ax.tick_params(labelleft=False)
            if r == len(grid.rows) - 1 and not cell.gap:
                ax.set_xlabel(grid.x_label)
    figure.supylabel(grid.y_label, x=0.12 / figure.get_figwidth(), fontsize=9.5)
    _legend(figure, grid)
    return figure


def _top(grid: HistogramGrid, row: Sequence[Histogram]) -> float:
    heights = [(c.first + c.second).max() for c in row if not c.gap]
    room = 1.12 if grid.same_height else 1.4  # above the bars, for the notes
    return room * max(heights, default=1.0) or 1.0


def _draw_cell(ax: Axes, cell: Histogram, grid: HistogramGrid, ticks: str, inches: float) -> None:
    edges = cell.bins.drawn()
    both = cell.first + cell.second
    ax.stairs(cell.first, edges, fill=True, color=NORMAL)
    ax.stairs(both, edges, baseline=cell.first, fill=True, color="#F0BF9C")
    ax.stairs(both, edges, baseline=cell.first, color=ADVERSARIAL, lw=0.9, hatch="////", fill=False)
    ax.set_xlim(edges[0], edges[-1])
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
    # Above 100 % there is room for the notes only.
    ax.yaxis.set_major_formatter(percent_of_all)
    bin_ticks(ax, cell.bins, ticks, inches)
    x, align = (0.03, "left") if grid.note_at == "left" else (0.97, "right")
    ax.text(
        x, 0.96, "\n".join(cell.notes), transform=ax.transAxes, ha=align, va="top", fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0},
        linespacing=1.3,
    )  # fmt: skip


def bin_ticks(ax: Axes, bins: Bins, ticks: str, inches: float) -> None:
    """Ticks of the score axis, and faint lines where open bins begin."""
    low, high = bins.edges[0], bins.edges[-1]
    if ticks == "percent":
        ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    elif ticks == "odds":
        places = odds_ticks(low, high, most=int(inches / 0.52))
        ax.set_xticks([x for x, _ in places], [name for _, name in places])
    else:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, min_n_ticks=2))
        inside = [t for t in ax.get_xticks() if low <= t <= high]
        ax.set_xticks(inside, [f"{t:,.6g}".replace("-", "−") for t in inside])
    for drawn, edge in ((bins.below, low), (bins.above, high)):
        if drawn:  # a line across the axis shows where the open bin starts
            ax.axvline(edge, color="#5B6470", lw=0.6, ls=(0, (1, 1.5)), zorder=0)


def odds_ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Positions and names of posteriors on a log-odds axis, at most ``most`` of them."""
    decades = (high - max(low, 0.0)) / np.log(10)
    steps = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500, 1000)
    step = next((s for s in steps if 1 + decades / s <= most), 2000)
    places = [(0.0, "½")] if low <= 0 < high else []
    for n in range(step, int(high / np.log(10)) + 2, step):
        # the log-odds of 1 - 10**-n
        at = float(np.log1p(-(10.0**-n)) + n * np.log(10))
        if low <= at <= high:
            places.append((at, _certainty(n)))
    return places


def _certainty(n: int) -> str:
    if n <= 3:
        return ("90 %", "99 %", "99.9 %")[n - 1]
    return "1−10⁻" + str(n).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _legend(figure: Figure, grid: HistogramGrid) -> None:
    handles = [
        Patch(facecolor=NORMAL, edgecolor="#4C5866", label=grid.names[0]),
        Patch(facecolor="#F3CDB3", edgecolor=ADVERSARIAL, hatch="////", label=grid.names[1]),
    ]
    figure.legend(
        handles=handles, loc="upper left", ncols=2,
        bbox_to_anchor=(0.6 / figure.get_figwidth(), 1.0), handlelength=2.2,
    )  # fmt: skip


def histogram_numbers(grid: HistogramGrid) -> list[dict[str, object]]:
    """The numbers behind :func:`draw_histograms`, one row per bin; open bins have an empty end."""
    out: list[dict[str, object]] = []
    for row, cells in zip(grid.rows, grid.cells, strict=True):
        for column, cell in zip(grid.columns, cells, strict=True):
            if cell.gap:
                continue
            edges = [float(e) for e in cell.bins.edges]
            lows: list[float | str] = [*edges[:-1]]
            highs: list[float | str] = [*edges[1:]]
            if cell.bins.below:
                lows, highs = ["", *lows], [edges[0], *highs]
            if cell.bins.above:
                lows, highs = [*lows, edges[-1]], [*highs, ""]
            first, second = (f"{name} (% of images)" for name in grid.names)
            for low, high, a, b in zip(lows, highs, cell.first, cell.second, strict=True):
                out.append(
                    {"loss": row, "panel": column, "from": low, "to": high,
                     first: float(a), second: float(b)}
                )  # fmt: skip
    return out
