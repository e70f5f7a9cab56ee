import json
import pickle

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency

import robustloss
from robustloss.analysis.tables.trials import trial_rows
from robustloss.cells import cell, jobs
from robustloss.cells.weights import CellWeights
from robustloss.data.load import load_dataset
from robustloss.losses import LOSSES
from robustloss.models import build
from robustloss.runs import runner
from robustloss.runs.executors.workers import give_up
from robustloss.spec.data import DataSpec
from robustloss.spec.load import load_spec
from robustloss.storage import write_json
from robustloss.training import train
from robustloss.training.loop import Loop
from tests.small_run import SPEC, Counted, changed

LOSS_A = {"name": "softmax", "search": {"lr": [0.02, 900.0]}}
LOSS_B = {"name": "lgm", "label": "L-GM", "search": {"alpha": [0.1, 1.0]}}
SMALL = {"checks": {"images": 0}, "detection": {"fit_size": 50, "noise": False}}


SMALL |= {"train": {**SPEC["train"], "epochs": 1}}


def tuning(**keys):
    return load_spec(changed(**{"losses": [LOSS_A, LOSS_B], "seeds": [0, 1], **SMALL, **keys}))


def content(error, loss=1.0):
    fgsm = [{"eps": 0.1, "fgsm_error": 0.5}]
    return {"validation_error": error, "validation_loss": loss, "n": 60, "fgsm": fgsm}


def test_the_least_clean_validation_error_is_chosen_then_its_loss_then_the_first():
    trials = load_spec(
        changed(losses=[{"name": "softmax", "search": {"lr": [0.1, 0.2, 0.3, 0.4]}}])
    ).trials()
    reason = {"reason": "diverged"}

    def chosen(*contents):
        return trial_rows(trials, contents)[1]

    assert chosen(content(0.3), content(0.1), content(0.2), reason) == {"Softmax": {"lr": 0.2}}
    assert chosen(content(0.1, 2.0), content(0.1, 1.0), reason, reason) == {"Softmax": {"lr": 0.2}}
    assert chosen(reason, content(0.1), content(0.1), content(0.1)) == {"Softmax": {"lr": 0.2}}
    assert chosen(reason, reason, reason, reason) == {}


def test_the_first_value_is_kept_unless_another_is_shown_to_be_better():
    search = {"lr": [0.1, 0.2, 0.3]}
    trials = load_spec(changed(losses=[{"name": "softmax", "search": search}])).trials()

    def chosen(*errors, choose="first"):
        contents = [{**content(error), "n": 5000} for error in errors]
        ((rate,),) = [kept.values() for kept in trial_rows(trials, contents, choose)[1].values()]
        return rate

    # of 5,000 images: 1.62 and 1.52 % are told apart by nothing, 2.26 and 1.52 % are
    assert chosen(0.0162, 0.0152, 0.0484) == 0.1
    assert chosen(0.0226, 0.0152, 0.0151) == 0.2
    assert chosen(0.0162, 0.0152, 0.0484, choose="best") == 0.2
    assert chosen(0.0, 0.0, 0.0) == 0.1
    shown = next(k for k in range(76, 200) if chosen(k / 5000, 0.0152, 0.9) == 0.2)
    table = [[shown, 5000 - shown], [76, 5000 - 76]]
    below = [[shown - 1, 5001 - shown], [76, 5000 - 76]]
    found = [chi2_contingency(each, correction=False).pvalue for each in (table, below)]
    assert found[0] < 0.05 < found[1]


def test_fgsm_chooses_nothing():
    trials = load_spec(changed(losses=[{"name": "softmax", "search": {"lr": [0.1, 0.2]}}])).trials()
    robust = {**content(0.2), "fgsm": [{"eps": 0.1, "fgsm_error": 0.0}]}
    rows, chosen = trial_rows(trials, [content(0.1), robust])
    assert chosen == {"Softmax": {"lr": 0.1}}
    assert [row["chosen"] for row in rows] == [True, False]


def test_a_tuned_run_keeps_the_best_trial_and_does_not_train_it_again(
    tmp_path, monkeypatch, no_report
):
    counted = Counted(monkeypatch)
    spec = tuning()
    outcome = runner.run(spec, out=tmp_path / "run")
    assert outcome.exit_code == 0
    # 4 trials; of 4 cells those with seed 0 are trials already
    assert counted.trained == 6
    run = robustloss.load_run(outcome.path)
    diverged = [row for row in run.trials if row["reason"]]
    assert [row["settings"] for row in diverged] == [{"lr": 900.0}]
    assert "NaN or infinite" in diverged[0]["reason"]
    kept = {row["label"]: row for row in run.trials if row["chosen"]}
    tried = [row for row in run.trials if row["label"] == "L-GM"]
    assert kept["L-GM"]["validation_error"] == min(row["validation_error"] for row in tried)
    losses = {loss["label"]: loss for loss in run.provenance["spec"]["losses"]}
    assert losses["Softmax"]["train"] == {"lr": 0.02}
    assert losses["L-GM"]["params"] == kept["L-GM"]["settings"]
    assert (outcome.path / "spec.toml").read_text() == spec.text
    model = robustloss.load_classifier(outcome.path, loss="L-GM", seed=0)
    dataset = load_dataset(spec.data, near=spec.folder, quiet=True)
    with torch.no_grad():
        guess = model(dataset.validation.batch(slice(None))).argmax(1)
    wrong = (guess != dataset.validation.labels).double().mean().item()
    assert wrong == pytest.approx(kept["L-GM"]["validation_error"], abs=1e-9)
    before = run.trials
    runner.run(spec, out=tmp_path / "run")  # everything is there
    assert counted.trained == 6
    more = tuning(losses=[{**LOSS_A, "search": {"lr": [0.02, 900.0, 0.03]}},
                          {**LOSS_B, "search": {"alpha": [0.1, 0.5, 1.0]}}])  # fmt: skip
    runner.run(more, out=tmp_path / "run")
    assert counted.trained <= 6 + 2 + 4  # the trials that were there are not made again
    again = robustloss.load_run(outcome.path).trials
    old = [{k: v for k, v in row.items() if k not in ("chosen", "trial")} for row in again]
    for row in before:
        assert {k: v for k, v in row.items() if k not in ("chosen", "trial")} in old


