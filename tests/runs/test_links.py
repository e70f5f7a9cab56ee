"""Links in a run folder: no command reads, writes or deletes what they lead to."""

import re
import shutil

import pytest

from robustloss.runs import runner
from robustloss.runs.classifier import load_classifier
from robustloss.spec.load import load_spec
from robustloss.storage import CorruptFile, read_json, write_json
from tests.small_run import SPEC, Counted, changed

TINY = changed(
    name="tiny",
    seeds=[0],
    data={**SPEC["data"], "train_size": 60, "validation_size": 30, "test_size": 30},
    train={"epochs": 1, "batch_size": 30, "precision": "float32", "lr": 0.02},
    detection={"fit_size": 40},
    checks={"images": 10},
    losses=[
        {"name": "softmax", "search": {"lr": [0.02, 0.05]}},
        {"name": "lgm", "label": "L-GM", "search": {"lr": [0.02, 0.05]}},
    ],
    attacks=[{"name": "fgsm", "eps": [0.1], "transfer": True}],
)
# What a link may stand for; the last folder is a cell's. A star stands for the first that fits.
EVERY = (
    *(".lock", "spec.toml", "started.json", "results.json"),
    *("report", "report/tables", "report/figures"),
    *("cells", "cells/softmax", "cells/softmax/seed-0", "cells/softmax/seed-0/cell.json"),
    *("cells/softmax/seed-0/none-0-*.npz", "cells/softmax/seed-0/fgsm-0.1-*.npz"),
    *("cells/softmax/seed-0/reference-*.npz", "cells/softmax/seed-0/scores-*.npz"),
    *("cells/softmax/seed-0/model-*", "cells/softmax/seed-0/train.json"),
    *("cells/softmax/seed-0/fgsm-cost.json", "cells/softmax/seed-0/probe-*.npz"),
    *("cells/softmax/seed-0/parts.json", "cells/softmax/seed-0/checkpoint-0.safetensors"),
    *("transfer", "transfer/seed-0", "transfer/seed-0/*.npz"),
    *("trials", "trials/softmax", "trials/softmax/*", "trials/softmax/*/trial.json"),
    "trials/softmax/*/model-*",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run and, beside it, another that it can be compared with."""
    root = tmp_path_factory.mktemp("whole")
    runner.run(TINY, out=root / "run")
    runner.run({**TINY, "name": "other", "losses": [{"name": "center"}]}, out=root / "other")
    (root / "run/report/figures").mkdir(exist_ok=True)
    return root


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def linked(whole, tmp_path):
    """A function that puts a link to a place outside into a copy of the run."""
    shutil.copytree(whole, tmp_path / "runs")
    run, outside = tmp_path / "runs/run", tmp_path / "outside"
    outside.mkdir()

    def link(place):
        path = next(iter(sorted(run.glob(place))), run / place)
        if path.exists():
            path.rename(outside / "moved")
        else:
            (outside / "moved").write_text("private")
        path.symlink_to(outside / "moved")
        return run, outside

    return link


@pytest.mark.parametrize("place", EVERY)
def test_a_run_goes_on_in_no_folder_with_links(linked, command, tmp_path, place):
    run, outside = linked(place)
    before = contents(outside)
    spec = tmp_path / "spec.toml"
    spec.write_text(load_spec(TINY).text)
    status, _, told = command("run", spec, "--out", run, "--quiet")
    assert status == 2
    assert "is a link, and nothing is followed out of a run folder" in told
    assert len(told.splitlines()) == 1
    assert contents(outside) == before


@pytest.mark.parametrize("place", EVERY)
def test_a_report_and_a_comparison_follow_no_link(linked, command, tmp_path, place):
    run, outside = linked(place)
    before = contents(outside)
    reads = ("cells", "spec", "results", "report")  # what a report is made of
    for words in (("report", run), ("compare", run, run.parent / "other", "--out", tmp_path / "m")):
        status, _, told = command(*words)
        assert status in (0, 2)
        assert contents(outside) == before
        if status == 2:
            assert "is a link" in told
            assert len(told.splitlines()) == 1
        elif words[0] == "report" and place.startswith(reads[:2]) and _is_read(place):
            assert "is a link" in (run / "report/index.html").read_text()
    if place == "spec.toml":
        page = (run / "report/index.html").read_text()
        shown, kept = re.subn(r'<meta name="robustloss-origin"[^>]*>', "", page)  # of results.json
        assert kept == 1
        assert "train_size" not in shown.split("resolved")[0]


def _is_read(place):
    """Whether a report without pictures reads the file, or one in the folder."""
    return place.count("/") < 3 or place.endswith("cell.json")


@pytest.mark.parametrize("name", ["none-0-*.npz", "model-*", "train.json", "scores-*.npz"])
def test_nothing_that_a_cell_names_is_copied_through_a_link(linked, command, tmp_path, name):
    run, _ = linked(f"cells/softmax/seed-0/{name}")
    status, _, told = command("compare", run, run.parent / "other", "--out", tmp_path / "merged")
    assert status == 2
    assert "is a link or no file. Run `robustloss run` again" in told
    assert not (tmp_path / "merged").exists()


def test_a_private_file_that_a_forged_cell_names_is_copied_nowhere(linked, command, tmp_path):
    run, outside = linked("cells/softmax/seed-0/more.txt")
    path = run / "cells/softmax/seed-0/cell.json"
    cell = read_json(path, checked=True)
    cell["files"]["more"] = "more.txt"
    write_json(path, cell, checked=True)
    assert command("compare", run, run.parent / "other", "--out", tmp_path / "merged")[0] == 2
    assert not any(b"private" in text for text in contents(tmp_path / "runs/other").values())
    assert not (tmp_path / "merged").exists()
    assert contents(outside) == {"moved": b"private"}


REUSED = [  # what is a link, and how many of the four trials are trained because of it
    ("", 2),  # none: the chosen values of each loss were trained in a cell
    ("cells/softmax", 3),
    ("cells/softmax/seed-0/model-*", 3),
]


@pytest.mark.parametrize(("place", "trained"), REUSED)
def test_weights_behind_a_link_are_not_reused(linked, tmp_path, monkeypatch, place, trained):
    run, _ = linked(place) if place else (tmp_path / "runs/run", None)
    shutil.rmtree(run / "trials")
    counted = Counted(monkeypatch)
    runner.run(TINY, out=tmp_path / "new", reuse=run)
    assert counted.trained == trained


@pytest.mark.parametrize("place", ["cells/softmax", "cells/softmax/seed-0/model-*"])
def test_no_model_is_loaded_through_a_link(linked, place):
    run, _ = linked(place)
    with pytest.raises(CorruptFile, match="is a link"):
        load_classifier(run, loss="softmax", seed=0)


def test_a_lock_that_is_another_name_of_a_file_is_not_emptied(whole, tmp_path, command):
    run = shutil.copytree(whole / "run", tmp_path / "run")
    (tmp_path / "mine").write_text("private")
    (run / ".lock").hardlink_to(tmp_path / "mine")
    spec = tmp_path / "spec.toml"
    spec.write_text(load_spec(TINY).text)
    status, _, told = command("run", spec, "--out", run, "--quiet")
    assert (status, (tmp_path / "mine").read_text()) == (2, "private")
    assert "no file of its own" in told
