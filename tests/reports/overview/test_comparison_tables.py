"""The tables of loss against loss: what is shown, what is not, and which pairs have a row."""

import math
from itertools import combinations
from pathlib import Path

import pytest

from robustloss.reports.chapters.overview.comparison import comparison_tables
from robustloss.reports.drawing.table import latex, markdown
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.run import Run
from robustloss.results.schema import TABLES


def comparison(a, b, eps, metric="error", *, shown=False, difference=-0.05, **place):
    row = dict.fromkeys(TABLES["comparisons"].names) | {
        **{"unit": "seeds", "label_a": a, "label_b": b, "metric": metric},
        **{"attack": "fgsm" if eps else "none", "attack_label": "FGSM" if eps else "none"},
        **{"norm": "linf", "eps": eps, "n_seeds": 3, "difference": difference},
        **{"low": difference - 0.01, "high": difference + 0.01, "shown": shown},
        **place,
        **{"p_adjusted": 0.01 if shown else 0.5, "minimum_detectable": 0.031},
    }
    return row


def numbers(labels, comparisons) -> Numbers:
    rows = [
        {"loss": "lgm", "label": label, "seed": 0, "norm": "linf" if eps else None, "n": 100}
        | {"attack": "fgsm" if eps else "none", "attack_label": "FGSM" if eps else "none"}
        | {"eps": eps, "error": 0.1, "error_low": 0.05, "error_high": 0.2}
        for label in labels
        for eps in (0.0, 0.1, 0.2)
    ]
    spec = {"losses": [{"label": label} for label in labels], "attacks": [{"label": "FGSM"}]}
    tables = {k: [] for k in ("summary", "detection", "training", "worst_case", "flags")}
    results = {"name": "toy", "provenance": {"spec": spec}, "rows": rows, "failures": []}
    return Numbers(Run(Path(), results | tables | {"comparisons": comparisons}))


def test_a_shown_difference_is_bold_and_another_says_so():
    found = [
        comparison("A", "B", 0.0),
        comparison("A", "B", 0.1, shown=True),
        comparison("A", "B", 0.2, difference=0.05),
    ]
    (table,) = comparison_tables(numbers(["A", "B"], found))
    assert table.name == "comparison-error-fgsm"
    assert list(table.header) == ["loss", "less", "clean", "eps 0.1", "eps 0.2"]
    clean, first, second = table.rows[0][2:]
    assert (first.kind, first.text) == ("top", "−5.00 [−6.00, −4.00]")
    assert clean.kind == second.kind == ""
    assert second.text == "+5.00 [+4.00, +6.00] no difference shown; 3.10"
    assert "3 seeds" in table.caption
    assert [row["eps"] for row in table.data] == [0.0, 0.1, 0.2]


def test_without_several_seeds_the_unit_is_the_image_and_the_caption_warns():
    found = [comparison("A", "B", 0.1, unit="images", seed=seed) for seed in (4, 2)]
    (table,) = comparison_tables(numbers(["A", "B"], found))
    assert "they do not say that one loss is better" in table.caption
    assert table.data[0]["seed"] == 2


@pytest.mark.parametrize(("count", "rows"), [(2, 1), (4, 6), (9, 8)])
def test_many_losses_stand_against_the_first_and_the_csv_has_every_pair(count, rows):
    labels = [f"loss {i}" for i in range(count)]
    found = [comparison(a, b, 0.1) for a, b in combinations(labels, 2)]
    (table,) = comparison_tables(numbers(labels, found))
    assert len(table.rows) == rows
    assert len(table.data) == math.comb(count, 2)
    assert ("every pair" in table.caption) == (count == 9)
    assert "no difference shown" in markdown(table)
    assert "no difference shown" in latex(table)


def test_each_metric_has_a_table_in_its_own_unit():
    found = [comparison("A", "B", 0.1, m) for m in ("auroc_all", "undetected_success_at_5fpr")]
    first, second = comparison_tables(numbers(["A", "B"], found))
    assert first.rows[0][2].text.startswith("−0.050 [")
    assert second.rows[0][2].text.startswith("−5.00 [")


def test_an_older_run_has_no_such_table():
    assert comparison_tables(numbers(["A", "B"], [])) == []
