"""Legends under a figure, laid out so that nothing is cut off however long the names are."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from robustloss.reports.drawing.style import class_colours, plain
from robustloss.reports.reading.scene import FEW_CLASSES

LINE = 0.22  # inches a legend row takes


@dataclass(frozen=True)
class Names:
    """A legend of lines, marks and patches; their labels are what is read."""

    handles: Sequence[Artist]

    def shape(self, inches: float) -> tuple[int, int]:
        """Return columns and rows that are no wider than ``inches``."""
        return legend_shape([str(handle.get_label()) for handle in self.handles], inches)

    def room(self, inches: float, left: float) -> float:
        """Return a height in inches: one row or more."""
        return LINE * self.shape(inches - left)[1]

    def draw(self, figure: Figure, left: float) -> None:
        """Draw as many columns as fit."""
        width = figure.get_figwidth()
        figure.legend(
            handles=list(self.handles), loc="lower left", ncols=self.shape(width - left)[0],
            handlelength=3.2, columnspacing=1.6, borderaxespad=0.2,
            bbox_to_anchor=(left / width, 0.0),
        )  # fmt: skip


def legend_shape(labels: Sequence[str], inches: float) -> tuple[int, int]:
    """Return columns and rows of a legend no wider than ``inches``.

    Args:
        labels: What is read.
        inches: Of room.
    """
    longest = max((len(plain(label)) for label in labels), default=1)
    columns = max(1, min(5, len(labels), int(inches / (0.078 * longest + 0.85))))
    return columns, -(-len(labels) // columns)


@dataclass(frozen=True)
class ClassColours:
    """A legend of the colours of the classes, other marks beside it or, if narrow, above it."""

    num_classes: int  # up to ``FEW_CLASSES`` make a strip of dots, more a colour bar
    marks: Sequence[Line2D] = ()  # handles of everything else that needs a name
    title: str = ""  # of the marks

    @property
    def end(self) -> float:
        """Inches from the left at which the colours are certainly over."""
        return 0.9 + 0.43 * self.num_classes if self.num_classes <= FEW_CLASSES else 3.6

    def room(self, inches: float, left: float) -> float:
        """Return a height in inches, wherever the legend begins."""
        return 0.5 if self.end + 3.3 < inches else 1.0

    def draw(self, figure: Figure, left: float) -> None:
        """Draw at its own place near the left edge."""
        width, height = figure.get_figwidth(), figure.get_figheight()
        colours = class_colours(self.num_classes)
        if self.num_classes <= FEW_CLASSES:
            dots = [Line2D([], [], ls="none", marker="o", ms=7, mec="none", color=c, label=str(k))
                    for k, c in enumerate(colours)]  # fmt: skip
            figure.legend(
                handles=dots, loc="lower left", bbox_to_anchor=(0.5 / width, 0.0),
                ncols=self.num_classes, columnspacing=0.6, handletextpad=0.05, borderaxespad=0.3,
                title="class", alignment="left", title_fontsize=8.5,
            )  # fmt: skip
        else:
            axes = figure.add_axes((0.6 / width, 0.42 / height, 2.6 / width, 0.11 / height))
            scale = Normalize(-0.5, self.num_classes - 0.5)
            bar = ScalarMappable(scale, ListedColormap(colours))
            figure.colorbar(bar, cax=axes, orientation="horizontal", label="class")
        if self.marks:
            x, y = (self.end, 0.0) if self.room(width, left) == 0.5 else (0.5, 0.5)
            figure.legend(
                handles=list(self.marks), loc="lower left", ncols=len(self.marks),
                bbox_to_anchor=(x / width, y / height), title=self.title or None, alignment="left",
                title_fontsize=8.5, handlelength=2.6 if self.title else 1.2, columnspacing=1.2,
                borderaxespad=0.3,
            )  # fmt: skip


Legend = Names | ClassColours  # what stands at the bottom of a figure, under its panels
