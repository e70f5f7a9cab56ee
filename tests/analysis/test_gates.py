"""Gates: which number each judges, what passes, what fails closed, and what is a mistake."""

import json
from pathlib import Path

import pytest

import robustloss
from robustloss.analysis.gates.judge import describe_gates
from robustloss.analysis.gates.metrics import PLAIN, find_metric
from robustloss.analysis.tables.summary import summarise
from robustloss.results.run import Run
from robustloss.results.schema import TABLES
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from tests.small_run import changed

LOSSES = [{"name": "softmax"}, {"name": "lgm"}, {"name": "lgm", "label": "L-GM (alpha 1)"}]
ATTACKS = [
    {"name": "fgsm", "eps": [0, "1/10", 0.2]},
    {"name": "pgd", "label": "PGD margin", "eps": ["8/255", 0.1]},
    {"name": "adaptive_joint", "eps": [0.1]},
]
ERRORS = {"Softmax": (0.03, 0.05), "L-GM": (0.04, 0.04), "L-GM (alpha 1)": (0.25, 0.35)}


def rows_of(table, label, seed, **values):
    place = {
        "loss": label.lower() if label == "Softmax" else "lgm",
        "label": label,
        "seed": seed,
        "n": 100,
        "norm": "linf",
    }
    return dict.fromkeys(TABLES[table].names) | place | values


def make_run(seeds=(0, 1), losses=LOSSES, attacks=ATTACKS, **tables):
    """A run of three losses, two seeds; the error of a loss and seed is that of ERRORS + eps."""
    spec = load_spec(changed(losses=losses, attacks=attacks, seeds=list(seeds))).plain()
    made = {"rows": [], "worst_case": [], "detection": [], "calibration": [], "adaptive": []}
    for label in (loss["label"] for loss in spec["losses"]):
        for seed, clean in zip(seeds, ERRORS[label], strict=False):
            passes = [("none", "none", 0.0)]
            passes += [(a["name"], a["label"], eps) for a in spec["attacks"] for eps in a["eps"]]
            for attack, attack_label, eps in passes:
                at = {"attack": attack, "attack_label": attack_label, "eps": eps}
                error = clean + eps
                ends = {"error_low": error - 0.02, "error_high": error + 0.02}
                row = rows_of("rows", label, seed, **at, error=error, **ends)
                row |= {"mean_max_posterior": 0.9, "norm": None if attack == "none" else "linf"}
                made["rows"].append(row)
                made["calibration"].append(
                    rows_of("calibration", label, seed, **at, accuracy=1 - error, brier=1.5)
                )
                if attack != "none":
                    for score in ("class_log_likelihood", "energy"):
                        for population in ("all", "successful"):
                            auroc = 0.6 + (score == "energy") / 10 + (population == "all") / 5
                            found = {"score": score, "population": population, "auroc": auroc}
                            made["detection"].append(
                                rows_of("detection", label, seed, **at, **found)
                            )
            for eps in (8 / 255, 0.1, 0.2):
                ends = {"error_low": clean, "error_high": 1.0, "strongest": "FGSM"}
                ends["attacks"] = ["FGSM", "PGD margin"]
                made["worst_case"].append(
                    rows_of("worst_case", label, seed, eps=eps, error=clean + 2 * eps, **ends)
                )
            best = {"kind": "best_of_adaptive", "attack": "best_of_adaptive", "adapted": True}
            best |= {"attack_label": "best of adaptive", "score": "class_log_likelihood"}
            made["adaptive"].append(
                rows_of("adaptive", label, seed, **best, eps=0.1, auroc_all=0.3)
            )
    made |= tables
    provenance = {"spec": spec, "seeds": list(seeds)}
    results = {"name": "made", "provenance": provenance, "failures": [], "flags": [], **made}
    results["summary"] = summarise(results)
    return Run(Path("nowhere"), results)


@pytest.fixture(scope="module")
def run():
    return make_run()


def judged(run, **gate):
    """The numbers that one gate judges, by loss."""
    bound = {} if {"min", "max"} & gate.keys() else {"max": 1}
    return {v.label: v.facts["judged"] for v in robustloss.check(run, [{**bound, **gate}])}


def status(run, **gate):
    return {v.label: v.status for v in robustloss.check(run, [gate])}


