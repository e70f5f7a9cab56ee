"""A run: folders, keys, resumption and refusals. Small digits, no report."""

import hashlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robustloss.array_files import read_arrays, write_arrays
from robustloss.cells.weights import CellWeights
from robustloss.cli.terminal import print_result
from robustloss.progress import Lines
from robustloss.results.provenance import take_origin
from robustloss.results.run import load_run
from robustloss.runs import runner
from robustloss.runs.classifier import load_classifier
from robustloss.runs.folder import RunFolderError, describe_replaced
from robustloss.runs.rerun import _compare_files
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from tests.small_run import SPEC, Counted, changed, files, numbers

pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture(scope="module")
def done(small_run):
    """An undisturbed run."""
    return small_run


def copy_of(folder, tmp_path):
    import shutil

    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_a_run_leaves_what_the_design_names(done):
    run = load_run(done)
    assert [(cell.label, cell.seed) for cell in run.cells] == [
        ("softmax", 0),
        ("softmax", 1),
        ("L-GM", 0),
        ("L-GM", 1),
    ]
    assert len(run.rows) == 4 * 4  # the clean pass and three budgets a cell
    for row in run.rows:
        assert row["n"] == 80
        assert row["error_low"] <= row["error"] <= row["error_high"]
    cell = done / "cells" / "l-gm" / "seed-1"
    names = sorted(p.name.rsplit("-", 1)[0] for p in cell.iterdir())
    assert names == [
        "cell.json", "fgsm", "fgsm-0", "fgsm-0.1", "fgsm-0.2", "model", "noise-fgsm-0.1",
        "noise-fgsm-0.2", "none-0", "probe", "reference", "scores",
        "train.json",
    ]  # fmt: skip
    assert run.results["failures"] == []
    assert run.provenance["data"]["test"] == 80
    assert (done / "spec.toml").exists()


def test_the_outcome_says_what_there_is_and_shows_its_result(done, tmp_path):
    failure = {"label": "a\x1bb", "seed": 1, "stage": "train", "reason": "NaN\nloss"}
    outcome = runner.RunOutcome(done, done / "report/index.html", [failure], 1)
    first, second, last = repr(outcome).splitlines()
    assert first == f"Finished run in {done}"  # no word of a report that was not written
    assert second == "Failed: a\\u001bb seed 1 (train): NaN loss"
    assert last.startswith(f"Next: robustloss.load_run({str(done)!r})")
    html = outcome._repr_html_()
    assert html.startswith("<table>")
    assert "<style" not in html
    assert html.index("<th>L-GM</th>") < html.index("Finished run in")
    (tmp_path / "index.html").touch()
    (tmp_path / "results.json").touch()
    assert f"its report in {tmp_path}" in repr(
        runner.RunOutcome(tmp_path, tmp_path / "index.html", [], 0)
    )
    gone = runner.RunOutcome(tmp_path / "gone", tmp_path / "gone/report/index.html", [], 0)
    assert "gone" not in repr(gone) + gone._repr_html_()


def test_rows_follow_from_the_records(done):
    """The numbers of the report are those of the arrays on disk, computed here by hand."""
    run = load_run(done)
    cell = run.cells[3]
    clean, attacked = cell.record(), cell.record("fgsm", 0.2)
    row = next(r for r in run.rows if r["label"] == "L-GM" and r["seed"] == 1 and r["eps"] == 0.2)
    wrong = attacked.logits.argmax(1) != attacked.labels
    right_before = clean.logits.argmax(1) == clean.labels
    assert row["error"] == pytest.approx(wrong.mean())
    assert row["attack_success_rate"] == pytest.approx(wrong[right_before].mean())
    pick = np.arange(80)
    scores = [
        r.class_log_likelihood[pick, r.logits.argmax(1)].astype(float) for r in (clean, attacked)
    ]
    wins = np.sign(scores[0][:, None] - scores[1][None, :])
    assert row["auroc_all"] == pytest.approx((wins.mean() + 1) / 2)
    assert row["n_successful"] == (wrong & right_before).sum()


