"""Figures 3 and 4 of the paper: histograms of confidence and of likelihood, losses by eps."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from robustloss.metrics.rates import auroc, rejected_fraction
from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.frames import GRID, Spot, draw_grid, drawn_cells
from robustloss.reports.drawing.histograms import Bins, frame_bins, pooled_bins
from robustloss.reports.drawing.style import ADVERSARIAL, BLUE, INK, NORMAL, legible, write_note
from robustloss.reports.reading.scene import Scene
from robustloss.reports.reading.views import View
from robustloss.reports.words import eps_name

FEW = 30  # images below which a histogram is noise: each is drawn as a stroke instead
CLEAN, FAILED, SUCCESSFUL = "clean", "attack failed", "attack successful"
COLOURS = {CLEAN: "#4C5866", FAILED: BLUE, SUCCESSFUL: ADVERSARIAL}


@dataclass(frozen=True)
class Populations:
    """The scores of one loss at one eps, by population; any may be empty."""

    bins: Bins  # of all populations, and of the panels of a row
    clean: np.ndarray
    failed: np.ndarray
    successful: np.ndarray
    # of the failed and of the successful; NaN where there is none
    areas: tuple[float, float] = (float("nan"), float("nan"))  # AUROC against the clean
    caught: tuple[float, float] = (float("nan"), float("nan"))  # fraction below the threshold
    line: float | None = None  # threshold of the detector

    def groups(self) -> dict[str, np.ndarray]:
        """Return the scores by population."""
        return {CLEAN: self.clean, FAILED: self.failed, SUCCESSFUL: self.successful}

    def shares(self, least: int = 1) -> dict[str, np.ndarray]:
        """Return the percent of each population in each bin, where it has so many images."""
        return {k: self.bins.shares(v, v.size) for k, v in self.groups().items() if v.size >= least}


def plot_likelihoods(scene: Scene) -> Iterator[Plot]:
    """Draw the likelihood of clean, failed and successful images over bins shared within a loss."""
    cells = [[_populations(scene, k, e) for e in scene.eps] for k in scene.pictured]
    columns = [eps_name(e) for e in scene.eps]
    drawn = drawn_cells(scene.pictured, columns, cells)
    areas = [f"{label} at {column}: {'; '.join(words_of(cell))}" for label, column, cell in drawn]
    if not areas:
        return
    yield Plot(
        f"likelihood-{scene.attack.slug}",
        _draw_populations(scene.pictured, columns, cells),
        _population_numbers(scene.pictured, columns, cells),
        title="How likely are clean and attacked images?",
        caption="Images by their log-likelihood at the predicted class: clean, attacked and still "
        "right (failed), attacked and now wrong (successful). Only images that are right when "
        "clean count. Where successful and clean hardly overlap, the likelihood gives the attack "
        "away; where failed ones move as far, it sees changed pixels, not the mistake. The dashed "
        "line rejects 5 % of clean validation images; “caught” is the share left of it. "
        f"Each histogram adds up to 100 %; fewer than {FEW} images are drawn as strokes. A row "
        "shares its bins; those at the ends are open. A loss without a density, such as softmax, "
        f"shows its logit. Figure 4 of Wan et al. 2018 plots the exponential. {scene.words()}",
        alt="Grid of overlaid histograms, losses by eps, of the log-likelihood of clean images "
        f"and of images on which the attack failed or succeeded. {'. '.join(areas)}.",
    )


def _populations(scene: Scene, label: str, eps: float) -> Populations | str:
    clean, known = scene.shown.clean(label), scene.shown.reference(label)
    attacked = scene.views[label, eps]
    if isinstance(clean, str):
        return clean
    if isinstance(attacked, str):
        return attacked
    if isinstance(known, str):
        return known
    if not np.array_equal(clean.index, attacked.index):
        return "clean and attacked images differ"
    row = [scene.views[label, e] for e in scene.eps]
    pools = [clean.score, *(v.score for v in row if isinstance(v, View))]
    right = ~clean.wrong
    typical = clean.score[right]
    failed, fooled = (attacked.score[right & hit] for hit in (~attacked.wrong, attacked.wrong))
    line = known.threshold
    return Populations(
        pooled_bins(pools, around=clean.score), typical, failed, fooled,
        (auroc(typical, failed), auroc(typical, fooled)),
        (rejected_fraction(failed, line), rejected_fraction(fooled, line)),
        line if math.isfinite(line) else None,
    )  # fmt: skip


def _draw_populations(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Populations | str]]
) -> Figure:
    """Draw losses by eps; the panels of a row share both axes."""
    tops = []
    for row in cells:
        solid = [cell.shares(FEW) for cell in row if not isinstance(cell, str)]
        tops.append(1.08 * max((h.max() for s in solid for h in s.values()), default=1) or 1)

    def draw(ax: Axes, cell: Populations, spot: Spot) -> None:
        _draw(ax, cell, spot.width, tops[spot.row])

    handles = [
        Patch(facecolor=NORMAL, edgecolor="#4C5866", label=CLEAN),
        Line2D([], [], color=BLUE, lw=1.5, ls=(0, (3, 1.2)), label=FAILED),
        Patch(facecolor="#F3CDB3", edgecolor=ADVERSARIAL, hatch="////", label=SUCCESSFUL),
        Line2D([], [], color=INK, lw=1.1, ls=(0, (4, 2)), label="threshold"),
    ]
    return draw_grid(
        rows, columns, cells, draw, widest=4.2, height=0.95, handles=handles,
        head=48, title_pad=29,  # two lines of words stand over each panel
        labels=("log-likelihood (nats)", "share of its population"),
        margins=replace(GRID, top=1.22, hgap=0.9),
    )  # fmt: skip


def _draw(ax: Axes, cell: Populations, inches: float, top: float) -> None:
    edges, solid = cell.bins.drawn(), cell.shares(FEW)
    if CLEAN in solid:
        ax.stairs(solid[CLEAN], edges, fill=True, color=NORMAL, alpha=0.75)
        ax.stairs(solid[CLEAN], edges, color="#4C5866", lw=1)
    if FAILED in solid:
        ax.stairs(solid[FAILED], edges, color=BLUE, lw=1.5, ls=(0, (3, 1.2)))
    if SUCCESSFUL in solid:
        ax.stairs(solid[SUCCESSFUL], edges, fill=True, color=ADVERSARIAL, alpha=0.16)
        ax.stairs(solid[SUCCESSFUL], edges, color=ADVERSARIAL, lw=1.3, hatch="////", fill=False)
    # those beyond the inner bins stand in the middle of the open ones
    half = (cell.bins.edges[1] - cell.bins.edges[0]) or 1.0
    for name, values in cell.groups().items():
        if 0 < values.size < FEW:
            at = np.clip(values, cell.bins.edges[0] - half, cell.bins.edges[-1] + half)
            ax.vlines(at, 0, 0.22 * top, color=COLOURS[name], lw=1.4)
    if cell.line is not None:
        ax.axvline(cell.line, color=INK, lw=1.1, ls=(0, (4, 2)))
    frame_bins(ax, cell.bins, top, "number", inches)
    for place, (words, colour) in enumerate(zip(words_of(cell), (BLUE, ADVERSARIAL), strict=True)):
        ax.annotate(words, (0, 1), (1, 15 - 11 * place), xycoords="axes fraction",
                    color=legible(colour),
                    textcoords="offset points", fontsize=7.8)  # fmt: skip


def words_of(cell: Populations) -> tuple[str, str]:
    """Return what stands over a panel: size and AUROC of the failed and of the successful."""
    groups = (("failed", cell.failed), ("successful", cell.successful))
    failed, successful = (
        f"{name} {scores.size:,}: AUROC {area:.3f}, caught {100 * caught:.0f} %"
        if np.isfinite(area)
        else f"no {name} attack"
        for (name, scores), area, caught in zip(groups, cell.areas, cell.caught, strict=True)
    )
    return failed, successful


def _population_numbers(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Populations | str]]
) -> list[dict[str, object]]:
    """Return one row a population and bin; open bins lack an end."""
    return [
        {"loss": label, "panel": column, "population": name, "from": low, "to": high,
         "share of its population (%)": float(share)}
        for label, column, cell in drawn_cells(rows, columns, cells)
        for name, shares in cell.shares().items()
        for (low, high), share in zip(cell.bins.ends(), shares, strict=True)
    ]  # fmt: skip


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
        for label in scene.pictured
        if isinstance(view := scene.views[label, last], View) and view.wrong.any()
    ]
    mistakes = f"Mean posterior of wrong predictions at {eps_name(last)}: {', '.join(means)}."
    yield Plot(
        f"posterior-{scene.attack.slug}",
        _draw_histograms(scene, grid, odds=False),
        _histogram_numbers(scene, grid),
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
        _draw_histograms(scene, grid, odds=True),
        _histogram_numbers(scene, grid),
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

    return [[count(scene.views[label, eps]) for eps in scene.eps] for label in scene.pictured]


def _draw_histograms(scene: Scene, grid: _Grid, *, odds: bool) -> Figure:
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
        scene.pictured, [eps_name(e) for e in scene.eps], grid, draw, widest=4.2, height=0.95,
        handles=handles, labels=(x_label, "share of images"), margins=replace(GRID, hgap=0.42),
    )  # fmt: skip


def _histogram_numbers(scene: Scene, grid: _Grid) -> list[dict[str, object]]:
    """Return one row a bin."""
    return [
        {"loss": label, "panel": eps_name(eps), "from": low, "to": high,
         f"{RIGHT} (% of images)": float(right), f"{WRONG} (% of images)": float(wrong)}
        for label, eps, cell in drawn_cells(scene.pictured, scene.eps, grid)
        for (low, high), right, wrong in zip(cell.bins.ends(), cell.right, cell.wrong, strict=True)
    ]  # fmt: skip