@pytest.mark.parametrize(
    ("gate", "softmax"),
    [
        ({"metric": "clean_error"}, 0.04),
        ({"metric": "error", "attack": "none"}, 0.04),
        ({"metric": "error", "attack": "FGSM", "eps": 0.2}, 0.24),
        ({"metric": "error", "attack": "fgsm", "eps": "2/10"}, 0.24),
        ({"metric": "error", "attack": "PGD-Margin", "eps": "8/255"}, 0.04 + 8 / 255),
        ({"metric": "error", "attack": "pgd", "eps": 0.1}, 0.14),
        ({"metric": "error", "attack": "fgsm", "eps": 0}, 0.04),
        ({"metric": "rows.error", "attack": "Adaptive, joint"}, 0.14),
        ({"metric": "worst_case_error", "eps": 0.1}, 0.24),
        ({"metric": "error", "attack": "worst case", "eps": 0.1}, 0.24),
        ({"metric": "error", "attack": "Worst case, L∞", "eps": "1/10"}, 0.24),
        ({"metric": "auroc", "attack": "fgsm", "eps": 0.1}, 0.8),
        ({"metric": "auroc", "attack": "fgsm", "eps": 0.1, "population": "successful"}, 0.6),
        ({"metric": "auroc", "attack": "fgsm", "eps": 0.1, "score": "Energy"}, 0.9),
        ({"metric": "auroc", "attack": "best of adaptive"}, 0.3),
        ({"metric": "accuracy", "attack": "fgsm", "eps": 0.1}, 0.86),
        ({"metric": "calibration.brier", "attack": "clean", "max": 2}, 1.5),
    ],
)
def test_a_gate_judges_the_number_that_it_names(run, gate, softmax):
    found = judged(run, **gate)
    assert [*found] == ["Softmax", "L-GM", "L-GM (alpha 1)"]
    assert found["Softmax"] == pytest.approx(softmax)


@pytest.mark.parametrize(
    ("label", "labels"),
    [
        ("l-gm", ["L-GM"]),
        ("L-GM (alpha 1)", ["L-GM (alpha 1)"]),
        ("LGM", ["L-GM", "L-GM (alpha 1)"]),  # the name of both
        ("SOFTMAX", ["Softmax"]),
        ("all", [*ERRORS]),
        (None, [*ERRORS]),
    ],
)
def test_a_label_is_a_label_or_a_name_in_any_case(run, label, labels):
    for key in ("label", "loss"):
        assert [*judged(run, metric="clean_error", **{key: label})] == labels


def test_the_number_is_that_of_the_table_summary(run):
    """Mean and both ends, for every metric that is summarised and has a row here."""
    compared = 0
    for row in run.summary:
        if row["mean"] is None or row["attack"] == "best_of_adaptive":
            continue
        gate = {"metric": row["metric"], "label": row["label"], "max": 1}
        gate |= {"attack": row["attack_label"], "eps": row["eps"]}
        for end, key in ((None, "mean"), ("lower", "low"), ("upper", "high")):
            assert judged(run, **gate, interval=end) == {row["label"]: row[key]}
            compared += 1
    assert compared > 100


def test_bounds_are_inclusive_and_rounding_does_not_break_them(run):
    assert status(run, metric="clean_error", label="L-GM", max=0.04) == {"L-GM": "pass"}
    assert status(run, metric="clean_error", label="L-GM", min=0.04) == {"L-GM": "pass"}
    assert status(run, metric="clean_error", label="L-GM", max=0.0399) == {"L-GM": "fail"}
    assert status(run, metric="clean_error", label="softmax", max=0.04) == {"Softmax": "pass"}
    (found,) = robustloss.check(run, [{"metric": "clean_error", "loss": "l-gm", "max": 0.039999}])
    assert found.text == "Not rounded, it is 0.04, more than 0.039999."


def test_an_end_of_the_interval_is_judged(run):
    gate = {"metric": "clean_error", "label": "L-GM (alpha 1)", "max": 0.5}
    assert status(run, **gate) == {"L-GM (alpha 1)": "pass"}
    assert status(run, **gate, interval="upper") == {"L-GM (alpha 1)": "fail"}  # 0.935 by t
    (found,) = robustloss.check(run, [{**gate, "interval": "upper"}])
    assert (found.measured, found.bound) == ("30.0 [0.0, 93.5] %", "upper end at most 50 %")


def test_a_warning_fails_nothing_and_a_failure_fails_all(run):
    warn = {"metric": "clean_error", "label": "softmax", "max": 0.01, "severity": "warn"}
    found = robustloss.check(run, [warn])
    assert found
    assert [v.status for v in found] == ["warn"]
    both = robustloss.check(run, [warn, {**warn, "severity": "fail"}])
    assert not both
    assert [v.name for v in both] == ["clean_error", "clean_error (2)"]
    assert both.describe() == (
        "0 of 2 passed. Failed: clean_error (2) (Softmax). Warned: clean_error (Softmax)."
    )


