"""Learning curves of many losses: one small frame each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from robustloss.reports.curves import Line
from robustloss.reports.embedding import columns_of
from robustloss.reports.legends import LINE, legend_below, legend_shape
from robustloss.reports.style import BLUE, ORANGE, VERMILLION, blank, panel_width, plain
from robustloss.reports.ticks import percent, rounded, unlabelled

SOFT = "#5B6470"
TRAINING, VALIDATION, OBJECTIVE, ATTACKED = "#8A97A6", BLUE, ORANGE, VERMILLION


@dataclass(frozen=True)
class Lesson:
    """One loss: its lines against epochs, None where nothing was measured."""

    title: str
    objective: Line | None
    training: Line | None
    validation: Line | None
    note: str = ""
    attacked: Line | None = None


def draw_lessons(cells: Sequence[Lesson]) -> Figure:
    """Two frames a loss: errors above on one logarithmic axis for all, the objective below."""
    columns = columns_of(len(cells))
    rows = -(-len(cells) // columns)
    margins = {"left": 0.8, "right": 0.12, "wgap": 0.42}
    width = panel_width(columns, widest=3.4, **margins)
    handles = [
        Line2D([], [], color=VALIDATION, lw=1.8, label="validation error"),
        Line2D([], [], color=TRAINING, lw=1.8, ls=(0, (4, 1.5)), label="training error"),
        Line2D([], [], color=OBJECTIVE, lw=1.6, label="training objective, own scale"),
    ]
    if any(cell.attacked for cell in cells):
        handles.insert(
            1, Line2D([], [], color=ATTACKED, lw=1.6, ls=":", label="validation error under attack")
        )
    inches = 0.3 + columns * (width + margins["wgap"])
    lines = legend_shape([str(h.get_label()) for h in handles], inches - 0.7)[1]
    above, below, gap, between = 1.15, 0.6, 0.1, 0.78
    block = above + below + gap
    tall = 0.5 + rows * (block + between) - between + 0.62 + LINE * lines
    figure = Figure(figsize=(margins["left"] + columns * (width + margins["wgap"]), tall))
    limits = _limits(cells)
    total = figure.get_figwidth()
    for place, cell in enumerate(cells):
        row, column = divmod(place, columns)
        x = margins["left"] + column * (width + margins["wgap"])
        y = tall - 0.5 - row * (block + between)
        parts = [(y - above, above), (y - block, below)]
        errors, objective = (
            figure.add_axes((x / total, low / tall, width / total, height / tall))
            for low, height in parts
        )
        _errors(errors, cell, limits)
        _objective(objective, cell)
        errors.annotate(plain(cell.title, int(width * 15.4)), (0, 1), (0, 6),
                        xycoords="axes fraction", textcoords="offset points", fontweight="bold",
                        fontsize=10 if columns < 5 else 8.5)  # fmt: skip
        if column == 0:
            errors.set_ylabel("error", labelpad=2)
            objective.set_ylabel("objective", labelpad=2, fontsize=8)
        if place + columns >= len(cells):
            objective.set_xlabel("epoch")
    legend_below(figure, handles, left=0.7)
    return figure


def _limits(cells: Sequence[Lesson]) -> tuple[float, float]:
    drawn = [k for cell in cells for k in (cell.training, cell.validation, cell.attacked) if k]
    values = [v for line in drawn for v in line.y if v > 0]
    return (0.7 * min(values), 1.4 * max(values)) if values else (1.0, 100.0)


def _errors(ax: Axes, cell: Lesson, limits: tuple[float, float]) -> None:
    ax.set_yscale("log")
    ax.set_ylim(*limits)
    drawn = (
        (cell.training, TRAINING, (0, (4, 1.5))),
        (cell.validation, VALIDATION, "-"),
        (cell.attacked, ATTACKED, ":"),
    )
    for line, colour, dash in drawn:
        if line:
            y = np.maximum(line.y, limits[0])
            few = {"marker": "o", "ms": 3.5} if len(y) < 3 else {}
            ax.plot(line.x, y, color=colour, lw=1.6, ls=dash, **few)  # type: ignore[arg-type]
            low, high = (np.maximum(part, limits[0]) for part in (line.low, line.high))
            ax.fill_between(line.x, low, high, color=colour, alpha=0.18, lw=0)
    ax.text(0.97, 0.95, cell.note, transform=ax.transAxes, ha="right", va="top", fontsize=7.5,
            color=SOFT, linespacing=1.25)  # fmt: skip
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    ax.yaxis.set_major_formatter(percent)
    ax.yaxis.set_minor_formatter(unlabelled)
    ax.tick_params(labelbottom=False, labelsize=7, length=2)
    ax.grid(True, which="major")
    if cell.objective:
        ax.set_xlim(*_epochs(cell.objective))


def _epochs(line: Line) -> tuple[float, float]:
    pad = 0.03 * max(1.0, line.x[-1] - line.x[0])
    return line.x[0] - pad, line.x[-1] + pad


def _objective(ax: Axes, cell: Lesson) -> None:
    if cell.objective is None:
        blank(ax, "not recorded")
        return
    line = cell.objective
    ax.plot(line.x, line.y, color=OBJECTIVE, lw=1.5)
    ax.fill_between(line.x, line.low, line.high, color=OBJECTIVE, alpha=0.18, lw=0)
    ax.set_xlim(*_epochs(line))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=2))
    ax.yaxis.set_major_formatter(rounded)
    ax.tick_params(labelsize=7, length=2, pad=1.5)
