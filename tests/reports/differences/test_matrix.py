"""The matrix of loss against loss: signs, what is shown, ranks, and the files beside it."""

import csv
import math
from itertools import combinations
from pathlib import Path
from statistics import fmean

import pytest

from robustloss.analysis.tables.comparisons import comparison_rows
from robustloss.analysis.tables.ranks import rank_rows
from robustloss.reports.chapters.differences.matrix import differences_table
from robustloss.reports.drawing.table import Entry, Table, latex, markdown, write_table
from robustloss.reports.reading.numbers import Numbers
from robustloss.reports.reading.scene import Scene
from robustloss.results.run import Run
from robustloss.results.schema import TABLES
from tests.reports.differences.compared import compared, comparison, numbers

HOSTILE = '=cmd|"/c calc"!A1 <script>alert(1)</script> $x_1$ \\input{a} | `b`'


def matrix(found: Numbers) -> Table:
    table = differences_table(Scene(found, found.attacks[0]))
    assert table is not None
    return table


def cells(table: Table) -> dict[tuple[str, str, str], Entry]:
    """Return the cells by block, loss and heading."""
    return {
        (row[0].text, row[1].text, head): entry
        for row in table.rows
        for head, entry in zip(table.header[2:], row[2:], strict=True)
    }


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_cell_is_row_minus_column_bold_where_shown_and_grey_where_not():
    table = matrix(numbers("ABC", compared()))
    assert list(table.header) == ["metric", "loss", "minus A", "minus B", "rank"]
    found = cells(table)
    # stored as A − B = −0.05 [−0.06, −0.03], and turned round
    shown = found["error, eps 0.1", "B", "minus A"]
    assert (shown.text, shown.kind) == ("+5.00 [3.00, 6.00]", "top")
    other = found["error, eps 0.1", "C", "minus B"]
    assert (other.text, other.kind) == ("−3.00 [−5.00, −2.00]", "grey")
    assert found["error, clean", "C", "minus A"].text == "+2.00 [0.00, 3.00]"
    assert found["AUROC, eps 0.2", "B", "minus A"].text == "+0.050 [0.030, 0.060]"
    # each pair once, and no AUROC of clean images
    assert {found["error, clean", *place].text for place in (("A", "minus A"), ("B", "minus B"),
            ("A", "minus B"))} == {""}  # fmt: skip
    assert not any(block == "AUROC, clean" for block, *_ in found)
    assert "3 training seeds" in table.caption


@pytest.mark.parametrize(
    ("difference", "text"),
    [(0.134, "−13.4 [−15.4, −12.4]"), (0.0, "0.00 [−2.00, 1.00]"), (-1e-9, "0.00 [−2.00, 1.00]")],
)
def test_a_difference_is_written_as_everywhere_with_its_sign(difference: float, text: str) -> None:
    found = [comparison("A", "B", 0.1, difference=difference)]
    assert cells(matrix(numbers("AB", found)))["error, eps 0.1", "B", "minus A"].text == text


def test_a_difference_that_a_check_doubts_is_marked_and_not_bold():
    flag = {"label": "B", "attack_label": "FGSM", "eps": 0.1, "check": "zero_gradient",
            "value": 0.5, "threshold": 0.1, "seed": 0, "message": "m"}  # fmt: skip
    found = cells(matrix(numbers("ABC", compared(), flags=[flag])))
    assert found["error, eps 0.1", "B", "minus A"] == Entry("+5.00 [3.00, 6.00]", "†1", "")
    assert found["error, eps 0.1", "C", "minus B"].mark == "†1"
    assert found["error, eps 0.1", "C", "minus A"].mark == ""
    assert found["error, eps 0.2", "B", "minus A"].kind == "top"


def test_the_baseline_of_the_spec_comes_first_and_turns_the_signs_round():
    table = matrix(numbers("ABC", compared(), baseline="B"))
    assert list(table.header) == ["metric", "loss", "minus B", "minus A", "rank"]
    assert [row[1].text for row in table.rows[:3]] == ["B", "A", "C"]
    found = cells(table)
    assert found["error, eps 0.1", "A", "minus B"].text == "−5.00 [−6.00, −3.00]"
    assert found["error, eps 0.1", "C", "minus A"].text == "+2.00 [0.00, 3.00]"


def test_the_rank_is_the_range_that_the_shown_differences_leave_open():
    found = cells(matrix(numbers("ABC", compared())))
    blocks = {block for block, *_ in found}
    ranks = {label: {found[b, label, "rank"].text for b in blocks if b.startswith("error")}
             for label in "ABC"}  # fmt: skip
    assert ranks == {"A": {"1 to 2"}, "B": {"2 to 3"}, "C": {"1 to 3"}}
    assert found["AUROC, eps 0.1", "A", "rank"].text == "2 to 3"  # higher is better
    whole = cells(matrix(numbers("ABC", compared(shown=("AB", "AC", "BC")))))
    assert [whole["error, clean", label, "rank"].text for label in "ABC"] == ["1", "3", "2"]


