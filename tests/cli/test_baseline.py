"""`baseline` and `check --baseline`: what a script sees of them."""

import json
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import robustloss
from robustloss.results.run import load_run
from robustloss.storage import digest_content, read_json, write_json
from tests.reports.synthetic import write_run
from tests.reports.world import MOCKS, Layout, Mock, MockAttack

ATTACKS = (MockAttack(eps=(0.1, 0.2)), MockAttack("deepfool", "DeepFool", eps=(0.1,)))
WORSE = Mock("center", "center", 0.20, 0.5, 0.05)  # wider classes, pushed further


def layout(*mocks, **more):
    return Layout(mocks=mocks, n=200, dim=8, attacks=ATTACKS, **more)


@pytest.fixture(scope="module")
def runs(make_once):
    """A run, and one in which one loss of two got worse."""
    return (
        make_once("was", lambda path: write_run(path, layout(MOCKS[0], MOCKS[1], seeds=(0, 1, 2)))),
        make_once("now", lambda path: write_run(path, layout(MOCKS[0], WORSE, seeds=(0, 1, 2)))),
    )


@pytest.fixture(scope="module")
def kept(runs, tmp_path_factory):
    from robustloss.analysis.baseline.reduce import reduce_run
    from robustloss.results.compact.file import save_baseline

    file = tmp_path_factory.mktemp("kept") / "was.npz"
    save_baseline(file, reduce_run(load_run(runs[0])))
    return file


def test_baseline_writes_the_file_and_says_what_is_in_it(
    command, runs, kept, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    status, out, err = command("baseline", runs[0], "--out", tmp_path / "new" / "b.npz")
    assert (status, err) == (0, "")
    assert out.startswith(f"Baseline: {tmp_path}/new/b.npz (0.0")
    assert "200 images; losses (seeds): center (3), softmax (3); attacks: FGSM at 0.1, 0.2; " in out
    assert (tmp_path / "new" / "b.npz").read_bytes() == kept.read_bytes()
    for _ in range(2):  # the second time over the first
        assert command("baseline", runs[0])[0] == 0
    assert (tmp_path / "was-baseline.npz").read_bytes() == kept.read_bytes()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("baseline", "gone"), "run (=gone) must be a folder that `robustloss run` wrote."),
        (("baseline", "{was}", "--out", "{folder}"), "is a folder. Name a file in it."),
        (("baseline", "{was}", "--out", "{text}"), "exists and is no baseline. Name another file"),
        (("baseline", "{was}", "--out", "{was}/results.json"), "exists and is no baseline."),
        (("check", "{was}", "--baseline", "gone.npz"), "gone.npz cannot be read (No such file"),
        (("check", "{was}", "--baseline", "{empty}"), "has no results.json (no run folder)"),
        (("check", "{was}", "--baseline", "{folder}"), "text.npz is no baseline: it is a text"),
        (("check", "{was}", "--baseline", "{text}"), "is no baseline: it is a text file."),
        (("check", "{was}", "--baseline", "{toml}"), "a TOML file. Gates are named by --gates"),
        (("check", "{was}", "--baseline", "{was}/results.json"), "it is a file of the run {was}."),
        (
            ("check", "{was}", "--baseline", "{was}", "--tolerance", "error=1%"),
            "error (='1%') must",
        ),
        (("check", "{was}", "--baseline", "{was}", "--tolerance", "error"), "Write for example"),
        (("check", "{was}", "--baseline", "{was}", "--tolerance", "eror=0.1"), "must name one of"),
        (("check", "{was}", "--tolerance", "error=0.1"), "has no gates"),
        (("compare", "{was}", "{text}"), "text.npz) is a file. The losses in a file of"),
        (("compare", "{was}", "{toml}"), "must be a folder that `robustloss run` wrote."),
        (("check", "{was}"), "Name a file of gates or a baseline"),
    ],
)
def test_a_mistake_is_told_in_a_line(command, runs, tmp_path, words, why):
    (tmp_path / "text.npz").write_text("label,error\n")
    (tmp_path / "gates.toml").write_text("[[gates]]\n")
    places = {"was": runs[0], "folder": tmp_path, "text": tmp_path / "text.npz"}
    places |= {"toml": tmp_path / "gates.toml", "empty": tmp_path / "empty"}
    places["empty"].mkdir()
    status, out, err = command(*(word.format(**places) for word in words))
    assert (status, out) == (2, "")
    assert why.format(**places) in err
    assert err.count("\n") == 1


def test_a_run_passes_against_itself_and_says_so(command, runs, kept):
    for other in (runs[0], kept):
        status, out, err = command("check", runs[0], "--baseline", other)
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert lines[0] == "Comparisons of was: 10 of 10 passed."
        assert lines[3].split()[:2] == ["error", "softmax"]  # in the order of the spec
        assert "every image as it was" in lines[3]


@pytest.fixture(scope="module")
def checked(runs, kept):
    return robustloss.check(runs[1], baseline=kept)


