"""Weights that are whole and yet not the cell's: made anew, not taken, or said."""

import shutil

import pytest
import torch

from robustloss.models.weight_files import load_tensors, save_tensors
from robustloss.results.run import load_run
from robustloss.runs import classifier as runs_classifier
from robustloss.runs import runner
from robustloss.storage import CorruptFile, read_json, write_json
from tests.reports.markup import Page
from tests.runs.test_links import TINY
from tests.small_run import Counted, files, numbers

ONE = {**TINY, "losses": [{"name": "softmax"}]}
# The same cell, and a trial with the same weights.
TRIED = {**ONE, "losses": [{"name": "softmax", "search": {"lr": [0.02]}}]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    runner.run(ONE, out=folder)
    return folder


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copied")


def forge(run, change):
    """Put other weights, with digests that fit, under the name of the cell's."""
    (path,) = run.glob("cells/softmax/seed-0/model-*")
    tensors, meta = load_tensors(path)
    change(tensors, meta)
    save_tensors(path, tensors, meta)
    return path


def some(tensors):
    return next(name for name, value in tensors.items() if value.is_floating_point())


DEEDS = {
    "another shape": lambda t, m: t.update({some(t): t[some(t)].repeat(2, *[1] * 9)}),
    "NaN": lambda t, m: t.update({some(t): t[some(t)] * torch.nan}),
    "infinity": lambda t, m: t[some(t)].view(-1)[:1].fill_(torch.inf),
    "a missing tensor": lambda t, m: t.pop(some(t)),
    "one too many": lambda t, m: t.update(more=torch.zeros(3)),
    "another name": lambda t, m: t.update({"../../x": t.pop(some(t))}),
    "whole numbers": lambda t, m: t.update({some(t): t[some(t)].long()}),
    "bool": lambda t, m: t.update({some(t): t[some(t)].bool()}),
    "double": lambda t, m: t.update({some(t): t[some(t)].double()}),
    "another head": lambda t, m: m.update(density=not m["density"]),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_whole_but_wrong_weights_are_made_anew(whole, copied, monkeypatch, deed):
    forge(copied, DEEDS[deed])
    for path in copied.glob("cells/*/*/fgsm-*.npz"):
        path.unlink()  # so that the weights are needed
    counted = Counted(monkeypatch)
    assert runner.run(ONE, out=copied).failures == []
    assert counted.trained == 1
    assert numbers(copied) == numbers(whole)
    assert files(copied) == files(whole)


def double(tensors, meta):
    for value in tensors.values():
        value.mul_(2) if value.is_floating_point() else None


def test_weights_that_their_own_cell_contradicts_are_not_reused(copied, tmp_path, monkeypatch):
    forge(copied, double)
    counted = Counted(monkeypatch)
    outcome = runner.run(ONE, out=tmp_path / "new", reuse=copied)
    assert counted.trained == 1
    assert "reused" not in load_run(outcome.path).provenance


def words(outcome):
    return Page(outcome.report.read_text(encoding="utf-8")).text


def test_reused_weights_are_said_as_long_as_they_are_used(copied, tmp_path):
    path = forge(copied, double)
    cell = read_json(path.parent / "cell.json", checked=True)
    cell["weights"] = load_tensors(path)[1]["tensors"]
    write_json(path.parent / "cell.json", cell, checked=True)  # a thorough forger
    told = [{"label": "Softmax", "seed": 0, "run": "copied"}]
    for reuse in (copied, None):  # and when the run goes on by itself
        outcome = runner.run(TRIED, out=tmp_path / "new", reuse=reuse)
        assert load_run(outcome.path).provenance["reused"] == told
        assert "Softmax seed 0 from the run folder copied: not trained in this run" in words(
            outcome
        )
    next(outcome.path.glob("cells/*/*/model-*")).unlink()  # a trial has the same
    outcome = runner.run(TRIED, out=tmp_path / "new")
    assert load_run(outcome.path).provenance["reused"] == told
    next(outcome.path.glob("cells/*/*/model-*")).unlink()
    shutil.rmtree(outcome.path / "trials")
    outcome = runner.run(TRIED, out=tmp_path / "new")
    assert "reused" not in load_run(outcome.path).provenance
    assert "not trained in this run" not in words(outcome)


def test_a_run_without_reuse_says_nothing_of_it(whole):
    assert "reused" not in load_run(whole).provenance
    assert not list(whole.rglob("reused.json"))


@pytest.mark.parametrize(
    "forged",
    [
        {"feature_dim": 9_000_000},  # of 10 classes
        {"num_classes": 90_000, "feature_dim": 90_000},
        {"image_shape": [10_000, 10_000, 10_000]},
        {"image_shape": [1, 7000, 7000]},
        {"loss_params": {"folders": ["/"]}},
        {"loss_params": {"name": "softmax"}},
        {"loss_params": {"num_classes": 3}},
        {"backbone_params": {"name": "x"}},
        {"backbone_params": {"folders": ["/"]}},
        {"backbone_params": {"feature_dim": 5}},
    ],
    ids=str,
)
def test_a_network_that_cell_json_cannot_mean_is_refused_without_its_memory(
    copied, monkeypatch, forged
):
    monkeypatch.setattr(
        runs_classifier, "build_classifier", lambda *given, **more: pytest.fail("built")
    )
    (path,) = copied.glob("cells/softmax/seed-0/cell.json")
    content = read_json(path, checked=True)
    content["build"] |= forged
    write_json(path, content, checked=True)
    with pytest.raises(CorruptFile, match=r"how its network is built|weights of this network"):
        runs_classifier.load_classifier(copied, loss="softmax", seed=0)
