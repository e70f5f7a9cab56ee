"""Kills before any change of a file, of a run with trials, a comparison and a report."""

import json
import shutil
import sys

import pytest

from robustloss import reports
from robustloss.array_files import read_arrays
from robustloss.reports.page import build
from robustloss.results.run import load_run
from robustloss.runs import runner
from robustloss.runs.merge import merge_runs
from robustloss.storage import CorruptFile, read_json
from tests.crashes import count_changes, killed_before
from tests.runs.test_links import TINY
from tests.small_run import files, numbers

SEARCH = {**TINY, "losses": TINY["losses"][:1]}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("crashes")


@pytest.fixture(scope="module")
def whole(root):
    """Two runs; the changes of files that the first one made are in `changes`."""
    runner.run({**TINY, "name": "other", "losses": [{"name": "center"}]}, out=root / "other")
    folder = root / "run"
    made = count_changes(lambda: runner.run(SEARCH, out=folder), folder)
    (root / "changes.json").write_text(json.dumps(made))
    return folder


def check_intact(folder):
    """Every file that stands there under its own name is whole."""
    for path in folder.rglob("*.npz"):
        read_arrays(path)
    for path in [*folder.glob("cells/*/*/*.json"), *folder.glob("trials/*/*/*.json")]:
        read_json(path, checked=True)
    if (folder / "results.json").exists():
        assert load_run(folder).doubts == ()
    if (folder / "report").exists():
        assert (folder / "report/index.html").exists()
        assert (folder / "report/tables/rows.csv").exists()


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9, 0.97, 1.0])
def test_a_run_with_trials_goes_on_after_a_kill_anywhere(whole, root, tmp_path, share):
    made = json.loads((root / "changes.json").read_text())
    folder = tmp_path / "run"
    with killed_before(int(share * (len(made) - 1)), folder) as changes:
        runner.run(SEARCH, out=folder)
    assert changes.dead
    check_intact(folder)
    if (folder / "spec.toml").exists():  # what is there can be shown, and is let be
        reports.build_report(folder)
    assert runner.run(SEARCH, out=folder).exit_code == 0
    assert numbers(folder) == numbers(whole)
    assert files(folder) == files(whole)
    assert not [path.name for path in folder.rglob(".*")]


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*") if path.is_file()
    }  # fmt: skip


def points(count, every):
    """Numbers of changes: some of the many, and all of the last, where things are put in place."""
    return sorted({*range(0, count, every), *range(max(0, count - 12), count)})


def test_a_killed_comparison_leaves_the_earlier_one_or_the_new_one(whole, root, tmp_path):
    out = tmp_path / "in/out"
    merge_runs([whole, root / "other"], out)
    (out / "notes.txt").write_text("mine")
    old = contents(out)
    runs = [root / "other", whole]  # in this order the results are other ones
    shutil.copytree(tmp_path / "in", tmp_path / "kept")
    made = count_changes(lambda: merge_runs(runs, out), tmp_path / "in")
    new = contents(out)
    assert old.keys() == new.keys()
    assert old["notes.txt"] == new["notes.txt"]
    assert old["results.json"] != new["results.json"]
    found = []
    for number in points(len(made), 12):
        shutil.rmtree(tmp_path / "in")
        shutil.copytree(tmp_path / "kept", tmp_path / "in")
        with killed_before(number, tmp_path / "in"):
            merge_runs(runs, out)
        found.append(contents(out))
        assert found[-1] in (old, new), made[number]
    assert old in found
    assert new in found
    merge_runs(runs, out)
    assert contents(out) == new
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["out"]


@pytest.fixture
def drawn(monkeypatch):
    """Two files in place of the figures."""

    def draw(folder, contents, **how):
        folder.mkdir()
        for name in ("a.png", "a.svg"):
            (folder / name).write_text(contents.numbers.run.name)
        return []

    monkeypatch.setattr(build, "draw_all", draw)


def test_a_killed_report_leaves_the_old_one_or_the_new_one(whole, tmp_path, drawn):
    run = tmp_path / "run"
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns("report"))
    reports.build_report(run)
    (run / "report/notes.txt").write_text("mine")
    old = contents(run / "report")
    results = (run / "results.json").read_text()
    (run / "results.json").write_text(results.replace('"name": "tiny"', '"name": "else"', 1))
    kept = shutil.copytree(run, tmp_path / "kept")
    made = count_changes(lambda: reports.build_report(run), run)
    new = contents(run / "report")
    assert old.keys() == new.keys()
    assert old["index.html"] != new["index.html"]
    assert old["figures/a.png"] != new["figures/a.png"]
    found = []
    for number in points(len(made), 40):
        shutil.rmtree(run)
        shutil.copytree(kept, run)
        with killed_before(number, run):
            reports.build_report(run)
        found.append(contents(run / "report"))
        assert found[-1] in (old, new), made[number]
    assert old in found
    assert new in found
    reports.build_report(run)
    assert contents(run / "report") == new
    assert not list(run.glob(".*"))


def test_changes_are_counted_only_while_they_are_watched(tmp_path):
    with killed_before(sys.maxsize, tmp_path) as changes:
        (tmp_path / "a").write_text("x")
        (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "c").write_text("x")
    assert [each.split()[0] for each in changes.made] == ["open", "os.rename"]
    with pytest.raises(CorruptFile):
        read_json(tmp_path / "b")
