"""A run: folders, keys, resumption and refusals. Small digits, no report."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robustloss import runner
from robustloss.cells import CellRun
from robustloss.data import DataError
from robustloss.models import load_classifier
from robustloss.results import load_run
from robustloss.spec import SpecError
from robustloss.storage import read_json

SPEC = {
    "name": "small",
    "seeds": [0, 1],
    "data": {"name": "digits", "train_size": 200, "validation_size": 60, "test_size": 80},
    "model": {"backbone": "digits_cnn", "feature_dim": 4},
    "train": {"epochs": 3, "batch_size": 40, "precision": "float32", "lr": 0.02},
    "detection": {"fit_size": 100},
    "losses": [{"name": "softmax"}, {"name": "lgm", "label": "L-GM"}],
    "attacks": [{"name": "fgsm", "eps": [0, "1/10", 0.2]}],
}


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    import reports

    monkeypatch.setattr(
        reports, "build_report", lambda path: Path(path) / "report/index.html", raising=False
    )


def changed(**keys):
    return {**json.loads(json.dumps(SPEC)), **keys}


def numbers(folder):
    """results.json without what may differ between two equal runs: times and the command."""
    results = read_json(folder / "results.json")
    for key in ("started", "finished", "seconds", "command"):
        del results["provenance"][key]
    for training in results["training"]:
        del training["seconds"]
        for line in training["curve"]:
            del line["seconds"]
    return results


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("cells/**/*.npz")}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """An undisturbed run."""
    import reports

    folder = tmp_path_factory.mktemp("done") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "build_report", lambda path: Path(path), raising=False)
        assert runner.run(SPEC, out=folder).exit_code == 0
    return folder


def copy_of(folder, tmp_path):
    import shutil

    return Path(shutil.copytree(folder, tmp_path / "copy"))


class Counted:
    """Counts trainings and attacks while a test runs."""

    def __init__(self, monkeypatch):
        from robustloss import cells

        self.trained, self.attacked = 0, []
        train, attack = cells.train.train, cells.evaluate.attacked_records

        def counted_train(*args, **kwargs):
            self.trained += 1
            return train(*args, **kwargs)

        def counted_attack(*args, eps, **kwargs):
            self.attacked.append(tuple(eps))
            return attack(*args, eps=eps, **kwargs)

        monkeypatch.setattr(cells.train, "train", counted_train)
        monkeypatch.setattr(cells.evaluate, "attacked_records", counted_attack)


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
        "cell.json", "fgsm-0", "fgsm-0.1", "fgsm-0.2", "model", "none-0", "scores", "train.json",
    ]  # fmt: skip
    assert run.results["failures"] == []
    assert run.provenance["data"]["test"] == 80
    assert (done / "spec.toml").exists()


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
    runner.run(changed(**keys), out=folder)
    assert counted.trained == 4
    fresh = tmp_path / "fresh"
    runner.run(changed(**keys), out=fresh)
    assert numbers(folder) == numbers(fresh)


def test_a_loss_that_overrides_training_is_trained_so(done, tmp_path):
    folder = tmp_path / "run"
    losses = [{"name": "softmax"}, {"name": "lgm", "label": "L-GM", "train": {"epochs": 1}}]
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


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "delete"])
@pytest.mark.parametrize("what", ["model", "scores", "fgsm-0.1", "none", "cell.json", "train.json"])
def test_a_damaged_file_is_made_anew(done, tmp_path, what, damage):
    folder = copy_of(done, tmp_path)
    path = next((folder / "cells/l-gm/seed-0").glob(f"{what}*"))
    whole = path.read_bytes()
    if damage == "delete":
        path.unlink()
    elif damage == "flip":
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 64]) + whole[middle + 1 :])
    else:
        path.write_bytes(whole[: len(whole) // 3] if damage == "truncate" else b"")
    runner.run(SPEC, out=folder)
    assert numbers(folder) == numbers(done)
    if what != "train.json" or damage != "delete":
        assert len(path.read_bytes()) > 0
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


PLUGIN = """
import torch
from robustloss.losses.base import LossHead, LossTerms
import torch.nn.functional as F

class Own(LossHead):
    def __init__(self, feature_dim, num_classes):
        super().__init__(feature_dim, num_classes)
        self.linear = torch.nn.Linear(feature_dim, num_classes)

    def logits(self, features):
        return self.linear(features)

    def loss(self, features, labels, *, progress):
        value = F.cross_entropy(self.logits(features), labels, reduction="none")
        return LossTerms({value}, torch.zeros_like(value))
