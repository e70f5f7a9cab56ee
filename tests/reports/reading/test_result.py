"""The result table and the report take the same numbers and put the same marks on them."""

from robustloss.reports.reading.guarded import BEST, doubts, guarded
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.run import Run


def checks(flags):
    return {flag["check"] for flag in flags}


def test_numbers_and_marks_are_those_of_the_report(strong_run: Run, strong_numbers: Numbers):
    table = strong_run.table()
    assert [row.label for row in table.rows] == strong_numbers.labels
    assert [c.head for c in table.columns[-3:]] == ["FGSM", "best adaptive", "any attack"]
    assert table.columns[1].group.startswith("error, worst case of ")
    case = strong_numbers.worst_cases[0]
    (known, *_) = guarded(strong_numbers)
    (best,) = known.of_kind(BEST)
    marked = 0
    for row in table.rows:
        for column, cell in zip(table.columns, row.cells, strict=True):
            if column.attack == "best_of_adaptive":
                found = known.get(row.label, best, column.eps, column.metric)
                flags = known.flags(row.label, best, column.eps)
            elif column.key == "unnoticed":  # of any attack
                found = strong_numbers.get(row.label, case.label, column.eps, column.metric)
                flags = strong_numbers.flags_of(row.label, case, column.eps)
                flags += doubts(strong_numbers, row.label, case.norm, column.eps)
            elif column.metric == "error":
                found = strong_numbers.error(row.label, case, column.eps)
                flags = strong_numbers.flags_of(row.label, case, column.eps)
            else:
                first = strong_numbers.attacks[0]
                found = strong_numbers.get(row.label, first.label, column.eps, column.metric)
                flags = strong_numbers.flags_of(row.label, first, column.eps)
            assert (cell.mean, cell.n_seeds) == (found.mean, found.n_seeds)
            assert (cell.low, cell.high) == (found.low, found.high)
            assert {*cell.checks} == checks(flags)
            marked += bool(cell.checks)
    assert marked
