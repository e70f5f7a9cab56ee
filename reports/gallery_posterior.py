"""Figure 3 of the paper: how sure the network is of its answer under attack."""

from collections.abc import Sequence

import numpy as np

from robustloss.reports.album import Album
from robustloss.reports.histograms import (
    Bins,
    Histogram,
    HistogramGrid,
    draw_histograms,
    histogram_numbers,
    pooled_bins,
)
from robustloss.reports.scene import Scene, eps_name
from robustloss.reports.views import View

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