def test_a_loss_of_which_every_trial_diverges_is_a_gap_and_the_others_go_on(tmp_path, no_report):
    spec = tuning(losses=[{**LOSS_A, "search": {"lr": [900.0, 950.0]}}, LOSS_B], seeds=[0])
    outcome = runner.run(spec, out=tmp_path / "run")
    assert outcome.exit_code == 1
    (failure,) = outcome.failures
    assert (failure["label"], failure["stage"]) == ("Softmax", "tuning")
    assert "no trial finished" in failure["reason"]
    assert {row["label"] for row in robustloss.load_run(outcome.path).rows} == {"L-GM"}


def test_a_changed_trial_file_is_made_again(tmp_path, no_report, monkeypatch):
    counted = Counted(monkeypatch)
    spec = tuning(losses=[LOSS_B], seeds=[0])
    outcome = runner.run(spec, out=tmp_path / "run")
    first = robustloss.load_run(outcome.path).trials
    path = next((tmp_path / "run/trials/l-gm").glob("*/trial.json"))
    other = {**json.loads(path.read_text()), "key": "0" * 16, "validation_error": 0.0}
    write_json(path, {k: v for k, v in other.items() if k != "sha256"}, checked=True)
    runner.run(spec, out=tmp_path / "run")
    assert robustloss.load_run(outcome.path).trials == first
    assert counted.trained == 2  # the weights were there


def test_a_trial_that_its_worker_could_not_end_has_a_reason_and_no_old_numbers(
    tmp_path, no_report, monkeypatch
):
    monkeypatch.setattr(runner, "run_jobs", lambda jobs, *words: killed(jobs))

    def killed(tries):
        return [give_up(job, "worker", "killed", lambda event: None) for job in tries]

    spec = tuning(losses=[LOSS_B], seeds=[0])
    old = tmp_path / "run" / spec.trials()[0].folder / "trial.json"
    old.parent.mkdir(parents=True)
    (tmp_path / "run" / "spec.toml").write_text(spec.text)
    write_json(old, {"key": "of another training", **content(0.01)}, checked=True)
    outcome = runner.run(spec, out=tmp_path / "run")
    trials = robustloss.load_run(outcome.path).trials
    assert [(row["reason"], row["chosen"]) for row in trials] == [("killed", False)] * 2
    assert {failure["stage"] for failure in outcome.failures} == {"tuning", "trial 1", "trial 2"}
    assert not old.exists()


def test_a_trial_that_fails_leaves_no_old_numbers(tmp_path, digits, monkeypatch):
    spec = tuning(losses=[LOSS_B], seeds=[0])
    job = jobs.CellJob(spec, spec.trials()[0], tmp_path, "cpu", None)
    path = tmp_path / job.cell.folder / "trial.json"
    path.parent.mkdir(parents=True)
    write_json(path, {"key": "of another training", **content(0.01)}, checked=True)

    def fail(*words, **keys):
        raise RuntimeError("no")

    monkeypatch.setattr(train, "train", fail)
    failure = cell.run_cell(job, digits, lambda event: None)
    assert failure.stage == jobs.trial_stage(job.cell)
    assert not path.exists()


@pytest.fixture(scope="module")
def digits():
    return load_dataset(
        DataSpec(name="digits", train_size=100, validation_size=40, test_size=40), quiet=True
    )


def test_every_loss_starts_from_the_same_network_with_the_same_seed(digits, tmp_path):
    def backbone(name, seed):
        spec = load_spec(changed(losses=[{"name": name}], seeds=[seed]))
        job = jobs.CellJob(spec, spec.cells()[0], tmp_path, "cpu", None)
        model = CellWeights(job, digits).build_model()
        return model.backbone.state_dict()

    first, other = backbone("softmax", 0), backbone("softmax", 1)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    for name in LOSSES:
        found = backbone(name, 0)
        assert all(torch.equal(found[key], first[key]) for key in first), name


def test_every_loss_sees_the_same_batches_with_the_same_seed(digits, monkeypatch):
    seen = []

    class EnoughError(Exception):
        pass

    def noted(loop, positions):
        seen.append(positions.cpu().numpy())
        loop.log.steps += 1
        loop.sums[3:] += 1
        if len(seen) == 5:
            raise EnoughError

    monkeypatch.setattr(Loop, "step", noted)

    def batches(name):
        seen.clear()
        spec = load_spec(changed(losses=[{"name": name}]))
        model = build.build_classifier(build.describe_network(spec.cells()[0], digits))
        with pytest.raises(EnoughError):
            train.train(model, digits, spec.train, seed=0, device=torch.device("cpu"))
        return model.head.batching, np.concatenate(seen)

    known = {"shuffled": batches("softmax")[1], "balanced": batches("triplet")[1]}
    for name in LOSSES:
        kind, found = batches(name)
        np.testing.assert_array_equal(found, known[kind], err_msg=name)
    assert not np.array_equal(known["shuffled"], known["balanced"])


def test_a_trial_travels_to_another_process(tmp_path):
    spec = tuning()
    job = jobs.CellJob(spec, spec.trials()[-1], tmp_path, "cpu", None)
    back = pickle.loads(pickle.dumps(job))
    assert back.cell == job.cell
    assert back.cell.folder == job.cell.folder
