"""One list of columns gives the rows of the page and those of the CSV file."""

from robustloss.reports.drawing.table import Column, fields_of, lay_out
from robustloss.reports.reading.marks import Marks
from robustloss.reports.words import Estimate, estimate_fields

FOUND = Estimate(0.25, 0.2, 0.3, 2, (0.25, 0.25), "t over seeds")
COLUMNS = [
    Column("loss", "label"),
    Column("", "attack_label"),
    Column("eps", "eps", words="{:.4g}".format),
    Column("n", "n"),
    Column("in percent", "error", 100.0, 2),
    Column("mean alone", "share", 1.0, 2, parts=("mean",), checks=("zero_gradient",)),
    Column("on the page", "remark", in_csv=False),
]


def row(**keys):
    plain = {"label": "a", "attack_label": "FGSM", "eps": 0.1, "n": 1200, "remark": "yes"}
    return plain | {"error": FOUND, "share": FOUND} | keys


def test_the_page_has_words_and_the_csv_file_every_digit():
    header, (entries,), (data,) = lay_out(COLUMNS, [row()])
    assert header == ["loss", "eps", "n", "in percent", "mean alone", "on the page"]
    texts = [entry.text for entry in entries]
    assert texts == ["a", "0.1", "1,200", "25.0 [20.0, 30.0]", "0.25 [0.20, 0.30]", "yes"]
    assert list(data.items()) == [
        *(("label", "a"), ("attack_label", "FGSM"), ("eps", 0.1), ("n", 1200)),
        *(("error", 0.25), ("error_low", 0.2), ("error_high", 0.3), ("share", 0.25)),
    ]


def test_what_is_missing_is_said_and_has_no_mark():
    flags = [{"check": "zero_gradient"}]
    rows = [row(n=None, error=None, flags=flags), row()]
    _, (entries, _), (data, _) = lay_out(COLUMNS, rows, Marks())
    assert [(entry.text, entry.mark) for entry in entries[2:4]] == [("n/a", ""), ("n/a", "")]
    assert (data["n"], data["error"], data["error_low"]) == (None, None, None)


def test_a_column_without_any_number_stands_in_the_csv_file_alone():
    header, (entries, _), (data, _) = lay_out(COLUMNS, [row(error=None, remark="–")] * 2)
    assert header == ["loss", "eps", "n", "mean alone"]
    assert len(entries) == 4
    assert data["error"] is None


def test_zeros_of_a_check_that_did_not_fire_stand_in_the_csv_file_alone():
    none = Estimate(0.0, 0.0, 0.0, 2, (0.0, 0.0), "t over seeds")
    columns = [Column("loss", "label"), Column("error", "error", 1.0),
               Column("no gradient", "share", 1.0, parts=("mean",), quiet=True)]  # fmt: skip
    header, _, (data, _) = lay_out(columns, [row(error=none, share=none), row(share=None)])
    assert header == ["loss", "error"]
    assert (data["error"], data["share"]) == (0.0, 0.0)
    assert lay_out(columns, [row(share=none), row()])[0] == ["loss", "error", "no gradient"]


def test_a_flag_marks_the_estimates_that_its_check_doubts():
    flags = [{"check": "loss_still_rising"}]
    marks = Marks()
    _, (entries,), (data,) = lay_out(COLUMNS, [row(flags=flags)], marks)
    assert [entry.mark for entry in entries] == ["", "", "", "†1", "", ""]
    assert data["marks"] == "loss_still_rising"
    assert len(marks.notes()) == 1
    assert "marks" not in fields_of(COLUMNS, row())


def test_an_estimate_as_fields_keeps_their_order_when_there_is_none():
    assert list(estimate_fields(FOUND, "error").items()) == [
        *(("n_seeds", 2), ("error", 0.25), ("low", 0.2), ("high", 0.3)),
        ("interval", "t over seeds"),
    ]
    assert list(estimate_fields(None, "error").values()) == [0, None, None, None, None]
