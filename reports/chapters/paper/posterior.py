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
from robustloss.reports.drawing.style import ADVERSARIAL, NORMAL
from robustloss.reports.drawing.ticks import percent_of_all
from robustloss.reports.reading.scene import Scene
from robustloss.reports.reading.views import View
from robustloss.reports.words import eps_name

FIXED = Bins(np.linspace(0, 1, 21), below=False, above=False)
RIGHT, WRONG = "still classified correctly", "classified wrongly"


@dataclass(frozen=True)
class Histogram:
    """Right and wrong answers of one pass over the same bins.

    Attributes:
        bins: Shared by the whole figure.
        right, wrong: Percent of all images in each bin, drawn one on the other.
        notes: Short lines written into the panel.
    """

    bins: Bins
    right: np.ndarray
    wrong: np.ndarray
    notes: Sequence[str]


Grid = Sequence[Sequence[Histogram | str]]  # losses by eps; a text is why there is nothing


def add_posteriors(album: Album, scene: Scene) -> None:
    """Draw the posterior of the predicted class over fixed bins, losses by eps.

    Args:
        album: Takes the figure.
        scene: The attack; nothing is drawn where no pass of it could be read.
    """
    if not scene.drawn():
        return
    grid = _histograms(scene, FIXED, "posterior")
    last = scene.eps[-1]
    means = [
        f"{label} {view.posterior[view.wrong].mean():.2f}"
        for label in scene.labels
        if isinstance(view := scene.views[label, last], View) and view.wrong.any()
    ]
    album.add(
        f"posterior-{scene.attack.slug}",
        _draw(scene, grid, odds=False),
        _numbers(scene, grid),
        title="How sure is each network of its answer?",
        caption="Attacked images by their posterior: the probability that the network gives to the "
        "class it predicts. Hatched: mistakes. Those at the right end are wrong and sure, which no "
        f"threshold on confidence catches. Figure 3 of Wan et al. 2018; 20 bins. {scene.words()}",
        alt="Grid of histograms, losses by eps, of the posterior under attack. "
        + (
            f"Mean posterior of wrong predictions at {eps_name(last)}: {', '.join(means)}."
            if means
            else "No prediction is wrong."
        ),
    )


def add_log_odds(album: Album, scene: Scene) -> None:
    """Draw the same posteriors on a logit axis, where certainty does not saturate.

    Args:
        album: Takes the figure.
        scene: The attack; nothing is drawn where no pass of it could be read.
    """
    drawn = scene.drawn()
    if not drawn:
        return
    bins = pooled_bins([v.log_odds for v in drawn], count=30, quantiles=(0.2, 98.5))
    grid = _histograms(scene, bins, "log_odds")
    album.add(
        f"posterior-logit-{scene.attack.slug}",
        _draw(scene, grid, odds=True),
        _numbers(scene, grid),
        title="How sure is each network, on a logit axis?",
        caption="The posterior on a logit axis: every step to the right divides the remaining "
        "doubt by the same factor. It is computed from logits, so certainties above 1−10⁻⁷, where "
        "a 32-bit float reads exactly 1, stay apart. The bins at the ends are open. Each row has "
        f"its own height. {scene.words()}",
        alt="The histograms of the previous figure with the posterior on a logit axis.",
    )


def _histograms(scene: Scene, bins: Bins, key: str) -> Grid:
    """Count the values that the views have under a key, right and wrong answers apart."""

    def count(view: View | str) -> Histogram | str:
        if isinstance(view, str):
            return view
        values, wrong = getattr(view, key), view.wrong
        notes = [f"{100 * wrong.mean():.1f} % wrong"]
        if wrong.any() and key == "posterior":
            notes.append(f"mean posterior when wrong {view.posterior[wrong].mean():.2f}")
        right, mistakes = (bins.shares(values[group], view.n) for group in (~wrong, wrong))
        return Histogram(bins, right, mistakes, notes)

    return [[count(scene.views[label, eps]) for eps in scene.eps] for label in scene.labels]


def _draw(scene: Scene, grid: Grid, *, odds: bool) -> Figure:
    """Draw the grid; rows share the vertical axis, and all of them do but on a logit axis."""
    tops = []
    for row in grid:
        heights = [(h.right + h.wrong).max() for h in row if not isinstance(h, str)]
        tops.append(1.6 * max(heights, default=1.0) or 1.0)  # the notes stand above the bars
    x, align = (0.97, "right") if odds else (0.03, "left")

    def draw(ax: Axes, cell: Histogram, spot: Spot) -> None:
        edges, both = cell.bins.drawn(), cell.right + cell.wrong
        ax.stairs(cell.right, edges, fill=True, color=NORMAL)
        ax.stairs(both, edges, baseline=cell.right, fill=True, color="#F0BF9C")
        ax.stairs(both, edges, baseline=cell.right, color=ADVERSARIAL, lw=0.9, hatch="////",
                  fill=False)  # fmt: skip
        ax.set_xlim(edges[0], edges[-1])
        ax.set_ylim(0, tops[spot.row] if odds else max(tops))
        ax.yaxis.set_major_locator(MaxNLocator(nbins=4))
        # above 100 % there is room for the notes only
        ax.yaxis.set_major_formatter(percent_of_all)
        bin_ticks(ax, cell.bins, "odds" if odds else "percent", spot.width)
        ax.text(
            x, 0.96, "\n".join(cell.notes), transform=ax.transAxes, ha=align, va="top",
            fontsize=8, linespacing=1.3,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0},
        )  # fmt: skip

    return draw_grid(
        scene.labels,
        [eps_name(e) for e in scene.eps],
        grid,
        draw,
        widest=4.2,
        height=0.95,
        handles=[
            Patch(facecolor=NORMAL, edgecolor="#4C5866", label=RIGHT),
            Patch(facecolor="#F3CDB3", edgecolor=ADVERSARIAL, hatch="////", label=WRONG),
        ],
        labels=("posterior, logit axis" if odds else "posterior of the prediction",
                "share of images"),
        margins=replace(GRID, hgap=0.42),
    )  # fmt: skip


def _numbers(scene: Scene, grid: Grid) -> list[dict[str, object]]:
    """Return one row a bin; the outer end of an open bin is empty."""
    rows: list[dict[str, object]] = []
    for label, line in zip(scene.labels, grid, strict=True):
        for eps, cell in zip(scene.eps, line, strict=True):
            if isinstance(cell, str):
                continue
            bins = cell.bins
            ends = [*([""] if bins.below else []), *map(float, bins.edges),
                    *([""] if bins.above else [])]  # fmt: skip
            rows += [
                {"loss": label, "panel": eps_name(eps), "from": low, "to": high,
                 f"{RIGHT} (% of images)": float(right), f"{WRONG} (% of images)": float(wrong)}
                for low, high, right, wrong in zip(
                    ends[:-1], ends[1:], cell.right, cell.wrong, strict=True
                )
            ]  # fmt: skip
    return rows
