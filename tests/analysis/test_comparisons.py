"""Loss against loss: by hand, without a difference, with one, and over seeds."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robustloss.analysis.tables.comparisons import comparison_rows
from robustloss.array_files import write_arrays
from robustloss.metrics import auroc
from robustloss.metrics.paired_tests import benjamini_hochberg, mcnemar, paired_t
from robustloss.results.finished_cell import Cell
from robustloss.results.records import Record, save_record
from robustloss.results.schema import TABLES

N = 400


def record(wrong, score, index=None, radius=None) -> Record:
    """Two classes, label 0; class 1 is predicted where wrong."""
    n = len(wrong)
    logits = np.stack([~wrong, wrong], axis=1).astype(np.float32)
    return Record(
        index=np.arange(n) if index is None else index,
        labels=np.zeros(n, int),
        logits=logits,
        class_log_likelihood=np.stack([score, score], axis=1),
        features=None,
        linf=np.zeros(n, np.float32),
        l2=np.zeros(n, np.float32),
        zero_gradient=None,
        radius=radius,
        images=np.zeros((0, 1, 1, 1), np.float32),
    )


def cell(
    folder: Path, label: str, seed: int, clean: Record, attacked: Record, **more: Record
) -> Cell:
    """A cell under FGSM and `more` attacks by name, all at eps 0.1."""
    own = folder / label / str(seed)
    save_record(own / "none.npz", clean)
    names = ("index", "labels", "logits", "class_log_likelihood")
    write_arrays(own / "scores.npz", {f"validation_{n}": getattr(clean, n) for n in names})
    entries = [
        {"attack": "none", "attack_label": "none", "norm": None, "eps": 0.0, "file": "none.npz"}
    ]
    for attack, made in ({"fgsm": attacked} | more).items():
        save_record(own / f"{attack}.npz", made)
        entries.append(
            {"attack": attack, "attack_label": attack.upper(), "file": f"{attack}.npz"}
            | {"norm": "linf", "eps": 0.1}
        )
    files = {"records": entries, "scores": "scores.npz"}
    return Cell(label, label, label, seed, own, 2, 2, files)


def drawn(rng, error, shift, common) -> tuple[Record, Record]:
    """Clean and attacked record of one loss; `common` is what the images bring to every loss."""
    clean = record(rng.random(N) < 0.02, common + rng.normal(size=N))
    attacked = record(rng.random(N) < error, common + rng.normal(size=N) - shift)
    return clean, attacked


def run_of(folder, rng, errors, shifts, seeds=1):
    cells = []
    for seed in range(seeds):
        common = rng.normal(size=N)
        for label, error, shift in zip("abcd", errors, shifts, strict=False):
            cells.append(cell(folder, label, seed, *drawn(rng, error, shift, common)))
    return cells


def pick(rows, **wanted):
    return [row for row in rows if all(row[k] == v for k, v in wanted.items())]


def test_errors_are_compared_image_by_image(tmp_path):
    rng = np.random.default_rng(0)
    cells = run_of(tmp_path, rng, (0.3, 0.6), (1, 1))
    (row,) = pick(comparison_rows(cells, 50), attack="fgsm", metric="error")
    a, b = (~c.record("FGSM", 0.1).correct for c in cells)
    assert tuple(row) == TABLES["comparisons"].names
    assert (row["label_a"], row["label_b"], row["unit"], row["seed"]) == ("a", "b", "images", 0)
    assert row["value_a"] == a.mean()
    assert row["difference"] == pytest.approx(a.mean() - b.mean())
    assert row["low"] < row["difference"] < row["high"] < 0
    assert row["p_value"] == mcnemar(int((a & ~b).sum()), int((b & ~a).sum()))
    assert row["test"] == "McNemar exact"
    assert row["shown"] is True
    assert 0 < row["minimum_detectable"] < abs(row["difference"])


def test_every_pair_place_and_metric_has_a_row(tmp_path):
    cells = run_of(tmp_path, np.random.default_rng(1), (0.3, 0.4, 0.45), (1, 1, 1), seeds=2)
    rows = comparison_rows(cells, 20)
    found = {
        tuple(r[k] for k in ("unit", "seed", "label_a", "label_b", "attack", "metric"))
        for r in rows
    }
    clean = ("error", "augrc", "ece_equal_width", "brier")
    attacked = (*clean, "auroc_all", "auroc_successful", "undetected_success_at_5fpr")
    expected = {
        (unit, seed, *pair, attack, metric)
        for unit, seed in (("images", 0), ("images", 1), ("seeds", None))
        for pair in (("a", "b"), ("a", "c"), ("b", "c"))
        for attack, metrics in (("none", clean), ("fgsm", attacked))
        for metric in metrics
    }
    assert found == expected
    assert len(rows) == len(expected)


def test_over_seeds_equal_seeds_are_paired(tmp_path):
    cells = run_of(tmp_path, np.random.default_rng(2), (0.3, 0.35), (1, 2), seeds=4)
    rows = comparison_rows(cells, 20)
    for metric in ("error", "auroc_all"):
        single = pick(rows, unit="images", attack="fgsm", metric=metric)
        (row,) = pick(rows, unit="seeds", attack="fgsm", metric=metric)
        differences = [r["difference"] for r in single]
        assert row["n_seeds"] == 4
        assert row["difference"] == pytest.approx(np.mean(differences))
        assert row["p_value"] == pytest.approx(paired_t(differences))
        assert row["low"] < row["difference"] < row["high"]


def test_seeds_that_differ_alike_keep_the_test_over_images(tmp_path):
    cells = run_of(tmp_path, np.random.default_rng(2), (0.3, 0.35), (1, 2), seeds=1)
    again = [replace(cell, seed=seed) for seed in (0, 1, 2) for cell in cells]
    rows = comparison_rows(again, 20)
    (row,) = pick(rows, unit="seeds", attack="fgsm", metric="error")
    single = pick(rows, unit="images", attack="fgsm", metric="error")
    assert (row["n_seeds"], len(single)) == (3, 3)
    for name in ("difference", "low", "high", "test", "p_value", "minimum_detectable"):
        assert row[name] == single[0][name]
    assert row["low"] < row["difference"] < row["high"]
    assert row["p_value"] > 0


def test_p_values_are_adjusted_within_a_unit(tmp_path):
    cells = run_of(tmp_path, np.random.default_rng(3), (0.3, 0.4, 0.31), (1, 1.2, 1), seeds=3)
    rows = comparison_rows(cells, 99)
    for unit in ("images", "seeds"):
        own = pick(rows, unit=unit)
        known = benjamini_hochberg([row["p_value"] for row in own])
        np.testing.assert_allclose([row["p_adjusted"] for row in own], known)
        assert [row["shown"] for row in own] == [p <= 0.05 for p in known]


def test_a_clear_difference_is_shown_and_a_copy_differs_in_nothing(tmp_path):
    rng = np.random.default_rng(4)
    common = rng.normal(size=N)
    one, other = drawn(rng, 0.3, 0.5, common), drawn(rng, 0.9, 3.0, common)
    cells = [
        cell(tmp_path, label, 0, *what)
        for label, what in zip("abc", (one, one, other), strict=True)
    ]
    rows = comparison_rows(cells, 199)
    for row in pick(rows, label_a="a", label_b="b"):
        assert row["difference"] == 0
        assert row["p_value"] == 1
        assert not row["shown"]
        assert row["low"] <= 0 <= row["high"]
    for row in pick(rows, label_a="a", label_b="c", attack="fgsm"):
        assert row["shown"], row["metric"]


def test_equal_losses_show_a_difference_in_at_most_five_percent_of_runs(tmp_path):
    rng = np.random.default_rng(5)
    runs = 120
    shown = 0
    for number in range(runs):
        cells = run_of(tmp_path / str(number), rng, (0.3, 0.3), (1, 1))
        shown += any(row["shown"] for row in comparison_rows(cells, 99))
    assert shown / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_without_success_there_is_no_row_of_it(tmp_path):
    rng = np.random.default_rng(6)
    cells = run_of(tmp_path, rng, (0.0, 0.5), (1, 1))
    rows = pick(comparison_rows(cells, 20), attack="fgsm", eps=0.1)
    left = {"error", "ece_equal_width", "brier", "auroc_all", "undetected_success_at_5fpr", "augrc"}
    assert {r["metric"] for r in rows} == left


def test_what_combines_attacks_is_compared_too(tmp_path):
    rng = np.random.default_rng(9)
    common, cells, wrong, scores, radii = rng.normal(size=N), [], {}, {}, {}
    for label, error in zip("ab", (0.3, 0.5), strict=True):
        clean, fgsm = drawn(rng, error, 1, common)
        knowing = {f"adaptive_{name}": drawn(rng, error, 0, common)[1] for name in ("pgd", "joint")}
        radius = np.where(rng.random(N) < 0.1, np.inf, rng.random(N) / error).astype(np.float32)
        reached = ~clean.correct | (radius <= np.float32(0.1))
        fab = record(reached, common, radius=radius)
        cells.append(cell(tmp_path, label, 0, clean, fgsm, fab=fab, **knowing))
        every = [clean, fgsm, fab, *knowing.values()]
        wrong[label] = np.any([~each.correct for each in every], axis=0)
        radii[label] = np.where(clean.correct, radius, 0.0)
        own = [each.class_log_likelihood[:, 0] for each in knowing.values()]
        lost = [~each.correct for each in knowing.values()]
        order = np.lexsort((own, lost), axis=0)[-1]
        scores[label] = clean.class_log_likelihood[:, 0], np.choose(order, own)
    rows = comparison_rows(cells, 50)
    (worst,) = pick(rows, attack="worst_case", metric="error")
    assert (worst["value_a"], worst["value_b"]) == (wrong["a"].mean(), wrong["b"].mean())
    assert worst["p_value"] == mcnemar(
        int((wrong["a"] & ~wrong["b"]).sum()), int((wrong["b"] & ~wrong["a"]).sum())
    )
    (best,) = pick(rows, attack="best_of_adaptive", metric="auroc_all")
    assert best["value_a"] == pytest.approx(auroc(*scores["a"]))
    assert best["value_b"] == pytest.approx(auroc(*scores["b"]))
    (radius,) = pick(rows, attack="fab", metric="median_radius")
    assert radius["eps"] is None
    assert radius["value_a"] == pytest.approx(np.median(radii["a"]))
    assert radius["value_b"] == pytest.approx(np.median(radii["b"]))
    assert radius["shown"]
    (worst,) = pick(rows, attack="worst_case", metric="median_radius")
    assert worst["value_a"] <= radius["value_a"]


def test_a_median_that_was_not_found_has_no_difference_and_may_be_shown(tmp_path):
    rng = np.random.default_rng(10)
    common, cells = rng.normal(size=N), []
    for label, missing in zip("abc", (0.1, 0.8, 0.9), strict=True):
        clean, fgsm = drawn(rng, 0.3, 1, common)
        radius = np.where(rng.random(N) < missing, np.inf, rng.random(N)).astype(np.float32)
        fab = record(~clean.correct | (radius <= np.float32(0.1)), common, radius=radius)
        cells.append(cell(tmp_path, label, 0, clean, fgsm, fab=fab))
    rows = pick(comparison_rows(cells, 399), attack="fab", metric="median_radius")
    assert [(row["label_a"], row["label_b"]) for row in rows] == [("a", "b"), ("a", "c")]
    for row in rows:
        assert row["value_b"] is row["difference"] is row["low"] is None
        assert row["shown"]


def test_one_loss_has_nothing_to_be_compared_with(tmp_path):
    assert comparison_rows(run_of(tmp_path, np.random.default_rng(7), (0.3,), (1,))) == []
    assert comparison_rows([]) == []


def test_other_images_are_refused(tmp_path):
    rng = np.random.default_rng(8)
    cells = run_of(tmp_path, rng, (0.3, 0.3), (1, 1))
    moved = record(np.zeros(N, bool), np.zeros(N), index=np.arange(N) + 1)
    cells[1] = cell(tmp_path, "other", 0, moved, moved)
    with pytest.raises(ValueError, match="other saw other test images than a"):
        comparison_rows(cells)
