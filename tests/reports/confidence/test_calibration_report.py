"""Calibration in the report, against rows written by hand."""

from pathlib import Path

import pytest

from robustloss.reports.chapters.confidence.calibration import (
    calibration_of,
    calibration_table,
    confidence_table,
    plot_calibration_curves,
    plot_reliability,
)
from robustloss.reports.drawing.album import Album
from robustloss.reports.drawing.style import report_style
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.scene import Scene
from robustloss.results.run import Run
from tests.reports.synthetic_detection import EPS, detected_run
from tests.reports.synthetic_geometry_tables import place

LOSSES, ECE = ("softmax", "gm"), {"softmax": 0.2, "gm": 0.1}


def calibrated(seeds: tuple[int, ...] = (0, 1), temperature: float | None = None) -> Numbers:
    rows, bins = [], []
    for loss in LOSSES:
        for seed in seeds:
            for eps in (0.0, *EPS):
                where = place(loss, seed) | {
                    "attack": "fgsm" if eps else "none",
                    "attack_label": "FGSM" if eps else "none",
                    "norm": "linf" if eps else None,
                    "eps": eps,
                }
                error = ECE[loss] + eps / 10 + 0.01 * seed
                rows.append(
                    where
                    | {"n": 200, "accuracy": 0.9, "mean_confidence": 0.95, "nll": 1.5}
                    | {"ece_equal_width": error, "ece_low": error - 0.03, "ece_high": error + 0.04}
                    | {"ece_floor": 0.01, "ece_floor_high": 0.02, "ece_equal_mass": error}
                    | {"brier": 1.2, "temperature": temperature}
                    | dict.fromkeys(("ece_after", "nll_after"), temperature and 0.05)
                )
                bins += [
                    where
                    | {"binning": "equal_width", "bin": 14, "low": 14 / 15, "high": 1.0}
                    | {"count": 195, "mean_confidence": 0.97, "accuracy": 0.9 - eps},
                    where
                    | {"binning": "equal_width", "bin": 6, "low": 0.4, "high": 7 / 15}
                    | {"count": 5, "mean_confidence": 0.45, "accuracy": 0.2},
                ]
    run = detected_run(LOSSES, seeds)
    return Numbers(
        Run(Path("nowhere"), run.results | {"calibration": rows, "reliability": bins}), 10
    )


def test_the_table_has_clean_and_every_eps() -> None:
    numbers = calibrated()
    table = calibration_table(Scene(numbers, numbers.attacks[0]))
    assert table is not None
    rows = {(row[0].text, row[1].text): [entry.text for entry in row] for row in table.rows}
    assert list(rows)[:3] == [("softmax", "clean"), ("softmax", "0.1"), ("softmax", "0.3")]
    at = table.header.index("ECE")
    assert rows["softmax", "0.3"][at].startswith("23.5 [")
    assert rows["GM", "clean"][at].startswith("10.5 [")
    assert "temperature" not in table.header
    # above 1 there is room: neither a Brier score nor a likelihood is a fraction
    assert rows["GM", "clean"][table.header.index("Brier")] == "1.200 [1.200, 1.200]"
    assert rows["GM", "clean"][table.header.index("NLL (nats)")] == "1.500 [1.500, 1.500]"


def test_the_short_table_has_calibration_error_and_confidence_by_eps() -> None:
    numbers = calibrated()
    table = confidence_table(Scene(numbers, numbers.attacks[0]))
    assert table is not None
    assert [head.replace("\u00a0", " ") for head in table.header] == [
        "loss", "ECE, clean", "ECE, eps 0.1", "ECE, eps 0.3",
        "confidence, clean", "confidence, eps 0.1", "confidence, eps 0.3",
    ]  # fmt: skip
    (softmax, gm) = ([entry.text for entry in row] for row in table.rows)
    assert [text.split(" ")[0] for text in softmax] == [
        "softmax", "20.5", "21.5", "23.5", "95.0", "95.0", "95.0",
    ]  # fmt: skip
    assert gm[1].startswith("10.5 [")
    assert table.data[2]["eps"] == 0.3
    assert table.data[2]["ece"] == pytest.approx(0.235)
    assert table.data[2]["confidence"] == pytest.approx(0.95)


def test_one_seed_shows_the_interval_over_images() -> None:
    numbers = calibrated(seeds=(0,))
    found = calibration_of(numbers, "GM", "FGSM", 0.3, "ece_equal_width")
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((0.13, 0.10, 0.17))
    table = calibration_table(Scene(numbers, numbers.attacks[0]))
    assert table is not None
    assert "resampled test images" in table.caption


def test_temperature_has_columns_where_it_was_asked_for() -> None:
    numbers = calibrated(temperature=1.7)
    table = calibration_table(Scene(numbers, numbers.attacks[0]))
    assert table is not None
    assert table.rows[0][table.header.index("temperature")].text == "1.70 [1.70, 1.70]"
    assert "divided by the temperature" in table.caption


def test_figures_hold_the_bins_of_all_seeds(tmp_path: Path) -> None:
    numbers = calibrated()
    album = Album(tmp_path, formats=())
    with report_style():
        album.add(plot_reliability(Scene(numbers, numbers.attacks[0])))
        album.add(plot_calibration_curves(Scene(numbers, numbers.attacks[0])))
    first, second = album.pictures
    assert "2 seeds together" in first.caption
    assert "softmax clean 20" in first.alt or "softmax clean 21" in first.alt
    assert first.inches[1] < 6  # the losses stand side by side
    lines = (tmp_path / "reliability-fgsm.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 2 * 2  # losses; clean and one eps; bins
    assert ",390," in lines[2]  # 195 images of each of two seeds
    assert "Calibration error at the largest eps" in second.alt


def test_older_runs_have_neither(tmp_path: Path) -> None:
    numbers = Numbers(detected_run(), 10)
    album = Album(tmp_path, formats=())
    album.add(plot_reliability(Scene(numbers, numbers.attacks[0])))
    album.add(plot_calibration_curves(Scene(numbers, numbers.attacks[0])))
    assert album.pictures == []
    assert calibration_table(Scene(numbers, numbers.attacks[0])) is None
    assert confidence_table(Scene(numbers, numbers.attacks[0])) is None
