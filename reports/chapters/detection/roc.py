"""Figure 4 of the paper and the ROC curves: does the likelihood tell attacked from clean?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustloss.metrics.bootstrap import Resamples, draw_resamples
from robustloss.metrics.rates import auroc, roc_curve
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.legends import LINE, legend_below, legend_shape
from robustloss.reports.drawing.style import CROWD, INK, Look, blank, panel_width, panels, plain
from robustloss.reports.drawing.ticks import hundredths, unlabelled
from robustloss.reports.reading.scene import Scene
from robustloss.reports.reading.views import View
from robustloss.reports.words import eps_name

BANDS = 5  # losses up to which ROC curves in one frame carry bands

RESAMPLES = 200  # enough for a band that is looked at; tables take more


def add_rocs(album: Album, scene: Scene, looks: Mapping[str, Look]) -> None:
    """ROC of the likelihood detector for each eps, on a linear and a logarithmic axis."""
    columns = [(eps_name(e), _curves(scene, e)) for e in scene.eps]
    known = [curve for _, curves in columns for curve in curves]
    if not known:
        return
    smallest = min(float(curve.fpr[1]) for curve in known)
    lowest = min(0.01, 10.0 ** math.floor(math.log10(smallest) + 1e-9))
    areas = [
        f"{title}: " + ", ".join(f"{c.label} {c.auroc:.3f}" for c in curves)
        for title, curves in columns
        if curves
    ]
    album.add(
        f"roc-{scene.attack.slug}",
        draw_rocs(columns, looks, lowest),
        roc_numbers(columns),
        title="ROC of the likelihood detector",
        caption="Share of attacked images caught against share of clean images rejected, as the "
        f"threshold moves. {_axes_words(scene)} All attacked images count, also those that did not "
        "fool the network. "
        f"A curve under the dotted line means that attacked images look more typical. "
        f"{_band_words(scene)}{scene.words()}",
        alt=f"ROC curves by eps. AUROC at {'; '.join(areas)}.",
        section=scene.attack.label,
    )


def _band_words(scene: Scene) -> str:
    if len(scene.labels) > BANDS:
        return ""
    return (
        "The band is a pointwise 95 % interval of the share caught, from "
        f"{RESAMPLES} resamples of the test images, each drawn with its clean and its attacked "
        "score: at any one place of the axis, not of the whole curve at once, and about these "
        "images with this trained network, not about training seeds. "
    )


def _axes_words(scene: Scene) -> str:
    if len(scene.labels) > CROWD:
        return (
            "One frame a loss, one line an eps with its AUROC; the axis of clean images rejected "
            "is logarithmic and shows the corner where a detector would really work, with lines at "
            "1 % and 5 %."
        )
    return (
        "Upper row: linear axis, the whole curve. Lower row: logarithmic axis, the corner where a "
        "detector would really work; markers sit at 1 % and 5 % of clean images rejected."
    )


@dataclass(frozen=True)
class Roc:
    """One ROC curve at fixed false-alarm rates, fractions, with its area (None: not defined).

    The band (low, high) is pointwise over the rates; None where it is not drawn.
    """

    label: str
    fpr: np.ndarray
    tpr: np.ndarray
    auroc: float | None
    band: tuple[np.ndarray, np.ndarray] | None = None


def _curves(scene: Scene, eps: float) -> list[Roc]:
    curves = []
    for label in scene.labels:
        clean, attacked = scene.shown.clean(label), scene.views[(label, eps)]
        if isinstance(clean, View) and isinstance(attacked, View):
            fpr, tpr, _ = roc_curve(clean.score, attacked.score)
            grid = fpr_grid(clean.n)
            area = auroc(clean.score, attacked.score)
            curves.append(
                Roc(label, grid, at_grid(fpr, tpr, grid), area, _band(scene, clean, attacked, grid))
            )
    return curves


def _band(
    scene: Scene, clean: View, attacked: View, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Of few curves in a frame; more bands would hide each other."""
    if len(scene.labels) > BANDS or not np.array_equal(clean.index, attacked.index):
        return None
    return roc_band(clean.score, attacked.score, grid, image_resamples(clean.n))


def fpr_grid(n_clean: int) -> np.ndarray:
    """False-alarm rates to draw: even on a linear and on a logarithmic axis, from 1/n up."""
    low = max(1e-4, 1.0 / max(n_clean, 2))
    log = np.geomspace(low, 1.0, 160)
    return np.unique(np.concatenate([[0.0, 0.01, 0.05], log, np.linspace(0, 1, 161)]))


