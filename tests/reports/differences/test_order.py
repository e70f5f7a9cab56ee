"""Many losses stand in one order, each number with the rank that the tests leave it."""

from statistics import fmean

import pytest

from robustloss.reports.chapters.differences.order import order_table
from robustloss.reports.drawing.table import Table
from robustloss.reports.page.contents import Contents, make_tables
from robustloss.reports.page.gallery import list_differences
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.result import SCORE, UNNOTICED
from robustloss.results.run import Run
from robustloss.results.schema import BEST_ADAPTIVE, WORST_CASE
from tests.reports.differences.compared import compared, comparison, numbers


def order(found: Numbers) -> Table:
    table = order_table(found)
    assert table is not None
    return table


def measured(found: Numbers, means: dict[str, float | None], metric: str = "error") -> Numbers:
    """Return a run whose summary has a mean of every loss, clean and at eps 0.1."""
    fgsm = {"attack": "fgsm", "attack_label": "FGSM", "norm": "linf"}
    clean = {"attack": "none", "attack_label": "none", "norm": None, "eps": 0.0}
    places = [clean, {**fgsm, "eps": 0.1 if metric == "error" else None}]
    summary = [
        {**place, "label": label, "metric": metric, "mean": mean, "low": None, "high": None,
         "n_seeds": 3, "values": [], "interval": None}
        for label, mean in means.items()
        for place in places
    ]  # fmt: skip
    summary += found.run.summary
    return Numbers(Run(found.run.path, {**found.run.results, "summary": summary}))


def test_the_best_stands_first_and_what_differs_from_the_baseline_is_bold():
    rows = [row | {"norm": None} if not row["eps"] else row for row in compared(shown=("AB",))]
    means = {"A": 0.1, "B": 0.15, "C": 0.12}
    found = measured(numbers("ABC", rows, baseline="B"), means)
    table = order(found)
    assert list(table.header) == ["loss", "error, FGSM, eps 0.1", "rank", "error, clean", "rank"]
    assert [(row[0].text, row[1].kind, row[2].text) for row in table.rows] == [
        *[("A", "top", "1 to 2"), ("C", "", "1 to 3"), ("B", "", "2 to 3")]
    ]
    assert "shown to differ from B (p at most .05" in table.caption
    flag = {"check": "zero_gradient", "label": "A", "attack_label": "FGSM", "eps": 0.1, "seed": 0}
    flagged = numbers("ABC", rows, baseline="B", flags=[flag | {"message": "flat"}])
    marked = order(measured(flagged, means))
    assert (marked.rows[0][1].mark, marked.rows[0][1].kind) == ("†1", "")


def test_the_numbers_are_those_of_the_run(strong_run: Run) -> None:
    worst, best = {**WORST_CASE, "norm": "linf"}, {**BEST_ADAPTIVE, "norm": "linf"}
    clean = {"attack": "none", "attack_label": "none", "norm": None}
    places = [
        (worst, None, "median_radius"),
        (worst, 0.05, "error"),
        (worst, 0.05, UNNOTICED),
        (best, 0.2, "auroc_all"),
        (clean, 0.0, "error"),
    ]
    ends = {"unit": "seeds", "rank": 1, "rank_low": 1, "rank_high": 3}
    ranks = [
        {**place, **ends, "eps": eps, "metric": metric, "label": label}
        for place, eps, metric in places
        for label in ("softmax", "GM")
    ]
    table = order(Numbers(Run(strong_run.path, {**strong_run.results, "ranks": ranks}), 10))
    assert [head for head in table.header[1:] if head != "rank"] == [
        *("median radius", "error, worst case, eps 0.05", "fooled and unnoticed, eps 0.05"),
        *("AUROC, best adaptive, eps 0.2", "error, clean"),
    ]
    shown = {row[0].text: [entry.text for entry in row] for row in table.rows}
    for label in ("softmax", "GM"):
        clean_error, worst_error = (
            fmean(row["error"] for row in found if (row["label"], row["eps"]) == (label, eps))
            for found, eps in (
                ([row for row in strong_run.rows if row["attack"] == "none"], 0.0),
                ([row for row in strong_run.worst_case if row["norm"] == "linf"], 0.05),
            )
        )
        unnoticed, auroc = (
            fmean(
                row[metric]
                for row in strong_run.adaptive
                if (row["label"], row["kind"], row["eps"], row["score"])
                == (label, kind, eps, SCORE)
            )
            for kind, eps, metric in (
                ("best_of_all", 0.05, UNNOTICED),
                (BEST_ADAPTIVE["attack"], 0.2, "auroc_all"),
            )
        )
        found = [text.partition(" ")[0] for text in shown[label][3::2]]
        expected = (100 * worst_error, 100 * unnoticed, auroc, 100 * clean_error)
        assert [float(text) for text in found] == pytest.approx(expected, abs=0.051)
        assert set(shown[label][2::2]) == {"1 to 3"}


def test_only_a_crowd_has_the_table_on_the_page_and_in_the_gallery():
    for labels, crowd in (("ABCDEF", False), ("ABCDEFG", True)):
        found = numbers(labels, compared(labels))
        tables = [table.name for _, made in make_tables(Contents(found)) for table in made]
        assert ("order" in tables) is crowd
        (text,) = list_differences(found, set())
        assert ("In which order are the losses?" in text) is crowd


def test_a_loss_without_a_rank_stands_by_its_number():
    rows = [row for row in compared() if "C" not in (row["label_a"], row["label_b"])]
    found = measured(numbers("ABC", rows), {"A": 0.1, "B": 0.15, "C": 0.12})
    assert [(row[0].text, row[2].text) for row in order(found).rows] == [
        *[("A", "1"), ("C", ""), ("B", "2")]
    ]


def test_the_largest_radius_stands_first_and_one_beyond_what_was_found_before_it():
    place = {"attack": "fgsm", "attack_label": "FGSM", "norm": "linf"}
    pairs = [("A", "B", 0.02), ("A", "C", 0.04), ("B", "C", 0.02)]
    rows = [
        comparison(a, b, None, "median_radius", difference=d, value_a=0.3, value_b=0.3 - d, **place)
        for a, b, d in pairs
    ]
    means = dict.fromkeys("ABCD", 0.1)
    found = measured(numbers("ABCDE", [*compared(), *rows]), means)
    found = measured(found, {"A": 0.1, "B": 0.08, "C": 0.12, "D": None}, "median_radius")
    assert [row[0].text for row in order(found).rows] == ["D", "C", "A", "B", "E"]


def test_nothing_to_compare_has_no_order():
    assert order_table(numbers("A", [])) is None