def test_eps_zero_changes_nothing(done):
    for row in load_run(done).rows:
        if row["attack"] == "fgsm" and row["eps"] == 0:
            assert row["attack_success_rate"] == 0
            assert row["auroc_all"] == 0.5
            assert row["auroc_successful"] is None


def test_running_again_computes_nothing_and_says_the_same(done, tmp_path, monkeypatch):
    folder = copy_of(done, tmp_path)
    counted = Counted(monkeypatch)
    runner.run(SPEC, out=folder)
    assert (counted.trained, counted.attacked) == (0, [])
    assert numbers(folder) == numbers(done)


def test_a_new_eps_recomputes_nothing_else(done, tmp_path, monkeypatch):
    folder = copy_of(done, tmp_path)
    counted = Counted(monkeypatch)
    runner.run(changed(attacks=[{"name": "fgsm", "eps": [0, 0.1, 0.2, 0.05]}]), out=folder)
    assert counted.trained == 0
    assert counted.attacked == [(0.05,)] * 4
    assert all(data == files(folder)[name] for name, data in files(done).items())


def test_a_new_attack_trains_nothing(done, tmp_path, monkeypatch):
    folder = copy_of(done, tmp_path)
    counted = Counted(monkeypatch)
    margin = {"name": "fgsm", "label": "margin", "params": {"objective": "margin"}, "eps": [0.1]}
    runner.run(changed(attacks=[*SPEC["attacks"], margin]), out=folder)
    assert counted.trained == 0
    assert counted.attacked == [(0.1,)] * 4


def test_other_class_means_are_aimed_at_anew(done, tmp_path, monkeypatch):
    """They come from the fitted subset, which only an attack on the detector sees."""
    folder = copy_of(done, tmp_path)
    matching = {"name": "adaptive_matching", "params": {"steps": 1}, "eps": [0.3]}
    keys = {"attacks": [*SPEC["attacks"], matching]}
    runner.run(changed(**keys, seeds=[0]), out=folder)
    counted = Counted(monkeypatch)
    runner.run(changed(**keys, seeds=[0], detection={"fit_size": 90}), out=folder)
    assert (counted.trained, counted.attacked) == (0, [(0.3,)] * 2)


@pytest.mark.parametrize(
    "keys",
    [
        {"train": {**SPEC["train"], "lr": 0.03}},
        {"train": {**SPEC["train"], "epochs": 4}},
        {"model": {**SPEC["model"], "feature_dim": 5}},
        {"data": {**SPEC["data"], "train_size": 190}},
    ],
)
def test_another_training_reads_no_stale_file(done, tmp_path, monkeypatch, keys):
    folder = copy_of(done, tmp_path)
    counted = Counted(monkeypatch)
    spec = changed(**keys, seeds=[0], losses=SPEC["losses"][1:])
    runner.run(spec, out=folder)
    assert counted.trained == 1
    fresh = tmp_path / "fresh"
    runner.run(spec, out=fresh)
    assert numbers(folder) == numbers(fresh)


def test_a_loss_that_overrides_training_is_trained_so(done, tmp_path):
    folder = tmp_path / "run"
    lgm = {"name": "lgm", "label": "L-GM", "train": {"epochs": 1}}
    losses = [{"name": "softmax", "label": "softmax"}, lgm]
    runner.run(changed(losses=losses, seeds=[0]), out=folder)
    run = load_run(folder)
    assert [len(t["curve"]) for t in run.training] == [1, 3]
    assert run.training[0]["label"] == "L-GM"
    untouched = [r for r in load_run(done).rows if r["label"] == "softmax" and r["seed"] == 0]
    assert [r for r in run.rows if r["label"] == "softmax"] == untouched


def test_seeds_extend_a_run(done, tmp_path, monkeypatch):
    folder = copy_of(done, tmp_path)
    counted = Counted(monkeypatch)
    runner.run(SPEC, out=folder, seeds=[5])
    assert counted.trained == 2
    run = load_run(folder)
    assert run.provenance["seeds"] == [0, 1, 5]
    assert {row["seed"] for row in run.rows} == {0, 1, 5}
    kept = [row for row in run.rows if row["seed"] != 5]
    assert kept == load_run(done).rows


