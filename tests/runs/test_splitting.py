"""A cell that is computed in parts: the same files as at once, and nothing computed twice."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from robustloss.cells import jobs as parts
from robustloss.cells import work
from robustloss.cells.jobs import Part
from robustloss.cells.parts import PLAN, ranges, read_plan
from robustloss.runs import runner
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from robustloss.storage import read_json, write_json
from tests.small_run import Counted, Told, changed, compute_jobs_here, numbers

pytestmark = pytest.mark.usefixtures("no_report", "one_thread")


ATTACKS = [
    {"name": "fgsm", "eps": [0, 0.1, 0.2], "batch_size": 32},
    {"name": "pgd", "params": {"steps": 2}, "eps": [0.1], "batch_size": 8},
    {"name": "square", "params": {"queries": 5}, "eps": [0.2], "batch_size": 16},
    {"name": "cw", "params": {"steps": 5}, "eps": [0, 1.0], "batch_size": 32},
    {"name": "torchattacks:PGD", "params": {"steps": 2}, "eps": [0.1], "batch_size": 16},
    {"name": "adaptive_joint", "params": {"steps": 2}, "eps": [0.3], "batch_size": 16},
]
SPLIT = {"resources": {"split": 32}}  # of 80 images: 32, 32, 16
WHOLE = changed(seeds=[0], losses=[{"name": "lgm"}], attacks=ATTACKS)
FGSM = changed(seeds=[0], attacks=[{"name": "fgsm", "eps": [0, 0.1, 0.2], "batch_size": 16}])


@pytest.fixture
def staged(monkeypatch):
    """The jobs that workers would get, in their order; this process computes them."""
    return compute_jobs_here(monkeypatch)


def content(folder):
    """Every array file of the cells with its bytes, and the names of all their other files."""
    paths = [path for path in folder.glob("cells/**/*") if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.suffix == ".npz" else None
        for path in paths
    }


def said(folder):
    """The numbers of the run, without what it was asked to take."""
    found = numbers(folder)
    del found["provenance"]["spec"]["resources"], found["provenance"]["spec_text"]
    return found


def passes(folder):
    cost = read_json(folder / "results.json")["provenance"]["attack_cost"]
    return [{name: value for name, value in each.items() if name != "seconds"} for each in cost]


def parts_of(folder):
    return sorted(path.name for path in folder.glob("cells/**/*.part"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    from robustloss import reports

    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "build_report", lambda path: Path(path))
        for name, spec in (("all", WHOLE), ("fgsm", FGSM)):
            assert runner.run(spec, out=folder / name).exit_code == 0
    return folder


def same_as_whole(folder, whole, executor):
    told = Told()
    assert runner.run(WHOLE | SPLIT, out=folder, executor=executor, progress=told).exit_code == 0
    assert executor == "serial" or told.in_parts()
    assert content(folder) == content(whole)
    assert said(folder) == said(whole)
    assert passes(folder) == passes(whole)


@pytest.mark.parametrize("executor", ["serial", "processes:2"])
def test_parts_give_the_files_of_the_whole(whole, tmp_path, staged, executor):
    same_as_whole(tmp_path, whole / "all", executor)


@pytest.mark.slow
def test_two_processes_give_the_files_of_the_whole(whole, tmp_path):
    same_as_whole(tmp_path, whole / "all", "processes:2")


@pytest.mark.parametrize("resources", [{}, SPLIT["resources"]])
def test_budgets_in_groups_give_the_files_of_all_at_once(whole, tmp_path, monkeypatch, resources):
    monkeypatch.setattr(work, "BUDGETS_AT_ONCE", 2)
    counted, told = Counted(monkeypatch), Told()
    runner.run(WHOLE | {"resources": resources}, out=tmp_path, progress=told)
    assert {(0.0, 0.1), (0.2,), (0.0, 1.0)} < set(counted.attacked)  # the last pair is of cw
    assert content(tmp_path) == content(whole / "all")
    assert said(tmp_path) == said(whole / "all")
    attacked = [event.fraction for event in told.events if event.stage == "attack"]
    assert attacked == sorted(attacked)


def test_each_missing_range_of_each_attack_is_a_job(whole, tmp_path, staged):
    assert runner.run(FGSM | SPLIT, out=tmp_path, executor="processes:2").exit_code == 0
    preparations, computed, cells = staged
    assert preparations == ["preparation"] * 2
    assert cells == ["cell"] * 2
    assert computed == 2 * [
        Part(0, (0.0, 0.1, 0.2), start, stop) for start, stop in [(0, 32), (32, 64), (64, 80)]
    ]
    assert content(tmp_path) == content(whole / "fgsm")


def test_a_finished_run_has_no_parts_to_compute(whole, tmp_path, staged, monkeypatch):
    runner.run(FGSM | SPLIT, out=tmp_path)
    counted = Counted(monkeypatch)
    runner.run(FGSM | SPLIT, out=tmp_path, executor="processes:2")
    assert staged[-3:] == [["preparation"] * 2, [], ["cell"] * 2]
    assert (counted.trained, counted.attacked) == (0, [])
    assert content(tmp_path) == content(whole / "fgsm")


def test_a_new_eps_has_parts_of_its_own(tmp_path, staged):
    runner.run(FGSM | SPLIT, out=tmp_path)
    more = [{**FGSM["attacks"][0], "eps": [0, 0.05, 0.1, 0.2]}]
    runner.run(FGSM | SPLIT | {"attacks": more}, out=tmp_path, executor="processes:2")
    assert {part.eps for part in staged[-2]} == {(0.05,)}
    runner.run(FGSM | {"attacks": more}, out=tmp_path / "whole")
    assert content(tmp_path) | content(tmp_path / "whole") == content(tmp_path)


KILLED = """
import os, signal, sys
from robustloss.evaluation import attacked
from robustloss.runs import runner
made, real = [], attacked.attacked_records

