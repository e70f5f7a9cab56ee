"""A number of a run is found by everything that names its row."""

from collections import defaultdict
from dataclasses import replace

import pytest

from robustloss.analysis.tables.summary import summarise
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.run import Run
from robustloss.results.schema import TABLES


@pytest.fixture
def detection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the AUROC of the table detection be summarised over the seeds."""
    table = TABLES["detection"]
    columns = [replace(c, summarised=c.name == "auroc") for c in table.columns]
    monkeypatch.setitem(TABLES, "detection", replace(table, columns=tuple(columns)))


@pytest.mark.usefixtures("detection")
def test_each_score_and_population_keeps_its_own_number(strong_run: Run) -> None:
    results = strong_run.results
    made = Numbers(Run(strong_run.path, results | {"summary": summarise(results)}), 10)
    aurocs = defaultdict(list)
    for row in strong_run.detection:
        place = (row["label"], row["attack_label"], row["eps"])
        if row["auroc"] is not None:
            aurocs[*place, row["score"], row["population"]].append(row["auroc"])
    assert len({place[-2:] for place in aurocs}) > 2
    for (*place, score, population), values in aurocs.items():
        found = made.find(*place, "auroc", score=score, population=population)
        assert found is not None
        assert found["values"] == values
    label, attack, eps, *_ = next(iter(aurocs))
    assert made.get(label, attack, eps, "auroc") is None  # of which score is not said
    error = made.get(label, attack, eps, "error")
    assert error == Numbers(strong_run, 10).get(label, attack, eps, "error")


def test_the_baseline_is_the_one_of_the_spec_or_else_the_first_loss(strong_run: Run) -> None:
    provenance = strong_run.provenance
    for named, wanted in (("GM", "GM"), (None, "softmax"), ("gone", "softmax")):
        spec = {**provenance["spec"], "report": {"baseline": named}}
        results = {**strong_run.results, "provenance": {**provenance, "spec": spec}}
        assert Numbers(Run(strong_run.path, results), 10).baseline == wanted
    assert Numbers(strong_run, 10).baseline == "softmax"  # of a run without this table
    empty = {**strong_run.results, "rows": [], "failures": [], "provenance": {}}
    assert Numbers(Run(strong_run.path, empty), 10).baseline == ""
