"""The forest plot and the table of ranks, against comparisons written by hand."""

import csv
from itertools import combinations
from pathlib import Path

import pytest

from robustloss.analysis.tables.ranks import rank_rows
from robustloss.reports.chapters.overview.comparison import rank_tables
from robustloss.reports.chapters.overview.forest import add_forest
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.style import report_style
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.run import Run
from tests.reports.overview.test_comparison_tables import comparison, numbers

ERRORS = {"A": 0.10, "B": 0.15, "C": 0.12}


def compared(labels=tuple(ERRORS), shown=("AB",)):
    rows = []
    for eps in (0.0, 0.1, 0.2):
        for metric in ("error", "auroc_all") if eps else ("error",):
            for a, b in combinations(labels, 2):
                values = {"value_a": ERRORS[a] + eps, "value_b": ERRORS[b] + eps}
                rows.append(
                    comparison(
                        a, b, eps, metric, shown=a + b in shown,
                        difference=ERRORS[a] - ERRORS[b], **values,
                    )
                )  # fmt: skip
    return rows


def with_ranks(labels=tuple(ERRORS), shown=("AB",)) -> Numbers:
    plain = numbers(list(labels), compared(labels, shown))
    ranks = rank_rows(compared(labels, shown))
    return Numbers(Run(Path(), plain.run.results | {"ranks": ranks}))


def drawn(found: Numbers, tmp_path: Path) -> tuple[Album, list[dict[str, str]]]:
    album = Album(tmp_path, 60)
    with report_style():
        add_forest(album, found, found.attacks[0])
    path = tmp_path / "forest-fgsm.csv"
    if not path.exists():
        return album, []
    with path.open(newline="") as file:
        return album, list(csv.DictReader(file))


def test_every_loss_stands_against_the_first(tmp_path: Path) -> None:
    album, rows = drawn(with_ranks(), tmp_path)
    (picture,) = album.pictures
    assert picture.title == "How far is each loss from A?"
    assert len(rows) == 2 * (1 + 2 * 2)  # B and C: clean errors, and two metrics at two eps
    for row in rows:
        assert row["label_b"] == "A"
        wanted = ERRORS[row["label_a"]] - ERRORS["A"]
        assert float(row["difference"]) == pytest.approx(wanted)
        assert float(row["low"]) == pytest.approx(wanted - 0.01)
        assert float(row["high"]) == pytest.approx(wanted + 0.01)
    assert "B clean: error +5 points" in picture.alt
    assert "C clean" not in picture.alt  # not shown
    assert "3 training seeds" in picture.caption


def test_a_loss_without_comparisons_is_named_and_not_drawn(tmp_path: Path) -> None:
    plain = numbers(["A", "B", "lonely"], compared(("A", "B")))
    album, rows = drawn(plain, tmp_path)
    assert "for want of seeds: lonely" in album.pictures[0].caption
    assert {row["label_a"] for row in rows} == {"B"}


def test_one_loss_or_an_older_run_has_no_forest_and_no_ranks(tmp_path: Path) -> None:
    for found in (numbers(["A"], []), numbers(["A", "B"], [])):
        album, _ = drawn(found, tmp_path)
        assert album.pictures == []
        assert rank_tables(found) == []


def test_ranks_are_ranges_and_bold_where_one_is_left() -> None:
    (table,) = rank_tables(with_ranks())
    assert list(table.header) == [
        *("loss", "error, clean", "error, eps 0.1", "error, eps 0.2"),
        *("AUROC, eps 0.1", "AUROC, eps 0.2"),
    ]
    rows = {row[0].text: row[1:] for row in table.rows}
    assert [entry.text for entry in rows["A"]] == ["1 to 2"] * 3 + ["2 to 3"] * 2
    assert [entry.text for entry in rows["B"]] == ["2 to 3"] * 3 + ["1 to 2"] * 2
    assert [entry.text for entry in rows["C"]] == ["1 to 3"] * 5
    (whole,) = rank_tables(with_ranks(shown=("AB", "AC", "BC")))
    assert [(e.text, e.kind) for e in whole.rows[0][1:4]] == [("1", "top")] * 3
    assert "training seed" in whole.caption
