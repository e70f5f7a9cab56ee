"""Where panels stand, what carries a label, and what a gap says."""

import pytest
from matplotlib.lines import Line2D

from robustloss.reports.drawing.frames import draw_grid, draw_panels
from robustloss.reports.drawing.legends import Names
from robustloss.reports.drawing.style import report_style


@pytest.fixture(autouse=True)
def styled():
    with report_style():
        yield


def names():
    return Names([Line2D([], [], label=f"a rather long name {i}") for i in range(9)])


def draw_nothing(ax, cell, spot):
    ax.set_xlabel(f"{cell}: row {spot.row}, column {spot.column}, lowest {spot.lowest}")


def test_panels_know_where_they_stand_and_gaps_say_why():
    cells = ["why", 1, 2, 3, None, 4, 5]
    figure = draw_panels(
        cells, draw_nothing, columns=3, widest=2.0, height=1.0, titles=[*"abcdefg"]
    )
    shown = [ax.get_xlabel() for ax in figure.axes]
    assert shown == [
        *("", "1: row 0, column 1, lowest True", "2: row 0, column 2, lowest False"),
        *("3: row 1, column 0, lowest False", "", "4: row 1, column 2, lowest True"),
        *("5: row 2, column 0, lowest True", "", ""),
    ]
    assert [ax.axison for ax in figure.axes] == [cell != "why" and cell is not None
                                                 for cell in [*cells, None, None]]  # fmt: skip
    assert [text.get_text() for text in figure.axes[0].texts] == ["why"]
    assert [ax.get_title(loc="left") for ax in figure.axes[:5]] == [*"abcd", ""]


def test_a_legend_takes_the_room_that_its_rows_need():
    bare = draw_panels([1], draw_nothing, columns=1, widest=4.0, height=2.0)
    named = draw_panels([1], draw_nothing, columns=1, widest=4.0, height=2.0, legend=names())
    (legend,) = named.legends
    rows = -(-9 // legend._ncols)
    assert named.get_figheight() - bare.get_figheight() == pytest.approx(0.22 * rows)


def test_a_grid_names_rows_and_columns_once():
    cells = [[1, 2], ["no record", 4]]
    figure = draw_grid(
        ["first", "second"], ["eps 0.1", "eps 0.2"], cells, lambda *_: None, widest=2.0,
        height=1.0, labels=("nats", "share"), handles=names().handles,
    )  # fmt: skip
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["first", "", "second", ""]
    assert [[t.get_text() for t in ax.texts] for ax in figure.axes] == [
        ["eps 0.1"], ["eps 0.2"], ["no record"], []
    ]  # fmt: skip
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "", "", "nats"]
    # beside a panel that was drawn the numbers of the axis stand once
    assert [ax.yaxis.get_tick_params()["labelleft"] for ax in figure.axes[1::2]] == [False, True]
