"""Figure 3 of the paper: how sure the network is of its answer under attack."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.frames import GRID, Spot, draw_grid, drawn_cells
from robustloss.reports.drawing.histograms import Bins, frame_bins, pooled_bins
from robustloss.reports.drawing.style import ADVERSARIAL, NORMAL, write_note
from robustloss.reports.reading.scene import Scene
from robustloss.reports.reading.views import View
from robustloss.reports.words import eps_name

FIXED = Bins(np.linspace(0, 1, 21), below=False, above=False)
RIGHT, WRONG = "still classified correctly", "classified wrongly"


@dataclass(frozen=True)
class _Histogram:
    """Right and wrong answers of one pass over the bins of the figure."""

    bins: Bins
    right: np.ndarray  # percent of all images in each bin
    wrong: np.ndarray
    notes: Sequence[str]  # short lines written into the panel


_Grid = Sequence[Sequence[_Histogram | str]]  # losses by eps; a text is why there is nothing


def plot_posteriors(scene: Scene) -> Iterator[Plot]:
    """Draw the posterior of the predicted class over fixed bins, losses by eps."""
    if not scene.drawn():
        return
    grid = _histograms(scene, FIXED, "posterior")
    last = scene.eps[-1]
    means = [
        f"{label} {view.posterior[view.wrong].mean():.2f}"
        for label in scene.labels
        if isinstance(view := scene.views[label, last], View) and view.wrong.any()
    ]
    mistakes = f"Mean posterior of wrong predictions at {eps_name(last)}: {', '.join(means)}."
    yield Plot(
        f"posterior-{scene.attack.slug}",
        _draw(scene, grid, odds=False),
        _numbers(scene, grid),
        title="How sure is each network of its answer?",
        caption="Attacked images by their posterior: the probability that the network gives to the "
        "class it predicts. Hatched: mistakes. Those at the right end are wrong and sure, which no "
        f"threshold on confidence catches. Figure 3 of Wan et al. 2018; 20 bins. {scene.words()}",
        alt="Grid of histograms, losses by eps, of the posterior under attack. "
        + (mistakes if means else "No prediction is wrong."),
    )


def plot_log_odds(scene: Scene) -> Iterator[Plot]:
    """Draw the same posteriors on a logit axis, where certainty does not saturate."""
    drawn = scene.drawn()
    if not drawn:
        return
    bins = pooled_bins([v.log_odds for v in drawn], count=30, quantiles=(0.2, 98.5))
    grid = _histograms(scene, bins, "log_odds")
    yield Plot(
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


def _histograms(scene: Scene, bins: Bins, key: str) -> _Grid:
    """Count the values that the views have under a key, right and wrong answers apart."""

    def count(view: View | str) -> _Histogram | str:
        if isinstance(view, str):
            return view
        values, wrong = getattr(view, key), view.wrong
        notes = [f"{100 * wrong.mean():.1f} % wrong"]
        if wrong.any() and key == "posterior":
            notes.append(f"mean posterior when wrong {view.posterior[wrong].mean():.2f}")
        right, mistakes = (bins.shares(values[group], view.n) for group in (~wrong, wrong))
        return _Histogram(bins, right, mistakes, notes)

    return [[count(scene.views[label, eps]) for eps in scene.eps] for label in scene.labels]


def _draw(scene: Scene, grid: _Grid, *, odds: bool) -> Figure:
    """Draw the grid; rows share the vertical axis, and all of them do but on a logit axis."""
    tops = []
    for row in grid:
        heights = [(h.right + h.wrong).max() for h in row if not isinstance(h, str)]
        tops.append(1.6 * max(heights, default=1.0) or 1.0)  # the notes stand above the bars

    def draw(ax: Axes, cell: _Histogram, spot: Spot) -> None:
        edges, both = cell.bins.drawn(), cell.right + cell.wrong
        ax.stairs(cell.right, edges, fill=True, color=NORMAL)
        ax.stairs(both, edges, baseline=cell.right, fill=True, color="#F0BF9C")
        ax.stairs(both, edges, baseline=cell.right, color=ADVERSARIAL, lw=0.9, hatch="////",
                  fill=False)  # fmt: skip
        top = tops[spot.row] if odds else max(tops)
        frame_bins(ax, cell.bins, top, "odds" if odds else "percent", spot.width)
        write_note(ax, "\n".join(cell.notes), right=odds)

    x_label = "posterior, logit axis" if odds else "posterior of the prediction"
    handles = [
        Patch(facecolor=NORMAL, edgecolor="#4C5866", label=RIGHT),
        Patch(facecolor="#F3CDB3", edgecolor=ADVERSARIAL, hatch="////", label=WRONG),
    ]
    return draw_grid(
        scene.labels, [eps_name(e) for e in scene.eps], grid, draw, widest=4.2, height=0.95,
        handles=handles, labels=(x_label, "share of images"), margins=replace(GRID, hgap=0.42),
    )  # fmt: skip


def _numbers(scene: Scene, grid: _Grid) -> list[dict[str, object]]:
    """Return one row a bin."""
    return [
        {"loss": label, "panel": eps_name(eps), "from": low, "to": high,
         f"{RIGHT} (% of images)": float(right), f"{WRONG} (% of images)": float(wrong)}
        for label, eps, cell in drawn_cells(scene.labels, scene.eps, grid)
        for (low, high), right, wrong in zip(cell.bins.ends(), cell.right, cell.wrong, strict=True)
    ]  # fmt: skip