def test_what_has_no_number_fails(run):
    lost = {"label": "Softmax", "seed": 1, "stage": "train", "reason": "the loss is NaN."}
    found = make_run(failures=[lost], rows=[r for r in run.rows if r["seed"] == 0])
    (verdict,) = robustloss.check(
        found, [{"metric": "clean_error", "label": "softmax", "max": 1, "interval": "upper"}]
    )
    assert (verdict.status, verdict.measured) == ("fail", "n/a")
    assert verdict.text == "No value for seed 1: train failed: the loss is NaN."
    for metric in ("mean_max_posterior", "undetected_success", "ece", "median_radius"):
        eps = {} if metric == "median_radius" else {"eps": 0.1}
        for bound in ({"min": 0}, {"max": 1}):
            gate = {"metric": metric, "attack": "fgsm", **eps, **bound}
            assert {*status(make_run(rows=[]), **gate).values()} == {"fail"}, metric


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (
            {"metric": "eror"},
            r'metric \(="eror"\) must be one of error, .*; did you mean \'error\'?',
        ),
        ({"metric": "name"}, "metric .* must be one of"),
        ({"metric": "error"}, 'attack: missing. It must be one of "FGSM", "PGD margin", "Adaptive'),
        ({"metric": "error", "attack": "pdg"}, 'attack .="pdg". must be one of .*"worst case"'),
        ({"metric": "error", "attack": "FGSM"}, "eps: missing. FGSM has 0.1, 0.2. Write one."),
        (
            {"metric": "error", "attack": "pgd", "eps": 8},
            r'eps \(=8\) .* 8/255, 0.1. Write "8/255".',
        ),
        ({"metric": "error", "attack": "pgd", "eps": 0}, 'For the clean images .*"clean_error"'),
        (
            {"metric": "worst_case_error", "eps": 0},
            "is not an eps of worst case, L∞, which has 8/255, 0.1",
        ),
        ({"metric": "clean_error", "eps": 0.1}, "eps .=0.1. has no meaning here"),
        ({"metric": "clean_error", "attack": "fgsm"}, "attack .* has no meaning here.*Take it out"),
        (
            {"metric": "worst_case_error", "attack": "pgd"},
            'over all attacks. Write metric = "error"',
        ),
        (
            {"metric": "clean_error", "label": "lgn"},
            'label .="lgn". must be one of "Softmax", "L-GM"',
        ),
        (
            {"metric": "auroc", "attack": "worst case", "eps": 0.1},
            'errors and undetected successes, .*"best of adaptive"',
        ),
        (
            {"metric": "auroc", "attack": "fgsm", "eps": 0.1, "score": "enrgy"},
            "did you mean .energy",
        ),
        ({"metric": "clean_error", "score": "energy"}, "score .* about no score"),
        ({"metric": "error", "attack": "pgd", "eps": 0.1, "population": "all"}, "one population"),
        ({"metric": "median_radius", "attack": "fgsm", "eps": 0.1}, "of the whole error curve"),
        ({"metric": "fisher_ratio", "attack": "fgsm"}, "attack .* about no attack"),
        (
            {"metric": "clean_error", "max": 5},
            r"max \(=5.0\) must lie in \[0, 1\].* Write 0.05 for 5 %",
        ),
        ({"metric": "auroc", "attack": "fgsm", "eps": 0.1, "min": -0.1}, r"must lie in \[0, 1\]"),
        ({"metric": "clean_error", "where": {"splt": 1}}, "where .* has no meaning here"),
    ],
)
def test_a_gate_that_names_nothing_is_a_mistake(run, gate, said):
    bound = {} if {"min", "max"} & gate.keys() else {"max": 1}
    with pytest.raises(SpecError, match=said) as error:
        robustloss.check(run, [{"metric": "clean_error", "max": 1}, {**bound, **gate}])
    assert str(error.value).startswith("gates[1].")
    assert "\n" not in str(error.value)


def test_a_run_of_two_norms_has_a_worst_case_for_each():
    attacks = [*ATTACKS, {"name": "cw", "eps": [0.1, 0.5]}]
    found = make_run(attacks=attacks, rows=[])  # as the spec alone says it
    gate = {"metric": "worst_case_error", "max": 1}
    with pytest.raises(SpecError, match='must be one of "worst case, L∞", "worst case, L2"'):
        robustloss.check(found, [gate | {"eps": 0.1}])
    for more, norm in (
        ({"eps": 0.5}, "l2"),  # which only one of them has
        ({"eps": 0.1, "attack": "worst case, L2"}, "l2"),
        ({"eps": 0.1, "attack": "Worst case, l∞"}, "linf"),
    ):
        assert robustloss.check(found, [gate | more]).verdicts[0].facts["norm"] == norm
    with pytest.raises(SpecError, match=r"eps .=0.5. is not an eps of worst case, L∞, which has"):
        robustloss.check(found, [gate | {"eps": 0.5, "attack": "worst case, L∞"}])


