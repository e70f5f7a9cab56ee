"""A doubtful number carries its mark wherever it is printed, and no other number does."""

from pathlib import Path

import pytest

from robustloss.reports.drawing.table import Table
from robustloss.reports.reading.marks import Marks
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.run import Run
from robustloss.results.schema import TABLES
from tests.reports.tables import make_tables

EPS = (0.1, 0.2)


def flag(
    check: str, attack: str | None = None, eps: float | None = None, label: str = "A"
) -> dict[str, object]:
    place = {"check": check, "loss": "softmax", "label": label, "seed": 0}
    doubt = {"value": 0.25, "threshold": 0.01, "message": f"{check}: do this."}
    return place | {"attack_label": attack, "eps": eps} | doubt


def numbers(*flags: dict) -> Numbers:
    """Loss A under the weak FGSM and the strong PGD, at two eps; PGD is always the worst case."""
    rows, worst = [], []
    for attack, eps in [("none", 0.0), *((a, e) for a in ("fgsm", "pgd") for e in EPS)]:
        rows.append(
            dict.fromkeys(TABLES["rows"].names)
            | {"loss": "softmax", "label": "A", "seed": 0, "attack": attack, "n": 10,
               "attack_label": attack, "norm": "linf" if eps else None, "eps": eps, "error": 0.5}
        )  # fmt: skip
    for eps in EPS:
        worst.append({"loss": "softmax", "label": "A", "seed": 0, "norm": "linf", "eps": eps,
                      "n": 10, "attacks": ["fgsm", "pgd"], "strongest": "pgd",
                      "strongest_error": 0.5, "error": 0.5})  # fmt: skip
    results: dict[str, object] = {k: [] for k in ("summary", "detection", "failures", "training")}
    results |= {"rows": rows, "worst_case": worst, "flags": list(flags)}
    return Numbers(Run(Path(), results | {"provenance": {}, "name": "fake"}))


@pytest.mark.parametrize(
    ("one", "marked"),
    [
        (flag("loss_still_rising", "pgd", 0.1), {("pgd", 0.1), ("worst case, L∞", 0.1)}),
        (flag("zero_gradient", "fgsm", 0.1), {("fgsm", 0.1)}),
        (
            flag("transfer_beats_white_box", "fgsm", 0.2),
            {("fgsm", 0.2), ("worst case, L∞", 0.2)},
        ),
        (flag("zero_gradient", "fgsm"), {("fgsm", 0.1), ("fgsm", 0.2)}),
        (
            flag("margin_beats_cross_entropy"),
            {(a, e) for a in ("fgsm", "pgd", "worst case, L∞") for e in EPS},
        ),
        (
            flag("output_not_repeatable"),
            {(a, e) for a in ("fgsm", "pgd", "worst case, L∞") for e in (0.0, *EPS)},
        ),
        (flag("zero_gradient", "pgd", 0.1, label="B"), set()),
    ],
    ids=lambda value: value["check"] if isinstance(value, dict) else "",
)
def test_a_flag_reaches_exactly_the_numbers_that_it_concerns(
    one: dict, marked: set[tuple[str, float]]
) -> None:
    known = numbers(one)
    found = {
        (attack.label, eps)
        for attack in (*known.attacks, *known.worst_cases)
        for eps in (0.0, *EPS)
        if known.flags_of("A", attack, eps)
    }
    assert found == marked


def test_footnote_states_value_threshold_remedy_and_how_many_more() -> None:
    known = numbers(flag("zero_gradient", "fgsm", 0.1), flag("zero_gradient", "fgsm", 0.2),
                    flag("output_not_repeatable"))  # fmt: skip
    marks = Marks()
    fgsm, pgd, *_ = known.attacks
    assert marks.of(known.flags_of("A", fgsm, 0.1)) == "†1 †2"
    assert marks.of(known.flags_of("A", fgsm, 0.2)) == "†1 †2"
    assert marks.of(known.flags_of("A", pgd, 0.1)) == "†1"
    assert marks.notes() == [
        "†1 output not repeatable: A, seed 0 (value 0.25, threshold 0.01). "
        "output_not_repeatable: do this.",
        "†2 zero gradient: A, fgsm, eps 0.1, seed 0 (value 0.25, threshold 0.01). zero_gradient: "
        "do this. And 1 more of this kind, listed under “Checks”.",
    ]