"""


def own_loss(tmp_path, value="value"):
    path = tmp_path / "own.py"
    path.write_text(PLUGIN.replace("{value}", value))
    return changed(seeds=[0], losses=[{"name": "softmax"}, {"name": f"{path}:Own", "label": "own"}])


def test_a_plugin_is_trained_anew_when_its_source_changes(tmp_path, monkeypatch):
    counted = Counted(monkeypatch)
    folder = tmp_path / "run"
    runner.run(own_loss(tmp_path), out=folder)
    runner.run(own_loss(tmp_path), out=folder)
    assert counted.trained == 2
    runner.run(own_loss(tmp_path, "2 * value"), out=folder)
    assert counted.trained == 3
    with pytest.raises(ValueError, match="allow_plugins=True"):
        load_classifier(folder, loss="own", seed=0)
    assert load_classifier(folder, loss="own", seed=0, allow_plugins=True).head.num_classes == 10


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("value.mean()", r"must return classification of shape \(B,\)"),
        ("value * float('nan')", "the loss became NaN or infinite"),
        ("1 // 0", "ZeroDivisionError"),
    ],
)
def test_a_failed_cell_is_told_and_stops_no_other(tmp_path, value, reason):
    import re

    folder = tmp_path / "run"
    outcome = runner.run(own_loss(tmp_path, value), out=folder)
    assert outcome.exit_code == 1
    [failure] = outcome.failures
    assert (failure["label"], failure["seed"], failure["stage"]) == ("own", 0, "train")
    assert re.search(reason, failure["reason"])
    run = load_run(folder)
    assert run.failures == [failure]
    assert {row["label"] for row in run.rows} == {"softmax"}


def test_a_cell_that_fails_now_leaves_no_old_numbers(tmp_path):
    folder = tmp_path / "run"
    assert runner.run(own_loss(tmp_path), out=folder).exit_code == 0
    assert runner.run(own_loss(tmp_path, "1 // 0"), out=folder).exit_code == 1
    run = load_run(folder)
    assert {cell.label for cell in run.cells} == {"softmax"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"losses": [{"name": "lgn"}]}, r"losses\[0\].*lgn.*did you mean 'lgm'"),
        (
            {"losses": [{"name": "lgm", "params": {"aplha": 1}}]},
            r"losses\[0\].*aplha.*did you mean 'alpha'",
        ),
        ({"losses": [{"name": "nowhere:Own"}]}, r"losses\[0\].*nowhere"),
        ({"attacks": [{"name": "fgms", "eps": [0.1]}]}, r"attacks\[0\].*fgms.*fgsm"),
        ({"model": {"backbone": "lenet_plus"}}, r"losses\[0\].*too small"),
        ({"model": {"backbone": "resnet"}}, r"backbone.*resnet"),
    ],
)
def test_wrong_names_cost_no_training_and_no_folder(tmp_path, keys, message):
    folder = tmp_path / "run"
    with pytest.raises(SpecError, match=message):
        runner.run(changed(**keys), out=folder)
    assert not folder.exists()


def test_folders_of_others_are_refused_and_left_alone(done, tmp_path):
    with pytest.raises(runner.RunFolderError, match="belongs to spec 'small', this is spec 'big'"):
        runner.run(changed(name="big"), out=done)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "thesis.txt").write_text("mine")
    with pytest.raises(runner.RunFolderError, match="no run folder"):
        runner.run(SPEC, out=stranger)
    assert [p.name for p in stranger.iterdir()] == ["thesis.txt"]
    with pytest.raises(runner.RunFolderError, match="is a file"):
        runner.run(SPEC, out=stranger / "thesis.txt")


def test_bad_arguments_are_refused(tmp_path):
    for keys, message in [
        ({"device": "gpu"}, r"device \(='gpu'\) must be one of auto, cpu, cuda, mps"),
        ({"executor": "threads:2"}, r"executor \(='threads:2'\) must be serial or processes:N"),
        ({"executor": "processes:0"}, r"executor \(='processes:0'\)"),
        ({"seeds": []}, r"seeds \(=\[\]\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            runner.run(SPEC, out=tmp_path / "run", **keys)
    with pytest.raises(DataError):
        runner.run(changed(data={"name": "digits", "train_size": 5000}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_key_names_everything_that_decides_the_weights(done, tmp_path):
    """Two jobs that differ in one deciding value never share a file name."""
    from robustloss.cells import CellJob
    from robustloss.data import load_dataset
    from robustloss.spec import load_spec

    def key(spec, cell=0, train_size=200):
        loaded = load_spec(spec)
        data = load_dataset("digits", train_size=train_size, quiet=True)
        job = CellJob(loaded, loaded.cells()[cell], tmp_path, "cpu", None)
        return CellRun(job, data, lambda event: None).model_key()

    variants = [changed(train={**SPEC["train"], k: v}) for k, v in [
        ("lr", 0.5), ("epochs", 9), ("batch_size", 41), ("optimizer", "adam"), ("momentum", 0.1),
        ("nesterov", False), ("weight_decay", 0.1), ("schedule", "cosine"), ("warmup", 0.5),
        ("precision", "bfloat16"), ("augment", "shift"),
    ]]  # fmt: skip
    variants.append(changed(losses=[{"name": "softmax", "params": {"bias": False}}]))
    variants.append(changed(model={**SPEC["model"], "feature_dim": 3}))
    keys = [key(SPEC), key(SPEC, 1), key(SPEC, 2), key(SPEC, train_size=201), *map(key, variants)]
    assert len(set(keys)) == len(keys)
    assert key(changed(attacks=[{"name": "fgsm", "eps": [0.3]}], name="other")) == keys[0]


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
import reports
from pathlib import Path
from robustloss import runner, train
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

    from robustloss.spec import load_spec

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
