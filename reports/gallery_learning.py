"""Learning curves: three panels of few losses, a frame each for many."""

from collections.abc import Mapping, Sequence

from robustloss.reports.album import Album
from robustloss.reports.curves import Line, Panel, curve_numbers, draw_curves
from robustloss.reports.learning import Lesson, draw_lessons
from robustloss.reports.numbers import Numbers
from robustloss.reports.style import CROWD, Look
from robustloss.reports.words import listed


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