def test_a_number_of_the_whole_curve_carries_the_marks_of_every_eps() -> None:
    known = numbers(flag("zero_gradient", "fgsm", 0.1), flag("error_falls_with_eps", "fgsm", 0.2),
                    flag("loss_still_rising", "pgd", 0.2))  # fmt: skip
    checks = [f["check"] for f in known.flags_of("A", known.attacks[0], None)]
    assert checks == ["zero_gradient", "error_falls_with_eps"]


def test_a_radius_that_is_too_large_marks_the_curves_of_its_attack_and_of_the_worst_case() -> None:
    known = numbers(flag("radius_beyond_grey", "fgsm", 0.5))
    fgsm, pgd, worst = (*known.attacks, *known.worst_cases)
    assert [bool(known.flags_of("A", one, None)) for one in (fgsm, pgd, worst)] == [1, 0, 1]
    assert not any(known.flags_of("A", one, eps) for one in (fgsm, worst) for eps in EPS)


@pytest.fixture(scope="module")
def tables(strong_numbers: Numbers) -> dict[str, Table]:
    return {table.name: table for table in make_tables(strong_numbers)}


def test_every_flag_of_a_run_is_marked_in_every_table_that_prints_its_number(
    strong_run: Run, strong_numbers: Numbers, tables: dict[str, Table]
) -> None:
    slugs = {attack.label: attack.slug for attack in strong_numbers.attacks}
    concerned = [
        (f, a, e)
        for f in strong_run.flags
        for a in strong_numbers.attacks
        for e in a.strengths
        if f["attack_label"] in (None, a.label) and f["eps"] in (None, e)
    ]
    assert len({f["check"] for f, _, _ in concerned}) >= 4
    for f, attack, eps in concerned:
        slug = slugs[attack.label]
        names = [f"error-{slug}", f"attack-{slug}", f"detection-{slug}", f"scores-{slug}",
                 f"overview-{attack.norm}"]  # fmt: skip
        for name in names:
            rows = [
                row for row in tables[name].data
                if row["label"] == f["label"] and row["eps"] == eps
                and row.get("attack_label", attack.label) == attack.label
            ]  # fmt: skip
            assert rows
            for row in rows:
                assert f["check"] in str(row["marks"]).split(), (name, row, f)


def test_marks_of_cells_and_footnotes_belong_together(tables: dict[str, Table]) -> None:
    marked = 0
    for table in tables.values():
        used = {m for row in table.rows for e in row for m in e.mark.split()}
        notes = {note.split(" ")[0] for note in table.notes if note.startswith("†")}
        assert used == notes, table.name
        marked += bool(used)
    assert marked >= 40
    assert not any(e.mark and e.text in ("n/a", "–") for t in tables.values() for r in t.rows
                   for e in r)  # fmt: skip


def test_seed_rows_carry_the_marks_of_their_own_seed(
    strong_run: Run, tables: dict[str, Table]
) -> None:
    seeds = {f["seed"] for f in strong_run.flags if f["check"] == "transfer_beats_white_box"}
    assert seeds == {0, 1}
    note = next(n for n in tables["seeds"].notes if "transfer beats white box" in n)
    mark = note.split(" ")[0]
    found = {
        (row[0].text, row[1].text, row[2].text)
        for row in tables["seeds"].rows
        if mark in row[5].mark.split()
    }
    assert found == {("softmax", "PGD", "0"), ("softmax", "PGD", "1")}
