"""Losses by scores: AUROC as number and colour, one panel a population and eps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from robustloss.reports.style import ADVERSARIAL, BLUE, FAINT, INK, PAGE_WIDTH, panels, plain

# white is guessing; blue, attacked images look odd; orange, they look more typical than clean ones
COLOURS = LinearSegmentedColormap.from_list("auroc", [ADVERSARIAL, "#FFFFFF", BLUE])
LETTER = 0.07  # inches


@dataclass(frozen=True)
class ScoreHeat:
    """One panel: losses by scores.

    Attributes:
        title: Above it.
        values: (L, S) AUROC; NaN is a gap.
        rows: Names of the losses, which may carry a mark.
    """

    title: str
    values: np.ndarray
    rows: Sequence[str]


def draw_score_heat(grid: Sequence[ScoreHeat | None], scores: Sequence[str], across: int) -> Figure:
    """Draw the panels in rows of ``across`` over one colour bar.

    Args:
        grid: Panels of one shape; None leaves its place empty.
        scores: Names of the columns.
        across: Panels in a row.
    """
    left = 0.3 + LETTER * max(len(plain(k, 26)) for heat in grid if heat for k in heat.rows)
    gap, down = 0.25, -(-len(grid) // across)
    most = max(len(heat.rows) for heat in grid if heat)
    width = min(0.72 * len(scores), (PAGE_WIDTH - left - 0.15 - (across - 1) * gap) / across)
    names = 0.2 + LETTER * max(len(plain(k, 26)) for k in scores)
    figure, axes = panels(
        down, across, width=width, height=0.25 * most, left=left, right=0.15,
        top=0.4, bottom=names + 0.75, wgap=gap, hgap=0.42,
    )  # fmt: skip
    for place, ax in enumerate(axes.flat):
        heat = grid[place] if place < len(grid) else None
        if heat is None:
            ax.set_axis_off()
            continue
        last = not any(grid[place + across :: across])
        _draw(ax, heat, scores if last else [""] * len(scores), place % across == 0)
    _bar(figure, left)
    return figure


def _draw(ax: Axes, heat: ScoreHeat, scores: Sequence[str], first: bool) -> None:
    ax.set_title(heat.title, fontweight="normal", pad=4)
    ax.imshow(heat.values, cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(heat.values):
        if np.isnan(value):
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, hatch="////", fc="white",
                                   ec=FAINT, lw=0))  # fmt: skip
            continue
        ax.text(column, row, short_area(value), ha="center", va="center", fontsize=8,
                color="white" if value > 0.9 or value < 0.06 else INK)  # fmt: skip
    ax.set_xticks(range(len(scores)), [plain(k, 26) for k in scores], rotation=90, va="top")
    ax.set_yticks(range(len(heat.rows)), [plain(k, 26) for k in heat.rows])
    ax.tick_params(labelleft=first, which="both", length=0)
    ax.set_xticks(np.arange(len(scores) + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(len(heat.rows) + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=1.5)
    for spine in ax.spines.values():
        spine.set_visible(False)


def short_area(value: float) -> str:
    """Three digits without the leading 0; a value that is not 1 never reads as 1."""
    if value == 1:
        return "1"
    return f"{min(max(value, 0.0), 0.9994):.3f}"[1:] if value < 0.9995 else ">.999"


def _bar(figure: Figure, left: float) -> None:
    width, height = figure.get_figwidth(), figure.get_figheight()
    inches = min(3.6, width - left - 0.35)
    axes = figure.add_axes((left / width, 0.47 / height, inches / width, 0.12 / height))
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), COLOURS), cax=axes, orientation="horizontal",
        ticks=[0, 0.25, 0.5, 0.75, 1],
    )  # fmt: skip
    bar.set_label("AUROC against clean images")
    bar.outline.set_visible(False)