def test_of_many_losses_the_page_has_those_against_the_baseline_and_the_files_have_all(
    tmp_path: Path,
) -> None:
    labels = [f"loss {i}" for i in range(9)]
    table = matrix(numbers(labels, compared(labels), baseline="loss 4"))
    assert list(table.header) == [
        *("metric", "loss", "clean", "rank", "eps 0.1", "rank", "eps 0.2", "rank")
    ]
    assert table.caption.startswith("Each loss minus the baseline")
    assert [row[1].text for row in table.rows[:2]] == ["loss 4", "loss 0"]
    assert len(table.rows) == 2 * 9
    write_table(tmp_path, table)
    pairs = math.comb(9, 2)
    assert len(read(tmp_path / "comparison-error-fgsm.csv")) == 3 * pairs
    assert len(read(tmp_path / "comparison-auroc-all-fgsm.csv")) == 2 * pairs
    third = read(tmp_path / "comparison-undetected-success-at-5fpr-fgsm.csv")
    assert len(third) == 2 * pairs
    assert list(third[0]) == list(TABLES["comparisons"].names)
    ranks = read(tmp_path / "ranks-fgsm.csv")
    assert [row["label"] for row in ranks[:6]] == ["loss 0"] * 5 + ["loss 1"]
    assert list(ranks[0]) == list(TABLES["ranks"].names)
    assert len(read(tmp_path / "differences-fgsm.csv")) == 7 * pairs


def test_without_several_seeds_the_unit_is_the_image_and_the_caption_warns():
    found = [comparison("A", "B", 0.1, unit="images", seed=seed) for seed in (4, 2)]
    table = matrix(numbers("AB", found))
    assert "another training may differ" in table.caption
    assert [row["seed"] for row in table.data] == [2]


def test_one_loss_or_an_older_run_has_no_matrix():
    for labels in ("A", "AB"):
        found = numbers(labels, [])
        assert differences_table(Scene(found, found.attacks[0])) is None


def test_a_loss_without_a_pair_is_left_out_even_as_the_baseline():
    table = matrix(numbers(["lonely", "A", "B"], compared("AB"), baseline="lonely"))
    assert {row[1].text for row in table.rows} == {"A", "B"}


@pytest.mark.parametrize("count", [2, 9])
def test_labels_stay_text_in_every_format(tmp_path: Path, count: int) -> None:
    labels = [HOSTILE, *(f"loss {i}" for i in range(1, count))]
    found = [comparison(a, b, 0.1) for a, b in combinations(labels, 2)]
    table = matrix(numbers(labels, found))
    write_table(tmp_path, table)
    assert "<script" not in markdown(table)
    assert r"\input" not in latex(table)
    row = read(tmp_path / "comparison-error-fgsm.csv")[0]
    assert row["label_a"] == f"'{HOSTILE}"


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # two seeds that agree
def test_the_cells_are_the_differences_of_the_errors_of_the_run(strong_run: Run) -> None:
    comparisons = comparison_rows(strong_run.readable_cells[0], resamples=10)
    tables = {"comparisons": comparisons, "ranks": rank_rows(comparisons)}
    spec = {**strong_run.provenance["spec"], "report": {"baseline": "center"}}
    provenance = {**strong_run.provenance, "spec": spec}
    results = {**strong_run.results, **tables, "provenance": provenance}
    found = cells(matrix(Numbers(Run(strong_run.path, results), 10)))
    errors = {(r["label"], r["seed"], r["eps"]): 100 * r["error"] for r in strong_run.rows
              if r["attack_label"] == "FGSM" and r["eps"] > 0}  # fmt: skip
    for eps in (0.05, 0.1, 0.2):
        wanted = fmean(errors["softmax", s, eps] - errors["center", s, eps] for s in (0, 1))
        cell = found[f"error, eps {eps}", "softmax", "minus center"]
        written = float(cell.text.split(" ")[0].replace("−", "-"))
        assert written == pytest.approx(wanted, abs=0.051)
        (row,) = [r for r in comparisons if (r["unit"], r["attack_label"], r["eps"], r["metric"])
                  == ("seeds", "FGSM", eps, "error")]  # fmt: skip
        assert cell.kind == ("grey" if not row["shown"] else "" if cell.mark else "top")
    assert not any(label == "GM" for _, label, _ in found)  # its other seed failed
