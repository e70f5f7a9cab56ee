"""Tables of strong attacks say what results.json says."""

from collections.abc import Sequence
from statistics import fmean

import pytest

from robustloss.notation import interval_text
from robustloss.reports.chapters.result.radius import rank_labels
from robustloss.reports.drawing.table import Table
from robustloss.reports.reading.guarded import guarded
from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.reports.words import Estimate, over_seeds
from robustloss.results.run import Run
from tests.reports.tables import make_tables

WORST = "worst case, L∞"


@pytest.fixture(scope="module")
def tables(strong_numbers: Numbers) -> dict[str, Table]:
    return {table.name: table for table in make_tables(strong_numbers)}


def some(rows: Sequence[dict], **wanted: object) -> list[dict]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def cell(table: Table, column: str, *first: str) -> str:
    """Text of the cell in a column, of the row that begins with these texts."""
    (row,) = [r for r in table.rows if [e.text for e in r[: len(first)]] == list(first)]
    return row[list(table.header).index(column)].text


def percent(share: float) -> str:
    return f"{100 * share:.{1 if share >= 0.1 else 2}f}"


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_worst_case_is_the_mean_of_its_rows(
    strong_run: Run, tables: dict[str, Table], norm: str
) -> None:
    data = tables[f"worst-case-{norm}"].data
    assert len(data) == 3 * 3
    for row in data:
        own = some(strong_run.worst_case, label=row["label"], norm=norm, eps=row["eps"])
        assert row["error"] == pytest.approx(fmean(r["error"] for r in own))
        assert row["n_seeds"] == len(own) == (1 if row["label"] == "GM" else 2)
        assert row["strongest_error"] == pytest.approx(fmean(r["strongest_error"] for r in own))
        assert set(str(row["strongest"]).split("; ")) == {r["strongest"] for r in own}
        assert set(str(row["attacks"]).split("; ")) == {n for r in own for n in r["attacks"]}


def test_worst_case_shows_interval_and_strongest(strong_run: Run, tables: dict[str, Table]) -> None:
    (own,) = some(strong_run.worst_case, label="GM", norm="linf", eps=0.1)
    found = interval_text(own["error"], own["error_low"], own["error_high"], unit=100.0)
    table = tables["worst-case-linf"]
    assert cell(table, "eps 0.1", "GM") == found
    alone = cell(table, "eps 0.1", "GM: strongest alone")
    assert alone == f"{own['strongest']} {percent(own['strongest_error'])}"
    assert any("Attacks in it: FGSM, PGD, PGD, margin, APGD-CE, Square" in n for n in table.notes)


def test_no_worst_case_is_below_an_attack_alone(tables: dict[str, Table]) -> None:
    data = tables["overview-linf"].data
    for worst in some(data, attack_label=WORST):
        alone = [r["error"] for r in some(data, label=worst["label"], eps=worst["eps"])]
        assert worst["error"] == max(alone)


def test_overview_marks_the_highest_error_alone(tables: dict[str, Table]) -> None:
    table = tables["overview-linf"]
    bold = {(r[0].text, r[1].text) for r in table.rows for e in r[2:3] if e.kind == "top"}
    for eps in (0.05, 0.1, 0.2):
        data = [r for r in some(table.data, label="softmax", eps=eps) if r["attack_label"] != WORST]
        top = max(r["error"] for r in data)
        expected = {r["attack_label"] for r in data if r["error"] == top} | {WORST}
        assert {name for e, name in bold if e == f"{eps:g}"} == expected


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_radius_table_is_the_radii(strong_run: Run, tables: dict[str, Table], norm: str) -> None:
    data = tables[f"radius-{norm}"].data
    assert len(data) == 3 * len({r["attack_label"] for r in some(strong_run.radii, norm=norm)})
    for row in data:
        place = {key: row[key] for key in ("label", "norm", "attack_label")}
        own = some(strong_run.radii, **place)
        for metric in ("median_radius", "eps_at_50_error", "area_under_error_curve"):
            known = [r[metric] for r in own if r[metric] is not None]
            assert row[metric] == (pytest.approx(fmean(known)) if known else None)
            assert row[f"{metric}_n_seeds"] == len(known)
        assert row["n"] == sum(r["n"] for r in own)


