"""The attacked images themselves, with what the network says about each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustloss.reports.style import ADVERSARIAL, CROWD, PAGE_WIDTH, plain

RIGHT_INK = "#00694D"
LETTER = 0.088  # width of a letter of a title, in inches, rather too much


@dataclass(frozen=True)
class Attacked:
    """One image under attack.

    Attributes:
        image: (C, H, W) in [0, 1].
        change: (C, H, W) attacked minus clean; None for the clean image.
        prediction: Class index.
        posterior: Of that class, in [0, 1].
        right: Whether the prediction is the true class.
    """

    image: np.ndarray
    change: np.ndarray | None
    prediction: int
    posterior: float
    right: bool


@dataclass(frozen=True)
class ImageGrid:
    """Rows of losses by columns of eps, for one or more source images.

    Attributes:
        examples: Caption of each source image ("image 12, class 7").
        cells: [loss][example][eps]; None is a gap.
        change_scale: Change in pixel units that is drawn black or white, per eps; None means the
            largest change of each image.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    examples: Sequence[str]
    cells: Sequence[Sequence[Sequence[Attacked | None]]]
    change_scale: Sequence[float | None]


def draw_images(grid: ImageGrid) -> Figure:
    """Draw each image, the verdict under it, and the change that the attack made below that."""
    across = len(grid.columns) * len(grid.examples)
    left, gap = 1.35, 0.3
    size = min(0.95, (PAGE_WIDTH - left - 0.1 - gap * (len(grid.examples) - 1)) / across - 0.06)
    room = len(grid.columns) * (size + 0.06) + gap
    titles = list(grid.examples)
    if any(len(text) * LETTER > room for text in titles):
        titles = [text.replace(", ", "\n", 1) for text in titles]
    top = 0.62 + 0.16 * any("\n" in text for text in titles)
    changes = len(grid.rows) <= CROWD
    row_height = 2 * size + 0.42 if changes else size + 0.3
    width = left + across * (size + 0.06) + gap * (len(grid.examples) - 1) + 0.1
    height = top + len(grid.rows) * row_height
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    for r, name in enumerate(grid.rows):
        y = height - top - r * row_height
        _row_name(ax, name, y - size / 2, y - 1.5 * size - 0.28 if changes else None)
        for e in range(len(grid.examples)):
            for c, cell in enumerate(grid.cells[r][e]):
                x = left + (e * len(grid.columns) + c) * (size + 0.06) + e * gap
                _cell(ax, cell, x, y, size, grid.change_scale[c], changes=changes)
    for e, text in enumerate(titles):
        start = left + e * room
        ax.text(start, height - top + 0.42, text, fontsize=9.5, weight="bold", va="center")
        for c, eps in enumerate(grid.columns):
            ax.text(start + c * (size + 0.06) + size / 2, height - top + 0.18, eps, fontsize=8.5,
                    ha="center", va="center")  # fmt: skip
    ax.set_xlim(0, width)
    ax.set_ylim(0, height)
    ax.set_aspect("auto")
    return figure


def _row_name(ax: Axes, name: str, image_y: float, change_y: float | None) -> None:
    words = plain(name, 34).split(" ")
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > 14:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()[:17]
    ax.text(
        0.12,
        image_y,
        "\n".join(lines),
        fontsize=9.5 if change_y is not None else 8,
        weight="bold",
        va="center",
    )
    if change_y is not None:
        ax.text(0.12, change_y, "change", fontsize=8.5, color="#5B6470", va="center")


def _cell(
    ax: Axes, cell: Attacked | None, x: float, y: float, size: float, scale: float | None,
    *, changes: bool,
) -> None:  # fmt: skip
    if cell is None:
        ax.text(x + size / 2, y - size / 2, "no\nrecord", fontsize=7.5, ha="center", va="center",
                color="#5B6470", style="italic")  # fmt: skip
        return
    _show(ax, cell.image, (x, x + size, y - size, y))
    colour, sign = (RIGHT_INK, "✓") if cell.right else (ADVERSARIAL, "✗")
    ax.text(
        x + size / 2, y - size - 0.115, f"{cell.prediction} {sign} {chance(cell.posterior)}",
        fontsize=min(8.5, 9 * size / 0.75), color=colour, ha="center", va="center",
    )  # fmt: skip
    if changes and cell.change is not None:
        scale = scale or float(np.abs(cell.change).max()) or 1.0
        shown = np.clip(0.5 + cell.change / (2 * scale), 0, 1)
        _show(ax, shown, (x, x + size, y - 2 * size - 0.24, y - size - 0.24))


def _show(ax: Axes, image: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    picture = np.moveaxis(image, 0, -1)
    picture = picture[..., 0] if picture.shape[-1] not in (3, 4) else picture[..., :3]
    ax.imshow(
        np.clip(picture, 0, 1), extent=extent, cmap="gray", vmin=0, vmax=1, aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    left, right, bottom, top = extent
    ax.plot(
        [left, right, right, left, left], [bottom, bottom, top, top, bottom], color="#C9CED6",
        lw=0.6,
    )  # fmt: skip


def chance(posterior: float) -> str:
    """A posterior as a short percentage; never rounded up to certainty."""
    if posterior > 0.999:
        return ">99.9 %"
    return f"{100 * posterior:.0f} %" if posterior <= 0.985 else f"{100 * posterior:.1f} %"
