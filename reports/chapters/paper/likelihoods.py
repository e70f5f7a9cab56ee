"""Histograms of one score for clean, failed and successful images over shared bins."""

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
from robustloss.reports.drawing.style import ADVERSARIAL, BLUE, INK, NORMAL, legible
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
    cells = [[_populations(scene, k, e) for e in scene.eps] for k in scene.labels]
    columns = [eps_name(e) for e in scene.eps]
    drawn = drawn_cells(scene.labels, columns, cells)
    areas = [f"{label} at {column}: {'; '.join(words_of(cell))}" for label, column, cell in drawn]
    if not areas:
        return
    yield Plot(
        f"likelihood-{scene.attack.slug}",
        draw_populations(scene.labels, columns, cells),
        population_numbers(scene.labels, columns, cells),
        title="How likely are clean and attacked images?",
        caption="Images by their log-likelihood at the predicted class: clean, attacked and still "
        "right (failed), attacked and now wrong (successful). Only images that are right when "
        "clean count. The less successful and clean overlap, the better the likelihood gives the "
        "attack away; where the failed move as far, it sees changed pixels, not the mistake. The "
        "dashed line rejects 5 % of clean validation images; “caught” is the share left of it. "
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


def draw_populations(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Populations | str]]
) -> Figure:
    """Draw losses by eps; the panels of a row share both axes.

    Args:
        rows, columns: Names of the losses and of the eps.
        cells: By row and column; a text is why there is nothing to draw.
    """
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


def population_numbers(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Populations | str]]
) -> list[dict[str, object]]:
    """Return one row a population and bin; open bins lack an end.

    Args:
        rows, columns, cells: As :func:`draw_populations` takes them.
    """
    return [
        {"loss": label, "panel": column, "population": name, "from": low, "to": high,
         "share of its population (%)": float(share)}
        for label, column, cell in drawn_cells(rows, columns, cells)
        for name, shares in cell.shares().items()
        for (low, high), share in zip(cell.bins.ends(), shares, strict=True)
    ]  # fmt: skip
