"""Figures of detection: populations, the band of a ROC curve, scores against losses."""

import csv
from pathlib import Path

import numpy as np
import pytest

from robustloss.metrics.bootstrap import draw_resamples
from robustloss.metrics.rates import auroc, tpr_at_fpr
from robustloss.reports.chapters.detection.curves import risk
from robustloss.reports.chapters.detection.roc import roc_band
from robustloss.reports.chapters.paper.histograms import (
    FAILED,
    FEW,
    SUCCESSFUL,
    Populations,
    _draw_populations,
    _population_numbers,
    words_of,
)
from robustloss.reports.drawing.histograms import pooled_bins
from robustloss.reports.drawing.style import report_style
from robustloss.results.run import Run


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("ties", [False, True])
def test_roc_band_is_the_quantile_of_curves_of_resampled_images(ties: bool) -> None:
    random = np.random.default_rng(3)
    clean, attacked = random.normal(1, 1, 60), random.normal(0, 1, 60)
    if ties:
        clean, attacked = clean.round(), attacked.round()
    grid = np.array([0.0, 0.01, 0.05, 0.3, 1.0])
    resamples = draw_resamples(60, 40, seed=1)
    low, high = roc_band(clean, attacked, grid, resamples)
    slow = np.array(
        [
            [tpr_at_fpr(np.repeat(clean, c), np.repeat(attacked, c), rate) for rate in grid]
            for c in resamples.counts
        ]
    )
    assert low == pytest.approx(np.quantile(slow, 0.025, axis=0))
    assert high == pytest.approx(np.quantile(slow, 0.975, axis=0))
    assert (low[-1], high[-1]) == (1, 1)


def cell(failed: int, successful: int) -> Populations:
    random = np.random.default_rng(0)
    clean, fail, success = (random.normal(m, 1, n) for m, n in ((0, 200), (-1, failed),
                                                                 (-3, successful)))  # fmt: skip
    return Populations(pooled_bins([clean, fail, success]), clean, fail, success,
                       (auroc(clean, fail), auroc(clean, success)), (0.2, 0.9))  # fmt: skip


def test_an_empty_population_is_said_and_not_drawn() -> None:
    none = cell(100, 0)
    assert words_of(none)[1] == "no successful attack"
    assert words_of(none)[0].startswith("failed 100: AUROC 0.")
    assert SUCCESSFUL not in none.shares()
    rows = _population_numbers(["a"], ["eps 0.1"], [[none]])
    assert {row["population"] for row in rows} == {"clean", FAILED}
    with report_style():
        _draw_populations(["a"], ["e"], [[cell(0, 0)]]).draw_without_rendering()


def test_few_images_are_strokes_one_each() -> None:
    with report_style():
        figure = _draw_populations(["a"], ["e"], [[cell(100, FEW - 1)]])
    (ax,) = figure.axes
    (strokes,) = ax.collections
    assert len(strokes.get_paths()) == FEW - 1
    inside = ax.get_xlim()
    assert all(inside[0] <= p.vertices[0][0] <= inside[1] for p in strokes.get_paths())


def test_populations_are_those_of_the_results(run: Run, rendered: Path) -> None:
    rows = read(rendered / "report/figures/likelihood-fgsm.csv")
    for label in ("softmax", "L-GM (alpha 1)"):
        for eps in (0.1, 0.3):
            known = next(
                d for d in run.detection
                if (d["label"], d["seed"], d["attack_label"], d["eps"], d["population"], d["score"])
                == (label, 0, "FGSM", eps, "successful", "class_log_likelihood")
            )  # fmt: skip
            own = [r for r in rows if r["loss"] == label and r["panel"] == f"eps {eps:g}"]
            total = {r["population"]: 0.0 for r in own}
            for r in own:
                total[r["population"]] += float(r["share of its population (%)"])
            assert total == pytest.approx(dict.fromkeys(total, 100.0))
            assert (SUCCESSFUL in total) == (known["n_attacked"] > 0)


def test_coverage_accepts_the_highest_scores_and_ties_together() -> None:
    coverage, wrong = risk(np.array([3.0, 1.0, 2.0, 2.0, np.inf]), np.array([0, 1, 1, 0, 0], bool))
    assert coverage.tolist() == [0.2, 0.4, 0.8, 1.0]
    assert wrong.tolist() == [0, 0, 1, 2]
    constant, all_wrong = risk(np.full(7, -1e5), np.ones(7, bool))
    assert (constant.tolist(), all_wrong.tolist()) == ([1.0], [7])


def test_coverage_curve_ends_at_the_error_of_the_pass(run: Run, rendered: Path) -> None:
    rows = read(rendered / "report/figures/coverage-fgsm.csv")
    for row in (r for r in run.rows if r["seed"] == 0 and r["attack_label"] in ("none", "FGSM")):
        panel = "clean images" if row["attack"] == "none" else f"eps {row['eps']:g}"
        own = [r for r in rows if (r["panel"], r["label"]) == (panel, row["label"])]
        if not own:
            assert row["attack"] != "none"
            assert row["eps"] == 0
            continue
        assert float(own[-1]["x"]) == 100
        assert float(own[-1]["y"]) == pytest.approx(100 * row["error"])
        assert all(float(r["low"]) <= float(r["y"]) <= float(r["high"]) for r in own)
