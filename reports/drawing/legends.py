"""Legends under a figure, laid out so that nothing is cut off however long the names are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from matplotlib.artist import Artist
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustloss.reports.drawing.style import class_colours, plain
from robustloss.reports.reading.featured import FEW_CLASSES

LINE = 0.22  # inches a legend row takes


class Legend(Protocol):
    """What stands at the bottom of a figure, under its panels."""

    def room(self, inches: float, left: float) -> float:
        """Return the height in inches that it takes in a figure of this width."""

    def draw(self, figure: Figure, left: float) -> None:
        """Draw it, ``left`` inches from the left edge."""


@dataclass(frozen=True)
class Names:
    """A legend of lines, marks and patches; their labels are what is read."""

    handles: Sequence[Artist]

    def room(self, inches: float, left: float) -> float:
        """Return a height in inches: one row or more."""
        labels = [str(handle.get_label()) for handle in self.handles]
        return LINE * legend_shape(labels, inches - left)[1]

    def draw(self, figure: Figure, left: float) -> None:
        """Draw as many columns as fit."""
        legend_below(figure, self.handles, left)


@dataclass(frozen=True)
class ClassColours:
    """A legend of the colours of the classes, with other marks beside or above them.

    Attributes:
        num_classes: K.
        marks: Handles of everything else that needs a name.
        title: Of the marks.
    """

    num_classes: int
    marks: Sequence[Line2D] = ()
    title: str = ""

    def room(self, inches: float, left: float) -> float:
        """Return a height in inches, wherever the legend begins."""
        return class_legend_height(self.num_classes, inches)

    def draw(self, figure: Figure, left: float) -> None:
        """Draw at its own place near the left edge."""
        class_legend(figure, self.num_classes, self.marks, self.title)


def legend_shape(labels: Sequence[str], inches: float) -> tuple[int, int]:
    """Columns and rows of a legend no wider than ``inches``."""
    longest = max((len(plain(label)) for label in labels), default=1)
    columns = max(1, min(5, len(labels), int(inches / (0.078 * longest + 0.85))))
    return columns, -(-len(labels) // columns)


def legend_below(figure: Figure, handles: Sequence[Artist], left: float) -> None:
    """Put a legend at the bottom, ``left`` inches from the left edge."""
    labels = [str(handle.get_label()) for handle in handles]
    columns, _ = legend_shape(labels, figure.get_figwidth() - left)
    figure.legend(
        handles=list(handles),
        loc="lower left",
        ncols=columns,
        handlelength=3.2,
        columnspacing=1.6,
        borderaxespad=0.2,
        bbox_to_anchor=(left / figure.get_figwidth(), 0.0),
    )


def class_legend_height(num_classes: int, inches: float) -> float:
    """Inches that :func:`class_legend` takes in a figure of a given width."""
    return 0.5 if _beside(num_classes, inches) else 1.0


def class_legend(
    figure: Figure, num_classes: int, marks: Sequence[Line2D] = (), title: str = ""
) -> None:
    """Name the class colours, and the marks beside them or, in a narrow figure, above.

    Args:
        figure: Has :func:`class_legend_height` free at the bottom.
        num_classes: Up to ``FEW_CLASSES`` make a strip of dots, more a colour bar.
        marks: Handles of everything else that needs a name.
        title: Of the marks.
    """
    width, height = figure.get_figwidth(), figure.get_figheight()
    _strip(figure, num_classes) if num_classes <= FEW_CLASSES else _bar(figure, num_classes)
    if marks:
        beside = _beside(num_classes, width)
        x, y = (_end(num_classes), 0.0) if beside else (0.5, 0.5)
        figure.legend(
            handles=list(marks),
            loc="lower left",
            bbox_to_anchor=(x / width, y / height),
            ncols=len(marks),
            title=title or None,
            alignment="left",
            title_fontsize=8.5,
            handlelength=2.6 if title else 1.2,
            columnspacing=1.2,
            borderaxespad=0.3,
        )


def _end(num_classes: int) -> float:
    """Inches from the left at which the class legend is certainly over."""
    return 0.9 + 0.43 * num_classes if num_classes <= FEW_CLASSES else 3.6


def _beside(num_classes: int, inches: float) -> bool:
    return _end(num_classes) + 3.3 < inches


def _strip(figure: Figure, num_classes: int) -> None:
    handles = [
        Line2D([], [], ls="none", marker="o", ms=7, mec="none", color=colour, label=str(k))
        for k, colour in enumerate(class_colours(num_classes))
    ]
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.5 / figure.get_figwidth(), 0.0),
        ncols=num_classes,
        columnspacing=0.6,
        handletextpad=0.05,
        borderaxespad=0.3,
        title="class",
        alignment="left",
        title_fontsize=8.5,
    )


def _bar(figure: Figure, num_classes: int) -> None:
    width, height = figure.get_figwidth(), figure.get_figheight()
    axes = figure.add_axes((0.6 / width, 0.42 / height, 2.6 / width, 0.11 / height))
    colours = ListedColormap(class_colours(num_classes))
    scale = ScalarMappable(Normalize(-0.5, num_classes - 0.5), colours)
    figure.colorbar(scale, cax=axes, orientation="horizontal", label="class")
