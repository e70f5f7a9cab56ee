"""Scores that are kept: what is read is what was computed, and the user's own stand among them."""

import numpy as np
import pytest

from robustloss.analysis.detection.compute import compute_scores
from robustloss.analysis.detection.scores import class_log_likelihood, max_logit
from robustloss.attacks.plugins import PluginError
from robustloss.cells import score_plugins
from robustloss.results.records import Record
from robustloss.results.run import load_run
from robustloss.results.scores import CLEAN, VALIDATION, Pass, load_scores, save_scores
from robustloss.runs import runner
from robustloss.spec.errors import SpecError
from robustloss.storage import CorruptFile
from tests.small_run import changed

NAMES = ("class_log_likelihood", "max_logit", "knn")
ATTACKED = Pass("attacked", "FGSM", 0.2)


def make(seed, n=20):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3))
    return Record(
        index=np.arange(n) + 7,
        labels=rng.integers(0, 3, n),
        logits=logits,
        class_log_likelihood=logits - 1.0,
        features=rng.normal(size=(n, 2)),
        linf=np.zeros(n, np.float32),
        l2=np.zeros(n, np.float32),
        zero_gradient=None,
        radius=None,
        images=np.zeros((0, 1, 1, 1), np.float32),
    )


PASSES = {
    VALIDATION: make(1, 12),
    CLEAN: make(2),
    ATTACKED: make(3),
    Pass("outside", "noise"): make(4, 5),
}
REFERENCE = {
    "train_features": np.random.default_rng(0).normal(size=(30, 2)),
    "train_labels": np.arange(30) % 3,
    "validation_logits": PASSES[VALIDATION].logits,
    "validation_labels": PASSES[VALIDATION].labels,
    "validation_features": PASSES[VALIDATION].features,
}


def computed(names=NAMES, passes=PASSES, **keys):
    return compute_scores(names, REFERENCE, passes, density=False, **keys)


def test_what_is_kept_comes_back(tmp_path):
    scores = computed()
    save_scores(tmp_path / "s.npz", scores)
    back = load_scores(tmp_path / "s.npz")
    assert back.names == NAMES
    assert set(back.values) == {(name, which) for name in NAMES for which in PASSES}
    for key, value in scores.values.items():
        np.testing.assert_array_equal(back.values[key], value)
    np.testing.assert_array_equal(back.wrong[ATTACKED], ~PASSES[ATTACKED].correct)
    np.testing.assert_array_equal(back.index, PASSES[CLEAN].index)
    assert Pass("outside", "noise") not in back.wrong  # its labels mean nothing
    assert back.passes("attacked") == [ATTACKED]
    np.testing.assert_array_equal(
        back.get("class_log_likelihood", CLEAN), class_log_likelihood(PASSES[CLEAN])
    )


def test_equal_scores_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        save_scores(tmp_path / name, computed())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_is_not_there_is_said():
    scores = computed()
    with pytest.raises(ValueError, match=r"score \(='energy'\) must be one of class_log"):
        scores.get("energy", CLEAN)
    with pytest.raises(ValueError, match=r"no scores of FGSM at eps 0.3; .*FGSM at eps 0.2"):
        scores.get("knn", Pass("attacked", "FGSM", 0.3))


def test_a_file_of_something_else_is_corrupt(tmp_path):
    from robustloss.array_files import write_arrays

    write_arrays(tmp_path / "s.npz", {"index": np.arange(3)}, {"names": ["a"], "passes": [1]})
    with pytest.raises(CorruptFile, match="holds no scores"):
        load_scores(tmp_path / "s.npz")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda record: np.full(record.n, np.nan), "is NaN for 12 of 12 images"),
        (lambda record: record.logits, r"of shape \(12, 3\)"),
        (lambda record: 1.0, r"of shape \(\)"),
        (lambda record: np.array(["x"] * record.n), "<U1"),
    ],
)
def test_a_score_that_is_not_one_number_an_image_is_refused(function, message):
    with pytest.raises(ValueError, match=f"score mine.*{message}"):
        computed(("mine",), plugins={"mine": function})


PLUGIN = """
import numpy as np

def gap(record):
    top = np.sort(record.logits, axis=1)
    return top[:, -1] - top[:, -2]

def gap_torch(outputs):
    top = outputs.logits.sort(dim=1).values
    return top[:, -1] - top[:, -2]

def near_mean(record, reference):
    return -np.linalg.norm(record.features - reference["train_features"].mean(0), axis=1)

def three(a, b, c):
    return a

class Kind:
    pass

largest = 3
"""


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(PLUGIN)
    return path


