"""Figures of strong attacks: their arithmetic, and that they show the numbers of the tables."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from robustloss.reports.chapters.detection.adaptive import Fall, _draw_falls
from robustloss.reports.chapters.result.radius import (
    RadiusPanel,
    _draw_radius_curves,
    curve_end,
    error_curve,
)
from robustloss.reports.chapters.result.transfer import Heat, draw_heatmaps
from robustloss.reports.drawing.style import report_style
from robustloss.results.run import Run


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_error_curve_is_the_share_of_smaller_radii() -> None:
    first, second = np.array([0.0, 0.1, 0.2, np.inf]), np.array([0.3, 0.3])
    x = np.array([0.0, 0.05, 0.1, 0.2, 0.3, 9.0])
    assert error_curve([first], x) == pytest.approx([25, 25, 50, 75, 75, 75])
    # seeds weigh alike, however many images each has
    assert error_curve([first, second], x) == pytest.approx([12.5, 12.5, 25, 37.5, 87.5, 87.5])


def test_curves_end_where_the_slowest_has_risen() -> None:
    fast, slow = np.full(1000, 0.1), np.linspace(0, 1, 1001)
    assert curve_end([[fast], [slow]]) == pytest.approx(1.03 * 0.995)
    outlier = np.append(fast, 50.0)  # one far image must not squeeze the picture
    assert curve_end([[outlier]]) == pytest.approx(0.103)
    assert curve_end([[np.array([np.inf])]]) == 0


def test_drawn_curve_meets_the_error_of_the_records(strong_run: Run, strong_report: Path) -> None:
    rows = read(strong_report / "figures/error-vs-radius.csv")
    assert {row["panel"] for row in rows} == {"DeepFool", "CW", "DeepFool L2"}
    for panel, eps in (("DeepFool", 0.1), ("CW", 1.0), ("DeepFool L2", 2.0)):
        for label in ("softmax", "center", "GM"):
            curve = [
                (float(r["eps"]), float(r["error_percent"])) for r in rows
                if (r["panel"], r["label"], r["kind"]) == (panel, label, "curve")
            ]  # fmt: skip
            known = [
                100 * r["error"] for r in strong_run.rows
                if (r["label"], r["attack_label"], r["eps"]) == (label, panel, eps)
            ]  # fmt: skip
            below = max(y for x, y in curve if x <= eps)
            above = min(y for x, y in curve if x >= eps)
            assert below <= sum(known) / len(known) + 1e-9 <= above + 1e-6


def test_worst_case_points_are_those_of_the_table(strong_report: Path) -> None:
    points = {
        (r["label"], float(r["eps"])): float(r["error_percent"])
        for r in read(strong_report / "figures/error-vs-radius.csv")
        if (r["panel"], r["kind"]) == ("DeepFool", "worst case")
    }
    table = read(strong_report / "tables/worst-case-linf.csv")
    assert points == {
        (r["label"], float(r["eps"])): pytest.approx(100 * float(r["error"])) for r in table
    }


def test_transfer_figure_has_the_numbers_of_the_table(strong_run: Run, strong_report: Path) -> None:
    figure = read(strong_report / "figures/transfer-pgd.csv")
    table = read(strong_report / "tables/transfer-pgd.csv")
    assert len(figure) == len(table) == 27
    for drawn, told in zip(figure, table, strict=True):
        for key in ("source", "target", "eps"):
            assert drawn[key] == told[key]
        assert float(drawn["error_percent"]) == pytest.approx(100 * float(told["error"]))
    marked = {(r["target"], float(r["eps"])) for r in figure if r["marked"] == "True"}
    assert marked == {
        (f["label"], f["eps"]) for f in strong_run.flags if f["check"] == "transfer_beats_white_box"
    }


def test_fall_figure_has_the_numbers_of_the_table(strong_report: Path) -> None:
    figure = read(strong_report / "figures/adaptive-fall-linf.csv")
    table = read(strong_report / "tables/adaptive-auroc-linf.csv")
    keys = ("label", "eps", "attack_label", "kind", "auroc_all")
    assert [[r[k] for k in keys] for r in figure] == [[r[k] for k in keys] for r in table]
    assert {r["kind"] for r in figure} == {"naive", "adaptive", "best_of_adaptive", "best_of_all"}


def test_gaps_are_drawn_as_gaps() -> None:
    values = np.array([[10.0, math.nan], [100.0, 0.0]])
    with report_style():
        names = ["a", "a much longer label than fits"]
        figure = draw_heatmaps([Heat("eps 1", values, np.eye(2) > 0)], names, names, scale="x")
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert texts == ["10†", "100", "0†"]
        falls = [
            ("a", [Fall("eps 1", 0.9, [], [0.2], 0.1), Fall("eps 2", None, [0.8], [0.2], 0.1)]),
            ("b", [Fall("eps 1", None, [], [], None)]),
        ]
        figure = _draw_falls(falls, "FGSM")
        assert "no numbers for this" in figure.axes[1].texts[0].get_text()
        figure.draw_without_rendering()
        figure = _draw_radius_curves([RadiusPanel("t", "x", [], 0.0)], {})
        assert "no image has a" in figure.axes[0].texts[0].get_text()


@pytest.mark.parametrize("losses", [1, 4, 14])
@pytest.mark.parametrize("eps", [1, 7])
def test_heat_maps_fit_the_page(losses: int, eps: int) -> None:
    names = [f"loss number {i}" for i in range(losses)]
    heat = Heat("eps", np.zeros((losses, losses)), np.zeros((losses, losses), bool))
    with report_style():
        figure = draw_heatmaps([heat] * eps, names, names, scale="x")
    assert figure.get_figwidth() <= max(10.5, 0.42 * losses + 2.2)