def at_grid(fpr: np.ndarray, tpr: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Best detection rate reached without exceeding each false-alarm rate (no interpolation)."""
    order = np.lexsort((tpr, fpr))
    best = np.maximum.accumulate(tpr[order])
    place = np.searchsorted(fpr[order], grid + 1e-12, side="right") - 1
    return np.where(place >= 0, best[np.maximum(place, 0)], 0.0)


def draw_rocs(
    columns: Sequence[tuple[str, Sequence[Roc]]], looks: Mapping[str, Look], lowest: float
) -> Figure:
    """Draw one column per eps: linear axis above, logarithmic below.

    Args:
        columns: Title and curves of each column.
        looks: Look of every loss.
        lowest: Left end of the logarithmic axis, in (0, 0.01].
    """
    names = [k for k in looks if any(curve.label == k for _, cs in columns for curve in cs)]
    if len(names) > CROWD:
        return _draw_crowded(columns, names, lowest)
    margins = {"left": 0.75, "right": 0.25, "wgap": 0.4}
    width = panel_width(len(columns), widest=3.3, **margins)
    inches = 0.6 + len(columns) * (width + margins["wgap"])
    lines = legend_shape([*names, "guessing"], inches - 0.6)[1]
    figure, axes = panels(
        2,
        len(columns),
        width=width,
        height=width,
        top=0.4,
        bottom=0.65 + LINE * lines,
        hgap=0.6,
        **margins,
    )
    for c, (title, curves) in enumerate(columns):
        for r, ax in enumerate(axes[:, c]):
            if not curves:
                blank(ax, "no record")
                continue
            _draw(ax, curves, looks, log=r == 1, lowest=lowest)
            ax.set_ylabel("attacked images caught (%)" if c == 0 else "")
            if c:
                ax.tick_params(labelleft=False)
        axes[0, c].set_title(title, fontweight="normal")
        axes[1, c].set_xlabel("clean images rejected (%)")
    handles = [
        Line2D([], [], color=looks[k].colour, ls=looks[k].dash, lw=1.8, label=plain(k))
        for k in names
    ]
    handles.append(Line2D([], [], color="#5B6470", lw=0.9, ls=(0, (1, 2)), label="guessing"))
    legend_below(figure, handles, left=0.6)
    return figure


def _draw_crowded(
    columns: Sequence[tuple[str, Sequence[Roc]]], names: Sequence[str], lowest: float
) -> Figure:
    """One frame a loss, logarithmic axis, one line an eps."""
    across = 5
    margins = {"left": 0.6, "right": 0.2, "wgap": 0.28}
    width = panel_width(across, widest=3.3, **margins)
    tones = [matplotlib.colormaps["viridis"](x) for x in np.linspace(0.85, 0.05, len(columns))]
    handles = [Line2D([], [], color=tone, lw=1.8, label=title)
               for tone, (title, _) in zip(tones, columns, strict=True)]  # fmt: skip
    handles.append(Line2D([], [], color="#5B6470", lw=0.9, ls=(0, (1, 2)), label="guessing"))
    figure, axes = panels(
        -(-len(names) // across), across, width=width, height=width, top=0.4,
        bottom=0.9, hgap=0.62, **margins,
    )  # fmt: skip
    diagonal = np.geomspace(lowest, 1, 60)
    for place, ax in enumerate(axes.flat):
        if place >= len(names):
            ax.set_axis_off()
            continue
        ax.set_title(plain(names[place], int(width * 15.4)), fontsize=8.5)
        ax.plot(diagonal, diagonal, color="#5B6470", lw=0.9, ls=(0, (1, 2)))
        for mark in (0.01, 0.05):
            ax.axvline(mark, color="#C9CED6", lw=0.8, zorder=0)
        areas = []
        for tone, (_, curves) in zip(tones, columns, strict=True):
            for curve in (c for c in curves if c.label == names[place]):
                ax.plot(curve.fpr, curve.tpr, color=tone, lw=1.6)
                areas.append((tone, "n/a" if curve.auroc is None else f"{curve.auroc:.3f}"))
        _frame(ax, areas, lowest)
        ax.tick_params(labelleft=place % across == 0)
        if place % across == 0:
            ax.set_ylabel("caught (%)", labelpad=2)
        if place + across >= len(names):
            ax.set_xlabel("clean rejected (%)")
    legend_below(figure, handles, left=0.5)
    return figure


def _frame(ax: Axes, areas: Sequence[tuple[object, str]], lowest: float) -> None:
    for i, (tone, area) in enumerate(reversed(areas)):
        ax.text(0.97, 0.04 + 0.1 * i, area, transform=ax.transAxes, ha="right", fontsize=7.5,
                color=tone, zorder=5, fontweight="bold",
                bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 0.6})  # fmt: skip
    ax.set_xscale("log")
    ax.set_xlim(lowest, 1)
    ax.set_ylim(0, 1.02)
    ax.xaxis.set_major_formatter(hundredths)
    ax.xaxis.set_minor_formatter(unlabelled)
    ax.set_yticks([0, 0.5, 1], ["0", "50", "100"])
    ax.tick_params(labelsize=7, length=2)
    ax.grid(True, axis="y")


def _draw(
    ax: Axes, curves: Sequence[Roc], looks: Mapping[str, Look], *, log: bool, lowest: float
) -> None:
    diagonal = np.geomspace(lowest, 1, 60)
    ax.plot(diagonal, diagonal, color="#5B6470", lw=0.9, ls=(0, (1, 2)))
    for mark in (0.01, 0.05):
        ax.axvline(mark, color="#C9CED6", lw=0.9, zorder=0)
    for curve in curves:
        look = looks[curve.label]
        if curve.band is not None:
            ax.fill_between(curve.fpr, *curve.band, color=look.colour, alpha=0.2, lw=0)
        ax.plot(curve.fpr, curve.tpr, color=look.colour, ls=look.dash, lw=1.7)
        marked = np.isin(curve.fpr, (0.01, 0.05))
        ax.plot(
            curve.fpr[marked], curve.tpr[marked], ls="none", marker=look.marker, ms=5.5,
            color=look.colour, mec="white", mew=0.6, zorder=4,
        )  # fmt: skip
    if log:
        ax.set_xscale("log")
        ax.set_xlim(lowest, 1)
        ax.xaxis.set_major_formatter(hundredths)
        ax.xaxis.set_minor_formatter(unlabelled)
    else:
        ax.set_xlim(-0.01, 1)
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
        if len(curves) <= 6:  # more would cover the curves; the table has them
            _areas(ax, curves)
    ax.set_ylim(0, 1.02)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
    ax.grid(True, axis="y")


def _areas(ax: Axes, curves: Sequence[Roc]) -> None:
    ax.text(0.97, 0.05 + 0.075 * len(curves), "AUROC", transform=ax.transAxes, ha="right",
            fontsize=8, color="#5B6470")  # fmt: skip
    for i, curve in enumerate(reversed(curves)):
        area = "n/a" if curve.auroc is None else f"{curve.auroc:.3f}"
        ax.text(
            0.97, 0.05 + 0.075 * i, f"{plain(curve.label, 16)} {area}", transform=ax.transAxes,
            ha="right", fontsize=8, color=INK, zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )  # fmt: skip


def roc_numbers(columns: Sequence[tuple[str, Sequence[Roc]]]) -> list[dict[str, object]]:
    """The numbers behind :func:`draw_rocs`, one row per point."""
    return [
        {"panel": title, "label": curve.label, "fpr": float(x), "tpr": float(y),
         "tpr_low": low, "tpr_high": high}
        for title, curves in columns
        for curve in curves
        for x, y, low, high in zip(
            curve.fpr, curve.tpr, *(curve.band or ([math.nan] * curve.fpr.size,) * 2), strict=True
        )
    ]  # fmt: skip


@cache
def image_resamples(n: int) -> Resamples:
    """Resamples of n images, the same for every curve of a report."""
    return draw_resamples(n, RESAMPLES)


def roc_band(
    clean: np.ndarray, attacked: np.ndarray, grid: np.ndarray, resamples: Resamples
) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise 95 % band of the detection rate at each false-alarm rate.

    An image is drawn with its clean and its attacked score, so the threshold moves with the
    clean images and the rate with the attacked ones, as a pair.

    Args:
        clean: (N,) scores, higher is more typical of clean data.
        attacked: (N,) of the same images in the same order.
        grid: (G,) false-alarm rates in [0, 1].
        resamples: Of these N images.

    Returns:
        low, high (G,): fractions, the 2.5 and 97.5 % quantiles over the resamples.

    Source: Efron and Tibshirani 1993, percentile interval.
    """
    n = clean.size
    order, order_a = np.argsort(clean, kind="stable"), np.argsort(attacked, kind="stable")
    sorted_clean = clean[order]
    # attacked images strictly below each clean score, the last threshold rejects everything
    below = np.append(np.searchsorted(attacked[order_a], sorted_clean, side="left"), n)
    allowed = np.floor(np.asarray(grid) * n + 1e-9)
    rates = np.empty((len(resamples.counts), grid.size))
    for row, drawn in enumerate(resamples.counts):
        rejected = np.cumsum(drawn[order], dtype=np.int64)
        caught = np.concatenate([[0], np.cumsum(drawn[order_a], dtype=np.int64)])
        # the first clean image that may no longer be rejected is the threshold
        rates[row] = caught[below[np.searchsorted(rejected, allowed, side="right")]]
    low, high = np.quantile(rates / n, (0.025, 0.975), axis=0)
    return low, high
