"""Learning curves: a panel a number for few losses, two panels a loss for many."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from robustloss.reports.drawing import ticks
from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.curves import Line, Panel, curve_numbers, draw_curves
from robustloss.reports.drawing.frames import Margins, Spot, draw_panels
from robustloss.reports.drawing.legends import Names
from robustloss.reports.drawing.style import (
    BLUE,
    CROWD,
    ORANGE,
    SOFT,
    VERMILLION,
    blank,
    columns_of,
    looks,
)
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import listed

OBJECTIVE, TRAINING, VALIDATION = "loss", "train_error", "validation_error"
ROBUST, ONE_STEP = "validation_robust_error", "validation_one_step_error"
# column of a learning curve: its name
TITLES = {
    OBJECTIVE: "Training objective",
    TRAINING: "Training error",
    VALIDATION: "Validation error",
    ROBUST: "Validation error under attack",
    ONE_STEP: "Validation error under one step",
}
# the errors of one loss in one panel: colour, dash, name
STROKES = {
    VALIDATION: (BLUE, "-", "validation error"),
    ROBUST: (VERMILLION, ":", "validation error under attack"),
    TRAINING: ("#8A97A6", (0, (4, 1.5)), "training error"),
}
HEIGHTS = (1.15, 0.1, 0.6)  # inches of the errors of a loss, of a gap, of its objective

# how to read the figure of few losses, and the one of many
TOGETHER = (
    "Mean over seeds after each epoch; the band spans the lowest to the highest seed. Objectives "
    "of different losses have different zero points and units of effort, so compare the shapes of "
    "the first frame and the heights of errors only. On a logarithmic axis an error of exactly 0 "
    "is drawn at the lower edge."
)
ONE_EACH = (
    "One frame a loss, mean over seeds after each epoch; the band spans the lowest to the highest "
    "seed. Above: errors, on one logarithmic axis for all losses, an error of exactly 0 at the "
    "lower edge. Below: the objective, each on its own scale, because objectives of different "
    "losses have different zero points and units of effort."
)


def plot_learning_curves(numbers: Numbers) -> Iterator[Plot]:
    """Draw objective, training error and validation error against epochs."""
    crowded = len(numbers.labels) > CROWD
    grid = []
    for key in (OBJECTIVE, TRAINING, ROBUST, VALIDATION) if crowded else TITLES:
        lines = [line for label in numbers.labels if (line := _line_of(numbers, label, key))]
        if lines:
            label = "nats an image" if key == OBJECTIVE and not crowded else ""
            panel = Panel(TITLES[key], "epoch", label, lines, whole_x=True)
            grid.append(panel if crowded else _logarithmic(panel, percent=key != OBJECTIVE))
    if not grid:
        return
    if crowded:
        figure = draw_lessons([Lesson.of(numbers, label) for label in numbers.labels])
        how, alt, final = ONE_EACH, "one frame per loss", grid[-1:]
    else:
        figure = draw_curves(grid, looks(numbers.labels))
        how, alt, final = TOGETHER, "one line per loss", grid[2:] or grid[-1:]
    if late := [label for label in numbers.labels if _is_late(numbers, label)]:
        verb = "predict" if len(late) > 1 else "predicts"
        how += f" Not measured before the end: the error of {listed(late)}, which {verb} nothing "
        how += "before the class means are fitted."
    ends = [
        f"{panel.title.lower()} ends at "
        + ", ".join(f"{line.y[-1]:.3g} for {line.label}" for line in panel.lines)
        for panel in final
    ]
    yield Plot(
        "learning-curves",
        figure,
        curve_numbers(grid),
        title="Learning curves",
        caption=how + attacked_words(numbers),
        alt=f"Line charts over training epochs, {alt}: {'; '.join(ends)}",
    )


def _line_of(numbers: Numbers, label: str, key: str) -> Line | None:
    """Return mean, lowest and highest seed of one number after each epoch; errors in percent."""
    by_epoch: dict[int, list[float]] = {}
    for log in numbers.run.training:
        for point in (log.get("curve") or []) if log.get("label") == label else []:
            if point.get(key) is not None:
                value = float(point[key]) * (1.0 if key == OBJECTIVE else 100.0)
                by_epoch.setdefault(int(point["epoch"]), []).append(value)
    if not by_epoch:
        return None
    epochs = sorted(by_epoch)
    values = [by_epoch[epoch] for epoch in epochs]
    means = tuple(sum(v) / len(v) for v in values)
    return Line(label, [*map(float, epochs)], means, [*map(min, values)], [*map(max, values)])


def _logarithmic(panel: Panel, *, percent: bool) -> Panel:
    """Return the panel on a logarithmic axis; an error of 0 then lies at its lower edge.

    Objectives have such an axis only where all of them are positive.
    """
    drawn = [v for line in panel.lines for v in (*line.y, *line.low, *line.high)]
    positive = [v for v in drawn if v > 0]
    panel = replace(panel, percent=percent)
    if not positive or not (percent or min(drawn) > 0):
        return panel
    floor = 0.7 * min(positive)
    lines = [
        Line(k.label, k.x, *([max(v, floor) for v in part] for part in (k.y, k.low, k.high)))
        for k in panel.lines
    ]
    return replace(panel, lines=lines, y_range=(floor, 1.4 * max(positive)), log=True)


def _is_late(numbers: Numbers, label: str) -> bool:
    """Return whether a loss has no error before the end: it predicts nothing before its fit."""
    curves = [t.get("curve") or [] for t in numbers.run.training if t.get("label") == label]
    points = [point for curve in curves for point in curve[:-1]]
    return bool(points) and all(point.get(VALIDATION) is None for point in points)


def attacked_words(numbers: Numbers) -> str:
    """Return what is shown of adversarial training, and whose weights were kept."""
    training = numbers.run.training
    if not any(ROBUST in point for log in training for point in log.get("curve") or []):
        return ""
    kept: dict[str, list[str]] = {}
    for log in training:
        if log.get("chosen_epoch") is not None:
            kept.setdefault(str(log["label"]), []).append(str(log["chosen_epoch"]))
    text = (
        " Losses trained on attacked images: their training error is that on these images (TRADES: "
        "on clean ones); under attack is PGD on the margin at the full eps of training."
    )
    if kept:
        each = "; ".join(f"{k}: {listed(kept[k])}" for k in numbers.labels if k in kept)
        text += (
            " Kept are the weights of the epoch with the fewest of these errors, a number that is "
            f"too low for having been chosen: {each}."
        )
    return text


@dataclass(frozen=True)
class Lesson:
    """One loss: its lines against epochs by column; what was not measured has none."""

    title: str
    lines: Mapping[str, Line]
    note: str = ""

    @classmethod
    def of(cls, numbers: Numbers, label: str) -> "Lesson":
        """Collect the lines of one loss."""
        lines = {key: line for key in TITLES if (line := _line_of(numbers, label, key))}
        notes = ["not measured", "before the fit"] if _is_late(numbers, label) else []
        if VALIDATION in lines:
            notes.append(f"ends at {lines[VALIDATION].y[-1]:.2f} %")
        return cls(label, lines, "\n".join(notes))


def draw_lessons(cells: Sequence[Lesson]) -> Figure:
    """Draw two panels a loss: errors above on one logarithmic axis for all, the objective below."""
    handles = [
        Line2D([], [], color=colour, lw=1.8, ls=dash, label=name)
        for key, (colour, dash, name) in STROKES.items()
        if key != ROBUST or any(ROBUST in cell.lines for cell in cells)
    ]
    handles.append(Line2D([], [], color=ORANGE, lw=1.6, label="training objective, own scale"))
    drawn = [v for c in cells for k in STROKES if k in c.lines for v in c.lines[k].y if v > 0]
    limits = (0.7 * min(drawn), 1.4 * max(drawn)) if drawn else (1.0, 100.0)

    def draw(ax: Axes, cell: Lesson, spot: Spot) -> None:
        _draw_lesson(ax, cell, spot, limits)

    return draw_panels(
        cells, draw, columns=columns_of(len(cells)), widest=3.4, height=sum(HEIGHTS),
        titles=[cell.title for cell in cells], legend=Names(handles),
        margins=Margins(left=0.8, right=0.12, top=0.5, bottom=0.62, wgap=0.42, hgap=0.78),
    )  # fmt: skip


def _draw_lesson(ax: Axes, cell: Lesson, spot: Spot, limits: tuple[float, float]) -> None:
    """Draw the errors above, within the limits that all losses share, and the objective below."""
    above, _, below = (inches / sum(HEIGHTS) for inches in HEIGHTS)
    ax.set_axis_off()
    errors, objective = ax.inset_axes((0, 1 - above, 1, above)), ax.inset_axes((0, 0, 1, below))
    errors.set(yscale="log", ylim=limits)
    for key, (colour, dash, _) in STROKES.items():
        if line := cell.lines.get(key):
            y, low, high = (np.maximum(v, limits[0]) for v in (line.y, line.low, line.high))
            marker = "o" if len(y) < 3 else ""
            errors.plot(line.x, y, color=colour, lw=1.6, ls=dash, marker=marker, ms=3.5)
            errors.fill_between(line.x, low, high, color=colour, alpha=0.18, lw=0)
    errors.text(0.97, 0.95, cell.note, transform=errors.transAxes, ha="right", va="top",
                fontsize=7.5, color=SOFT, linespacing=1.25)  # fmt: skip
    errors.yaxis.set_major_locator(LogLocator(numticks=6))
    errors.yaxis.set_major_formatter(ticks.percent)
    errors.yaxis.set_minor_formatter(ticks.unlabelled)
    errors.tick_params(labelbottom=False, labelsize=7, length=2)
    errors.grid(True, which="major")
    if line := cell.lines.get(OBJECTIVE):
        objective.plot(line.x, line.y, color=ORANGE, lw=1.5)
        objective.fill_between(line.x, line.low, line.high, color=ORANGE, alpha=0.18, lw=0)
        pad = 0.03 * max(1.0, line.x[-1] - line.x[0])
        for each in (objective, errors):
            each.set_xlim(line.x[0] - pad, line.x[-1] + pad)
        objective.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        objective.yaxis.set_major_locator(MaxNLocator(nbins=2))
        objective.yaxis.set_major_formatter(ticks.rounded)
        objective.tick_params(labelsize=7, length=2, pad=1.5)
    else:
        blank(objective, "not recorded")
    if spot.leftmost:
        errors.set_ylabel("error", labelpad=2)
        objective.set_ylabel("objective", labelpad=2, fontsize=8)
    if spot.lowest:
        objective.set_xlabel("epoch")