@pytest.mark.parametrize(
    "what", ["model", "reference", "scores", "fgsm-0.1", "none", "cell.json", "train.json"]
)
def test_a_damaged_file_is_made_anew(done, tmp_path, what):
    """Each of the four cells has a damage of its own."""
    folder = copy_of(done, tmp_path)
    paths = [next(cell.glob(f"{what}*")) for cell in sorted(folder.glob("cells/*/seed-*"))]
    deleted, flipped, emptied, truncated = paths
    whole = flipped.read_bytes()
    middle = len(whole) // 2
    deleted.unlink()
    flipped.write_bytes(whole[:middle] + bytes([whole[middle] ^ 64]) + whole[middle + 1 :])
    emptied.write_bytes(b"")
    truncated.write_bytes(truncated.read_bytes()[: len(whole) // 3])
    runner.run(SPEC, out=folder)
    assert numbers(folder) == numbers(done)
    for path in paths[what == "train.json" :]:
        assert len(path.read_bytes()) > 0
    assert files(folder) == files(done)


def test_a_file_whose_numbers_have_no_rank_is_made_anew(done, tmp_path):
    """Each of the four cells has one."""
    folder = copy_of(done, tmp_path)
    spoiled = [
        ("reference", "validation_class_log_likelihood"),
        ("reference", "validation_logits"),
        ("none", "class_log_likelihood"),
        ("fgsm-0.1", "logits"),
    ]
    for cell, (what, array) in zip(sorted(folder.glob("cells/*/seed-*")), spoiled, strict=True):
        path = next(cell.glob(f"{what}-*.npz"))
        arrays, meta = read_arrays(path)
        write_arrays(path, arrays | {array: np.full_like(arrays[array], np.nan)}, meta)
    runner.run(SPEC, out=folder)
    assert numbers(folder) == numbers(done)
    assert files(folder) == files(done)


def test_the_classifier_comes_back(done):
    model = load_classifier(done, loss="L-GM", seed=1)
    cell = load_run(done).cells[3]
    import torch

    clean = cell.record()
    with torch.no_grad():
        logits = model(torch.from_numpy(clean.images))
    np.testing.assert_allclose(logits.numpy(), clean.logits[:64], rtol=1e-4, atol=1e-4)
    assert not model.training
    with pytest.raises(ValueError, match=r"loss \(='L-GM'\) with seed \(=9\) is not in this run"):
        load_classifier(done, loss="L-GM", seed=9)


def test_the_key_names_everything_that_decides_the_weights(done, tmp_path):
    """Two jobs that differ in one deciding value never share a file name."""
    from robustloss.cells.jobs import CellJob
    from robustloss.data.load import load_dataset
    from robustloss.spec.data import DataSpec
    from robustloss.spec.load import load_spec

    def key(spec, cell=0, train_size=200):
        loaded = load_spec(spec)
        data = load_dataset(DataSpec(name="digits", train_size=train_size), quiet=True)
        job = CellJob(loaded, loaded.cells()[cell], tmp_path, "cpu", None)
        return CellWeights(job, data).key

    variants = [changed(train={**SPEC["train"], k: v}) for k, v in [
        ("lr", 0.5), ("epochs", 9), ("batch_size", 41), ("optimizer", "adam"), ("momentum", 0.1),
        ("nesterov", False), ("weight_decay", 0.1), ("schedule", "cosine"), ("warmup", 0.5),
        ("precision", "bfloat16"), ("augment", "shift"), ("adversarial", {"eps": 0.1}),
        ("adversarial", {"eps": 0.1, "steps": 3}), ("adversarial", {"eps": 0.1, "attack": "fgsm"}),
    ]]  # fmt: skip
    variants.append(changed(losses=[{"name": "softmax", "params": {"bias": False}}]))
    variants.append(changed(model={**SPEC["model"], "feature_dim": 3}))
    keys = [key(SPEC), key(SPEC, 1), key(SPEC, 2), key(SPEC, train_size=201), *map(key, variants)]
    assert len(set(keys)) == len(keys)
    assert key(changed(attacks=[{"name": "fgsm", "eps": [0.3]}], name="other")) == keys[0]
    assert key(changed(train={**SPEC["train"], "adversarial": False})) == keys[0]


def test_a_pair_loss_that_cannot_train_so_is_told_before_anything_is_computed(tmp_path):
    train = {"adversarial": {"eps": 0.1}}
    spec = changed(losses=[{"name": "softmax"}, {"name": "triplet", "train": train}])
    with pytest.raises(
        SpecError, match=r'losses\[1\]: train.adversarial.objective \(="ce"\) climbs'
    ):
        runner.run(spec, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_processes_give_the_numbers_of_one_process(tmp_path):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads are part of the key: give both runs one each
    try:
        spec = changed(seeds=[0])
        runner.run(spec, out=tmp_path / "serial")
        runner.run(spec, out=tmp_path / "processes", executor="processes:2")
    finally:
        torch.set_num_threads(before)
    assert numbers(tmp_path / "serial") == numbers(tmp_path / "processes")
    assert files(tmp_path / "serial") == files(tmp_path / "processes")


KILLED = """
import sys
from robustloss import reports
from pathlib import Path
from robustloss.runs import runner
from robustloss.training import train
train.CHECKPOINT_SECONDS = -1.0
train.CHECK_EVERY = 1
reports.build_report = lambda path: Path(path)
runner.run(sys.argv[1], out=sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_change_nothing(tmp_path):
    """kill -9 at random moments, then to the end: the same results as undisturbed."""
    import random
    import time

    from robustloss.spec.load import load_spec

    spec = changed(train={**SPEC["train"], "epochs": 40})
    path = tmp_path / "spec.toml"
    path.write_text(load_spec(spec).text)
    command = [sys.executable, "-c", KILLED, str(path)]
    began = time.monotonic()
    subprocess.run([*command, str(tmp_path / "whole")], check=True)
    whole = time.monotonic() - began
    random.seed(0)
    kills = 0
    while kills < 20:
        process = subprocess.Popen([*command, str(tmp_path / "killed")])
        try:
            process.wait(timeout=random.uniform(0.3, 0.8) * whole)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        else:
            assert process.returncode == 0
            for extra in list((tmp_path / "killed").rglob("model-*"))[:2]:
                extra.unlink()  # finished: take something away and go on killing
    subprocess.run([*command, str(tmp_path / "killed")], check=True)
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_equal_weights_are_taken_from_another_run(done, tmp_path, monkeypatch):
    counted = Counted(monkeypatch)
    other = changed(name="other", seeds=[1], data={**SPEC["data"], "test_size": 70})
    runner.run(other, out=tmp_path / "run", reuse=done)
    assert counted.trained == 0
    for path in done.glob("cells/*/seed-1/model-*"):
        assert (tmp_path / "run" / path.relative_to(done)).read_bytes() == path.read_bytes()
    training, before = load_run(tmp_path / "run").training, load_run(done).training
    before = [row["curve"] for row in before if row["seed"] == 1]
    assert [row["curve"] for row in training] == before


def test_other_training_or_damaged_weights_are_not_taken(done, tmp_path, monkeypatch):
    folder = copy_of(done, tmp_path)
    damaged = next(folder.glob("cells/softmax/seed-0/model-*"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    counted = Counted(monkeypatch)
    runner.run(changed(seeds=[0]), out=tmp_path / "run", reuse=folder)
    assert counted.trained == 1
    longer = changed(name="longer", seeds=[0], train={**SPEC["train"], "epochs": 4})
    runner.run(longer, out=tmp_path / "longer", reuse=folder)
    assert counted.trained == 1 + 2


def test_a_run_says_what_it_replaces_and_nothing_where_it_extends(done, tmp_path):
    folder = copy_of(done, tmp_path)

    def line(**keys):
        return describe_replaced(folder, load_spec(changed(**keys)))

    more = {"losses": [*SPEC["losses"], {"name": "center", "label": "Center"}], "seeds": [0, 1, 2]}
    attacks = [{"name": "pgd", "eps": [0.1, 0.4]}]
    assert line() == line(**more, attacks=attacks) == ""
    assert line(losses=[{"name": "lgm"}, {"name": "softmax"}]) == ""  # other labels, same trainings
    assert line(losses=SPEC["losses"][:1]) == (
        f"{folder} holds finished results of another spec (L-GM is left out). They are replaced, "
        "what its cells computed stays. --out DIR keeps both results."
    )
    train = {**SPEC["train"], "lr": 50.0}
    told = "(softmax: train.lr is 0.02 there, 50.0 here, and 1 more)"
    assert told in line(train=train)
    assert "model.feature_dim is 4 there, 5 here" in line(model={**SPEC["model"], "feature_dim": 5})
    data = {**SPEC["data"], "train_size": 100}
    assert "(data.train_size is 200 there, 100 here)" in line(data=data)
    (folder / "results.json").unlink()
    assert line(train=train) == ""  # nothing finished would be lost


def test_the_line_on_what_is_replaced_comes_before_anything_is_computed(done, tmp_path):
    told, folder = io.StringIO(), copy_of(done, tmp_path)
    runner.run(changed(losses=SPEC["losses"][:1]), out=folder, progress=Lines(told))
    assert told.getvalue().startswith(f"{folder} holds finished results of another spec")


def test_only_a_run_folder_can_be_reused(tmp_path):
    with pytest.raises(RunFolderError, match=r"reuse .* is no run folder"):
        runner.run(SPEC, out=tmp_path / "run", reuse=tmp_path)


def test_a_run_with_the_names_as_labels_is_found_again_under_default_labels(tmp_path, monkeypatch):
    losses = [{"name": "softmax", "label": "softmax"}, {"name": "lgm", "label": "lgm"}]
    attack = {"name": "fgsm", "eps": [0.1]}
    old = changed(seeds=[0], losses=losses, attacks=[{**attack, "label": "fgsm"}])
    folder = runner.run(old, out=tmp_path / "run").path
    before = files(folder)
    counted = Counted(monkeypatch)
    new = changed(seeds=[0], losses=[{"name": "softmax"}, {"name": "LGM"}], attacks=[attack])
    assert runner.run(new, out=folder).exit_code == 0
    assert (counted.trained, counted.attacked) == (0, [])
    assert files(folder).keys() == before.keys()
    run = load_run(folder)
    assert {row["label"] for row in run.rows} == {"Softmax", "L-GM"}
    assert {row["attack_label"] for row in run.rows} == {"none", "FGSM"}
    assert {cost["attack_label"] for cost in run.provenance["attack_cost"]} == {"FGSM"}
    for name in ("lgm", "l-gm", "L-GM"):
        assert load_classifier(folder, loss=name, seed=0).head
    assert run.cells[0].scores().passes("attacked")[0].label == "FGSM"


def test_a_changed_table_of_others_computes_nothing(done, tmp_path, monkeypatch, capsys):
    copy, before, counted = copy_of(done, tmp_path), files(done), Counted(monkeypatch)
    for error in (0.39, 0.41):
        row = f'{{"loss": "L-GM", "error": {error}}}'
        text = f'{{"source": "Doe 2030, page 7", "unit": "percent", "rows": [{row}]}}'
        (tmp_path / "paper.json").write_text(text)
        spec = load_spec(changed(report={"published": "paper.json"}), folder=tmp_path)
        runner.run(spec, out=copy)
        print_result(load_run(copy))
        assert f"L-GM, clean: error {error} % (" in capsys.readouterr().out
        (listed,) = load_run(copy).provenance["files"]
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        assert listed == {"key": "report.published[0]", "name": "paper.json", "digest": digest}
        assert f'Same: report.published[0] = "paper.json", digest {digest}.' in [
            *_compare_files(take_origin(copy, "small", load_run(copy).provenance), [tmp_path])
        ]
    assert (counted.trained, counted.attacked, files(copy)) == (0, [], before)
    (tmp_path / "paper.json").write_text("{}")
    with pytest.raises(SpecError, match=r"report.published .*source: missing"):
        runner.run(spec, out=copy)
