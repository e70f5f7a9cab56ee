"""Histograms of single images in groups: confidence when right and wrong (Figure 3), scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from robustloss.reports.drawing.style import SOFT
from robustloss.reports.drawing.ticks import percent_of_all
from robustloss.reports.words import minus

RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Bins:
    """Equal inner bins with one open bin at either end when something falls outside."""

    edges: np.ndarray  # (J+1,) inner edges, rising
    below: bool  # whether an open bin is drawn at that end
    above: bool

    def shares(self, values: np.ndarray, total: int) -> np.ndarray:
        """Return (J + below + above,): percent of ``total`` images in each bin, open ones too.

        Args:
            values: Of a group of images.
            total: Images of the group.
        """
        inner, _ = np.histogram(values, self.edges)
        below = [np.count_nonzero(values < self.edges[0])] if self.below else []
        above = [np.count_nonzero(values > self.edges[-1])] if self.above else []
        return 100.0 * np.array([*below, *inner, *above], float) / max(total, 1)

    def ends(self) -> list[tuple[object, object]]:
        """Return where each bin begins and ends; the outer end of an open one is empty."""
        below, above = ([""] if drawn else [] for drawn in (self.below, self.above))
        return list(pairwise([*below, *map(float, self.edges), *above]))

    def drawn(self) -> np.ndarray:
        """Return the edges as drawn: an open bin is two inner bins wide, to be seen as special."""
        step = self.edges[1] - self.edges[0]
        below = [self.edges[0] - 2 * step] if self.below else []
        above = [self.edges[-1] + 2 * step] if self.above else []
        return np.array([*below, *self.edges, *above])


def pooled_bins(
    groups: Sequence[np.ndarray], *, count: int = 40, around: np.ndarray | None = None,
    quantiles: tuple[float, float] = (0.5, 99.5),
) -> Bins:  # fmt: skip
    """Return bins shared by several groups, from quantiles of all groups with equal weight.

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


def draw_bars(
    ax: Axes, ends: tuple[np.ndarray, np.ndarray], low: float, high: np.ndarray, colour: str,
    alpha: float = 1.0,
) -> None:  # fmt: skip
    """Draw upright bars as one shape, with a white line between them.

    Args:
        ax: The panel.
        ends: (J,) left and (J,) right ends.
        low: Where all begin.
        high: (J,) where each ends.
        colour, alpha: Of the bars.
    """
    left, right = ends
    base = np.full(len(left), low)
    corners = np.stack([[left, base], [left, high], [right, high], [right, base]], 0)
    shape = Path.make_compound_path_from_polys(corners.transpose(2, 0, 1))
    ax.add_patch(PathPatch(shape, facecolor=colour, alpha=alpha, edgecolor="white", lw=0.5))


def frame_bins(ax: Axes, bins: Bins, top: float, ticks: str, inches: float) -> None:
    """Set both axes of a panel of histograms, and faint lines where open bins begin.

    Args:
        ax: The panel.
        bins: Its bins.
        top: Percent at its upper end; above 100 there is room for words only.
        ticks: "percent", "odds" (of a log-odds axis) or "number".
        inches: Width of the panel.
    """
    low, high = bins.edges[0], bins.edges[-1]
    ax.set(xlim=bins.drawn()[[0, -1]], ylim=(0, top))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
    ax.yaxis.set_major_formatter(percent_of_all)
    if ticks == "percent":
        ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    elif ticks == "odds":
        places = odds_ticks(low, high, most=int(inches / 0.52))
        ax.set_xticks([x for x, _ in places], [name for _, name in places])
    else:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, min_n_ticks=2))
        inside = [t for t in ax.get_xticks() if low <= t <= high]
        ax.set_xticks(inside, [minus(f"{t:,.6g}") for t in inside])
    for drawn, edge in ((bins.below, low), (bins.above, high)):
        if drawn:  # a line across the axis shows where the open bin starts
            ax.axvline(edge, color=SOFT, lw=0.6, ls=(0, (1, 1.5)), zorder=0)


def odds_ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Return positions and names of posteriors on a log-odds axis.

    Args:
        low, high: Ends of the axis, natural logarithm of the odds.
        most: So many at most.
    """
    decades = (high - max(low, 0.0)) / np.log(10)
    steps = (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 500, 1000)
    step = next((s for s in steps if 1 + decades / s <= most), 2000)
    places = [(0.0, "½")] if low <= 0 < high else []
    for n in range(step, int(high / np.log(10)) + 2, step):
        # the log-odds of 1 - 10**-n
        at = float(np.log1p(-(10.0**-n)) + n * np.log(10))
        if low <= at <= high:
            named = ("90 %", "99 %", "99.9 %")
            places.append((at, named[n - 1] if n <= 3 else f"1−10⁻{str(n).translate(RAISED)}"))
    return places