def test_losses_are_ranked_by_the_worst_case(tables: dict[str, Table]) -> None:
    data = some(tables["radius-linf"].data, attack_label="worst case")
    halves = [row["eps_at_50_error"] for row in data]
    assert halves == sorted(halves, reverse=True)
    shown = [row[1].text for row in tables["radius-linf"].rows[:3]]
    assert shown == [row["label"] for row in data]


HALVES_AND_AREAS = {
    "never, large": (None, 0.4), "far": (0.2, 0.3), "no number": (None, None),
    "never, small": (None, 0.2), "near": (0.1, 0.5),
}  # fmt: skip


class FakeNumbers:
    labels = tuple(HALVES_AND_AREAS)

    def get(self, label: str, attack: str, eps: None, metric: str) -> Estimate | None:
        value = HALVES_AND_AREAS[label][metric != "eps_at_50_error"]
        return over_seeds([] if value is None else [value])


def test_a_curve_that_never_reaches_half_ranks_first() -> None:
    curve = AttackInfo("x", "cw", "l2", (1.0,), "x")
    order = rank_labels(FakeNumbers(), curve)  # type: ignore[arg-type]
    assert order == ["never, small", "never, large", "far", "near", "no number"]


def test_many_attacks_leave_the_radius_table_short(tables: dict[str, Table]) -> None:
    shown = list(dict.fromkeys(row[0].text for row in tables["radius-linf"].rows))
    assert shown[0] == WORST
    assert "DeepFool" in shown
    assert "Square" not in shown
    assert some(tables["radius-linf"].data, attack_label="Square")


def test_adaptive_tables_are_the_mean_over_seeds(strong_run: Run, tables: dict[str, Table]) -> None:
    data = tables["adaptive-every-linf"].data
    assert len(data) * 5 == len(strong_run.adaptive) * 3  # GM has one seed of two
    for row in data:
        place = {key: row[key] for key in ("label", "eps", "attack_label", "kind", "score")}
        own = some(strong_run.adaptive, **place)
        for metric in ("auroc_all", "undetected_success_at_1fpr", "error_with_rejection_at_5fpr"):
            known = [r[metric] for r in own if r[metric] is not None]
            assert row[metric] == (pytest.approx(fmean(known)) if known else None)
        assert row["adapted"] == own[0]["adapted"]
    best = some(data, kind="best_of_adaptive", score="class_log_likelihood")
    (auroc,) = [r["auroc_all"] for r in some(best, label="center", eps=0.2)]
    beside = tables["adaptive-auroc-linf"]
    assert list(beside.header) == [
        *("loss", "eps", "AUROC, FGSM", "AUROC, best adaptive"),
        *("fooled and unnoticed, FGSM", "fooled and unnoticed, any attack"),
    ]
    assert cell(beside, "AUROC, best adaptive", "center", "0.2").startswith(f"{auroc:.3f}")
    fgsm = some(strong_run.adaptive, label="center", eps=0.2, attack_label="FGSM",
                score="class_log_likelihood")  # fmt: skip
    missed = fmean(r["undetected_success_at_5fpr"] for r in fgsm)
    found = cell(beside, "fooled and unnoticed, FGSM", "center", "0.2")
    assert found.startswith(f"{percent(missed)} ")
    assert {r["attack_label"] for r in beside.data} >= {"FGSM", "PGD", "best of adaptive"}


def test_rejection_table_sets_the_worst_naive_attack_against_the_best_adaptive(
    tables: dict[str, Table],
) -> None:
    data = some(tables["adaptive-rejection-linf"].data, label="center", eps=0.2)
    metric = "error_with_rejection_at_5fpr"
    name = "5 % rejected"
    naive = max(r[metric] for r in some(data, kind="naive"))
    (best,) = some(data, kind="best_of_adaptive")
    table = tables["adaptive-rejection-linf"]
    assert cell(table, name, "center", "worst naive", "0.2").startswith(f"{percent(naive)} ")
    text = cell(table, name, "center", "best adaptive", "0.2")
    assert text.startswith(f"{percent(best[metric])} ")


