"""ROC curves of the detector, on a linear and on a logarithmic false-alarm axis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustloss.reports.legends import LINE, legend_below, legend_shape
from robustloss.reports.style import CROWD, INK, Look, blank, panel_width, panels, plain
from robustloss.reports.ticks import hundredths, unlabelled


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
