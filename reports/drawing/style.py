"""How every figure looks: sizes, fonts, colours, and how it is written to disk.

Figures are built from ``matplotlib.figure.Figure`` and never through pyplot, so the backend and the
open figures of the calling program stay as they were. The bytes written depend on the numbers only:
no dates, no version strings, a fixed salt for SVG identifiers.
"""

import gc
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import ColorType

from robustloss.reports.drawing.ticks import number
from robustloss.reports.drawing.vector import shrink

PAGE_WIDTH = 10.4  # inches; the page shows a figure at 96 CSS pixels per inch
DPI = 150
RARELY = 200_000  # objects between two searches for garbage, which cost a fifth of the drawing
FORMATS = ("png", "svg", "pdf")

# Okabe & Ito (2008), told apart with every common colour vision deficiency. Vermillion is last
# among the losses because it marks "adversarial" and "wrong" everywhere else.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, BLACK, GREY, VERMILLION = "#56B4E9", "#000000", "#7F7F7F", "#D55E00"
NORMAL, ADVERSARIAL = "#8A97A6", VERMILLION
INK, SOFT, FAINT = "#22272E", "#5B6470", "#C9CED6"

BROWN, VIOLET = "#8C5A2B", "#5B3FA8"  # for runs of more than eight losses
CROWD = 8  # losses from which on lines in one panel are no longer told apart

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, BLACK, GREY, BROWN, VIOLET, VERMILLION)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: tuple[object, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (6, 1.5, 1.5, 1.5)),
    (0, (1.5, 1.2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (8, 2)),
    (0, (2, 2)),
    (0, (7, 1.2, 1.2, 1.2, 1.2, 1.2)),
)

_RC: dict[str, object] = {
    "font.family": ["DejaVu Sans"],  # ships with matplotlib, so every machine draws the same
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # a fixed place: finding a free one costs a sixth of the rendering
    "axes.labelsize": 9.5,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#E3E6EA",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "text.parse_math": False,  # a label of the user's may hold a dollar sign
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "image.interpolation": "none",  # an SVG file holds the pixels there are, no more
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",  # text stays text: it can be searched, and weighs a tenth
    "pdf.fonttype": 42,  # letters as a font that journals take
    "svg.hashsalt": "robustloss",
}


@dataclass(frozen=True)
class Look:
    """Colour, marker and dash pattern of one loss: the same in every figure of a report."""

    colour: str
    marker: str
    dash: object


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """Give each label a look; past ten, colours repeat with another marker and dash."""
    out = {}
    for i, label in enumerate(labels):
        shift = i + i // len(_COLOURS)
        out[label] = Look(
            _COLOURS[i % len(_COLOURS)],
            _MARKERS[shift % len(_MARKERS)],
            _DASHES[shift % len(_DASHES)],
        )
    return out


def class_colours(num_classes: int) -> list[tuple[float, float, float]]:
    """Return (K,) colours of the classes: Petroff's ten, or steps of a perceptual map for more."""
    if num_classes <= 10:
        return [to_rgb(c) for c in matplotlib.color_sequences["petroff10"][:num_classes]]
    steps = np.linspace(0.02, 0.98, num_classes)
    return [to_rgb(rgba) for rgba in matplotlib.colormaps["turbo"](steps)]


