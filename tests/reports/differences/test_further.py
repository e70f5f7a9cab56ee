"""What the losses are compared in beside errors and AUROC of single attacks; and what is bold."""

from robustloss.reports.chapters.differences.further import further_table
from robustloss.reports.chapters.result.table import result_table
from tests.reports.differences.compared import compared, comparison, numbers

WORST = {"attack": "worst_case", "attack_label": "worst case"}
BEST = {"attack": "best_of_adaptive", "attack_label": "best of adaptive"}
FAB = {"attack": "fab", "attack_label": "FAB"}


def test_each_loss_stands_against_the_baseline_bold_where_shown():
    rows = [
        comparison("A", "B", 0.1, shown=True, **WORST),
        comparison("B", "C", 0.1, shown=True, **WORST),
        comparison("A", "B", 0.2, "auroc_all", **BEST),
        comparison("A", "B", None, "median_radius", difference=0.1234, shown=True, **FAB),
        comparison("A", "C", None, "median_radius", value_a=0.1, shown=True, **FAB)
        | dict.fromkeys(("difference", "low", "high")),
        comparison("A", "B", 0.0, "brier", attack="none", attack_label="none", norm=None),
    ]
    table = further_table(numbers("ABC", [*compared(), *rows]))
    assert table is not None
    assert [tuple(entry.text for entry in row) for row in table.rows] == [
        ("error, worst case, eps 0.1", "B", "+5.00 [3.00, 6.00]"),
        ("AUROC, best of adaptive, eps 0.2", "B", "+0.050 [0.030, 0.060]"),
        ("median radius, FAB", "B", "−0.1234 [−0.1434, −0.1134]"),
        ("median radius, FAB", "C", "larger"),
        ("Brier score, clean", "B", "+0.050 [0.030, 0.060]"),
    ]
    assert [row[-1].kind for row in table.rows] == ["top", "grey", "top", "top", "grey"]
    assert further_table(numbers("ABC", compared())) is None


def test_the_first_table_has_in_bold_what_is_shown_better_than_every_other():
    def bold(*pairs):
        rows = [row | {"norm": None} if not row["eps"] else row for row in compared(shown=pairs)]
        found = numbers("ABC", rows)
        means = {"A": 0.1, "B": 0.15, "C": 0.12}
        found.run.results["summary"] = [
            {"loss": "lgm", "label": label, "attack": "fgsm" if eps else "none",
             "attack_label": "FGSM" if eps else "none", "norm": "linf" if eps else None,
             "eps": eps, "metric": "error", "n_seeds": 3, "seeds": [0, 1, 2],
             "values": [mean] * 3, "mean": mean, "sd": 0.0, "low": 0.0, "high": 1.0,
             "interval": "t over seeds"}
            for label, mean in means.items()
            for eps in (0.0, 0.1, 0.2)
        ]  # fmt: skip
        table = result_table(found)
        return {row[0].text for row in table.rows for cell in row[1:] if cell.kind == "top"}

    assert bold("AB", "AC") == {"A"}  # though every interval overlaps
    assert bold("AB") == bold() == set()