def attacked_records(*args, **kwargs):
    made.append(None)
    if len(made) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)

attacked.attacked_records = attacked_records
runner.run(sys.argv[1], out=sys.argv[2])
"""


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    (folder / "spec.toml").write_text(load_spec(FGSM | SPLIT).text)
    command = [sys.executable, "-c", KILLED, str(folder / "spec.toml"), str(folder / "run")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    return folder / "run"


@pytest.fixture
def killed(killed_once, tmp_path):
    """A run that was killed when two of its parts were there."""
    folder = Path(shutil.copytree(killed_once, tmp_path / "killed"))
    assert {name.split(".")[-2] for name in parts_of(folder)} == {"0-32", "32-64"}
    return folder


def test_a_killed_run_computes_no_finished_part_again(whole, killed, monkeypatch):
    counted = Counted(monkeypatch)
    assert runner.run(FGSM | SPLIT, out=killed).exit_code == 0
    assert counted.attacked == [(0.0, 0.1, 0.2)] * (1 + 3)  # one part was lacking, one cell
    assert content(killed) == content(whole / "fgsm")
    assert passes(killed) == passes(whole / "fgsm")


@pytest.mark.parametrize("executor", ["serial", "processes:2"])
def test_a_damaged_part_is_made_anew(whole, killed, monkeypatch, staged, executor):
    damaged = next(killed.glob("cells/softmax/seed-0/fgsm-0.1-*.0-32.part"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    counted = Counted(monkeypatch)
    assert runner.run(FGSM | SPLIT, out=killed, executor=executor).exit_code == 0
    assert sorted(counted.attacked) == [(0.0, 0.1, 0.2)] * (1 + 3) + [(0.1,)]
    assert content(killed) == content(whole / "fgsm")


@pytest.mark.parametrize("resources", [{"split": 16}, {}])
def test_parts_of_another_split_are_not_mixed_in(whole, killed, resources):
    assert runner.run(FGSM | {"resources": resources}, out=killed).exit_code == 0
    assert content(killed) == content(whole / "fgsm")


FAILS = """
from pathlib import Path
from robustloss.cells.time_limit import TimeLimitError

def attack(model, inputs, labels, eps):
    if Path(__file__).with_name("late").exists() and len(inputs) == 16:
        raise TimeLimitError("took longer than resources.minutes (=1).")
    return inputs
