"""Figure 4 of the paper and the ROC curves: does the likelihood tell attacked from clean?"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from robustloss.metrics.bootstrap import Resamples, draw_resamples
from robustloss.metrics.rates import auroc, roc_curve
from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.legends import Names
from robustloss.reports.drawing.style import CROWD, INK, Look, legible, looks, plain
from robustloss.reports.drawing.ticks import hundredths, unlabelled
from robustloss.reports.reading.scene import Scene
from robustloss.reports.words import NOTHING, eps_name

BANDS = 5  # losses up to which ROC curves in one frame carry bands

GUESSING: dict[str, Any] = {"color": "#5B6470", "lw": 0.9, "ls": (0, (1, 2))}

RESAMPLES = 200  # enough for a band that is looked at; tables take more
_resamples = cache(partial(draw_resamples, resamples=RESAMPLES))  # the same for every curve
BAND = f"Bands are pointwise 95 % intervals over test images ({RESAMPLES} resamples). "
AXES = (
    "Upper row: the whole curve. Lower row: a logarithmic axis, for the few false alarms at which "
    "a detector would work; markers at 1 % and 5 %."
)
AXES_OF_CROWD = (
    "One frame a loss, one line an eps with its AUROC. The axis is logarithmic, for the few false "
    "alarms at which a detector would work; lines at 1 % and 5 %."
)


@dataclass(frozen=True)
class _Roc:
    """One ROC curve at fixed false-alarm rates, fractions, with its area (None: not defined).

    The band (low, high) is pointwise over the rates; None where it is not drawn.
    """

    label: str
    fpr: np.ndarray
    tpr: np.ndarray
    auroc: float | None
    band: tuple[np.ndarray, np.ndarray] | None = None


def plot_rocs(scene: Scene) -> Iterator[Plot]:
    """Draw the ROC of the likelihood detector for each eps, on a linear and a logarithmic axis."""
    columns = []
    for eps in scene.eps:
        curves = []
        for label in scene.labels:
            clean, attacked = scene.shown.clean(label), scene.views[label, eps]
            if isinstance(clean, str) or isinstance(attacked, str):
                continue
            fpr, tpr, _ = roc_curve(clean.score, attacked.score)
            grid, band = fpr_grid(clean.n), None
            # more bands would hide each other
            if len(scene.labels) <= BANDS and np.array_equal(clean.index, attacked.index):
                band = roc_band(clean.score, attacked.score, grid, _resamples(clean.n))
            area = auroc(clean.score, attacked.score)
            curves.append(_Roc(label, grid, at_grid(fpr, tpr, grid), area, band))
        columns.append((eps_name(eps), curves))
    known = [curve for _, curves in columns for curve in curves]
    if not known:
        return
    smallest = min(float(curve.fpr[1]) for curve in known)
    lowest = min(0.01, 10.0 ** math.floor(math.log10(smallest) + 1e-9))
    areas = [f"{title}: " + ", ".join(f"{c.label} {_area(c)}" for c in curves)
             for title, curves in columns if curves]  # fmt: skip
    yield Plot(
        f"roc-{scene.attack.slug}",
        _draw(columns, looks(scene.labels), lowest),
        _numbers(columns),
        title="ROC of the likelihood detector",
        caption="Share of attacked images caught against share of clean images rejected, as the "
        f"threshold moves. {AXES_OF_CROWD if len(scene.labels) > CROWD else AXES} Under the "
        "dotted line attacked images look more typical than clean ones. "
        f"{BAND if len(scene.labels) <= BANDS else ''}{scene.words()}",
        alt=f"ROC curves by eps. AUROC at {'; '.join(areas)}.",
    )


def fpr_grid(n_clean: int) -> np.ndarray:
    """Return the false-alarm rates to draw, from 1/n up.

    They are even on a linear and on a logarithmic axis.
    """
    low = max(1e-4, 1.0 / max(n_clean, 2))
    log = np.geomspace(low, 1.0, 160)
    return np.unique(np.concatenate([[0.0, 0.01, 0.05], log, np.linspace(0, 1, 161)]))


def at_grid(fpr: np.ndarray, tpr: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the best detection rate reached without exceeding each false-alarm rate.

    Nothing is interpolated.

    Args:
        fpr, tpr: (P,) points of a ROC curve, fractions.
        grid: (G,) false-alarm rates in [0, 1].
    """
    order = np.lexsort((tpr, fpr))
    best = np.maximum.accumulate(tpr[order])
    place = np.searchsorted(fpr[order], grid + 1e-12, side="right") - 1
    return np.where(place >= 0, best[np.maximum(place, 0)], 0.0)


_Columns = Sequence[tuple[str, Sequence[_Roc]]]  # an eps and its curves


