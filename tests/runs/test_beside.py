"""A loss beside those of a run: what is computed, what stays as it was, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import pytest

from robustloss.cli import starters
from robustloss.cli.differences import show_differences
from robustloss.reports.chapters.result.table import result_table
from robustloss.reports.drawing.table import latex
from robustloss.reports.reading.numbers import Numbers
from robustloss.results.run import load_run
from robustloss.runs import beside, runner
from robustloss.runs.beside import compute_try, plan_try
from robustloss.runs.comparable import NotComparableError
from robustloss.runs.errors import RunError
from robustloss.runs.watching.log import LogError
from robustloss.spec.text import to_toml
from robustloss.storage import read_json, write_json
from robustloss.training import train as training
from robustloss.training.log import TrainingDiverged
from tests.small_run import Counted, changed

STARTER = Path(starters.__file__).with_name("loss.py").read_text(encoding="utf-8")
SMALL = changed(name="small", seeds=[0])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Softmax and L-GM; seed 1 was asked for later, so the spec does not name it."""
    out = tmp_path_factory.mktemp("beside") / "small"
    path = out.with_suffix(".toml")
    path.write_text(to_toml(SMALL))
    runner.run(path, out=out, seeds=[0, 1])
    return out


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(STARTER)


def state(folder):
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_only_the_loss_is_computed_and_the_run_stays_as_it_was(finished, monkeypatch):
    before, counted = state(finished), Counted(monkeypatch)
    plan = plan_try("mine.py:MyLoss", str(finished))
    assert (plan.label, plan.own.seeds, plan.out) == (
        "MyLoss",
        (0, 1),
        Path("runs/try-myloss-small"),
    )
    tried = compute_try(plan)
    assert (tried.failures, counted.trained) == ([], 2)
    run = load_run(tried.path)
    assert [(c.label, c.seed) for c in run.cells if c.label == "MyLoss"] == [
        ("MyLoss", 0),
        ("MyLoss", 1),
    ]
    assert run.table().rows[0].label == "softmax"
    assert {cell.mean is None for row in run.table().rows for cell in row.cells} == {False}
    pairs = {row["label_a"] for row in run.comparisons if row["label_b"] == "MyLoss"}
    assert pairs == {"softmax", "L-GM"}
    assert run.provenance["spec"]["report"]["highlight"] == ["MyLoss"]
    assert state(finished) == before

    compute_try(plan_try("mine.py:MyLoss", str(finished)))
    assert counted.trained == 2
    Path("mine.py").write_text(STARTER.replace("margin: float = 0.1", "margin: float = 0.3"))
    error = {row["seed"]: row["error"] for row in run.rows if row["label"] == "MyLoss"}
    again = compute_try(plan_try("mine.py:MyLoss", str(finished)))
    assert counted.trained == 4
    fresh = load_run(again.path)
    assert {r["seed"]: r["error"] for r in fresh.rows if r["label"] == "MyLoss"} != error
    assert state(finished) == before


def test_other_parameters_are_another_loss_with_a_folder_of_its_own(finished):
    plan = plan_try("mine.py:MyLoss", str(finished), params={"scale": 16.0, "margin": 0.25})
    assert plan.label == "MyLoss (scale 16, margin 0.25)"
    assert plan.out == Path("runs/try-myloss-scale-16-margin-0.25-small")
    assert plan.own.losses[0].params == {"scale": 16.0, "margin": 0.25}


def test_a_try_can_stand_beside_an_earlier_one(finished):
    first = compute_try(plan_try("mine.py:MyLoss", str(finished)))
    tried = compute_try(plan_try("cosface", first.path, label="CosFace", params={"margin": 0.1}))
    labels = [row.label for row in load_run(tried.path).table().rows]
    assert labels == ["softmax", "L-GM", "MyLoss", "CosFace"]