def test_scores_that_no_attack_aimed_at_say_so(tables: dict[str, Table]) -> None:
    for table in (tables["adaptive-every-linf"], tables["scores-adaptive-joint"]):
        column = list(table.header).index("score")
        names = {row[column].text for row in table.rows}
        assert {"log-likelihood", "largest posterior (not adapted)"} <= names
        assert not any("log-likelihood (not" in name for name in names)
    naive = [r for r in tables["adaptive-every-linf"].rows if r[1].text == "naive: FGSM"]
    assert {row[2].text for row in naive} == {"log-likelihood", "largest posterior"}
    assert "not adapted" not in str(tables["scores-fgsm"].rows)


def test_transfer_table_is_the_matrix(strong_run: Run, tables: dict[str, Table]) -> None:
    table = tables["transfer-pgd"]
    assert len(table.data) == 3 * 9
    for row in table.data:
        place = {key: row[key] for key in ("source", "target", "eps")}
        own = some(strong_run.transfer, **place)
        assert row["error"] == pytest.approx(fmean(r["error"] for r in own))
        assert row["n_seeds"] == len(own)
    for row in table.rows[1:]:
        bold = [head for head, e in zip(table.header, row, strict=True) if e.kind == "top"]
        assert bold == [f"shown to {row[1].text}"]


def test_rounded_row_stands_under_its_loss(strong_run: Run, tables: dict[str, Table]) -> None:
    table = tables["error-pgd"]
    (own,) = some(strong_run.rows, label="GM", attack_label="PGD", eps=0.2)
    assert own["error_8bit"] < own["error"]
    texts = [row[0].text for row in table.rows]
    below = table.rows[texts.index("GM") + 1]
    assert below[0].text == "rounded to 8 bits"
    assert below[table.header.index("eps 0.2")].text == percent(own["error_8bit"])
    (row,) = some(table.data, label="GM", eps=0.2)
    assert row["error_8bit"] == own["error_8bit"]


def test_cost_is_counted_per_image(strong_run: Run, tables: dict[str, Table]) -> None:
    table = tables["attack-cost"]
    assert [row[0].text for row in table.rows][:3] == ["FGSM", "PGD", "PGD, margin"]
    assert cell(table, "forward passes", "Square") == "1,000"
    assert cell(table, "backward passes", "Square") == "0"
    assert cell(table, "eps", "PGD") == "3"
    assert cell(table, "cells", "CW") == "5"
    assert len(table.data) == len(strong_run.provenance["attack_cost"])


def test_run_of_one_attack_has_no_worst_case(strong_run: Run) -> None:
    results = dict(strong_run.results)
    results["worst_case"] = [
        row | {"attacks": ["FGSM"], "strongest": "FGSM"} for row in results["worst_case"]
    ]
    numbers = Numbers(Run(strong_run.path, results))
    assert numbers.worst_cases == []
    names = [table.name for table in make_tables(numbers)]
    assert not [name for name in names if name.startswith(("worst", "overview"))]


def test_results_older_than_the_new_tables_still_have_theirs(strong_run: Run) -> None:
    later = ("radii", "adaptive", "transfer")
    results = {key: value for key, value in strong_run.results.items() if key not in later}
    results["worst_case"] = []
    results["summary"] = [s for s in results["summary"] if s["eps"] is not None]
    names = {table.name for table in make_tables(Numbers(Run(strong_run.path, results)))}
    assert {"error-fgsm", "detection-cw", "training", "seeds"} <= names
    assert not [n for n in names if n.startswith(("worst", "radius", "adaptive-", "transfer"))]


def test_the_naive_attack_beside_the_adaptive_ones_has_numbers_at_most_eps(strong_run: Run) -> None:
    def start(rows: list[dict]) -> str | None:
        (found, *_) = guarded(
            Numbers(Run(strong_run.path, strong_run.results | {"adaptive": rows}))
        )
        return found.start.label if found.start else None

    rows = strong_run.adaptive
    assert start(rows) == "FGSM"
    assert start([r for r in rows if (r["attack_label"], r["eps"]) != ("FGSM", 0.2)]) == "PGD"
    assert start([r for r in rows if r["kind"] != "naive"]) is None