"""


def test_a_part_that_takes_too_long_fails_its_cell_and_keeps_the_others(
    tmp_path, monkeypatch, staged
):
    (tmp_path / "own.py").write_text(FAILS)
    (tmp_path / "late").touch()
    own = {"name": "own.py:attack", "label": "own", "eps": [0.1], "batch_size": 32}
    spec = changed(seeds=[0], losses=[{"name": "softmax"}], attacks=[own], **SPLIT)
    (tmp_path / "spec.toml").write_text(load_spec(spec).text)
    told = Told()
    run = {"out": tmp_path / "run", "executor": "processes:2"}
    (failure,) = runner.run(tmp_path / "spec.toml", **run, progress=told).failures
    assert (failure["label"], failure["stage"]) == ("Softmax", "attack")
    assert failure["reason"] == "took longer than resources.minutes (=1)."
    assert staged[-1] == []  # the cell itself was not tried
    assert told.ends == [("Softmax seed 0", "failed")]
    (tmp_path / "late").unlink()
    counted = Counted(monkeypatch)
    assert runner.run(tmp_path / "spec.toml", **run).exit_code == 0
    assert staged[-2] == [parts.Part(0, (0.1,), 64, 80)]
    assert (counted.trained, counted.attacked) == (0, [(0.1,)])


def test_a_cell_that_cannot_be_trained_has_no_parts(tmp_path, staged):
    bad = {"name": "softmax", "label": "bad", "train": {"lr": 900.0}}
    spec = FGSM | SPLIT | {"losses": [bad, {"name": "softmax"}]}
    outcome = runner.run(spec, out=tmp_path, executor="processes:2")
    assert [(f["label"], f["stage"]) for f in outcome.failures] == [("bad", "train")]
    assert [len(jobs) for jobs in staged[-3:]] == [2, 3, 1]


def test_the_display_counts_a_cell_once_and_its_parts_one_by_one(tmp_path, staged):
    told = Told()
    spec = FGSM | SPLIT | {"losses": [{"name": "softmax"}]}
    runner.run(spec, out=tmp_path, executor="processes:2", progress=told)
    assert told.cells == 1
    assert told.ends == [("Softmax seed 0", "done")]
    counts = [(e.done, e.total) for e in told.events if e.stage == "attack"]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == ((0, 3), (3, 3))


def test_a_cell_of_which_only_parts_were_computed_is_done_and_then_cached(tmp_path, staged):
    bare = FGSM | SPLIT | {"checks": {"images": 0}, "detection": {"fit_size": 100, "noise": False}}
    for end in ("done", "cached"):
        told = Told()
        runner.run(bare, out=tmp_path, executor="processes:2", progress=told)
        assert {stage for _, stage in told.ends} == {end}


@pytest.mark.parametrize(
    "plan",
    [
        {"fgsm": 3},
        {"fgsm": [3]},
        {"fgsm": [[0.1]]},
        {"fgsm": [["0.1", "a.npz"]]},
        {"fgsm": [[0.1, "../a.npz"]]},
    ],
    ids=str,
)
def test_a_forged_plan_is_none(tmp_path, plan):
    write_json(tmp_path / PLAN, plan, checked=True)
    assert read_plan(tmp_path) == {}


def test_ranges_cover_every_image_once():
    assert ranges(80, 32) == [(0, 32), (32, 64), (64, 80)]
    assert ranges(64, 32) == [(0, 32), (32, 64)]
    assert ranges(5, 32) == [(0, 5)]


def test_a_part_begins_where_a_batch_begins():
    with pytest.raises(
        SpecError,
        match=r"resources\.split \(=48\) must be a multiple of attacks\[0\]\.batch_size \(=32\): a "
        r"part begins where a batch does\. Write for example split = 64, or change batch_size\.",
    ):
        load_spec(WHOLE | {"resources": {"split": 48}})
    with pytest.raises(SpecError, match=r"resources\.split \(=0\) must be >= 1"):
        load_spec(WHOLE | {"resources": {"split": 0}})
    assert load_spec(WHOLE | SPLIT).resources.split == 32


def test_the_text_of_a_spec_names_split_where_it_is_set():
    assert "split" not in load_spec(WHOLE).text
    assert "split = 32" in load_spec(WHOLE | SPLIT).text
