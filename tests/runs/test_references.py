"""Losses of a reference file beside those of a run: the same numbers, tests and refusals."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from robustloss.analysis.baseline.reduce import reduce_run
from robustloss.metrics.rates import auroc
from robustloss.reports import build_report
from robustloss.reports.chapters.result.verdict import verdict
from robustloss.reports.page.run_facts import describe_run, list_facts, measure_run
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.compact.content import TABLES_KEPT
from robustloss.results.compact.file import load_baseline, save_baseline
from robustloss.results.run import Run, load_run
from robustloss.runs.beside import plan_try
from robustloss.runs.comparable import NotComparableError
from robustloss.runs.errors import RunError
from robustloss.runs.judging.against import compare_with_baseline, open_baseline
from robustloss.runs.merge import merge_runs
from robustloss.runs.proof.rebuild import check_run_tables
from robustloss.runs.references import add
from robustloss.runs.references.add import add_to_reference
from robustloss.runs.references.find import NoReferenceError, list_references, open_reference
from robustloss.runs.references.match import check_conditions
from robustloss.runs.references.start import starting_spec
from robustloss.spec.text import to_toml
from robustloss.storage import digest_content, read_json, write_json
from tests.reports.synthetic import write_run
from tests.reports.world import MOCKS, Layout, MockAttack

MARK = " (reference, 0.1.0)"
LAYOUT = Layout(
    mocks=MOCKS[:2],
    seeds=(0, 1),
    attacks=(
        MockAttack(eps=(0.0, 0.1)),
        MockAttack("deepfool", "DeepFool", eps=(0.1, 0.2), strength=1.3),
        MockAttack("adaptive_joint", "Adaptive", eps=(0.1,), strength=1.5),
    ),
    n=200,
    dim=8,
)


@pytest.fixture(scope="module")
def folder(make_once):
    """Two runs of other losses and all four in one, and the file of the first."""

    def write(root):
        for name, layout in {
            "others": LAYOUT,
            "mine": replace(LAYOUT, mocks=MOCKS[2:3]),
        }.items():
            write_run(root / name, layout)
            for cell in load_run(root / name).cells:
                cell.model_file.touch()
        save_baseline(root / "others.npz", reduce_run(load_run(root / "others")))
        merge_runs([root / "others", root / "mine"], root / "runs")
        merge_runs([root / "mine"], root / "beside", beside=open_reference(root / "others.npz"))

    return make_once("references", write)


def alter(run, key, change):
    """Change the provenance of a run on disk, or a part of it, and seal it again."""
    results = read_json(run / "results.json")
    change(results["provenance"] if key is None else results["provenance"][key])
    results.pop("digest", None)
    results["digest"] = digest_content(results)
    write_json(run / "results.json", results, sort_keys=False)


def unmark(value):
    return value.replace(MARK, "") if isinstance(value, str) else value


def by_place(rows, *names):
    return {tuple(unmark(row[name]) for name in names): row for row in rows}


def test_the_rows_of_a_reference_are_those_of_its_run(folder):
    run, beside = load_run(folder / "others"), load_run(folder / "beside")
    assert beside.table().rows[1].label == f"softmax{MARK}"
    for name in TABLES_KEPT:
        wanted = [r for r in run.table(name) if name != "detection" or is_likelihood(r)]
        found = [
            {key: unmark(value) for key, value in row.items()}
            for row in beside.table(name)
            if str(row["label"]).endswith(MARK)
        ]
        for row in wanted:
            row.pop("seconds", None)
            for line in row.get("curve", ()):
                line.pop("seconds", None)
        assert found == wanted, name
    assert len(beside.rows) == len(load_run(folder / "runs").rows)


def is_likelihood(row):
    return row["score"] == "class_log_likelihood"


def test_tests_beside_a_reference_are_those_beside_its_run(folder):
    """Errors to the last bit; what rests on scores or radii to two digits."""
    names = ("unit", "seed", "label_a", "label_b", "attack_label", "norm", "eps", "metric")
    wanted, found = (
        by_place(load_run(folder / name).comparisons, *names) for name in ("runs", "beside")
    )
    # a reference keeps no posteriors, and its losses are not compared with one another
    assert found.keys() == {
        place
        for place in wanted
        if place[-1] not in ("ece_equal_width", "brier") and "GM" in place[2:4]
    }
    exact = ("error", "undetected_success_at_5fpr", "eps_at_50_error")
    for place, row in found.items():
        for column in ("value_a", "value_b", "difference", "low", "high", "p_value"):
            slack = 1e-9 if place[-1] in exact else 5e-3
            assert row[column] == pytest.approx(wanted[place][column], abs=slack), (place, column)
    assert {place[0] for place in found} == {"images", "seeds"}
    names = ("unit", "seed", "label", "attack_label", "norm", "eps", "metric")
    wanted, found = (by_place(load_run(folder / name).ranks, *names) for name in ("runs", "beside"))
    assert {place[2] for place in found} == {"GM"}
    for place, row in found.items():
        for column in ("rank", "n_losses"):
            assert row[column] == wanted[place][column], place


def test_a_run_beside_a_reference_is_whole_and_can_be_proved(folder):
    run = load_run(folder / "beside")
    assert (run.digest_state, run.doubts, run.readable_cells[1]) == ("fits", (), [])
    assert [(c.label, c.seed) for c in run.cells] == [("GM", 0), ("GM", 1)]
    (finding,) = [f for f in check_run_tables(run) if f.what == "results.json, numbers"]
    assert finding.state == "pass", finding
    assert any("come from the reference others" in note for note in run.provenance["notes"])
    assert run.provenance["spec"]["report"]["highlight"] == ["GM"]


def test_what_an_earlier_version_merged_beside_a_reference_is_told_to_be_merged_again(
    folder, tmp_path
):
    shutil.copytree(folder / "beside", tmp_path / "beside")
    results = read_json(tmp_path / "beside/results.json")
    pair = dict(
        zip(("label_a", "label_b"), results["provenance"]["reference"]["labels"], strict=True)
    )
    results["comparisons"].append(results["comparisons"][-1] | pair)
    (finding,) = [
        f for f in check_run_tables(Run(tmp_path / "beside", results)) if f.state == "fail"
    ]
    assert "comparisons has" in finding.detail
    assert "Merge again: robustloss compare RUN --beside REFERENCE" in finding.detail


def test_a_merge_keeps_the_rows_of_a_reference_or_says_why_not(folder, tmp_path):
    merged = merge_runs([folder / "beside", folder / "mine"], tmp_path / "kept")  # the same cells
    assert not any("left out" in note for note in merged.notes)
    before, after = (load_run(path).results for path in (folder / "beside", merged.path))
    assert after["comparisons"] == before["comparisons"]
    assert after["rows"] == before["rows"]
    shutil.copytree(folder / "mine", tmp_path / "longer")
    alter(tmp_path / "longer", "spec", lambda spec: spec["train"].update(epochs=77))
    merged = merge_runs([folder / "beside", tmp_path / "longer"], tmp_path / "dropped")
    assert merged.notes[0].startswith("The rows of the reference others in ")
    assert "are left out: " in merged.notes[0]
    assert "train.epochs is 77 in the first and " in merged.notes[0]
    assert [row.label[:3] for row in load_run(merged.path).table().rows] == ["GM ", "GM "]


def test_pictures_show_the_losses_that_have_images(folder, tmp_path):
    assert Numbers(load_run(folder / "beside")).pictured == ["GM"]
    copied = tmp_path / "beside"
    shutil.copytree(folder / "beside", copied)
    page = build_report(copied).read_text()  # without figures
    assert f"softmax{MARK}" in page
    assert "no finished seed" not in page
    # what opens the page says once that losses come from a reference; their rows have the mark
    numbers = Numbers(load_run(copied))
    lead, size = describe_run(numbers), measure_run(numbers)
    assert lead.startswith(
        "One network trained with GM, under attack, beside the 2 losses of the reference others "
        "(0.1.0)."
    )
    assert size.startswith("1 loss × 2 seeds · reference of 2 losses × 2 seeds · ")
    sentences = " ".join(verdict(numbers))
    assert "Against GM, " in sentences
    assert MARK not in sentences
    rows = [row for row in load_run(copied).rows if (row["label"], row["seed"]) != ("GM", 1)]
    fewer = Run(copied, load_run(copied).results | {"rows": rows})
    assert measure_run(Numbers(fewer)).startswith("1 loss × 1 seed · reference of 2 losses × 2 s")
    rows = [row for row in rows if (row["label"], row["seed"]) != (f"softmax{MARK}", 0)]
    fewer = Run(copied, load_run(copied).results | {"rows": rows})
    assert "· reference of 2 losses × 1 to 2 seeds ·" in measure_run(Numbers(fewer))


def test_a_loss_of_the_run_with_the_name_of_one_of_the_reference_keeps_both_apart(folder):
    results = read_json(folder / "beside/results.json")
    numbers = Numbers(Run(folder / "beside", results))
    text = f"more for softmax{MARK}, Weighted softmax{MARK} and center{MARK}"
    assert numbers.speak(text) == "more for softmax, Weighted softmax and center"
    numbers.labels.append("softmax")
    assert numbers.speak(text) == f"more for softmax{MARK}, Weighted softmax{MARK} and center"


@pytest.mark.parametrize(
    ("key", "change", "told"),
    [
        ("data", lambda data: data.update(checksum="0" * 16), r"data\.checksum is '0+' in the fir"),
        (
            "spec",
            lambda spec: spec["model"].update(feature_dim=3),
            r"model\.feature_dim is 3 in the first and \d+ in the second",
        ),
        (
            "spec",
            lambda spec: spec["train"].update(epochs=77),
            r"train\.epochs is 77 in the first and \d+ in the second",
        ),
        (
            "spec",
            lambda spec: spec["attacks"][0]["params"].update(objective="margin"),
            r"FGSM is another attack, params\.objective is 'margin' in the first, .* in the second",
        ),
        (
            "spec",
            lambda spec: spec["attacks"][2].update(eps=[0.3]),
            r"Adaptive is another attack, eps is '0\.3' in the first, '0\.1' in the second",
        ),
        (
            "spec",
            lambda spec: spec["attacks"].pop(),
            r"the attacks are DeepFool, FGSM in the first and Adaptive, DeepFool, FGSM in the sec",
        ),
    ],
)
def test_a_run_of_other_conditions_is_refused_with_both_values(folder, tmp_path, key, change, told):
    shutil.copytree(folder / "mine", tmp_path / "mine")
    alter(tmp_path / "mine", key, change)
    with pytest.raises(NotComparableError, match=told):
        merge_runs(
            [tmp_path / "mine"], tmp_path / "out", beside=open_reference(folder / "others.npz")
        )


def test_other_test_images_and_other_seeds_are_refused(folder, tmp_path):
    file = tmp_path / "other.npz"
    baseline = reduce_run(load_run(folder / "others"))
    save_baseline(file, replace(baseline, index=baseline.index + 1))
    with pytest.raises(NotComparableError, match=r"the test images are 200 from number \d+"):
        merge_runs([folder / "mine"], tmp_path / "out", beside=open_reference(file))
    later = tuple(replace(cell, seed=cell.seed + 5) for cell in baseline.cells)
    save_baseline(file, replace(baseline, cells=later))
    with pytest.raises(NotComparableError, match=r"seeds are 0, 1 in the first and 5, 6 in"):
        merge_runs([folder / "mine"], tmp_path / "out", beside=open_reference(file))


def test_a_damaged_reference_is_told(folder, tmp_path):
    file = tmp_path / "others.npz"
    content = bytearray((folder / "others.npz").read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(NoReferenceError, match=r"others\.npz is truncated or altered"):
        open_reference(file)
    # the one that a merged run keeps, too
    shutil.copytree(folder / "beside", tmp_path / "beside")
    (tmp_path / "beside/reference.npz").write_bytes(content)
    (finding,) = [
        f for f in check_run_tables(load_run(tmp_path / "beside"))
        if f.what == "results.json, numbers"
    ]  # fmt: skip
    assert finding.state == "fail"
    assert "another file than results.json states" in finding.detail


def test_what_is_no_reference_is_refused(folder):
    with pytest.raises(NoReferenceError, match=r"is a run folder\. .* robustloss baseline"):
        open_reference(folder / "others")
    with pytest.raises(NoReferenceError, match=r"reference \(=nothing\) must be .* is neither"):
        open_reference("nothing")


def test_a_reference_is_made_from_a_run_or_its_file_bit_for_bit(folder, tmp_path):
    with pytest.raises(ValueError, match=r"name \(=Small\) must be .*, as small\."):
        add_to_reference(folder / "others", name="Small", to=tmp_path)
    first = add_to_reference(folder / "others", name="small", to=tmp_path)
    again = add_to_reference(folder / "others.npz", name="small", to=tmp_path, check=True)
    assert [(one.label, one.seeds, one.before, one.changed) for one in first] == [
        ("center", (0, 1), (), True),
        ("softmax", (0, 1), (), True),
    ]
    assert [(one.sha256, one.before, one.changed) for one in again] == [
        (one.sha256, (0, 1), False) for one in first
    ]
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == [
        "center.npz",
        "softmax.npz",
    ]
    reference = open_reference(tmp_path / "small")
    whole = load_baseline(folder / "others.npz")
    rows = by_place(load_run(folder / "others").rows, "label", "seed", "attack_label", "eps")
    assert list(reference.labels) == [f"softmax{MARK}", f"center{MARK}"]
    for cell in reference.rows.cells:
        (own,) = (c for c in whole.cells if (f"{c.label}{MARK}", c.seed) == (cell.label, cell.seed))
        for one, other in zip(own.passes[1:], cell.passes[1:], strict=True):
            np.testing.assert_array_equal(one.wrong, other.wrong)
            if one.scores is not None:
                row = rows[own.label, own.seed, one.attack_label, one.eps]
                assert other.wrong.mean() == row["error"]
                area = auroc(cell.clean.scores, other.scores)
                assert area == pytest.approx(row["auroc_all"], abs=1e-3)


def test_a_run_is_judged_against_a_reference_by_the_labels_it_had(folder, tmp_path):
    add_to_reference(folder / "others", name="small", to=tmp_path)
    run = load_run(folder / "others")
    found = compare_with_baseline(run, open_baseline(tmp_path / "small"))
    assert {finding.label for finding in found.findings} == {"softmax", "center"}
    assert not any(finding.worse for finding in found.findings)
    assert found.notes == compare_with_baseline(run, open_baseline(folder / "others.npz")).notes
    assert open_baseline("mnist-reference").cells[0].label == "Softmax"


def test_what_does_not_fit_a_reference_is_not_added(folder, tmp_path, monkeypatch):
    add_to_reference(folder / "others", to=tmp_path, name="small")
    baseline = load_baseline(folder / "others.npz")
    file = tmp_path / "new.npz"

    def refuse(told, **changes):
        save_baseline(file, replace(baseline, **changes))
        with pytest.raises(ValueError, match=told):
            add_to_reference(file, to=tmp_path, name="small", check=True)

    refuse(r"its losses differ in seeds \(center: 0, 1; softmax: 0\)", cells=baseline.cells[:3])
    rows = [row | {"error": row["error"] / 2} for row in baseline.tables["rows"]]
    refuse(
        r"center seed 0, FGSM at eps 0\.1: its error is .*, its outcomes give",
        tables=baseline.tables | {"rows": rows},
    )
    refuse(r"an older version wrote it", tables={"rows": baseline.tables["rows"]})
    other = tuple(replace(cell, threshold=cell.threshold + 1) for cell in baseline.cells)
    refuse(r"has center already, and its seed 0 has other outcomes in .*new\.npz\.", cells=other)
    refuse(r"the test images are 200 from number \d+ to", index=baseline.index + 1)
    (tmp_path / "small/softmax.npz").write_bytes(b"no file of ours")
    with pytest.raises(ValueError, match=r"softmax\.npz is no baseline: it is a text file"):
        add_to_reference(folder / "others", to=tmp_path, name="small", check=True)
    (tmp_path / "small/softmax.npz").unlink()
    monkeypatch.setattr(add, "MOST_OF_ONE", 1000)
    with pytest.raises(ValueError, match=r"would have \d\.\d MB, and may have 0\. Leave out"):
        add_to_reference(folder / "others", to=tmp_path, name="small")


def test_a_reference_grows_in_sittings(folder, tmp_path, command):
    """First one seed of one loss, then two of both; the other loss of the reference stays."""
    whole, other = (reduce_run(load_run(folder / name)) for name in ("others", "mine"))

    def add_some(seeds, labels, check=False):
        kept = [c for c in whole.cells if c.seed in seeds and c.label in labels]
        provenance = {**whole.provenance, "seeds": list(seeds)}
        save_baseline(
            tmp_path / "run.npz", replace(whole, cells=tuple(kept), provenance=provenance)
        )
        words = ("reference", "add", tmp_path / "run.npz", "--to", tmp_path, "--name", "small")
        return command(*words, *(["--check"] if check else []))

    save_baseline(tmp_path / "gm.npz", other)
    add_to_reference(tmp_path / "gm.npz", to=tmp_path, name="small")
    before = (tmp_path / "small/gm.npz").stat().st_mtime_ns
    status, out, _ = add_some((0,), ("softmax",))
    assert (status, out.splitlines()[-1]) == (0, "Left as they are: gm.npz")
    _, out, _ = add_some((0, 1), ("softmax", "center"), check=True)
    assert re.findall(r"^\w+: can be [^;]*", out, re.M) == [
        "center: can be added",
        "softmax: can be replaced, seeds before: 0",
    ]
    assert {cell.seed for cell in load_baseline(tmp_path / "small/softmax.npz").cells} == {0}
    _, out, _ = add_some((0, 1), ("softmax", "center"))
    assert re.search(r"^softmax: replaced, seeds before: 0; .*; seeds 0, 1; sha256", out, re.M)
    assert (tmp_path / "small/gm.npz").stat().st_mtime_ns == before
    add_to_reference(folder / "others", to=tmp_path, name="at-once")
    for name in ("softmax.npz", "center.npz"):
        grown, once = (tmp_path / place / name for place in ("small", "at-once"))
        assert grown.read_bytes() == once.read_bytes()
    assert {cell.seed for cell in open_reference(tmp_path / "small").rows.cells} == {0, 1}

    status, _, err = add_some((1,), ("softmax", "center"))
    assert status == 2
    assert re.search(r"has center with the seeds 0, 1, and .*run\.npz with 1\. A loss only", err)


def test_the_spec_to_begin_with_is_the_references(folder, tmp_path):
    file = folder / "others.npz"
    reference = open_reference(file)
    spec = starting_spec(reference, str(file))
    assert spec.reference.beside == str(file)
    assert [loss.label for loss in spec.losses] == ["My loss"]
    asked = Run(
        file, {"name": "mine", "provenance": reference.rows.provenance | {"spec": spec.plain()}}
    )
    check_conditions(asked, reference.rows.run)
    plan = plan_try("normface", str(file))
    assert (plan.own.seeds, plan.reference.name) == ((0,), "others")
    assert plan.own.plain()["attacks"] == spec.plain()["attacks"]
    assert plan_try("normface", str(file), seeds=(0, 1)).own.seeds == (0, 1)
    with pytest.raises(NotComparableError, match="the seeds are 7 in the first and 0, 1 in"):
        plan_try("normface", str(file), seeds=[7])
    shutil.copy(file, tmp_path)
    assert plan_try("normface", str(tmp_path)).own.plain()["attacks"] == spec.plain()["attacks"]


def test_a_loss_is_tuned_as_those_of_a_reference_were_or_the_difference_is_noted(folder, tmp_path):
    def tune(name, losses):
        """Let a run have chosen lr by trials; each loss has another weight decay, too."""
        shutil.copytree(folder / name, tmp_path / name)
        tables = [{"name": loss, "search": {"lr": [0.01, 0.1]}} for loss in losses]

        def change(provenance):
            provenance["spec_text"] = to_toml({"tuning": {"epochs": 1}, "losses": tables})
            for loss in provenance["spec"]["losses"]:
                loss["train"] = {"lr": 0.1, "weight_decay": 0.25}

        alter(tmp_path / name, None, change)

    tune("others", ("softmax", "center"))
    add_to_reference(tmp_path / "others", to=tmp_path, name="tuned")
    reference = open_reference(tmp_path / "tuned")
    beside = merge_runs([folder / "mine"], tmp_path / "beside", beside=reference)
    assert beside.notes[-1].startswith("GM had no trials; the other losses chose lr by trials. A d")
    tune("mine", ("gm",))
    alike = merge_runs([tmp_path / "mine", tmp_path / "others"], tmp_path / "alike")
    assert not any("trials" in note or "lr is" in note for note in alike.notes)
    assert any("GM has a training of its own: weight_decay is 0.25" in note for note in alike.notes)
    for place, who in ((beside.path, "2 of 3 losses"), (alike.path, "every loss")):
        told = dict(list_facts(Numbers(load_run(place))))["Tuning"]
        assert told == f"{who} chose lr by trials: those of the smallest clean validation error"
    against = (tmp_path / "tuned", tmp_path / "others", alike.path)
    own = [plan_try("normface", str(path)).own for path in against]
    for spec in (starting_spec(reference, "tuned"), *own):
        found = [(trial.values, trial.train.epochs) for trial in spec.trials()]
        assert found == [({"lr": 0.01}, 1), ({"lr": 0.1}, 1)]
    assert plan_try("normface", str(beside.path)).own.trials() == ()  # of these one is not tuned


def test_a_reference_by_its_bare_name_is_told_what_to_write():
    with pytest.raises(RunError, match=r"reference: write --against fashion-mnist-reference\.$"):
        plan_try("softmax", "fashion-mnist")


def test_the_references_that_ship_open_and_are_small():
    found = list_references()
    sizes = {name: sum(path.stat().st_size for path in files) for name, files in found.items()}
    assert all(size <= add.MOST_OF_ONE for size in sizes.values())
    assert sum(sizes.values()) <= add.MOST_OF_ALL
    for name, files in found.items():
        assert len(open_reference(f"{name}-reference").labels) == len(files)
        assert starting_spec(open_reference(name), name).reference.beside == name