def test_it_is_tuned_as_the_others_are(tmp_path):
    search = {"lr": [0.02, 0.04]}
    losses = [{"name": "softmax", "search": search}, {"name": "lgm", "search": search}]
    spec = Path("tuned.toml")
    spec.write_text(to_toml(changed(name="tuned", losses=losses, tuning={"epochs": 1})))
    own = plan_try("mine.py:MyLoss", str(spec)).own
    assert [(t.values, t.train.epochs) for t in own.trials()] == [
        ({"lr": 0.02}, 1),
        ({"lr": 0.04}, 1),
    ]
    assert plan_try("mine.py:MyLoss", str(spec), train={"lr": 0.1}).own.trials() == ()


def test_the_file_that_lies_here_is_meant_though_another_lies_beside_the_spec(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    (tmp_path / "copy/mine.py").write_text("raise RuntimeError\n")
    plan = plan_try("mine.py:MyLoss", str(tmp_path / "copy"))
    assert plan.own.losses[0].name == f"{tmp_path}/mine.py:MyLoss"
    plan = plan_try("criterion:mine.py:focal", str(tmp_path / "copy"))
    assert plan.own.losses[0].name == f"criterion:{tmp_path}/mine.py:focal"
    assert plan.label == "focal"


def test_a_finished_run_of_the_spec_is_found_in_a_folder_above_or_beside_the_loss(
    finished, tmp_path, monkeypatch
):
    Path("small.toml").write_text(to_toml(SMALL))
    plan = plan_try("mine.py:MyLoss", "small.toml")
    assert (plan.folder, plan.finished) == (Path("runs/small"), None)
    shutil.copytree(finished, "runs/small")
    (tmp_path / "own/deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "own/deep")
    shutil.copy("../../mine.py", "mine.py")
    plan = plan_try("mine.py:MyLoss", "../../small.toml")
    assert plan.folder == tmp_path / "runs/small"
    assert plan.finished is not None
    assert plan.out == Path("runs/try-myloss-small")
    monkeypatch.chdir(tmp_path.parent)
    plan = plan_try(f"{tmp_path}/own/deep/mine.py:MyLoss", f"{tmp_path}/small.toml")
    assert plan.folder == tmp_path / "runs/small"
    (tmp_path / "small.toml").write_text(to_toml(SMALL | {"seeds": [5]}))  # another state of it
    plan = plan_try(f"{tmp_path}/own/deep/mine.py:MyLoss", f"{tmp_path}/small.toml")
    assert (plan.folder, plan.finished) == (Path("runs/small"), None)
    assert plan.passed_over == tmp_path / "runs/small"


def test_a_run_whose_attack_lies_elsewhere_is_refused_with_the_remedy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "far")
    results = read_json(tmp_path / "far/results.json")
    attack = {"name": "weak.py:weak", "label": "Weak", "eps": [0.1]}
    results["provenance"]["spec"]["attacks"].append(attack)
    write_json(tmp_path / "far/results.json", results)
    with pytest.raises(RunError, match=r"there is no file weak\.py in .* --against with the spec"):
        plan_try("mine.py:MyLoss", "far")
    Path("weak.py").write_text("def weak(model, inputs, labels, eps):\n    return inputs\n")
    assert plan_try("mine.py:MyLoss", "far").own.attacks[1].name == "weak.py:weak"


def test_other_data_and_a_log_that_cannot_be_used_are_told_before_anything_is_trained(
    finished, tmp_path, monkeypatch
):
    counted = Counted(monkeypatch)
    with pytest.raises(LogError, match=r"must end in \.jsonl"):
        compute_try(plan_try("mine.py:MyLoss", str(finished)), log="a.log")
    shutil.copytree(finished, tmp_path / "far")
    results = read_json(tmp_path / "far/results.json")
    results["provenance"]["data"]["checksum"] = "0" * 16
    write_json(tmp_path / "far/results.json", results)
    with pytest.raises(NotComparableError, match=r"data\.checksum is '0+' in the first and"):
        compute_try(plan_try("mine.py:MyLoss", "far"))
    assert counted.trained == 0
    assert not Path("runs").exists()


def test_a_loss_that_the_run_has_already_is_told(finished):
    with pytest.raises(RunError, match=r"Again has come to the same weights as a loss of .*small"):
        compute_try(plan_try("softmax", str(finished), label="Again"))


@pytest.mark.parametrize("failing", [(1,), (0, 1)])
def test_a_seed_that_fails_is_told_and_a_loss_that_fails_leaves_no_table(
    finished, monkeypatch, failing, capsys
):
    plain = training.train

    def train(*words, seed, **options):
        if seed in failing:
            raise ValueError("it fails")
        return plain(*words, seed=seed, **options)

    monkeypatch.setattr(training, "train", train)
    tried = compute_try(plan_try("mine.py:MyLoss", str(finished)))
    assert [(each["label"], each["seed"]) for each in tried.failures] == [
        ("MyLoss", seed) for seed in failing
    ]
    assert Path("runs/try-myloss-small/results.json").exists() == (len(failing) == 1)
    if tried.path:
        run = load_run(tried.path)
        assert [row["seed"] for row in run.failures] == [1]
        file = tried.path / "report/tables/losses.tex"
        file.parent.mkdir(parents=True)
        file.write_text(latex(result_table(Numbers(run))))
        show_differences(tried.path, "MyLoss")  # its row is found by the name that tables give it
        row = re.search(r"^MyLoss \(1 seed\) & .*\\\\$", capsys.readouterr().out, re.MULTILINE)
        assert row[0] in file.read_text()


def test_what_a_try_says(finished, command, monkeypatch):
    """The whole command, from a spec whose run is not there yet."""
    Path("small.toml").write_text(to_toml(SMALL))
    status, out, err = command("try", "mine.py:MyLoss", "--against", "small.toml")
    assert status == 0, err
    told = out.replace("\n", " ")
    assert "runs/small holds no finished run, here or in a folder above" in told
    assert "so the losses of small (2 losses, 1 seed) come first" in told
    assert told.index("Cost to expect") < told.index("Then MyLoss, in runs/try-myloss-small.")
    assert re.search(r"time +about \d+ s", out)
    assert re.search(r"^MyLoss +\d", out, re.MULTILINE)
    assert "MyLoss minus each other loss, error in percentage points under fgsm" in out
    assert "excludes 0: the intervals are not adjusted, the stars are." in " ".join(out.split())
    assert re.search(r"^softmax( +[−+]?\d+\.\d+ \[\S+ \S+\]( \*)?){3}", out, re.MULTILINE)
    row = re.search(r"^MyLoss & .*\\\\$", out, re.MULTILINE)
    assert row[0] in Path("runs/try-myloss-small/report/tables/losses.tex").read_text()
    assert out.endswith("Report: runs/try-myloss-small/report/index.html\n")
    assert '<tr class="highlight"' in Path("runs/try-myloss-small/report/index.html").read_text()

    counted = Counted(monkeypatch)
    words = ("--against", "small.toml", "--param", "scale=5.0", "--quiet", "--log", "try.jsonl")
    status, out, _ = command("try", "mine.py:MyLoss", *words)
    assert (status, counted.trained) == (0, 1)
    assert out == "runs/try-myloss-scale-5-small/report/index.html\n"
    events = [json.loads(line) for line in Path("try.jsonl").read_text().splitlines()]
    assert {"run_started", "epoch", "run_finished"} <= {event["event"] for event in events}
    assert {event["label"] for event in events if "label" in event} == {"MyLoss (scale 5)"}


def test_a_training_that_fails_is_cured_by_a_key_of_train(finished, command, monkeypatch):
    plain = training.train

    def train(model, dataset, settings, **options):
        if settings.max_grad_norm is False:
            raise TrainingDiverged("the loss became NaN")
        return plain(model, dataset, settings, **options)

    monkeypatch.setattr(training, "train", train)
    words = ("try", "mine.py:MyLoss", "--against", finished)
    status, _, err = command(*words)
    assert status == 1
    assert "to train MyLoss otherwise, add --train KEY=VALUE to the command: train.lr" in err
    assert "run the command again" not in err
    before = state(finished)
    status, out, err = command(*words, "--train", "max_grad_norm=1.0", "--train", "lr=0.01")
    assert status == 0, err
    folder = Path("runs/try-myloss-max-grad-norm-1-lr-0.01-small")
    rows = load_run(folder).table().rows
    assert [row.label for row in rows] == ["softmax", "L-GM", "MyLoss (max_grad_norm 1, lr 0.01)"]
    *others, own = load_run(folder).provenance["spec"]["losses"]
    assert own["train"] == {"max_grad_norm": 1.0, "lr": 0.01}
    assert all(keys["lr"] != 0.01 for keys in (other["train"] for other in others) if "lr" in keys)
    assert (
        "Note: MyLoss (max_grad_norm 1, lr 0.01) has a training of its own: lr is 0.01 in place of "
        in out
    )
    assert state(finished) == before


def test_an_interrupted_try_says_how_to_go_on(finished, command, monkeypatch):
    def run(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(beside, "run", run)
    status, _, err = command("try", "CosFace", "--against", finished, "--param", "margin=0.1")
    assert status == 130
    words = f"try CosFace --against {finished} --param margin=0.1"
    assert err.endswith(f"Finished work is kept; go on with: robustloss {words}\n")


BROKEN = STARTER.replace('reduction="none"', 'reduction="mean"')


def test_a_loss_that_breaks_the_contract_is_not_trained(finished, command):
    Path("mine.py").write_text(BROKEN)
    status, out, err = command("try", "mine.py:MyLoss", "--against", finished)
    assert (status, err) == (1, "")
    assert re.search(r"^FAIL  shapes: ", out, re.MULTILINE)
    assert not re.search(r"^pass", out, re.MULTILINE)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("mine.py", r"loss \(='mine.py'\) names a file and no class in it\. Write 'mine.py:Class'"),
        ("mine.py:Mine", r"mine\.py has no 'Mine'\. It defines: MyLoss"),
        ("other.py:MyLoss", r"there is no file other\.py in"),
        ("sofmax", "did you mean 'softmax'"),
        ("mine.py:MyLoss --against quickstrat", "quickstrat: no such file.*mean 'quickstart'"),
        ("mine.py:MyLoss --against .", r"run \(=\.\) has no results\.json \(no run folder\)"),
        ("mine.py:MyLoss --label L-GM", r"label \(=L-GM\) is taken.*--label 'L-GM \(mine\)'"),
        ("mine.py:MyLoss --param scale", r"--param \(=scale\) must be KEY=VALUE"),
        ("mine.py:MyLoss --param scale=1 --param scale=2", "names scale a second time"),
        ("mine.py:MyLoss --param sale=1", "sale: unknown parameter; did you mean 'scale'"),
        ("mine.py:MyLoss --train lr", r"--train \(=lr\) must be KEY=VALUE with the name of a key"),
        ("mine.py:MyLoss --train rate=1", r"losses\[0\]\.train\.rate: unknown key"),
        ("mine.py:MyLoss --train lr=-1", r"losses\[0\]\.train\.lr \(=-1\) must be"),
        ("mine.py:MyLoss --out RUN", r"out \(=.*small\) is not empty and holds no merged run"),
        ("mine.py:MyLoss --no-plugins", "No such option: --no-plugins"),
    ],
)
def test_mistakes(finished, command, words, message):
    given = words.replace("RUN", str(finished)).split()
    against = [] if "--against" in given else ["--against", finished]
    status, out, err = command("try", *given, *against)
    assert status == 2
    assert out in ("", f"Checking the contract of {given[0]}.\n")
    assert re.search(message, err)
    assert not Path("runs").exists()


def test_a_run_that_has_not_finished_or_is_of_another_spec_is_refused(finished):
    Path("runs").mkdir()
    shutil.copytree(finished, "runs/small")
    Path("small.toml").write_text(to_toml(SMALL | {"train": {**SMALL["train"], "epochs": 2}}))
    with pytest.raises(
        RunError, match=r"another state of the spec small.toml.*--against runs/small"
    ):
        plan_try("mine.py:MyLoss", "small.toml")
    Path("runs/small/results.json").unlink()
    with pytest.raises(
        RunError, match=r"runs/small is not finished\. All 4 cells are finished, but"
    ):
        plan_try("mine.py:MyLoss", "runs/small")
