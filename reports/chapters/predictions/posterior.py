"""Figure 3 of the paper: how sure the network is of its answer under attack."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.frames import GRID, Spot, draw_grid
from robustloss.reports.drawing.histograms import Bins, bin_ticks, pooled_bins
from robustloss.reports.drawing.style import ADVERSARIAL, CROWD, NORMAL
from robustloss.reports.drawing.ticks import percent_of_all
from robustloss.reports.reading.scene import Scene
from robustloss.reports.reading.views import View
from robustloss.reports.words import eps_name

FIXED = Bins(np.linspace(0, 1, 21), below=False, above=False)
GROUPS = ("still classified correctly", "classified wrongly")


def add_posteriors(album: Album, scene: Scene) -> None:
    """The posterior of the predicted class over fixed bins, losses by eps."""
    if not scene.drawn():
        return
    grid = _grid(scene, FIXED, "posterior", "posterior of the prediction", same_height=True)
    album.add(
        f"posterior-{scene.attack.slug}",
        draw_histograms(grid, ticks="percent"),
        histogram_numbers(grid),
        title="How confident is it under attack?",
        caption="Histogram of the posterior that the network gives to its own prediction on "
        "attacked images (Figure 3 of Wan et al. 2018), 20 bins. Hatched bars are mistakes: "
        "hatched mass at the right means wrong and sure of it, which no threshold on confidence "
        f"can catch. {scene.words()}",
        alt="Grid of histograms, losses by eps, of the posterior under attack. "
        + _mean_posteriors(scene),
        section=scene.attack.label,
    )


def add_log_odds(album: Album, scene: Scene) -> None:
    """The same posteriors on a logit axis, where certainty does not saturate."""
    drawn = scene.drawn()
    if not drawn:
        return
    bins = pooled_bins([v.log_odds for v in drawn], count=30, quantiles=(0.2, 98.5))
    grid = _grid(scene, bins, "log_odds", "posterior, logit axis", note_at="right")
    album.add(
        f"posterior-logit-{scene.attack.slug}",
        draw_histograms(grid, ticks="odds"),
        histogram_numbers(grid),
        title="The same confidence, unfolded",
        caption="The posterior on a logit axis, computed in the log domain: every step to the "
        "right cuts the remaining doubt by the same factor. Above 1−10⁻⁷ a 32-bit float reads "
        "exactly 1; here degrees of certainty stay apart. The wide bins at the ends are open and "
        f"hold everything beyond. Heights differ from row to row. {scene.words()}",
        alt="The histograms of the previous figure with the posterior on a logit axis.",
        section=scene.attack.label,
    )


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


def _grid(
    scene: Scene,
    bins: Bins,
    key: str,
    x_label: str,
    *,
    same_height: bool = False,
    note_at: str = "left",
) -> HistogramGrid:
    return HistogramGrid(
        rows=scene.labels,
        columns=[eps_name(e) for e in scene.eps],
        cells=[[_cell(scene.views[(k, e)], bins, key) for e in scene.eps] for k in scene.labels],
        x_label=x_label,
        y_label="share of images",
        names=GROUPS,
        same_height=same_height,
        note_at=note_at,
    )


def _cell(view: View | str, bins: Bins, key: str) -> Histogram:
    if isinstance(view, str):
        return Histogram(bins, np.zeros(1), np.zeros(1), gap=view)
    values, wrong = getattr(view, key), view.wrong
    notes = [f"{100 * wrong.mean():.1f} % wrong"]
    if wrong.any() and key == "posterior":
        notes.append(f"mean posterior when wrong {view.posterior[wrong].mean():.2f}")
    return Histogram(
        bins, bins.shares(values[~wrong], view.n), bins.shares(values[wrong], view.n), notes
    )


def _mean_posteriors(scene: Scene) -> str:
    last: Sequence[tuple[str, View | str]] = [
        (k, scene.views[(k, scene.eps[-1])]) for k in scene.labels
    ]
    parts = [
        f"{label} {view.posterior[view.wrong].mean():.2f}"
        for label, view in last
        if isinstance(view, View) and view.wrong.any()
    ]
    if not parts:
        return "No prediction is wrong."
    return f"Mean posterior of wrong predictions at {eps_name(scene.eps[-1])}: {', '.join(parts)}."


def draw_histograms(grid: HistogramGrid, *, ticks: str = "number") -> Figure:
    """Draw the grid; the panels of a row share the vertical axis, or all do (same_height).

    Args:
        grid: What to draw.
        ticks: "number", "percent" (posterior in percent) or "odds" (posterior on a logit axis).
    """
    room = 1.12 if grid.same_height else 1.4  # above the bars, for the notes
    tops = []
    for row in grid.cells:
        heights = [(cell.first + cell.second).max() for cell in row if not cell.gap]
        tops.append(room * max(heights, default=1.0) or 1.0)
    x, align = (0.03, "left") if grid.note_at == "left" else (0.97, "right")

    def draw(ax: Axes, cell: Histogram, spot: Spot) -> None:
        edges, both = cell.bins.drawn(), cell.first + cell.second
        ax.stairs(cell.first, edges, fill=True, color=NORMAL)
        ax.stairs(both, edges, baseline=cell.first, fill=True, color="#F0BF9C")
        ax.stairs(both, edges, baseline=cell.first, color=ADVERSARIAL, lw=0.9, hatch="////",
                  fill=False)  # fmt: skip
        ax.set_xlim(edges[0], edges[-1])
        ax.set_ylim(0, max(tops) if grid.same_height else tops[spot.row])
        ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
        # above 100 % there is room for the notes only
        ax.yaxis.set_major_formatter(percent_of_all)
        bin_ticks(ax, cell.bins, ticks, spot.width)
        ax.text(
            x, 0.96, "\n".join(cell.notes), transform=ax.transAxes, ha=align, va="top",
            fontsize=8, linespacing=1.3,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0},
        )  # fmt: skip

    first, second = grid.names
    return draw_grid(
        grid.rows,
        grid.columns,
        [[cell.gap or cell for cell in row] for row in grid.cells],
        draw,
        widest=4.2,
        height=1.45 if len(grid.rows) <= CROWD else 1.05,
        handles=[
            Patch(facecolor=NORMAL, edgecolor="#4C5866", label=first),
            Patch(facecolor="#F3CDB3", edgecolor=ADVERSARIAL, hatch="////", label=second),
        ],
        labels=(grid.x_label, grid.y_label),
        margins=replace(GRID, hgap=0.55 if ticks == "number" else 0.42),
    )


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
