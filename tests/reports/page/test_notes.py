"""What the page says once of all tables stands in full in the files of each."""

import re

from robustloss.reports.drawing.table import Entry, Table
from robustloss.reports.page.notes import annotate
from robustloss.reports.reading.numbers import Numbers


def table(text: str, caption: str = "Error.") -> Table:
    return Table("t", "t", caption, ["loss", "error"], [[Entry("softmax"), Entry(text)]], [])


def test_brackets_are_explained_in_the_files_of_each_table_that_has_some(
    strong_numbers: Numbers,
) -> None:
    words = "[low, high] is a 95 % interval over training seeds (t)"
    (note,) = annotate(strong_numbers, table("13.4 [11.9, 15.0]")).notes
    assert note.startswith(words)
    assert note in strong_numbers.run.table().caption
    assert annotate(strong_numbers, table("13.4")).notes == []
    own = table("13.4 [11.9, 15.0]", "[low, high] is a Wilson interval.")
    assert annotate(strong_numbers, own).notes == []


def test_two_seeds_are_called_too_few_once(html: str) -> None:
    shown = re.sub(r"<[^>]*>", "", html)  # not the caption that Copy as LaTeX has in an attribute
    assert shown.count("use three or more") == 1