def test_a_loss_that_got_worse_fails_and_no_other(command, runs, kept, checked, tmp_path):
    junit, plain = tmp_path / "b.xml", tmp_path / "b.json"
    status, out, _ = command(
        "check", runs[1], "--baseline", kept, "--junit", junit, "--json", plain
    )
    assert status == 1
    assert out.endswith(f"{checked}\n")  # as pytest runs, the call has shown it too
    assert "Failed: error (center)" in out
    assert "error, center: shown worse: " in out
    assert "softmax, center: 3 seeds on both sides, paired." in out
    cases = ElementTree.parse(junit).getroot().findall(".//testcase")
    failed = {case.get("name") for case in cases if case.find("failure") is not None}
    assert failed
    assert all(name.endswith("[center]") for name in failed)
    read = json.loads(plain.read_text())
    assert (read["what"], read["passed"], len(read["verdicts"])) == ("comparisons", False, 10)
    assert [note.split(":")[0] for note in read["notes"]] == [
        "Compared with was",
        "softmax, center",
        "center has other settings than in the baseline",
        "In doubt",  # softmax, a part of whose gradients is exactly 0
    ]
    (place, *_) = read["verdicts"][0]["places"]
    names = ("metric", "attack_label", "eps", "value", "baseline", "worse_by", "tolerance", "test")
    assert {*names, "p_value", "p_adjusted", "worse", "detectable", "design"} <= place.keys()


def test_verdicts_are_those_of_the_numbers(runs, checked):
    errors = [load_run(folder).rows for folder in runs]
    (verdict,) = (v for v in checked if (v.name, v.label) == ("error", "center"))
    for place in verdict.facts["places"]:
        for side, rows in zip(("baseline", "value"), errors, strict=True):
            own = [
                row["error"] for row in rows
                if (row["label"], row["attack_label"], row["eps"])
                == ("center", place["attack_label"], place["eps"])
            ]  # fmt: skip
            assert place[side] == pytest.approx(np.mean(own))
    assert verdict.facts["tests"] == 2 * (4 + 3 + 3 + 2 + 1)  # DeepFool has radii at 0.2 too


def test_a_tolerance_lets_it_pass(command, runs, kept):
    words = [
        f"{name}=0.99" for name in ("error", "worst_case_error", "auroc", "undetected_success")
    ]
    words += ["median_radius=10"]
    options = [part for word in words for part in ("--tolerance", word)]
    status, out, _ = command("check", runs[1], "--baseline", kept, *options)
    assert status == 0, out


def test_a_file_of_gates_names_the_baseline_seen_from_there(command, runs, kept, tmp_path):
    shutil.copy(kept, tmp_path / "kept.npz")
    gates = tmp_path / "gates.toml"
    gates.write_text(
        '[baseline]\nfile = "kept.npz"\nmetrics = ["error"]\ntolerance = { error = 0.98 }\n'
    )
    status, out, _ = command("check", runs[1], "--gates", gates)
    assert (status, out.splitlines()[0]) == (0, "Comparisons of now: 2 of 2 passed.")
    gates.write_text(gates.read_text() + '[[gates]]\nmetric = "clean_error"\nmax = 0.0\n')
    status, out, _ = command("check", runs[1], "--gates", gates)
    assert status == 1
    assert out.startswith("Gates and comparisons of now: 3 of 4 passed. Failed: clean_error")
    status, out, _ = command("check", runs[0], "--gates", gates, "--baseline", runs[0])
    assert "every image as it was" in out


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("[baseline]\n", "baseline.file"),
        ('[baseline]\nfile = "gone.npz"\n', "gone.npz cannot be read"),
        ('[baseline]\nfile = "kept.npz"\nmetric = ["error"]\n', "did you mean 'metrics'"),
        ('[baseline]\nfile = "kept.npz"\nmetrics = ["ece"]\n', "metrics (='ece') must be of error"),
        ('[baseline]\nfile = "kept.npz"\ntolerance = { error = 2 }\n', "tolerance.error (=2) must"),
    ],
)
def test_a_wrong_table_is_told(command, runs, kept, tmp_path, table, why):
    shutil.copy(kept, tmp_path / "kept.npz")
    (tmp_path / "gates.toml").write_text(table)
    status, out, err = command("check", runs[0], "--gates", tmp_path / "gates.toml")
    assert (status, out) == (2, "")
    assert why in err


def test_a_loss_whose_cell_is_gone_fails_the_check_and_is_no_silent_gap(
    command, runs, kept, tmp_path
):
    copy = shutil.copytree(runs[0], tmp_path / "run")
    shutil.rmtree(copy / "cells" / "center")
    (verdict,) = robustloss.check(copy, baseline=kept).of_status("fail")
    assert (verdict.name, verdict.label) == ("cells", "center")
    assert "seed 0: its cell is missing or damaged. Run the spec again" in verdict.text
    status, _, err = command("baseline", copy, "--out", tmp_path / "b.npz")
    assert status == 0
    assert "left out: center, seed 0: its cell.json is missing." in err


def test_a_loss_that_failed_fails_the_check(runs, kept, tmp_path):
    copy = shutil.copytree(runs[0], tmp_path / "run")
    results = read_json(copy / "results.json")
    for table in ("rows", "worst_case", "radii"):
        results[table] = [row for row in results[table] if row["label"] != "center"]
    results["failures"] = [
        {"loss": "center", "label": "center", "seed": 0, "stage": "train", "reason": "NaN"}
    ]
    del results["digest"]
    results["digest"] = digest_content(results)
    write_json(copy / "results.json", results, sort_keys=False)
    found = robustloss.check(copy, baseline=kept)
    (verdict,) = found.of_status("fail")
    assert (verdict.name, verdict.label) == ("cells", "center")
    assert verdict.text == "center seed 0 failed (train): NaN."
