"""How far a stated confidence can be believed, clean and under attack: tables and diagrams."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from robustloss.analysis.tables.calibration import pool_bins
from robustloss.analysis.tables.summary import name_ends
from robustloss.notation import eps_text
from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.curves import Panel, curve_numbers, draw_curves, lines_of
from robustloss.reports.drawing.frames import GRID, Spot, draw_grid, drawn_cells
from robustloss.reports.drawing.histograms import draw_bars
from robustloss.reports.drawing.style import ADVERSARIAL, NORMAL, looks
from robustloss.reports.drawing.table import Column, Entry, Table, lay_out
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.scene import Scene
from robustloss.reports.words import (
    Estimate,
    eps_name,
    estimate_fields,
    fixed,
    in_percent,
    over_rows,
)
from robustloss.results.schema import Row, aims_at_label

_INFINITE = ("nll", "nll_after", "temperature")
_TOP = {"brier": 2.0} | dict.fromkeys(_INFINITE, float("inf"))  # what a number can be at most
_COLUMNS = [
    Column("loss", "label"),
    Column("", "attack_label"),
    Column("eps", "eps", words=lambda eps: eps_text(eps) if eps else "clean"),
]
# one mark a row is enough: it stands at the first number
_ESTIMATES = [
    Column("right", "accuracy", 100.0, 2),
    Column("confidence", "mean_confidence", 100.0, 2, checks=()),
    Column("ECE", "ece_equal_width", 100.0, 2, checks=()),
    Column("ECE by chance", "ece_floor", 100.0, 2, checks=()),
    Column("ECE, equal mass", "ece_equal_mass", 100.0, 2, checks=()),
    Column("Brier", "brier", 1.0, checks=()),
    Column("NLL (nats)", "nll", 1.0, checks=()),
]
_AFTER = [
    Column("temperature", "temperature", 1.0, 2, checks=()),
    Column("ECE after", "ece_after", 100.0, 2, checks=()),
    Column("NLL after", "nll_after", 1.0, checks=()),
]
_AFTER_WORDS = (
    " After: with the logits divided by the temperature that suits the clean validation images "
    "best, which changes no prediction; at 0.05 or 20 the search ended at its limit."
)
_KEPT = " The attack keeps every predicted class, so no error changes."
_ONE_SEED = (
    " The interval of the ECE is 95 % over resampled test images, with the "
    "upward bias of the resamples taken off; it lies too high where the ECE is near that by "
    "chance. That of the Brier score is Student's t over test images. The other numbers have none."
)


def calibration_of(
    numbers: Numbers, label: str, attack: str, eps: float, metric: str
) -> Estimate | None:
    """Return a column of `calibration` over seeds; that of one seed keeps its own interval.

    Args:
        numbers: Of the run.
        label: Of the loss.
        attack: Label of the attack.
        eps: 0 is the clean pass.
        metric: The column.
    """
    rows = _rows(numbers, label, attack, eps)
    most = _TOP.get(metric, 1.0)
    return over_rows(rows, metric, ends=name_ends(metric), interval="over images", most=most)


def _rows(numbers: Numbers, label: str, attack: str, eps: float) -> list[Row]:
    name = "none" if eps == 0 else attack
    return [
        row
        for row in numbers.run.calibration
        if (row["label"], row["attack_label"], float(row["eps"])) == (label, name, float(eps))
    ]


def confidence_table(scene: Scene) -> Table | None:
    """Return calibration error and mean confidence of each loss by eps; None for older runs."""
    numbers, attack, marks = scene.numbers, scene.attack, Marks()
    rows, data, strengths = [], [], attack.with_clean
    for label in numbers.labels:
        errors, sure = (
            [calibration_of(numbers, label, attack.label, eps, metric) for eps in strengths]
            for metric in ("ece_equal_width", "mean_confidence")
        )
        if not any(errors):
            continue
        rows.append([
            Entry(label),
            *(Entry(in_percent(value), marks.of(scene.flags(label, eps)) if value and eps else "")
              for value, eps in zip(errors, strengths, strict=True)),
            *(Entry(fixed(value.mean if value else None, 1, 100.0)) for value in sure),
        ])  # fmt: skip
        data += [
            {"label": label, "attack_label": attack.label, "eps": eps,
             **estimate_fields(error, "ece"), "confidence": mean and mean.mean}
            for eps, error, mean in zip(strengths, errors, sure, strict=True)
        ]  # fmt: skip
    if not rows:
        return None
    names = [eps_name(eps).replace(" ", "\u00a0") for eps in strengths]
    return Table(
        f"confidence-{attack.slug}",
        f"Calibration error and confidence under {attack.label}",
        "ECE, the expected calibration error, is the mean gap between confidence and accuracy in "
        "percentage points: 0 where a network that is 90 % sure is right 9 times in 10. Confidence "
        "is the mean posterior of the predicted class, in percent. All test images; the table "
        "“Calibration” under Details has accuracy, chance and other measures."
        + ("" if aims_at_label(attack.name) else _KEPT),
        ["loss", *(f"ECE, {name}" for name in names), *(f"confidence, {name}" for name in names)],
        rows,
        data,
        marks.notes(),
    )


def calibration_table(scene: Scene) -> Table | None:
    """Return losses by eps; None for older runs."""
    numbers, attack = scene.numbers, scene.attack
    scaled = any(row.get("temperature") is not None for row in numbers.run.calibration)
    estimates = [*_ESTIMATES, *(_AFTER if scaled else [])]
    rows = []
    for label in numbers.labels:
        for eps in attack.with_clean:
            place = (label, attack.label, eps)
            if _rows(numbers, *place):
                row = {column.key: calibration_of(numbers, *place, column.key)
                       for column in estimates}  # fmt: skip
                flags = scene.flags(label, eps) if eps else ()
                rows.append(
                    {"label": label, "attack_label": attack.label, "eps": eps, "flags": flags} | row
                )
    if not rows:
        return None
    several = len({row["seed"] for row in numbers.run.calibration}) > 1
    marks = Marks()
    return Table(
        f"calibration-{attack.slug}",
        f"Calibration, clean and under {attack.label}",
        "Share of images that are right, mean confidence, and the gap between them, in percent. "
        "ECE: the gap averaged over 15 bins of confidence of equal width, or (equal mass) of "
        "equally many images. By chance: what a perfectly calibrated network with the same "
        "confidences would show on so many images; an ECE near it is no fault. Brier: mean squared "
        "distance of the posteriors from the truth, 0 to 2. NLL: mean −log posterior of the label. "
        "All test images; attacked ones keep their label."
        + (_AFTER_WORDS if scaled else "")
        + ("" if several else _ONE_SEED),
        *lay_out([*_COLUMNS, *estimates], rows, marks),
        marks.notes(),
        left=2,
    )


_STRIP = 0.31  # height of the counts, where that of all images is 1
FEW_LOSSES = 5  # that stand side by side
_FEW = 10  # images below which a bin's accuracy is a matter of chance
_KEYS = ("bin", "low", "high", "count", "mean_confidence", "accuracy")


@dataclass(frozen=True)
class _Diagram:
    """The reliability diagram of one loss at one eps."""

    bins: Sequence[Row]  # of `reliability`, those of all seeds together
    error: float  # expected calibration error, a fraction, mean over seeds


def plot_reliability(scene: Scene) -> Iterator[Plot]:
    """Draw each loss on clean images and at the middle eps; nothing for runs of before."""
    numbers, attack = scene.numbers, scene.attack
    strengths = (0.0, attack.strengths[(len(attack.strengths) - 1) // 2])
    grid: Sequence[Sequence[_Diagram | str]] = [
        [_diagram(scene, label, eps) for eps in strengths] for label in scene.pictured
    ]
    drawn = drawn_cells(scene.pictured, strengths, grid)
    if not drawn:
        return
    seeds = len({row["seed"] for row in numbers.run.reliability})
    rows, columns = numbers.pictured, [eps_name(e) for e in strengths]
    if len(rows) <= FEW_LOSSES:  # side by side
        rows, columns, grid = columns, rows, [*zip(*grid, strict=True)]
    errors = [f"{label} {eps_name(eps)} {100 * cell.error:.2g}" for label, eps, cell in drawn]
    yield Plot(
        f"reliability-{attack.slug}",
        _draw_reliability(rows, columns, grid),
        [
            {"label": label, "eps": eps} | {key: each[key] for key in _KEYS}
            for label, eps, cell in drawn
            for each in cell.bins
        ],
        title="Is each network as often right as it says?",
        caption="Share of images that are right (bar) beside the mean confidence (dot), in 15 bins "
        "of confidence. On the dotted diagonal both are the same; a bar below its dot says that "
        f"the network is too sure. Pale bars are of fewer than {_FEW} images, where chance "
        "decides. Below each panel, on a logarithmic axis: the share of all images in the bin. "
        f"All test images{f', {seeds} seeds together' if seeds > 1 else ''}; attacked ones "
        "keep their label.",
        alt=f"Reliability diagrams of each loss. ECE in points: {'; '.join(errors)}.",
    )


def _diagram(scene: Scene, label: str, eps: float) -> _Diagram | str:
    numbers, attack = scene.numbers, scene.attack
    place = (label, attack.label if eps else "none", float(eps))
    rows = [
        row
        for row in numbers.run.reliability
        if row["binning"] == "equal_width"
        and (row["label"], row["attack_label"], float(row["eps"])) == place
    ]
    error = calibration_of(numbers, label, attack.label, eps, "ece_equal_width")
    return _Diagram(pool_bins(rows), error.mean) if rows and error else "no such record"


def _draw_reliability(
    labels: Sequence[str], columns: Sequence[str], grid: Sequence[Sequence[_Diagram | str]]
) -> Figure:
    handles = [
        Patch(facecolor=NORMAL, label="share right"),
        Line2D([], [], marker="o", ls="", ms=4, color=ADVERSARIAL, label="mean confidence"),
        Line2D([], [], ls=":", color="#444444", label="as often right as sure"),
    ]
    return draw_grid(
        labels, columns, grid, _draw_diagram, widest=2.6,
        height=lambda width: min(1.35, 0.75 * width), handles=handles, title_pad=5,
        labels=("confidence", "share right"),
        margins=replace(GRID, right=0.2, top=0.95, wgap=0.32, hgap=0.5),
    )  # fmt: skip


def _draw_diagram(ax: Axes, cell: _Diagram, spot: Spot) -> None:
    low, high, count, confidence, accuracy = (
        np.array([each[key] for each in cell.bins], float) for key in _KEYS[1:]
    )
    many = count >= _FEW
    for chosen, alpha in ((many, 1.0), (~many, 0.35)):
        if chosen.any():
            draw_bars(ax, (low[chosen], high[chosen]), 0, accuracy[chosen], NORMAL, alpha)
            ax.plot(confidence[chosen], confidence[chosen], "o", ms=3.6, color=ADVERSARIAL,
                    alpha=max(alpha, 0.5), zorder=3, clip_on=False)  # fmt: skip
            ax.vlines(confidence[chosen], accuracy[chosen], confidence[chosen], color=ADVERSARIAL,
                      lw=1.0, alpha=max(alpha, 0.5))  # fmt: skip
    ax.plot([0, 1], [0, 1], ":", color="#444444", lw=0.9)
    ax.text(
        0.04, 0.97, f"ECE {100 * cell.error:.2g} %", transform=ax.transAxes, va="top", fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0},
    )  # fmt: skip
    ax.axhline(0, color="#444444", lw=0.8)
    # below, how many of all images each bin holds: from `least` to 150 %, on a logarithmic axis
    share = 100 * count / count.sum()
    least = min(0.1, 50 / count.sum())

    def height(percent: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(percent, least) / least) / np.log(150 / least) * _STRIP - _STRIP

    held = share > 0
    draw_bars(ax, (low[held], high[held]), -_STRIP, height(share[held]), "#B9B2A5")
    ax.set_xlim(0, 1)
    ax.set_ylim(-_STRIP, 1.25)  # room for the note
    if spot.leftmost:
        ax.set_yticks([float(height(np.ones(1))[0]), 0, 0.5, 1], ["1 %", "0", "50 %", "100 %"])
    else:
        ax.set_yticks([])
    ax.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"] if spot.lowest else [""] * 3, fontsize=7)


def plot_calibration_curves(scene: Scene) -> Iterator[Plot]:
    """Draw ECE and mean confidence against eps, one line a loss; nothing for runs of before."""
    numbers, attack = scene.numbers, scene.attack

    def get(metric: str, label: str, eps: float) -> Estimate | None:
        return calibration_of(numbers, label, attack.label, eps, metric)

    grid = [
        Panel(title, attack.axis, y_label, lines, percent=True)
        for metric, title, y_label in (
            ("ece_equal_width", "calibration error", "ECE"),
            ("mean_confidence", "mean confidence", "largest posterior"),
        )
        if (lines := lines_of(scene.labels, attack.with_clean, partial(get, metric), 100.0))
    ]  # fmt: skip
    if not grid:
        return
    ends = [f"{line.label} {line.y[-1]:.1f} %" for line in grid[0].lines]
    several = len({row["seed"] for row in numbers.run.calibration}) > 1
    band = "Bands are 95 % t-intervals over training seeds."
    if not several:
        band = (
            "The band on the left is 95 % over resampled images; near 0 "
            "it lies too high, because chance alone makes a gap."
        )
    yield Plot(
        f"calibration-vs-eps-{attack.slug}",
        draw_curves(grid, looks(scene.labels)),
        curve_numbers(grid),
        title="How wrong is the confidence as the attack grows?",
        caption="Calibration error (left) and mean confidence (right) against eps. A network that "
        "errs and says that it is unsure keeps a small calibration error. All test images, 15 bins "
        f"of equal width; attacked images keep their label. {band}",
        alt="Line charts of expected calibration error and mean confidence against eps, one line "
        f"per loss. Calibration error at the largest eps: {', '.join(ends)}.",
    )
