"""The tables of a report as its files hold them."""

from robustloss.reports.drawing.table import Table
from robustloss.reports.page import contents
from robustloss.reports.page.notes import annotate
from robustloss.reports.reading.numbers import Numbers


def make_tables(numbers: Numbers) -> list[Table]:
    """Return every table of a run, with the models that its folder holds."""
    made = contents.make_tables(contents.Contents(numbers))
    for gap in numbers.shown.gaps:
        if contents.NOT_MADE in gap:  # on the page a gap; here a fault
            raise KeyError(gap)
    return [annotate(numbers, table) for _, tables in made for table in tables]
