"""The result table: which numbers it takes, how it marks them, and how it is written."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from robustloss.results.result import build_result_table
from robustloss.results.run import Run

PGD = {"attack": "pgd", "attack_label": "PGD", "norm": "linf"}
FGSM = {"attack": "fgsm", "attack_label": "FGSM", "norm": "linf"}
AWARE = {"attack": "adaptive_selective", "attack_label": "Aware", "norm": "linf"}
CLEAN = {"attack": "none", "attack_label": "none", "norm": None}
WORST = {"attack": "worst_case", "attack_label": "worst case", "norm": "linf"}
BEST = {"attack": "best_of_adaptive", "attack_label": "best of adaptive", "norm": "linf"}
EPS = 8 / 255


def summarised(label, attack, eps, metric, mean, **more):
    ends = {"low": mean - 0.01, "high": mean + 0.01, "n_seeds": 2, "interval": "t over seeds"}
    place = {"loss": label.lower(), "label": label, "eps": eps, "metric": metric, "mean": mean}
    return attack | place | ends | more


def results_of(labels=("Softmax", "GM"), attacks=(FGSM,), *, spec=None, **tables):
    """Results of two seeds; `tables` come on top of the rows and errors of each attack."""
    rows, summary = [], []
    for label in labels:
        for attack, eps in [(CLEAN, 0.0), *((a, e) for a in attacks for e in (EPS, 0.3))]:
            place = attack | {"loss": label.lower(), "label": label, "eps": eps}
            rows += [place | {"seed": seed, "n": 100, "error": 0.2} for seed in (0, 1)]
            summary.append(summarised(label, attack, eps, "error", 0.2 if eps else 0.005))
            if eps:
                summary.append(summarised(label, attack, eps, "auroc_all", 0.9))
                metric = "undetected_success_at_5fpr"
                summary.append(summarised(label, attack, eps, metric, 0.4))
    plain = {
        "losses": [{"label": label} for label in labels],
        "attacks": [{"label": attack["attack_label"]} for attack in attacks],
    } | (spec or {})
    results = {"name": "toy", "provenance": {"spec": plain}, "rows": rows, "failures": []}
    empty = {"worst_case": [], "flags": [], "adaptive": []}
    return results | empty | tables | {"summary": summary + tables.get("summary", [])}


def heads(table):
    return [(column.group, column.head) for column in table.columns]


def texts(table, label):
    (row,) = (row for row in table.rows if row.label == label)
    return [cell.text(column) for cell, column in zip(row.cells, table.columns, strict=True)]


def best_rows(label="Softmax", eps=EPS, seeds=(0, 1), **more):
    row = {"loss": label.lower(), "label": label, "norm": "linf", "eps": eps, "score": SCORE}
    row |= {"adapted": True, "auroc_all": 0.25, "undetected_success_at_5fpr": 0.75} | more
    aware = {"attack": AWARE["attack"], "attack_label": "Aware", "kind": "adaptive"}
    best = {key: BEST[key] for key in ("attack", "attack_label")} | {"kind": "best_of_adaptive"}
    return [row | {"seed": seed} | kind for seed in seeds for kind in (aware, best)]


SCORE = "class_log_likelihood"


def worst_rows(label="Softmax", eps=EPS, strongest="PGD", attacks=("FGSM", "PGD")):
    row = {"loss": label.lower(), "label": label, "norm": "linf", "eps": eps}
    return [row | {"seed": 0, "strongest": strongest, "attacks": list(attacks)}]


def test_one_attack_shows_its_own_errors():
    table = build_result_table(results_of())
    assert heads(table) == [
        ("error", "clean"), ("error, FGSM", "8/255"), ("error, FGSM", "0.3"),
        ("AUROC, all images, eps 0.3; detector not attacked", "FGSM"),
        ("fooled and unnoticed at eps 0.3", "FGSM"),
    ]  # fmt: skip
    assert [row.label for row in table.rows] == ["Softmax", "GM"]
    assert table.baseline == "Softmax"
    assert texts(table, "GM") == [
        "0.50 [−0.50, 1.50]", "20.0 [19.0, 21.0]", "20.0 [19.0, 21.0]", "0.900 [0.890, 0.910]",
        "40.0 [39.0, 41.0]",
    ]  # fmt: skip
    assert [column.lower_is_better for column in table.columns] == [True, True, True, False, True]


def test_several_attacks_of_the_first_norm_show_their_worst_case():
    worst = [
        summarised(label, WORST, eps, "error", 0.6) for label in ("Softmax", "GM")
        for eps in (EPS, 0.3)
    ]  # fmt: skip
    rows = worst_rows() + worst_rows(eps=0.3, attacks=["FGSM"], strongest="FGSM")
    table = build_result_table(results_of(attacks=(FGSM, PGD), worst_case=rows, summary=worst))
    assert heads(table)[1] == ("error, worst case of up to 2 attacks, L∞", "8/255")
    assert texts(table, "GM")[1] == "60.0 [59.0, 61.0]"


def test_detection_stands_at_the_largest_eps_that_naive_and_adaptive_share():
    adaptive = [*best_rows(), *best_rows("GM")]
    found = results_of(attacks=(FGSM,), adaptive=adaptive)
    aware = [row | AWARE | {"eps": EPS} for row in found["rows"] if row["eps"] == 0.3]
    found["rows"] += aware
    table = build_result_table(found)
    assert heads(table)[3:] == [
        ("AUROC, all images, eps 8/255", "FGSM"), ("AUROC, all images, eps 8/255", "best adaptive"),
        ("fooled and unnoticed at eps 8/255", "best adaptive"),
    ]  # fmt: skip
    # A run of before that table was summarised: the mean of its rows, without an interval.
    assert texts(table, "GM")[4:] == ["0.250", "75.0"]
    summary = [
        summarised("GM", BEST, EPS, metric, mean, score=SCORE)
        for metric, mean in (("auroc_all", 0.3), ("undetected_success_at_5fpr", 0.7))
    ]
    found["summary"] += summary
    assert texts(build_result_table(found), "GM")[4:] == [
        "0.300 [0.290, 0.310]",
        "70.0 [69.0, 71.0]",
    ]


def test_a_single_adaptive_attack_stands_for_itself_where_no_best_is_known():
    table = build_result_table(results_of(attacks=(FGSM, AWARE)))
    assert heads(table)[-3:] == [
        ("AUROC, all images, eps 0.3", "FGSM"), ("AUROC, all images, eps 0.3", "Aware"),
        ("fooled and unnoticed at eps 0.3", "Aware"),
    ]  # fmt: skip


def test_the_baseline_of_the_spec_stands_first():
    table = build_result_table(results_of(spec={"report": {"baseline": "GM"}}))
    assert ([row.label for row in table.rows], table.baseline) == (["GM", "Softmax"], "GM")


def test_a_loss_without_numbers_has_a_row_and_a_run_without_any_a_table():
    failed = {"loss": "gm", "label": "GM", "seed": 0, "stage": "train", "reason": "NaN"}
    found = results_of(labels=("Softmax",), spec={"losses": [{"label": "GM"}]}, failures=[failed])
    table = build_result_table(found)
    assert texts(table, "GM") == ["n/a"] * 5
    nothing = results_of(labels=(), failures=[failed])
    assert build_result_table(nothing).as_text().split() == [
        "Errors", "in", "percent,", "one", "training", "seed.", "error", "loss", "clean", "GM",
        "n/a",
    ]  # fmt: skip


def flag(check, label="GM", attack=None, eps=None, message="It is too low. Look there."):
    place = {"loss": label.lower(), "label": label, "seed": 0, "attack_label": attack, "eps": eps}
    return place | {"check": check, "value": 0.3, "threshold": 0.1, "message": message}


def test_a_mark_stands_where_a_check_doubts_the_number_and_says_what_and_where():
    flags = [
        flag("zero_gradient", attack="FGSM", eps=EPS),
        flag("zero_gradient", attack="FGSM", eps=0.3),
        flag("output_not_repeatable", label="Softmax"),
    ]
    table = build_result_table(results_of(flags=flags))
    softmax, gm = table.rows
    assert [table.mark(cell) for cell in gm.cells] == ["", "†2", "†2", "†2", "†2"]
    assert {table.mark(cell) for cell in softmax.cells} == {"†1"}  # clean numbers too
    lines = table.as_text().splitlines()
    assert lines[-2:] == [
        "†1 output not repeatable (Softmax): It is too low.",
        "†2 zero gradient (GM, FGSM, eps 8/255 and 1 more): It is too low.",
    ]


def test_a_weak_attack_marks_no_worst_case_and_the_strongest_does():
    worst = [summarised("GM", WORST, eps, "error", 0.6) for eps in (EPS, 0.3)]
    rows = worst_rows("GM") + worst_rows("GM", eps=0.3)
    flags = [flag("zero_gradient", attack="FGSM"), flag("loss_still_rising", attack="PGD", eps=0.3)]
    found = results_of(attacks=(FGSM, PGD), worst_case=rows, summary=worst, flags=flags)
    gm = build_result_table(found).rows[1]
    assert [cell.checks for cell in gm.cells[:3]] == [(), (), ("loss_still_rising",)]


def test_a_loss_with_fewer_seeds_says_so():
    found = results_of()
    for row in found["summary"]:
        if row["label"] == "GM":
            row["n_seeds"] = 1
    assert "GM (1 seed)" in build_result_table(found).as_text()


def test_the_caption_says_what_the_intervals_are_over():
    found = results_of()
    for row in found["summary"]:
        over = "Wilson" if row["metric"] == "error" else "clustered DeLong"
        row |= {"n_seeds": 1, "interval": f"{over} over images"}
    assert build_result_table(found).caption == (
        "Errors in percent, one training seed. [low, high] is a 95 % interval over test images "
        "(Wilson for shares, Obuchowski's clustered DeLong for AUROC)."
    )


def test_columns_that_do_not_fit_stand_below_with_the_labels_again():
    table = build_result_table(results_of())
    wide, narrow = table.as_text(200).splitlines(), table.as_text(60).splitlines()
    assert sum(line.startswith("GM") for line in wide) == 1
    assert sum(line.startswith("GM") for line in narrow) == 3
    # The caption aside: a terminal breaks a sentence where it likes.
    assert max(map(len, narrow[1:])) <= 60
    assert wide[0] == (
        "Errors in percent, means over 2 training seeds (two say little about the spread: use "
        "three or more). [low, high] is a 95 % interval over training seeds (t)."
    )


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_only_two_seeds_are_called_too_few(n_seeds):
    found = results_of()
    for row in found["summary"]:
        row["n_seeds"] = n_seeds
    assert "use three" not in build_result_table(found).as_text()


EVIL = "<b onclick=x>|`*$[a](b)`|</b>\x1b[2J\u202e\n=1+1 & ~" + "x" * 40


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


def test_a_hostile_label_is_text_everywhere():
    attack = FGSM | {"attack_label": EVIL}
    check = flag("zero_gradient", label=EVIL, message=EVIL)
    table = build_result_table(results_of(labels=(EVIL,), attacks=(attack,), flags=[check]))
    for text in (table.as_text(), table.as_markdown()):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert not [line for line in text.splitlines() if line.startswith("=1")]
    rows = [line for line in table.as_markdown().splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {7}
    assert "<b" not in table.as_markdown()
    parser = Tags()
    parser.feed(table.as_html())
    assert parser.tags == {"table", "thead", "tbody", "tr", "th", "td", "p"}
    assert "<b onclick=x>" in parser.text


def test_a_loaded_run_gives_its_tables_and_says_what_it_is(tmp_path):
    run = Run(tmp_path / "gone", results_of() | {"name": "toy\x1b"})
    assert run.table() == run.table("result") == build_result_table(run.results)
    assert run.table("rows") is run.rows
    with pytest.raises(ValueError, match=r"table \(='row'\) must be one of result, rows, "):
        run.table("row")
    text = repr(run)
    assert text.startswith("Run 'toy\\x1b': 2 losses × 2 seeds, ")
    assert "100 test images; FGSM" in text
    assert str(tmp_path) not in text  # a folder that is gone is not shown
    assert len(text.splitlines()) == 2
    html = run._repr_html_()
    assert html.startswith("<table>")
    assert "run.table()" in html
    assert str(tmp_path) in repr(Run(tmp_path, run.results))
    (tmp_path / "report").mkdir()
    (tmp_path / "report/index.html").touch()
    assert repr(Run(tmp_path, run.results)).endswith(f"{Path('report/index.html')}")
