"""A run that cannot be, or whose plug-in fails: told, and nothing lost."""

import pytest

from robustloss.data.files import DataError
from robustloss.models.weight_files import load_tensors
from robustloss.results.run import load_run
from robustloss.runs import runner
from robustloss.runs.classifier import load_classifier
from robustloss.runs.folder import RunFolderError
from robustloss.spec.errors import SpecError
from tests.small_run import SPEC, Counted, changed

pytestmark = pytest.mark.usefixtures("no_report")

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
CRITERION = """
from torch.nn import functional as F

def own(logits, labels):
    value = F.cross_entropy(logits, labels, reduction="none")
    return {value}
"""


def own_loss(tmp_path, value="value"):
    path = tmp_path / "own.py"
    path.write_text(PLUGIN.replace("{value}", value))
    return changed(seeds=[0], losses=[{"name": "softmax"}, {"name": f"{path}:Own", "label": "own"}])


def own_criterion(tmp_path, value="value"):
    path = tmp_path / "own.py"
    path.write_text(CRITERION.replace("{value}", value))
    loss = {"name": f"criterion:{path}:own", "label": "own"}
    return changed(seeds=[0], losses=[{"name": "softmax"}, loss])


@pytest.mark.parametrize("own", [own_loss, own_criterion])
def test_a_plugin_is_trained_anew_when_its_source_changes(tmp_path, monkeypatch, own):
    counted = Counted(monkeypatch)
    folder = tmp_path / "run"
    runner.run(own(tmp_path), out=folder)
    runner.run(own(tmp_path), out=folder)
    assert counted.trained == 2
    runner.run(own(tmp_path, "2 * value"), out=folder)
    assert counted.trained == 3
    with pytest.raises(ValueError, match=r"executes it with your rights.*allow_plugins=True"):
        load_classifier(folder, loss="own", seed=0)
    assert load_classifier(folder, loss="own", seed=0, allow_plugins=True).head.num_classes == 10


LIKELIHOOD = """
    def class_log_likelihood(self, features):
        return -{factor} * features.square().sum(1, keepdim=True) + self.logits(features)
"""


def test_a_new_likelihood_is_measured_anew_though_the_weights_stay(tmp_path):
    folder = tmp_path / "run"

    def likelihoods(factor):
        spec = own_loss(tmp_path)
        path = tmp_path / "own.py"
        path.write_text(path.read_text() + LIKELIHOOD.replace("{factor}", factor))
        assert runner.run(spec, out=folder).exit_code == 0
        cell = next(cell for cell in load_run(folder).cells if cell.label == "own")
        _, meta = load_tensors(cell.folder / cell.files["model"])
        return meta["tensors"], cell.record("fgsm", 0.2).class_log_likelihood

    weights, first = likelihoods("1")
    same_weights, second = likelihoods("2")
    assert same_weights == weights
    assert abs(first - second).max() > 1e-3


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("value.mean()", r"loss\(\)\.classification \(shape \(\)\) must have shape \(40,\)"),
        ("value * float('nan')", "the loss became NaN or infinite"),
        ("value.detach()", r"loss\(\) is connected to no parameter"),
        ("1 // 0", "ZeroDivisionError"),
        ("exit(7)", "SystemExit: 7"),
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
    assert {row["label"] for row in run.rows} == {"Softmax"}


def test_a_cell_that_fails_now_leaves_no_old_numbers(tmp_path):
    folder = tmp_path / "run"
    assert runner.run(own_loss(tmp_path), out=folder).exit_code == 0
    assert runner.run(own_loss(tmp_path, "1 // 0"), out=folder).exit_code == 1
    run = load_run(folder)
    assert {cell.label for cell in run.cells} == {"Softmax"}


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


def test_folders_of_others_are_refused_and_left_alone(tmp_path):
    done = tmp_path / "done"
    assert runner.run(changed(seeds=[0]), out=done).exit_code == 0
    with pytest.raises(RunFolderError, match="belongs to spec 'small', this is spec 'big'"):
        runner.run(changed(name="big"), out=done)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "thesis.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="no run folder"):
        runner.run(SPEC, out=stranger)
    assert [p.name for p in stranger.iterdir()] == ["thesis.txt"]
    with pytest.raises(RunFolderError, match="is a file"):
        runner.run(SPEC, out=stranger / "thesis.txt")


def test_bad_arguments_are_refused(tmp_path):
    for keys, message in [
        ({"device": "gpu"}, r"device \(='gpu'\) must be one of auto, cpu, cuda, mps"),
        (
            {"executor": "threads:2"},
            r"executor \(='threads:2'\) must be auto, serial or processes:N",
        ),
        ({"executor": "processes:0"}, r"executor \(='processes:0'\)"),
        ({"seeds": []}, r"seeds \(=\[\]\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            runner.run(SPEC, out=tmp_path / "run", **keys)
    with pytest.raises(DataError):
        runner.run(changed(data={"name": "digits", "train_size": 5000}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