def contrast(colour: ColorType, other: ColorType = "white") -> float:
    """Return the contrast ratio of two opaque colours, from 1 to 21; text needs 4.5.

    Args:
        colour, other: As matplotlib takes them.

    Source: WCAG 2.2, relative luminance.
    """
    channels = np.array([to_rgb(colour), to_rgb(other)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    dark, light = sorted(linear @ (0.2126, 0.7152, 0.0722))
    return float((light + 0.05) / (dark + 0.05))


@cache
def legible(colour: ColorType) -> str:
    """Return a colour for text on white, as much darker as 4.5:1 needs."""
    red, green, blue = to_rgb(colour)
    share = 1.0
    while contrast(shade := to_hex((share * red, share * green, share * blue))) < 4.5:
        share *= 0.97
    return shade


@contextmanager
def report_style() -> Iterator[None]:
    """Use the report's settings inside a ``with`` block, whatever the caller's are."""
    often = gc.get_threshold()
    gc.set_threshold(RARELY, *often[1:])
    try:
        with matplotlib.style.context(["default", _RC]):
            yield
    finally:
        gc.set_threshold(*often)


@cache
def _drawable() -> frozenset[int]:
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())


def plain(text: str, limit: int = 30) -> str:
    """Make any text drawable: one line, known glyphs only, at most ``limit`` characters.

    Args:
        text: Of the user's, or ours.
        limit: Characters.
    """
    known = _drawable()
    text = re.sub(r"\s+", " ", text).strip()
    text = "".join(c if ord(c) in known and c.isprintable() else "□" for c in text)
    if len(text) > limit:
        text = text[: limit - 1].rstrip() + "…"
    # a legend drops entries that begin with an underscore
    return "\u2009" + text if text.startswith("_") else text


def panels(
    rows: int, columns: int, *, width: float, height: float, left: float = 0.7,
    right: float = 0.15, top: float = 0.4, bottom: float = 0.6, wgap: float = 0.3,
    hgap: float = 0.5,
) -> tuple[Figure, np.ndarray]:  # fmt: skip
    """Lay out a grid of axes of a fixed size; every length in inches.

    Args:
        rows, columns: Of axes.
        width, height: Of each of them.
        left, right, top, bottom: Free room around the grid.
        wgap, hgap: Free room between columns, and between rows.

    Returns:
        The figure and its axes, (rows, columns).
    """
    total_w = left + columns * width + (columns - 1) * wgap + right
    total_h = top + rows * height + (rows - 1) * hgap + bottom
    figure = Figure(figsize=(total_w, total_h))
    axes = np.empty((rows, columns), dtype=object)
    for r in range(rows):
        for c in range(columns):
            x = left + c * (width + wgap)
            y = total_h - top - height - r * (height + hgap)
            axes[r, c] = figure.add_axes(
                (x / total_w, y / total_h, width / total_w, height / total_h)
            )
    return figure, axes


Limits = tuple[tuple[float, float], tuple[float, float]]  # of horizontal and vertical axis


def square_around(low: np.ndarray, high: np.ndarray, reach: float) -> Limits:
    """Return the limits of two axes: a square around a box, so that panels stay equal in size.

    Args:
        low, high: (2,) corners of the box.
        reach: Half a side of the square, as a share of the longer side of the box.
    """
    middle, half = (low + high) / 2, reach * float((high - low).max()) or 1.0
    return tuple((float(m - half), float(m + half)) for m in middle)  # type: ignore[return-value]


def frame_plane(axes: Axes, limits: Limits) -> None:
    """Frame a panel of the feature space: equal scales, and few ticks, as units mean nothing.

    Args:
        axes: The panel.
        limits: Of both axes, equally far apart.
    """
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    axes.set_aspect("equal")
    axes.tick_params(labelsize=7, length=2, pad=1.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(number)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(FAINT)


def blank(axes: Axes, reason: str) -> None:
    """Show a panel as a gap that says why it is empty."""
    axes.set_axis_off()
    text = "\n".join(wrap(plain(reason, 90), 24))
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=8.5,
              color=SOFT, style="italic")  # fmt: skip


def write_note(ax: Axes, text: str, *, right: bool = False, spacing: float | None = 1.3) -> None:
    """Write a few words into the upper left (or right) corner of a panel, legible on what is drawn.

    Args:
        ax: The panel.
        text: One line or several.
        right: In the upper right corner.
        spacing: Of lines, in heights of a line; None for one line.
    """
    x, align = (0.97, "right") if right else (0.03, "left")
    under = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0}
    ax.text(x, 0.96, text, transform=ax.transAxes, ha=align, va="top", fontsize=8,
            linespacing=spacing, bbox=under)  # fmt: skip


def write_above(ax: Axes, text: str, *, size: float = 7.5, height: float = 1.015) -> None:
    """Write one line or two between a panel and its title, which needs a pad for them.

    Args:
        ax: The panel.
        text: One line, or two.
        size: Of the letters, points.
        height: Where the text begins, as a share of the panel's height.
    """
    ax.text(0, height, text, transform=ax.transAxes, va="bottom", fontsize=size, color=SOFT,
            linespacing=1.25 if "\n" in text else None)  # fmt: skip


def wrap(text: str, width: int) -> list[str]:
    """Return a text in lines of at most ``width`` characters; a longer word has its own line.

    Args:
        text: Words with single spaces between them.
        width: Characters.
    """
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def save(
    figure: Figure, folder: Path, name: str, *, dpi: int = DPI,
    formats: Sequence[str] = ("png", "svg"),
) -> None:  # fmt: skip
    """Write NAME in each format; the same figure always gives the same bytes.

    Args:
        figure: Drawn.
        folder: Where the files go.
        name: Without an ending.
        dpi: Pixels per inch of a PNG file and of the pixels inside the others.
        formats: Of "png", "svg" and "pdf".

    Raises:
        ValueError: Another format.
    """
    for ending in formats:
        path = folder / f"{name}.{ending}"
        if ending == "svg":
            text = io.StringIO()
            figure.savefig(text, format="svg", dpi=dpi, metadata={"Date": None, "Creator": None})
            path.write_text(shrink(text.getvalue()), encoding="utf-8", newline="")
        elif ending == "png":
            figure.savefig(path, dpi=dpi, metadata={"Software": None},
                           pil_kwargs={"compress_level": 3})  # fmt: skip
        elif ending == "pdf":
            said = dict.fromkeys(("CreationDate", "Creator", "Producer"))
            figure.savefig(path, dpi=dpi, metadata=said)
        else:
            raise ValueError(
                f"A figure cannot be written as {ending!r}. Use one of png, svg and pdf."
            )


def columns_of(count: int) -> int:
    """Return how many losses stand side by side: two or three large ones, or five of many."""
    return count if count <= 4 else 3 if count in (5, 6) else 4 if count <= 8 else 5