def _draw(columns: _Columns, look: Mapping[str, Look], lowest: float) -> Figure:
    """Draw one column per eps: linear axis above, logarithmic below, which begins at ``lowest``."""
    names = [k for k in look if any(curve.label == k for _, cs in columns for curve in cs)]
    if len(names) > CROWD:
        return _draw_crowded(columns, names, lowest)
    percents = [0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"]

    def draw(ax: Axes, curves: Sequence[_Roc], spot: Spot) -> None:
        _draw_guides(ax, lowest, width=0.9)
        for curve in curves:
            own = look[curve.label]
            if curve.band is not None:
                ax.fill_between(curve.fpr, *curve.band, color=own.colour, alpha=0.2, lw=0)
            ax.plot(curve.fpr, curve.tpr, color=own.colour, ls=own.dash, lw=1.7)
            marked = np.isin(curve.fpr, (0.01, 0.05))
            ax.plot(curve.fpr[marked], curve.tpr[marked], ls="none", marker=own.marker, ms=5.5,
                    color=own.colour, mec="white", mew=0.6, zorder=4)  # fmt: skip
        if spot.lowest:
            _set_log_axis(ax, lowest)
            ax.set_xlabel("clean images rejected (%)")
        else:
            ax.set_title(columns[spot.column][0], fontweight="normal")
            ax.set_xlim(-0.01, 1)
            ax.set_xticks(*percents)
            if len(curves) <= 6:  # more would cover the curves; the table has them
                _write_areas(ax, curves)
        ax.set_ylim(0, 1.02)
        ax.set_yticks(*percents)
        ax.grid(True, axis="y")
        ax.tick_params(labelleft=spot.leftmost)
        if spot.leftmost:
            ax.set_ylabel("attacked images caught (%)")

    lines = [
        Line2D([], [], color=look[name].colour, ls=look[name].dash, lw=1.8, label=plain(name))
        for name in names
    ]
    return draw_panels(
        [curves or "no record" for _ in range(2) for _, curves in columns], draw,
        columns=len(columns), widest=3.3, height=lambda width: width,
        legend=Names([*lines, Line2D([], [], **GUESSING, label="guessing")]),
        margins=Margins(right=0.25, bottom=0.65, wgap=0.4, hgap=0.6),
    )  # fmt: skip


def _draw_crowded(columns: _Columns, names: Sequence[str], lowest: float) -> Figure:
    """Draw one frame a loss, logarithmic axis, one line an eps."""
    tones = [matplotlib.colormaps["viridis"](x) for x in np.linspace(0.85, 0.05, len(columns))]
    by_eps = [(tone, title, curves) for tone, (title, curves) in zip(tones, columns, strict=True)]
    cells = [[(tone, curve) for tone, _, curves in by_eps for curve in curves if curve.label == k]
             for k in names]  # fmt: skip

    def draw(ax: Axes, lines: Sequence[tuple[Any, _Roc]], spot: Spot) -> None:
        _draw_guides(ax, lowest, width=0.8)
        for tone, curve in lines:
            ax.plot(curve.fpr, curve.tpr, color=tone, lw=1.6)
        for i, (tone, curve) in enumerate(reversed(lines)):
            ax.text(0.97, 0.04 + 0.1 * i, _area(curve), transform=ax.transAxes, ha="right",
                    fontsize=7.5, color=legible(tone), zorder=5, fontweight="bold",
                    bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 0.6})  # fmt: skip
        _set_log_axis(ax, lowest)
        ax.set_ylim(0, 1.02)
        ax.set_yticks([0, 0.5, 1], ["0", "50", "100"])
        ax.tick_params(labelsize=7, length=2, labelleft=spot.leftmost)
        ax.grid(True, axis="y")
        if spot.leftmost:
            ax.set_ylabel("caught (%)", labelpad=2)
        if spot.lowest:
            ax.set_xlabel("clean rejected (%)")

    handles = [Line2D([], [], color=tone, lw=1.8, label=title) for tone, title, _ in by_eps]
    return draw_panels(
        cells, draw, columns=5, widest=3.3, height=lambda width: width, titles=names,
        legend=Names([*handles, Line2D([], [], **GUESSING, label="guessing")]),
        margins=Margins(left=0.6, wgap=0.28, hgap=0.62),
    )  # fmt: skip


def _draw_guides(ax: Axes, lowest: float, width: float) -> None:
    """Draw the diagonal of guessing, and lines at 1 % and 5 % of clean images rejected."""
    diagonal = np.geomspace(lowest, 1, 60)
    ax.plot(diagonal, diagonal, **GUESSING)
    for mark in (0.01, 0.05):
        ax.axvline(mark, color="#C9CED6", lw=width, zorder=0)


def _set_log_axis(ax: Axes, lowest: float) -> None:
    ax.set_xscale("log")
    ax.set_xlim(lowest, 1)
    ax.xaxis.set_major_formatter(hundredths)
    ax.xaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))  # each tick costs as much as a curve
    ax.xaxis.set_minor_formatter(unlabelled)


def _write_areas(ax: Axes, curves: Sequence[_Roc]) -> None:
    ax.text(0.97, 0.05 + 0.075 * len(curves), "AUROC", transform=ax.transAxes, ha="right",
            fontsize=8, color="#5B6470")  # fmt: skip
    for i, curve in enumerate(reversed(curves)):
        ax.text(
            0.97, 0.05 + 0.075 * i, f"{plain(curve.label, 16)} {_area(curve)}",
            transform=ax.transAxes, ha="right", fontsize=8, color=INK, zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        )  # fmt: skip


def _area(curve: _Roc) -> str:
    return NOTHING if curve.auroc is None else f"{curve.auroc:.3f}"


def _numbers(columns: _Columns) -> list[dict[str, object]]:
    """Return one row a point."""
    return [
        {"panel": title, "label": curve.label, "fpr": float(x), "tpr": float(y),
         "tpr_low": low, "tpr_high": high}
        for title, curves in columns
        for curve in curves
        for x, y, low, high in zip(
            curve.fpr, curve.tpr, *(curve.band or ([math.nan] * curve.fpr.size,) * 2), strict=True
        )
    ]  # fmt: skip


def roc_band(
    clean: np.ndarray, attacked: np.ndarray, grid: np.ndarray, resamples: Resamples
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pointwise 95 % band of the detection rate at each false-alarm rate.

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
