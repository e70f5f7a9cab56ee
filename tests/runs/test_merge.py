"""Runs side by side: what is kept, what is refused and why, and that nothing else is touched."""

import csv
import json
import shutil
import sys
from functools import cache
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from robustloss import reports
from robustloss.results.run import load_run
from robustloss.results.schema import json_schema
from robustloss.runs import runner
from robustloss.runs.comparable import NotComparableError
from robustloss.runs.merge import merge_runs
from robustloss.storage import CorruptFile, read_json, write_json
from tests.drawing import build_report
from tests.small_run import SPEC, changed, files, numbers


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Softmax and L-GM with two seeds; L-GM with one more; center alone, at fewer eps."""
    root = tmp_path_factory.mktemp("runs")
    noise = {"name": "uniform_noise", "label": "noise", "images": 30}
    first = changed(name="first", outside=[noise])
    more = changed(name="more", seeds=[1, 2], losses=[{"name": "lgm", "label": "L-GM"}])
    other = changed(
        name="other",
        losses=[{"name": "center", "label": "center"}],
        attacks=[
            {"name": "fgsm", "label": "fgsm", "eps": [0, 0.2]},
            {"name": "pgd", "label": "pgd", "params": {"steps": 2}, "eps": [0.1]},
        ],
    )
    for spec in (first, more, other):
        runner.run(spec, out=root / spec["name"])
    return root


@pytest.fixture(scope="module")
def merged(runs, tmp_path_factory):
    """A function that compares runs by their names, once for all tests; they only read it."""
    root = tmp_path_factory.mktemp("merged")

    @cache
    def merge(*names):
        folders = [runs / name for name in names]
        before = [(numbers(folder), files(folder)) for folder in folders]
        done = merge_runs(folders, root / "-".join(names))
        assert [(numbers(folder), files(folder)) for folder in folders] == before
        return done

    return merge


def altered(runs, tmp_path, change, name="first"):
    """A copy of a run whose results.json was changed."""
    folder = tmp_path / f"{name}-altered"
    shutil.copytree(runs / name, folder)
    results = json.loads((folder / "results.json").read_text())
    change(results)
    write_json(folder / "results.json", results, sort_keys=False)
    return folder


def test_losses_and_seeds_stand_side_by_side(runs, merged):
    run = load_run(merged("first", "more").path)
    assert [(c.label, c.seed) for c in run.cells] == [
        ("softmax", 0),
        ("softmax", 1),
        ("L-GM", 0),
        ("L-GM", 1),
        ("L-GM", 2),
    ]
    for part in ("first", "more"):
        for row in load_run(runs / part).rows:
            assert row in run.rows
    assert run.name == "first + more"
    # what is over several attacks and budgets, too
    own = [row for row in load_run(runs / "first").results["radii"] if row["label"] == "softmax"]
    assert own
    assert all(row in run.results["radii"] for row in own)
    # L-GM's second seed is in both, with equal weights: it counts once
    assert len(run.rows) == 5 * 4
    assert run.provenance["seeds"] == [0, 1, 2]
    assert {r["unit"] for r in run.comparisons} == {"images", "seeds"}
    assert run.ranks
    summary = next(
        r for r in run.summary if (r["label"], r["metric"], r["eps"]) == ("L-GM", "error", 0.2)
    )
    assert summary["n_seeds"] == 3


def test_the_merged_folder_stands_alone_and_is_rendered(runs, merged):
    out = merged("first", "more").path
    page = build_report(out).read_text()
    assert "first + more" in page
    assert "Merged from" in page
    assert {p.name for p in files(out)} >= {
        p.name for p in (runs / "more").rglob("cells/l-gm/seed-2/*.npz")
    }
    with (out / "report/tables/rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = load_run(out).rows
    assert len(rows) == len(wanted)
    assert float(rows[-1]["error"]) == wanted[-1]["error"]
    assert list(rows[0]) == list(wanted[0])


def test_what_a_run_and_a_merged_run_write_fits_the_published_schema(runs, merged):
    validator = jsonschema.Draft202012Validator(json_schema())
    for folder in (runs / "first", merged("first", "other").path):
        validator.validate(read_json(folder / "results.json"))


def test_a_run_and_a_merged_run_are_sealed_and_a_change_is_noted(runs, merged, tmp_path):
    for folder in (runs / "first", merged("first", "other").path):
        run = load_run(folder)
        assert (run.digest_state, run.doubts, run.readable_cells[1]) == ("fits", (), [])
        assert len(run.provenance["cells"]) == len(run.cells) > 0
    touched = altered(runs, tmp_path, lambda results: results["flags"].append({}))
    notes = merge_runs([touched, runs / "other"], tmp_path / "other").notes
    assert any("results.json was altered after it was written" in note for note in notes)


def test_a_cell_that_is_missing_is_not_left_out_in_silence(runs, tmp_path):
    copied = altered(runs, tmp_path, lambda results: None)
    (copied / "cells/softmax/seed-0/cell.json").unlink()
    with pytest.raises(CorruptFile, match=r"softmax, seed 0: its cell\.json is missing"):
        merge_runs([copied, runs / "other"], tmp_path / "out")


def test_outside_sets_stay_with_the_losses_that_saw_them(runs, merged):
    run = load_run(merged("other", "first").path)
    assert [table["label"] for table in run.provenance["spec"]["outside"]] == ["noise"]
    assert run.out_of_distribution == load_run(runs / "first").out_of_distribution != []
    seen = {cell.label for cell in run.cells if cell.files.get("outside")}
    assert seen == {row["label"] for row in run.out_of_distribution} == {"softmax", "L-GM"}
    assert all(cell.outside("noise").n == 30 for cell in run.cells if cell.label in seen)
    build_report(run.path)
    with (run.path / "report/figures/outside.csv").open(newline="") as file:
        assert {row["label"] for row in csv.DictReader(file)} == seen


def test_only_what_every_run_has_is_compared(runs, merged):
    found = merged("first", "other")
    run = load_run(found.path)
    assert {(r["attack_label"], r["eps"]) for r in run.rows} == {
        ("none", 0.0), ("fgsm", 0.0), ("fgsm", 0.2),
    }  # fmt: skip
    assert any("Left out of first" in n and "fgsm at 0.1" in n for n in found.notes)
    assert any("Left out of other" in n and "pgd at 0.1" in n for n in found.notes)
    whole = load_run(runs / "other")
    kept = [r for r in whole.rows if r["attack_label"] != "pgd"]
    assert [r for r in run.rows if r["label"] == "center"] == kept
    assert all(r["attacks"] == ["fgsm"] for r in run.worst_case)
    assert {a["label"] for a in run.provenance["spec"]["attacks"]} == {"fgsm"}


def test_order_of_the_runs_changes_no_number(merged):
    one = load_run(merged("first", "other").path)
    two = load_run(merged("other", "first").path)
    assert one.rows == two.rows
    assert one.summary == two.summary
    sign = {(r["label_a"], r["label_b"], r["eps"], r["metric"], r["seed"]): r["difference"]
            for r in two.comparisons}  # fmt: skip
    for row in one.comparisons:
        key = (row["label_b"], row["label_a"], row["eps"], row["metric"], row["seed"])
        if sign.get(key) is not None:  # null: an eps at 50 % error that was not reached
            assert row["difference"] == pytest.approx(-sign[key])


def test_the_same_label_with_other_settings_names_its_run(runs, tmp_path):
    spec = changed(
        name="longer", seeds=[0], losses=[{"name": "lgm", "label": "L-GM", "train": {"epochs": 4}}]
    )
    runner.run(spec, out=tmp_path / "longer")
    merged = merge_runs([runs / "first", tmp_path / "longer"], tmp_path / "out")
    run = load_run(merged.path)
    assert {c.label for c in run.cells} == {"softmax", "L-GM (first)", "L-GM (longer)"}
    told = "L-GM has other settings, so its labels name the run: train.epochs is 3 in first, 4 in"
    told += " longer."
    assert told in merged.notes
    losses = {loss["label"]: loss for loss in run.provenance["spec"]["losses"]}
    assert losses["L-GM (longer)"]["train"] == {"epochs": 4}
    assert losses["L-GM (first)"]["train"] == {}
    assert "L-GM (longer)" in reports.build_report(merged.path).read_text()


def test_another_schedule_is_allowed_and_told(runs, tmp_path):
    spec = changed(name="fast", seeds=[0], losses=[{"name": "center", "label": "center"}])
    spec["train"]["lr"] = 0.05
    runner.run(spec, out=tmp_path / "fast")
    merged = merge_runs([runs / "first", tmp_path / "fast"], tmp_path / "out")
    assert any("lr is 0.02 in first, 0.05 in fast" in note for note in merged.notes)
    loss = load_run(merged.path).provenance["spec"]["losses"][-1]
    assert loss["train"] == {"lr": 0.05}


def test_clean_training_is_the_same_beside_attacked_training(runs, tmp_path):
    """A loss that is trained clean in a run of attacked training is the loss it is elsewhere."""

    def defended(results):
        spec = results["provenance"]["spec"]
        spec["train"]["adversarial"] = {"eps": 0.1}
        for loss in spec["losses"]:
            loss["train"] = {"adversarial": False}

    folder = altered(runs, tmp_path, defended)
    for order in ((runs / "first", folder), (folder, runs / "first"), (folder, runs / "other")):
        merged = merge_runs(order, tmp_path / "out")
        losses = {k["label"]: k for k in load_run(merged.path).provenance["spec"]["losses"]}
        assert set(losses) <= {"softmax", "L-GM", "center"}
        clean_first = order[0] != folder
        for loss in losses.values():
            assert loss["train"] == ({} if clean_first else {"adversarial": False})


REFUSED = [
    (lambda r: r["provenance"]["data"].update(name="mnist"), r"data.name is 'digits'.*'mnist'"),
    (lambda r: r["provenance"]["data"].update(test=40), r"data.test is 80 in the first and 40"),
    (lambda r: r["provenance"]["data"].update(checksum="x"), "The images, their labels or their"),
    (
        lambda r: r["provenance"]["spec"]["model"].update(feature_dim=8),
        r"model.feature_dim is 4 in the first and 8.*--other-networks",
    ),
    (
        lambda r: r["provenance"]["spec"]["attacks"][0].update(params={"objective": "margin"}),
        "fgsm is another attack in first-altered: params.objective is 'ce' in first, 'margin' in",
    ),
    (
        lambda r: r["provenance"]["spec"]["attacks"][0].update(eps=[0.3]),
        "no attack with an eps in common.*fgsm at 0, 0.1, 0.2.*fgsm at 0.3",
    ),
    (
        lambda r: r["provenance"]["spec"]["outside"][0].update(images=40),
        "images of the outside set 'noise' is 30 in the first and 40",
    ),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_cannot_be_compared_is_refused_and_nothing_is_written(runs, tmp_path, change, message):
    other = altered(runs, tmp_path, change)
    with pytest.raises(NotComparableError, match=f"(?s){message}") as told:
        merge_runs([runs / "first", other], tmp_path / "out")
    assert str(other) in str(told.value) or "altered" in str(told.value)
    assert not (tmp_path / "out").exists()


def test_other_weights_under_one_label_and_seed_are_refused(runs, tmp_path):
    other = altered(runs, tmp_path, lambda r: None)
    path = other / "cells/l-gm/seed-0/cell.json"
    content = read_json(path, checked=True)
    write_json(path, content | {"weights": "0" * 16}, checked=True)
    with pytest.raises(NotComparableError, match="both have 'L-GM' with seed 0"):
        merge_runs([runs / "first", other], tmp_path / "out")


def test_networks_may_differ_when_asked_for(runs, tmp_path):
    spec = changed(name="wide", seeds=[0], losses=[{"name": "center", "label": "center"}])
    spec["model"]["feature_dim"] = 6
    runner.run(spec, out=tmp_path / "wide")
    pair = [runs / "first", tmp_path / "wide"]
    with pytest.raises(NotComparableError, match=r"model\.feature_dim is 4"):
        merge_runs(pair, tmp_path / "out")
    run = load_run(merge_runs(pair, tmp_path / "out", other_networks=True).path)
    assert run.provenance["spec"]["losses"][-1]["model"] == {"feature_dim": 6}


def test_a_folder_of_something_else_is_left_alone(runs, merged, tmp_path):
    pair = [runs / "first", runs / "more"]
    with pytest.raises(ValueError, match="holds no merged run"):
        merge_runs(pair, runs / "other")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("keep")
    with pytest.raises(ValueError, match="holds no merged run"):
        merge_runs(pair, tmp_path / "mine")
    assert (tmp_path / "mine/letter.txt").read_text() == "keep"
    shutil.copytree(merged("first", "more").path, tmp_path / "out")
    again = merge_runs([runs / "first", runs / "other"], tmp_path / "out")  # its own kind: anew
    assert {c.label for c in load_run(again.path).cells} == {"softmax", "L-GM", "center"}


@pytest.mark.parametrize("where", ["itself", "link", "inside"])
def test_a_run_is_not_written_over_by_its_own_merge(runs, merged, tmp_path, where):
    both = merged("first", "more").path
    (tmp_path / "link").symlink_to(both)
    out = {"itself": both, "link": tmp_path / "link", "inside": both / "cells/new"}[where]
    before = (both / "results.json").read_bytes(), files(both)
    with pytest.raises(ValueError, match="one lies in the other"):
        merge_runs([both, runs / "other"], out)
    assert ((both / "results.json").read_bytes(), files(both)) == before
    assert len(before[1]) > 0


def test_a_missing_file_costs_no_earlier_merge(runs, merged, tmp_path, command):
    broken = altered(runs, tmp_path, lambda r: None)
    next((broken / "cells").rglob("fgsm-0.2-*.npz")).unlink()
    out = Path(shutil.copytree(merged("first", "more").path, tmp_path / "out"))
    before = (out / "results.json").read_bytes(), files(out)
    for folder in (out, tmp_path / "new"):
        words = ("compare", runs / "more", broken, "--out", folder)
        status, _, error = command(*words)
        assert status == 2
        assert "is missing. Run `robustloss run` again" in error
    assert ((out / "results.json").read_bytes(), files(out)) == before
    assert {p.name for p in tmp_path.iterdir()} == {"first-altered", "out"}


def test_the_command(runs, tmp_path, command):
    out = str(tmp_path / "out")
    status, text, _ = command("compare", str(runs / "first"), str(runs / "other"), "--out", out)
    assert status == 0
    assert "Note: Left out of first" in text
    assert "Report: " in text
    for words, message in [
        ([str(runs / "first")], "name two runs or more"),
        ([str(runs / "first"), str(runs / "first")], "is named twice"),
        ([str(runs / "first"), str(tmp_path)], "has no results.json"),
        ([str(runs / "first"), "nowhere"], "must be a folder"),
    ]:
        status, _, error = command("compare", *words, "--out", str(tmp_path / "no"))
        assert status == 2
        assert message in error
        assert not (tmp_path / "no").exists()


def test_merging_needs_no_torch(runs, tmp_path):
    import subprocess

    paths = [str(runs / "first"), str(runs / "other")]
    code = (
        "import sys\nfrom robustloss.runs.merge import merge_runs\n"
        f"merge_runs({paths!r}, {str(tmp_path / 'o')!r})\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_data_frame_has_the_rows(runs):
    run = load_run(runs / "first")
    pandas = pytest.importorskip("pandas")
    frame = run.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == len(run.rows)
    np.testing.assert_array_equal(frame["error"], [row["error"] for row in run.rows])
    assert len(run.to_frame("detection")) == len(run.detection)
    with pytest.raises(ValueError, match=r"table \(='nothing'\) must be one of rows, summary"):
        run.to_frame("nothing")


def test_without_pandas_it_says_what_to_do(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        load_run(runs / "first").to_frame()


def test_the_spec_of_the_tests_is_small():
    assert SPEC["data"]["test_size"] == 80  # the counts above rest on it
