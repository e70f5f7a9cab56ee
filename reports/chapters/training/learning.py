"""Learning curves: three panels of few losses, a frame each for many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.curves import Line, Panel, curve_numbers, draw_curves
from robustloss.reports.drawing.legends import LINE, legend_below, legend_shape
from robustloss.reports.drawing.style import (
    BLUE,
    CROWD,
    ORANGE,
    VERMILLION,
    Look,
    blank,
    columns_of,
    panel_width,
    plain,
)
from robustloss.reports.drawing.ticks import percent, rounded, unlabelled
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.words import listed

SOFT = "#5B6470"
TRAINING, VALIDATION, OBJECTIVE, ATTACKED = "#8A97A6", BLUE, ORANGE, VERMILLION


def add_learning_curves(album: Album, numbers: Numbers, looks: Mapping[str, Look]) -> None:
    """Objective, training error and validation error against epochs."""
    if len(numbers.labels) > CROWD:
        _add_lessons(album, numbers)
        return
    parts = (
        ("loss", "Training objective", "nats an image", 1.0),
        ("train_error", "Training error", "", 100.0),
        ("validation_error", "Validation error", "", 100.0),
        ("validation_robust_error", "Validation error under attack", "", 100.0),
        ("validation_one_step_error", "Validation error under one step", "", 100.0),
    )
    grid = []
    for key, title, y_label, unit in parts:
        lines = [
            line
            for label in numbers.labels
            if (line := _epoch_line(numbers.run.training, label, key, unit))
        ]
        if lines:
            grid.append(_training_panel(title, y_label, lines, percent=unit == 100.0))
    if not grid:
        return
    album.add(
        "learning-curves",
        draw_curves(grid, looks),
        curve_numbers(grid),
        title="Learning curves",
        caption="Mean over seeds after each epoch; the band spans the lowest to the highest seed. "
        "Objectives of different losses have different zero points and units of effort, so "
        "compare the shapes of the first frame and the heights of errors only. On a logarithmic "
        f"axis an error of exactly 0 is drawn at the lower edge.{_unmeasured(numbers)}"
        f"{_attacked(numbers)}",
        alt="Line charts over training epochs, one line per loss: "
        + "; ".join(_ends(panel) for panel in grid[2:] or grid[-1:]),
    )


def _ends(panel: Panel) -> str:
    return f"{panel.title.lower()} ends at " + ", ".join(
        f"{line.y[-1]:.3g} for {line.label}" for line in panel.lines
    )


def _epoch_line(training: Sequence[Mapping], label: str, key: str, unit: float) -> Line | None:
    curves = [t.get("curve") or [] for t in training if t.get("label") == label]
    by_epoch: dict[int, list[float]] = {}
    for point in (p for curve in curves for p in curve):
        if point.get(key) is not None:
            by_epoch.setdefault(int(point["epoch"]), []).append(unit * float(point[key]))
    if not by_epoch:
        return None
    epochs = sorted(by_epoch)
    values = [by_epoch[e] for e in epochs]
    return Line(
        label,
        tuple(float(e) for e in epochs),
        tuple(sum(v) / len(v) for v in values),
        tuple(min(v) for v in values),
        tuple(max(v) for v in values),
    )


def _training_panel(title: str, y_label: str, lines: list[Line], *, percent: bool) -> Panel:
    drawn = [v for line in lines for v in (*line.y, *line.low, *line.high)]
    positive = [v for v in drawn if v > 0]
    log = bool(positive) and (percent or min(drawn) > 0)
    y_range = None
    if log:
        floor = 0.7 * min(positive)
        lines = [
            Line(
                k.label, k.x, *(tuple(max(v, floor) for v in part) for part in (k.y, k.low, k.high))
            )
            for k in lines
        ]
        y_range = (floor, 1.4 * max(positive))
    return Panel(
        title, "epoch", y_label, lines, y_range, log=log, percent=percent, whole_x=True
    )  # fmt: skip


def _late(numbers: Numbers, label: str) -> bool:
    """Whether a loss has no error before the end: it predicts nothing before it is fitted."""
    curves = [t.get("curve") or [] for t in numbers.run.training if t.get("label") == label]
    points = [point for curve in curves for point in curve[:-1]]
    return bool(points) and all(point.get("validation_error") is None for point in points)


def _unmeasured(numbers: Numbers) -> str:
    late = [label for label in numbers.labels if _late(numbers, label)]
    if not late:
        return ""
    return (
        f" Not measured before the end: the error of {listed(late)}, which "
        f"{'predict' if len(late) > 1 else 'predicts'} nothing before the class means are fitted."
    )


def _attacked(numbers: Numbers) -> str:
    """What is shown of adversarial training, and whose weights were kept."""
    training = numbers.run.training
    if not any("validation_robust_error" in p for t in training for p in t.get("curve") or []):
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
    """One loss: its lines against epochs, None where nothing was measured."""

    title: str
    objective: Line | None
    training: Line | None
    validation: Line | None
    note: str = ""
    attacked: Line | None = None


def _lesson(numbers: Numbers, label: str) -> Lesson:
    training = numbers.run.training
    validation = _epoch_line(training, label, "validation_error", 100.0)
    note = "not measured\nbefore the fit" if _late(numbers, label) else ""
    if validation:
        note += ("\n" if note else "") + f"ends at {validation.y[-1]:.2f} %"
    return Lesson(
        label, _epoch_line(training, label, "loss", 1.0),
        _epoch_line(training, label, "train_error", 100.0), validation, note,
        _epoch_line(training, label, "validation_robust_error", 100.0),
    )  # fmt: skip


def _add_lessons(album: Album, numbers: Numbers) -> None:
    cells = [_lesson(numbers, label) for label in numbers.labels]
    if not any(cell.objective or cell.validation for cell in cells):
        return
    grid = [
        Panel(title, "epoch", "", [line for cell in cells if (line := getattr(cell, key))])
        for key, title in (("objective", "Training objective"), ("training", "Training error"),
                           ("attacked", "Validation error under attack"),
                           ("validation", "Validation error"))
        if key != "attacked" or any(cell.attacked for cell in cells)
    ]  # fmt: skip
    album.add(
        "learning-curves",
        draw_lessons(cells),
        curve_numbers(grid),
        title="Learning curves",
        caption="One frame a loss, mean over seeds after each epoch; the band spans the lowest to "
        "the highest seed. Above: errors, on one logarithmic axis for all losses, an error of "
        "exactly 0 at the lower edge. Below: the objective, each on its own scale, because "
        "objectives of different losses have different zero points and units of effort."
        f"{_unmeasured(numbers)}{_attacked(numbers)}",
        alt="Line charts over training epochs, one frame per loss: " + _ends(grid[-1]),
    )


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
