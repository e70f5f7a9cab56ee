"""The forest plot, against comparisons written by hand."""

import csv
from pathlib import Path

import pytest

from robustloss.reports.chapters.differences.forest import plot_forest
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.style import report_style
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.scene import Scene
from tests.reports.differences.compared import ERRORS, compared, numbers


def drawn(found: Numbers, tmp_path: Path) -> tuple[Album, list[dict[str, str]]]:
    album = Album(tmp_path, 60)
    with report_style():
        album.add(plot_forest(Scene(found, found.attacks[0])))
    path = tmp_path / "forest-fgsm.csv"
    if not path.exists():
        return album, []
    with path.open(newline="") as file:
        return album, list(csv.DictReader(file))


@pytest.mark.parametrize("baseline", ["A", "B", "C"])
def test_every_loss_stands_against_the_baseline(tmp_path: Path, baseline: str) -> None:
    album, rows = drawn(numbers("ABC", compared(), baseline=baseline), tmp_path)
    (picture,) = album.pictures
    assert picture.title == f"How far is each loss from {baseline}?"
    assert len(rows) == 2 * (1 + 2 * 2)  # two losses: clean errors, and two metrics at two eps
    for row in rows:
        assert row["label_b"] == baseline
        wanted = ERRORS[row["label_a"]] - ERRORS[baseline]
        turned = row["label_a"] > baseline  # stored as baseline − loss
        below, above = (0.02, 0.01) if turned else (0.01, 0.02)
        assert float(row["difference"]) == pytest.approx(wanted)
        assert float(row["low"]) == pytest.approx(wanted - below)
        assert float(row["high"]) == pytest.approx(wanted + above)
    assert ("B clean: error +5 points" in picture.alt) == (baseline == "A")
    assert ("A clean: error -5 points" in picture.alt) == (baseline == "B")
    assert ("Shown: none" in picture.alt) == (baseline == "C")
    assert "3 training seeds" in picture.caption


def test_a_loss_without_comparisons_is_named_and_not_drawn(tmp_path: Path) -> None:
    plain = numbers(["A", "B", "lonely"], compared("AB"))
    album, rows = drawn(plain, tmp_path)
    assert "for want of seeds: lonely" in album.pictures[0].caption
    assert {row["label_a"] for row in rows} == {"B"}


def test_one_loss_or_an_older_run_has_no_forest(tmp_path: Path) -> None:
    for found in (numbers("A", []), numbers("AB", [])):
        album, _ = drawn(found, tmp_path)
        assert album.pictures == []
