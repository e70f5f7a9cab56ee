"""The transfer matrix over seeds: images made on one loss, shown to another."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from robustloss.notation import eps_text
from robustloss.reports.drawing.album import Plot
from robustloss.reports.drawing.squares import colour_bar, frame_squares, hatch_square, ink_on
from robustloss.reports.drawing.style import CROWD, INK, PAGE_WIDTH, panels, plain
from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.reading.marks import Flag, Marks, names
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import (
    NOTHING,
    Estimate,
    eps_name,
    estimate_fields,
    in_percent,
    over_rows,
)
from robustloss.results.numbers import TRANSFER, group_rows

COLOURS = "Blues"  # grows darker steadily, so it survives a grey print
LETTER = 0.075  # inches


@dataclass(frozen=True)
class Heat:
    """One panel, percent; NaN is a gap."""

    title: str
    values: np.ndarray  # (S, T)
    marked: np.ndarray  # (S, T) bool: a † stands beside the number


def draw_heatmaps(
    grid: Sequence[Heat], rows: Sequence[str], columns: Sequence[str], *, scale: str
) -> Figure:
    """Draw the panels side by side, as many as fit, over one colour bar from 0 to 100 %.

    Args:
        grid: Panels of one shape.
        rows: S names; where a column has the same place as a row, the cell is framed.
        columns: T names, a second line after "\\n".
        scale: What the colour means.
    """
    names = ["\n".join(plain(part, 26) for part in name.split("\n")) for name in columns]
    # two slanted lines of many columns would run into each other
    turn = 35 if len(columns) <= CROWD else 90
    longest = max(len(line) for name in names for line in name.split("\n"))
    below = 0.35 + np.sin(np.radians(turn)) * LETTER * longest
    left = 0.55 + LETTER * max(len(plain(name, 26)) for name in rows)
    gap = 0.3
    free = PAGE_WIDTH - left - 0.35 + gap
    # as many panels in a row as leave a cell half an inch wide
    across = max(1, min(len(grid), int(free / (0.5 * len(columns) + gap))))
    side = max(0.42, min(0.72, (free / across - gap) / len(columns)))
    figure, axes = panels(
        -(-len(grid) // across), across, width=side * len(columns), height=side * len(rows),
        left=left, right=0.35, top=0.45, bottom=below + 0.75, wgap=gap, hgap=below + 0.4,
    )  # fmt: skip
    for place, ax in enumerate(axes.flat):
        if place >= len(grid):
            ax.set_axis_off()
            continue
        _draw_heat(ax, grid[place])
        ax.set_xticks(range(len(names)), names, rotation=turn, ha="right",
                      rotation_mode="anchor", va="center" if turn == 90 else "top")  # fmt: skip
        ax.set_yticks(range(len(rows)), [plain(name, 26) for name in rows])
        ax.tick_params(labelleft=place % across == 0)
        if place % across == 0:
            ax.set_ylabel("images made on")
    ticks = [0.0, 25.0, 50.0, 75.0, 100.0]
    colour_bar(figure, Normalize(0, 100), COLOURS, scale, left=left, ticks=ticks)
    return figure


def _draw_heat(ax: Axes, heat: Heat) -> None:
    ax.set_title(heat.title, fontweight="normal", pad=6)
    colours = matplotlib.colormaps[COLOURS]
    ax.imshow(heat.values, cmap=colours, vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(heat.values):
        if np.isnan(value):
            hatch_square(ax, row, column)
            continue
        ax.text(
            column, row, f"{value:.0f}" + ("†" if heat.marked[row, column] else ""), ha="center",
            va="center", fontsize=9.5, color=ink_on(colours(value / 100)),
            fontweight="bold" if row == column else "normal",
        )  # fmt: skip
    for place in range(min(heat.values.shape)):
        ax.add_patch(Rectangle((place - 0.46, place - 0.46), 0.92, 0.92, fill=False,
                               edgecolor=INK, linewidth=1.6))  # fmt: skip
    frame_squares(ax, heat.values.shape)


class Matrix:
    """The table `transfer` of one attack, by source, target and eps.

    Attributes:
        attack: With which the images were made.
        eps: Strengths that were transferred.
        labels: Losses in the order of the spec.
        places: Source, target and eps of every number: by eps, by source, by target.
        clean: Error of each loss on the clean test images, as the error tables have it.
    """

    def __init__(self, numbers: Numbers, attack: AttackInfo) -> None:
        self.numbers, self.attack = numbers, attack
        rows = [r for r in numbers.run.transfer if r["attack_label"] == attack.label]
        self._rows = group_rows(rows, lambda row: (row["source"], row["target"], float(row["eps"])))
        self.eps = sorted({float(row["eps"]) for row in rows})
        known = {row[side] for row in rows for side in ("source", "target")}
        self.labels = [label for label in numbers.labels if label in known]
        sources = targets = self.labels
        self.places = [(s, t, eps) for eps in self.eps for s in sources for t in targets]
        self.clean = {label: numbers.get(label, "none", 0.0, "error") for label in self.labels}

    def get(self, source: str, target: str, eps: float) -> Estimate | None:
        """Return the error of the target on images made on the source, at one eps.

        A single seed keeps its Wilson interval over images.
        """
        rows = self._rows.get((source, target, float(eps)), [])
        ends = ("error_low", "error_high")
        return over_rows(rows, "error", ends=ends, interval="Wilson over images")

    def flags(self, source: str, target: str, eps: float) -> list[Flag]:
        """Return the flags of a white-box number; an error on others' images claims nothing."""
        if source != target:
            return []
        return list(self.numbers.flags_of(target, self.attack, eps))

    def is_beaten(self, source: str, target: str, eps: float) -> bool:
        """Return whether a white-box number was beaten from outside, beyond chance."""
        return any(flag.get("check") == TRANSFER for flag in self.flags(source, target, eps))

    def words(self) -> str:
        """Return the errors at the middle eps in words: of the white box, and on others' images."""
        middle = self.eps[len(self.eps) // 2]
        percents: dict[bool, list[float]] = {True: [], False: []}  # white box: the errors
        for source, target, eps in self.places:
            if eps == middle and (found := self.get(source, target, eps)):
                percents[source == target].append(100 * found.mean)
        own, other = (f"{min(found):.0f} to {max(found):.0f} %" if found else ""
                      for found in percents.values())  # fmt: skip
        text = f"At eps {eps_text(middle)}: white box {own}" if own else ""
        return f"{text}, from other losses {other}." if other else text


def matrices(numbers: Numbers) -> list[Matrix]:
    """Return one matrix for each attack that was transferred."""
    found = [Matrix(numbers, attack) for attack in numbers.attacks]
    return [matrix for matrix in found if matrix.labels]


def transfer_table(matrix: Matrix) -> Table:
    """Return the errors: in the rows the loss that images were made on, in the columns others."""
    marks, labels = Marks(), matrix.labels
    clean = [in_percent(matrix.clean[label]) for label in labels]
    rows = [[Entry(text) for text in ("clean", "(no attack)", *clean)]]
    data = []
    for source, target, eps in matrix.places:
        if target == labels[0]:
            rows.append([Entry(eps_text(eps)), Entry(source)])
        found, flags = matrix.get(source, target, eps), matrix.flags(source, target, eps)
        mark, kind = marks.of(flags) if found else "", "top" if source == target else ""
        rows[-1].append(Entry(in_percent(found), mark, kind))
        clean_error = matrix.clean[target]
        data.append(
            {"source": source, "target": target, "attack_label": matrix.attack.label,
             "norm": matrix.attack.norm, "eps": eps, **estimate_fields(found, "error"),
             "target_clean_error": clean_error.mean if clean_error else None,
             "marks": names(flags)}
        )  # fmt: skip
    name = matrix.attack.label
    return Table(
        f"transfer-{matrix.attack.slug}",
        f"Transfer of {name} between the losses",
        f"Error in percent of one loss (column) on images that {name} made on another (row). Bold: "
        "the diagonal, where the attack sees the very model (white box). A higher error elsewhere "
        "in its column means that the model hides its gradient from the attack.",
        ["eps", "made on", *(f"shown to {label}" for label in labels)],
        rows,
        data,
        marks.notes(),
        left=2,
    )


def plot_transfers(numbers: Numbers) -> Iterator[Plot]:
    """Draw one figure for each attack whose images were shown to other losses."""
    for matrix in matrices(numbers):
        name, labels = matrix.attack.label, matrix.labels
        clean = {k: 100 * v.mean if v else math.nan for k, v in matrix.clean.items()}
        under = [NOTHING if math.isnan(clean[k]) else f"{clean[k]:.1f} %" for k in labels]
        percents = {
            place: 100 * found.mean if (found := matrix.get(*place)) else math.nan
            for place in matrix.places
        }
        square = (len(matrix.eps), len(labels), len(labels))
        values = np.array([*percents.values()]).reshape(square)
        marked = np.array([matrix.is_beaten(*place) for place in percents]).reshape(square)
        yield Plot(
            f"transfer-{matrix.attack.slug}",
            draw_heatmaps(
                [Heat(eps_name(eps), values[i], marked[i]) for i, eps in enumerate(matrix.eps)],
                labels,
                [f"{k}\n(clean {text})" for k, text in zip(labels, under, strict=True)],
                scale="error of the loss that sees the images (%)",
            ),
            [
                {"eps": eps, "source": source, "target": target, "error_percent": percent,
                 "target_clean_error_percent": clean[target],
                 "marked": matrix.is_beaten(source, target, eps)}
                for (source, target, eps), percent in percents.items()
            ],
            title=f"Transfer of {name} between the losses",
            caption=f"Error in percent of one loss (column) on images that {name} made on another "
            "(row), mean over seeds. The framed diagonal is the white-box attack. A higher error "
            "elsewhere in its column means that the model hides its gradient; † on the diagonal: "
            "beyond chance.",
            alt=f"Heat maps of the error under transfer, source by target. {matrix.words()}",
        )  # fmt: skip