def test_where_says_which_row_is_meant_if_a_table_has_several():
    place = {"loss": "lgm", "label": "L-GM"}
    rows = [
        {**place, "seed": seed, "split": split, "fisher_ratio": ratio + seed}
        for split, ratio in (("test", 2.0), ("train", 4.0))
        for seed in (0, 1)
    ]
    found = make_run(geometry=rows)
    gate = {"metric": "geometry.fisher_ratio", "label": "L-GM", "max": 9}
    assert judged(found, **gate, where={"split": "train"}) == {"L-GM": 4.5}
    for where, said in (
        (
            {},
            r'where: missing. .* Write for example where = { split = "test" }. There, split',
        ),
        ({"split": "tst"}, r'where .=. split = "tst" .. must fit one row of geometry .* "train"'),
        ({"splt": "test"}, r"names splt: it must be one of split; did you mean 'split'"),
    ):
        with pytest.raises(SpecError, match=said):
            judged(found, **gate, where=where)


def test_an_interval_over_one_seed_is_that_over_images_or_a_mistake():
    one = make_run(seeds=(0,))
    gate = {"metric": "clean_error", "label": "softmax", "interval": "upper"}
    assert judged(one, **gate) == {"Softmax": pytest.approx(0.05)}
    with pytest.raises(SpecError, match=r"interval .* needs two seeds or more: mean_max_posterior"):
        judged(one, **gate | {"metric": "mean_max_posterior", "attack": "pgd", "eps": 0.1})


def test_no_gates_at_all_is_a_mistake(run, tmp_path):
    with pytest.raises(SpecError, match=r"run \(=made\) has no gates. Name a file of gates"):
        robustloss.check(run)
    for empty in ([], {}, {"gates": []}):
        with pytest.raises(SpecError, match=r"gates: no gates\. Write for example"):
            robustloss.check(run, empty)


def test_the_plain_names_mean_columns_that_exist():
    for name in PLAIN:
        assert find_metric(name).meaning
    assert find_metric("error").table == "rows"
    assert find_metric("per_class.error").table == "per_class"


def test_a_bound_on_a_share_is_checked_wherever_the_number_is_one():
    """What the schema calls a share, an AUROC or a calibration error lies in [0, 1]."""
    shares = [c for table in TABLES.values() for c in table.columns if c.scale]
    told = ("Share of", "AUROC of", "Area under the ROC", "Expected calibration error")
    for table in TABLES.values():
        for column in table.columns:
            if column.kind == "number" and column.meaning.startswith(told):
                assert column in shares, column
    assert not {c.name for c in shares} & {"nll", "brier", "median_radius", "eps", "difference"}


def test_marks_are_told(run):
    flag = {"check": "zero_gradient", "label": "Softmax", "attack_label": "FGSM", "eps": 0.1}
    found = make_run(flags=[{**flag, "seed": 0}])
    gate = {"metric": "error", "attack": "fgsm", "eps": 0.1, "max": 0.9}
    texts = {v.label: (v.status, v.text) for v in robustloss.check(found, [gate])}
    assert texts["Softmax"] == ("pass", "In doubt: zero gradient. See the checks in the report.")
    assert texts["L-GM"] == ("pass", "")


def test_the_verdicts_as_json(run):
    found = robustloss.check(run, [{"metric": "clean_error", "max": 0.2}]).as_json()
    json.dumps(found, allow_nan=False)
    assert (found["schema_version"], found["run"], found["passed"]) == (1, "made", False)
    assert found["counts"] == {"pass": 2, "warn": 0, "fail": 1}
    assert [*found["verdicts"][0]] == [
        *("name", "label", "status", "measured", "bound", "text", "metric", "column", "attack"),
        *("norm", "eps", "score", "population", "where", "mean", "low", "high", "interval"),
        *("n_seeds", "judged", "max", "min", "end", "severity", "checks"),
    ]


def test_the_guide_names_every_key_of_the_json(run):
    page = (Path(robustloss.__file__).parent / "guide" / "gates.md").read_text("utf-8")
    found = robustloss.check(run, [{"metric": "clean_error", "max": 0.2}]).as_json()
    section = page.split("## Bounds")[1].split("## What a gate can name")[0]
    assert not {key for key in (*found, *found["verdicts"][0]) if f"`{key}`" not in section}


def test_the_line_of_a_run_without_gates_is_empty_and_a_stale_gate_is_told(run):
    assert describe_gates(run) == ("", True)
    spec = run.provenance["spec"] | {
        "gates": [{"metric": "clean_error", "max": 0.1, "label": "gone"}]
    }
    stale = Run(run.path, {**run.results, "provenance": {**run.provenance, "spec": spec}})
    line, kept = describe_gates(stale)
    assert not kept
    assert line.startswith(
        'They cannot be judged: gates[0].label (="gone") must be one of "Softmax"'
    )
