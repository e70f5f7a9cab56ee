"""The frame around the panels of a figure: where they stand, their titles and their legend.

A chapter says what one panel shows; what stands here is the same for all of them. A panel without
anything to draw is given as a text, the reason, which then stands in its place.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustloss.reports.drawing.legends import Legend
from robustloss.reports.drawing.style import PAGE_WIDTH, blank, panels, plain

Cell = TypeVar("Cell")
Row = TypeVar("Row")
Column = TypeVar("Column")


@dataclass(frozen=True)
class Spot:
    """Where a panel stands."""

    row: int  # from 0, above and left
    column: int
    lowest: bool  # no panel stands below it: it carries the label of the horizontal axis
    width: float  # inches

    @property
    def leftmost(self) -> bool:
        """Whether it carries the label of the vertical axis."""
        return self.column == 0


@dataclass(frozen=True)
class Margins:
    """Inches around the panels of a figure and between them; bottom without the legend."""

    left: float = 0.75
    right: float = 0.2
    top: float = 0.4
    bottom: float = 0.68
    wgap: float = 0.75
    hgap: float = 0.95

    def panel_width(self, columns: int, widest: float) -> float:
        """Return inches of each panel in a row that fills the page, or ``widest``.

        Args:
            columns: Panels in the row.
            widest: Inches.
        """
        free = PAGE_WIDTH - self.left - self.right - (columns - 1) * self.wgap
        return min(widest, free / columns)


GRID = Margins(left=0.85, right=0.15, top=0.88, bottom=0.6, wgap=0.22, hgap=0.55)


def draw_panels(
    cells: Sequence[Cell | str | None], draw: Callable[[Axes, Cell, Spot], None], *, columns: int,
    widest: float, height: float | Callable[[float], float], titles: Sequence[str] = (),
    title_pad: float = 6.0, legend: Legend | None = None, margins: Margins = Margins(),
) -> Figure:  # fmt: skip
    """Draw panels of one size in rows, over one legend.

    Args:
        cells: What each panel shows, row by row; a text is why there is nothing to draw, None
            leaves the place empty.
        draw: Draws one panel into its axes.
        columns: Panels in a full row; of fewer cells, as many as there are.
        widest: Inches of a panel's width where the page has room for more.
        height: Inches, or a function of the width.
        titles: One above each panel, cut to what fits; none at all, or as many as cells.
        title_pad: Points between a panel and its title, where words stand between the two.
        legend: At the bottom.
        margins: Around and between the panels.
    """
    columns = max(1, min(columns, len(cells)))
    width = margins.panel_width(columns, widest)
    if legend is not None:
        across = columns * (width + margins.wgap) - margins.wgap
        room = legend.room(margins.left + across + margins.right, margins.left - 0.1)
        margins = replace(margins, bottom=margins.bottom + room)
    tall = height(width) if callable(height) else height
    size = -(-len(cells) // columns), columns
    figure, axes = panels(*size, width=width, height=tall, **asdict(margins))
    letters = 10.0 if columns < 5 else 8.5
    for place, ax in enumerate(axes.flat):
        cell = cells[place] if place < len(cells) else None
        if cell is None:
            ax.set_axis_off()
            continue
        if titles:
            title = plain(titles[place], int(130 / letters * width))
            ax.set_title(title, fontsize=letters, pad=title_pad)
        if isinstance(cell, str):
            blank(ax, cell)
        else:
            lowest = not any(below is not None for below in cells[place + columns :: columns])
            draw(ax, cell, Spot(*divmod(place, columns), lowest, width))
    if legend is not None:
        legend.draw(figure, margins.left - 0.1)
    return figure


def drawn_cells(
    rows: Iterable[Row], columns: Sequence[Column], grid: Iterable[Sequence[Cell | str]]
) -> list[tuple[Row, Column, Cell]]:
    """Return row, column and cell of every panel that has something to draw.

    Args:
        rows, columns: Names, or what else stands for them.
        grid: By row and column; a text is why there is nothing to draw.
    """
    return [
        (row, column, cell)
        for row, cells in zip(rows, grid, strict=True)
        for column, cell in zip(columns, cells, strict=True)
        if not isinstance(cell, str)
    ]


def draw_grid(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell | str]],
    draw: Callable[[Axes, Cell, Spot], None], *, widest: float,
    height: float | Callable[[float], float], labels: tuple[str, str] = ("", ""),
    handles: Sequence[Artist] = (), head: float = 22.0, title_pad: float = 4.0,
    margins: Margins = GRID,
) -> Figure:  # fmt: skip
    """Draw losses by eps: a row of panels for each name in ``rows``, a legend above all of them.

    Args:
        rows: A name above the first panel of each row.
        columns: A name above each panel of the first row.
        cells: By row and column; a text is why there is nothing to draw.
        draw: Draws one panel into its axes. Panels of one row are read on the vertical axis of the
            first of them: they need the same limits.
        widest: Inches of a panel's width where the page has room for more.
        height: Inches, or a function of the width.
        labels: Of the horizontal axis, under the last row, and of the vertical one, beside all.
        handles: Of the legend; their labels are what is read.
        head: Points between the first row and the names of the columns.
        title_pad: Points between a row and its name.
        margins: Around and between the panels.
    """

    def draw_cell(ax: Axes, cell: Cell, spot: Spot) -> None:
        draw(ax, cell, spot)
        if not spot.leftmost and not isinstance(cells[spot.row][0], str):
            ax.tick_params(labelleft=False)
        if spot.lowest and labels[0]:
            ax.set_xlabel(labels[0])

    figure = draw_panels([cell for row in cells for cell in row], draw_cell, columns=len(columns),
                         widest=widest, height=height, margins=margins)  # fmt: skip
    for ax, name in zip(figure.axes, columns, strict=False):
        ax.annotate(plain(name, 34), (0.5, 1), (0, head), xycoords="axes fraction",
                    textcoords="offset points", ha="center", fontsize=10)  # fmt: skip
    for ax, name in zip(figure.axes[:: len(columns)], rows, strict=False):
        ax.set_title(plain(name, 40), pad=title_pad)
    width = figure.get_figwidth()
    figure.supylabel(labels[1], x=0.12 / width, fontsize=9.5)
    figure.legend(handles=list(handles), loc="upper left", ncols=5, handlelength=2.2,
                  bbox_to_anchor=(0.6 / width, 1.0))  # fmt: skip
    return figure
