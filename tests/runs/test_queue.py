"""A run in which the first cell of every loss fails in the same way stops."""

import re

import pytest

from robustloss.cells.jobs import CellJob, Failure
from robustloss.results.run import load_run
from robustloss.runs.executors.queue import NOT_BEGUN, JobQueue
from robustloss.spec.load import load_spec
from tests.small_run import changed

BROKEN = """
def attack(model, inputs, labels, eps):
    raise RuntimeError("no such file: secret.pt")
"""


def jobs(tmp_path, losses=("softmax", "lgm"), seeds=(0, 1, 2)):
    spec = load_spec(changed(losses=[{"name": name} for name in losses], seeds=list(seeds)))
    return [CellJob(spec, cell, tmp_path, "cpu", None) for cell in spec.cells()]


def failed(job, reason="the same"):
    return Failure(job.cell.loss.name, job.cell.label, job.cell.seed, "attack", reason)


def work_off(queue, result):
    """Computes one job after another; gives the order in which they began."""
    order = []
    while (number := queue.take()) is not None:
        order.append(number)
        queue.end(number, result(queue.jobs[number]))
    return order


def test_jobs_begin_seed_by_seed_and_end_in_their_own_order(tmp_path):
    queue = JobQueue(jobs(tmp_path, seeds=(7, 2, 5)))
    assert work_off(queue, lambda job: None) == [0, 3, 1, 4, 2, 5]
    assert queue.ends() == [None] * 6


def test_the_same_failure_of_every_loss_ends_the_queue(tmp_path):
    queue = JobQueue(jobs(tmp_path))
    assert work_off(queue, failed) == [0, 3]  # the first cell of each loss
    assert [end.stage for end in queue.ends()] == ["attack", NOT_BEGUN, NOT_BEGUN] * 2
    assert queue.ends()[1].reason.startswith("the first cell of every loss failed with the same")


@pytest.mark.parametrize(
    "result",
    [
        lambda job: failed(job, f"loss {job.cell.label}"),  # each for a reason of its own
        lambda job: failed(job) if job.cell.loss.name == "softmax" else None,
    ],
)
def test_other_failures_stop_nothing(tmp_path, result):
    queue = JobQueue(jobs(tmp_path))
    assert sorted(work_off(queue, result)) == list(range(6))


def test_one_failure_of_the_only_loss_may_be_its_seed(tmp_path):
    assert work_off(JobQueue(jobs(tmp_path, ("softmax",))), failed) == [0, 1]


def test_trials_that_diverge_stop_no_other_trial(tmp_path):
    search = {"lr": [900.0, 0.02]}
    losses = [{"name": name, "search": search} for name in ("softmax", "lgm")]
    spec = load_spec(changed(losses=losses))
    trials = [CellJob(spec, trial, tmp_path, "cpu", None) for trial in spec.trials()]
    assert sorted(work_off(JobQueue(trials), failed)) == [0, 1, 2, 3]


@pytest.mark.parametrize("executor", ["serial", "processes:2"])
def test_a_run_stops_with_the_message_and_status_1(tmp_path, command, executor):
    (tmp_path / "broken.py").write_text(BROKEN)
    spec = load_spec(changed(seeds=[0, 1, 2], attacks=[{"name": "broken.py:attack", "eps": [0.1]}]))
    (tmp_path / "spec.toml").write_text(spec.text)
    words = ("run", tmp_path / "spec.toml", "--out", tmp_path / "out", "--executor", executor)
    status, _, err = command(*words)
    assert status == 1
    first = re.search(r"^failed: softmax seed 0, .*L-GM seed 0.* \(attack\): (.*)$", err, re.M)
    assert "no such file: secret.pt" in first[1]
    assert re.search(r"^not begun: .*L-GM seed 2, because the first cell of every", err, re.M)
    assert not (tmp_path / "out/cells/l-gm/seed-2").exists()
    run = load_run(tmp_path / "out")
    assert len(run.failures) == 6
    assert run.rows == []