def test_the_users_functions_are_bound(plugin):
    names = ["knn", "own.py:gap", "own.py:near_mean"]
    found = score_plugins.load(names, REFERENCE, (plugin.parent,))
    assert list(found) == names[1:]
    record = PASSES[CLEAN]
    top = np.sort(record.logits, axis=1)
    np.testing.assert_array_equal(found["own.py:gap"](record), top[:, 2] - top[:, 1])
    assert found["own.py:near_mean"](record).shape == (record.n,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own.py:three", r"must take a Record.*it needs \(a, b, c\)"),
        ("own.py:Kind", "is no function"),
        ("own.py:largest", "is no function"),
        ("own.py:gapp", "did you mean 'gap'"),
        ("other.py:gap", "other.py"),
    ],
)
def test_a_wrong_plugin_is_refused_before_anything_runs(plugin, name, message, tmp_path):
    with pytest.raises(PluginError, match=message):
        score_plugins.check([name], (plugin.parent,))
    spec = changed(detection={"scores": [name], "fit_size": 100})
    if name == "own.py:three":
        (tmp_path / "spec").mkdir()
        spec["detection"]["scores"] = [f"{plugin}:three"]
        with pytest.raises(SpecError, match=r"detection.scores\[0\]: score .*must take a Record"):
            runner.run(spec, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_score_of_the_user_stands_in_the_tables(plugin, tmp_path):
    name = f"{plugin}:gap"
    scores = ["class_log_likelihood", "marginal_log_likelihood", "max_logit", name]
    aware = {"name": "adaptive_selective", "params": {"steps": 2}, "eps": [0.2]}
    spec = changed(seeds=[0], detection={"scores": scores, "adapt": True}, checks={"images": 0})
    spec["attacks"].append(aware)
    runner.run(spec, out=tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert {row["score"] for row in run.detection} == {*scores}
    # Each score is attacked, those that a loss has; no other number is called adapted.
    on = {"class_log_likelihood": "Adaptive, selective", "max_logit": "Adaptive on largest logit",
          "marginal_log_likelihood": "Adaptive on marginal likelihood",
          name: "Adaptive on own.py:gap"}  # fmt: skip
    adapted = {(row["label"], row["score"], row["attack_label"])
               for row in run.detection if row["adapted"]}  # fmt: skip
    assert adapted == {(loss, score, label) for loss in ("softmax", "L-GM")
                       for score, label in on.items()
                       if loss == "L-GM" or score != "marginal_log_likelihood"}  # fmt: skip
    best = {(row["score"], row["adapted"]) for row in run.adaptive if row["label"] == "L-GM"
            and row["kind"] == "best_of_adaptive"}  # fmt: skip
    assert best == {(score, True) for score in scores}
    cell = run.cells[0]
    stored, record = cell.scores(), cell.record("fgsm", 0.2)
    top = np.sort(record.logits.astype(np.float64), axis=1)
    found = stored.get(name, Pass("attacked", "fgsm", 0.2))
    np.testing.assert_allclose(found, top[:, -1] - top[:, -2], rtol=1e-6)
    np.testing.assert_array_equal(
        stored.get("max_logit", Pass("attacked", "fgsm", 0.2)), max_logit(record)
    )
    assert len(stored.passes("noise")) == 2 + 3

    before = {entry["attack_label"]: entry["file"] for entry in cell.files["records"]}
    plugin.write_text(PLUGIN.replace("top[:, -1] - top[:, -2]", "top[:, -1]"))  # another score
    runner.run(spec, out=tmp_path / "run")
    again = load_run(tmp_path / "run").cells[0]
    found = again.scores().get(name, Pass("attacked", "fgsm", 0.2))
    np.testing.assert_allclose(found, top[:, -1])
    after = {entry["attack_label"]: entry["file"] for entry in again.files["records"]}
    assert {label for label in after if after[label] != before[label]} == {on[name]}


def test_a_torch_form_stands_beside_the_score(plugin):
    folders = (plugin.parent,)
    form = score_plugins.find_torch_form("own.py:gap", folders)
    assert form is not None
    assert not form.takes_reference
    assert score_plugins.find_torch_form("own.py:near_mean", folders) is None
    plugin.write_text(f"{PLUGIN}\n\ngap_torch = 3\n")
    with pytest.raises(PluginError, match=r"own\.py:gap_torch' is no function"):
        score_plugins.check(["own.py:gap"], folders)


def test_an_attack_on_a_score_without_a_torch_form_is_refused(plugin, tmp_path):
    name = f"{plugin}:near_mean"
    aware = {"name": "adaptive_joint", "params": {"score": name}, "eps": [0.1]}
    spec = changed(attacks=[aware], detection={"scores": [name]})
    with pytest.raises(SpecError, match=r"has no torch form.*Write near_mean_torch beside it"):
        runner.run(spec, out=tmp_path / "run")
