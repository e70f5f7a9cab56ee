"""Reports of a run that computes, was stopped, or has been asked for more since it finished."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from robustloss.analysis.unfinished import open_run
from robustloss.progress import Event, Lines
from robustloss.reports.page import build
from robustloss.results.run import STARTED, load_run
from robustloss.results.schema import TABLES
from robustloss.runs import runner
from robustloss.runs.watching.audience import Audience
from robustloss.runs.watching.first_seed import FirstSeed
from robustloss.spec.load import load_spec
from robustloss.storage import read_json, write_json
from tests.small_run import SPEC, Told, changed, files, numbers

CELLS = ["softmax seed 0", "softmax seed 1", "L-GM seed 0", "L-GM seed 1"]


class Stopped(Told):
    """Ctrl-C after so many finished cells."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def __call__(self, event):
        super().__call__(event)
        if sum(stage != "cached" for _, stage in self.ends) == self.after:
            raise KeyboardInterrupt


def stop(folder, spec=SPEC, after=2, **more):
    with pytest.raises(KeyboardInterrupt):
        runner.run(spec, out=folder, progress=Stopped(after), **more)


def contents(folder):
    """Every file of a run but its report, with the time of its last change."""
    return {
        path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and "report" not in path.relative_to(folder).parts
    }


def words(folder):
    """The text of the page."""
    page = (folder / "report/index.html").read_text(encoding="utf-8")
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("unfinished")


@pytest.fixture(scope="module")
def stopped(root):
    """A run of four cells, stopped after the second."""
    stop(root / "stopped")
    return root / "stopped"


@pytest.fixture(scope="module")
def finished(root, stopped):
    """The same run, gone on with; while it computed it was reported after every cell."""

    found = []

    class Reported(Told):
        def __call__(self, event):
            if event.stage in ("done", "cached"):
                found.append(open_run(folder).counts)
                build.build_report(folder)

    folder = Path(shutil.copytree(stopped, root / "finished"))
    assert runner.run(SPEC, out=folder, progress=Reported()).exit_code == 0
    assert found == [(2, 4), (2, 4), (3, 4), (4, 4)]
    return folder


def copy_of(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_a_stopped_run_is_reported_without_torch_and_left_as_it_is(stopped, tmp_path):
    folder = copy_of(stopped, tmp_path)
    before = contents(folder)
    code = """
import sys
from robustloss.reports.page import build
build.draw_all = lambda folder, contents, **how: []
from robustloss.cli.commands import main
try:
    main(["report", sys.argv[1]])
finally:
    assert not {"torch", "torchvision"} & {*sys.modules}
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = "2 of 4 cells are finished; missing: softmax seed 1, L-GM seed 1."
    assert done.stderr.splitlines()[0] == f"unfinished: {told}"
    assert contents(folder) == before
    text = words(folder)
    assert told in text
    checksum = read_json(folder / STARTED, checked=True)["data"]["checksum"]
    assert f"checksum {checksum}" in text
    assert "older version wrote" not in text
    assert "· unfinished: 2 of 4 cells ·" in text
    assert f"**Status:** {told}" in (folder / "report/summary.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in (folder / "report/index.html").read_text(encoding="utf-8")


def test_its_numbers_are_those_of_the_finished_run(stopped, finished):
    now, later = open_run(stopped), load_run(finished)
    assert now.name == later.name
    assert [(cell.label, cell.seed) for cell in now.cells] == [("softmax", 0), ("L-GM", 0)]
    for table in ("rows", "detection", "worst_case", "flags", "training"):
        assert getattr(now, table) == [row for row in getattr(later, table) if row["seed"] == 0]


def shown_after(folder, ends):
    """What is shown of a first seed as its cells end: after how many events, and the text."""
    shown, stream = [], io.StringIO()
    audience = Audience([Lines(stream)], None)
    jobs = [SimpleNamespace(cell=cell) for cell in load_spec(SPEC).cells()]
    first_seed = FirstSeed(folder, jobs, audience)
    for number, (name, stage) in enumerate(ends, 1):
        first_seed(Event(name, stage))
        text, _, rest = stream.getvalue().partition("\nFirst of 2 seeds: ")
        if rest and not shown:
            shown = [number, text + rest]
    assert stream.getvalue().count("First of") <= 1
    return shown


def test_the_table_of_the_first_seed_is_shown_once_all_its_cells_have_ended(finished, tmp_path):
    ends = [("softmax seed 0", "done"), ("softmax seed 1", "done"), ("L-GM seed 0", "done")]
    number, text = shown_after(finished, [*ends, ("L-GM seed 1", "done")])
    assert number == 3
    assert "the numbers of seed 0 alone. Those of all seeds follow at the end.\n" in text
    assert "one training seed" in text  # of the two that are there
    (clean,) = [row["error"] for row in load_run(finished).rows
                if (row["label"], row["seed"], row["attack"]) == ("L-GM", 0, "none")]  # fmt: skip
    assert re.search(rf"^L-GM +{100 * clean:.3g}", text, re.M)
    cached = [(name, "cached") for name, _ in ends]
    assert not shown_after(finished, cached)
    assert shown_after(finished, [*cached[:2], ends[2]])[0] == 3
    assert not shown_after(finished, [(name, "failed") for name, _ in ends])
    # A cluster tells the end of a cell before its files are here.
    folder = copy_of(finished, tmp_path)
    (folder / "cells/l-gm/seed-0/cell.json").unlink()
    assert not shown_after(folder, ends)
    assert shown_after(folder, [*ends[:2], ("L-GM seed 0", "failed")])[0] == 3


def test_all_cells_without_results_give_the_tables_of_the_run(finished, tmp_path):
    folder = copy_of(finished, tmp_path)
    (folder / "results.json").unlink()
    now, later = open_run(folder), load_run(finished)
    assert now.counts == (4, 4)
    assert not now.missing
    for table in TABLES:
        assert getattr(now, table) == getattr(later, table), table
    assert now.provenance["attack_cost"] == later.provenance["attack_cost"]


def test_reports_on_the_way_change_nothing(finished, root):
    whole = root / "whole"
    runner.run(SPEC, out=whole)
    assert numbers(finished) == numbers(whole)
    assert files(finished) == files(whole)
    assert {path.name for path in finished.iterdir()} == {path.name for path in whole.iterdir()}
    assert not open_run(finished).unfinished
    assert "cells are finished" not in words(finished)


def test_a_report_that_the_end_of_the_run_overtakes_is_made_again(finished, tmp_path, monkeypatch):
    folder = copy_of(finished, tmp_path)
    results = (folder / "results.json").read_bytes()
    (folder / "results.json").unlink()
    made = build._write_report

    def end_meanwhile(run, dpi, *, everything):
        found = made(run, dpi, everything=everything)
        (folder / "results.json").write_bytes(results)
        return found

    monkeypatch.setattr(build, "_write_report", end_meanwhile)
    build.build_report(folder)
    assert "cells are finished" not in words(folder)


def spoil(cell, **values):
    """Change values of a cell.json and seal it again."""
    content = read_json(cell, checked=True)
    write_json(cell, content | values, checked=True)


def forge_rows(cell, **values):
    rows = read_json(cell, checked=True)["rows"]
    spoil(cell, rows=[rows[0] | values, *rows[1:]])


def leave_out(cell, column):
    rows = read_json(cell, checked=True)["rows"]
    spoil(cell, rows=[{k: v for k, v in row.items() if k != column} for row in rows])


def link(cell):
    cell.rename(cell.with_name("there"))
    cell.symlink_to("there")


HOSTILE = {
    "half written": (lambda cell: cell.write_bytes(cell.read_bytes()[:900]), "is not valid JSON"),
    "altered": (
        lambda cell: cell.write_text(cell.read_text().replace('"seed": 0', '"seed": 9', 1)),
        "was altered",
    ),
    "another seed": (lambda cell: spoil(cell, seed=1), "is of another cell than L-GM seed 0"),
    "another's row": (lambda cell: forge_rows(cell, label="<b>"), "is of another cell"),
    "no error": (lambda cell: leave_out(cell, "error"), "has no 'error'"),
    "no number": (lambda cell: forge_rows(cell, error="0"), "rows[0].error is '0'"),
    "null": (lambda cell: forge_rows(cell, n=None), "rows[0].n is null"),
    "no rows": (lambda cell: spoil(cell, rows={"a": 1}), "rows is {'a': 1}"),
    "outside": (lambda cell: spoil(cell, files={"training": "/etc/passwd", "scores": "s",
                                                "records": []}), "names a file outside"),
    "newer": (lambda cell: spoil(cell, schema_version=99), "Update robustloss."),
    "a link": (link, "is a link"),
    "a pipe": (lambda cell: (cell.unlink(), os.mkfifo(cell)), "is a device, a pipe"),
    "a folder": (lambda cell: (cell.unlink(), cell.mkdir()), "Is a directory"),
    "no training": (lambda cell: (cell.parent / "train.json").unlink(), "json cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_damaged_cell_is_left_out_and_named(kind, stopped, tmp_path, command):
    folder = copy_of(stopped, tmp_path)
    spoiled, reason = HOSTILE[kind]
    spoiled(folder / "cells/l-gm/seed-0/cell.json")
    run = open_run(folder)
    assert {row["label"] for row in run.rows} == {"softmax"}
    counted = "1 of 4 cells are finished; missing: softmax seed 1, L-GM seed 1; damaged: L-GM"
    assert run.unfinished[0].startswith(counted)
    (problem,) = run.readable_cells[1]
    assert problem.startswith("cells/l-gm/seed-0: ")
    assert reason in problem
    assert str(tmp_path) not in problem
    status, _, told = command("report", folder)
    assert status == 0
    assert "Traceback" not in told
    assert "1 of 4 cells are finished" in words(folder)


def test_records_that_cannot_be_read_cost_the_comparison_alone(finished, tmp_path):
    folder = copy_of(finished, tmp_path)
    (folder / "results.json").unlink()
    next(folder.glob("cells/l-gm/seed-0/fgsm-0.1-*.npz")).write_bytes(b"")
    run = open_run(folder)
    assert run.comparisons == run.ranks == []
    assert run.rows == load_run(finished).rows
    assert run.unfinished[1].startswith("The losses are not compared: cells/l-gm/seed-0/fgsm-0.1-")
    build.build_report(folder)
    assert "The losses are not compared" in words(folder)


def test_cells_of_other_settings_are_left_out(finished, tmp_path):
    """Their worst case over fewer attacks, or their shorter training, would mislead."""
    folder = copy_of(finished, tmp_path)
    (folder / "results.json").unlink()
    longer = changed(train={**SPEC["train"], "epochs": 4})
    stop(folder, longer, after=1)
    told = open_run(folder).unfinished[0]
    assert told.startswith("1 of 4 cells are finished; of other settings: softmax seed 1 (epochs 3")
    other = {"name": "fgsm", "label": "margin", "params": {"objective": "margin"}, "eps": [0.1]}
    folder = Path(shutil.copytree(finished, tmp_path / "other"))
    (folder / "results.json").unlink()
    stop(folder, changed(attacks=[*SPEC["attacks"], other]), after=1)
    run = open_run(folder)
    assert {(row["label"], row["seed"]) for row in run.rows} == {("softmax", 0)}
    assert "L-GM seed 0 (without margin at eps 0.1)" in run.unfinished[0]


def test_a_run_without_a_finished_cell_says_so(stopped, tmp_path, command):
    folder = tmp_path / "empty"
    folder.mkdir()
    shutil.copy(stopped / "spec.toml", folder)
    status, out, told = command("report", folder)
    assert status == 0
    assert out.endswith(f"Report: {folder / 'report/index.html'}\n")
    assert "loss  clean" not in out
    assert told.startswith("unfinished: 0 of 4 cells are finished; missing: softmax seed 0, ")
    assert "No cell finished: this report says nothing about any loss." in words(folder)
    assert "Read with care. No cell finished" in words(folder)
    summary = (folder / "report/summary.md").read_text(encoding="utf-8")
    assert len(summary.splitlines()) <= 60
    assert "**Status:** 0 of 4 cells are finished" in summary
    (folder / "spec.toml").write_text("name = ")
    status, _, told = command("report", folder)
    assert status == 2
    assert "spec.toml: not valid TOML" in told


def test_seeds_of_the_command_line_are_expected(tmp_path, command):
    folder = tmp_path / "run"
    stop(folder, changed(losses=SPEC["losses"][:1]), after=1, seeds=(3, 5))
    assert open_run(folder).missing == ("softmax seed 5",)
    noted = json.loads((folder / STARTED).read_text())
    for damaged in ("{", json.dumps(noted | {"seeds": [[3], 5]}), json.dumps(noted | {"seeds": 3})):
        (folder / STARTED).write_text(damaged)  # then the folders are all that is known
        run = open_run(folder)
        assert [(row["label"], row["seed"]) for row in run.training] == [("softmax", 3)]
        assert run.readable_cells[1][0].startswith("started.json cannot be used: ")
        assert run.provenance["data"] == {"name": "digits"}
        assert "torch" not in run.provenance
        assert command("report", folder)[0] == 0


def test_what_a_finished_run_is_asked_for_since_is_told(finished, tmp_path):
    folder = copy_of(finished, tmp_path)
    attack = {"name": "fgsm", "label": "more", "eps": [0.05, "1/10"]}
    spec = changed(losses=[*SPEC["losses"], {"name": "center"}], attacks=[*SPEC["attacks"], attack])
    stop(folder, spec, after=1, seeds=[0, 1, 2])
    run = open_run(folder)
    assert run.results == load_run(finished).results
    assert run.unfinished[0] == (
        "The numbers are of an earlier, finished state of this run, which was then asked for "
        "more: loss Center, more at eps 0.05, 0.1, seed 2."
    )
    assert run.unfinished[1].startswith("1 of 9 cells are finished; missing: softmax seed 2, ")
    assert run.counts == (1, 9)
    build.build_report(folder)
    assert "loss Center, more at eps 0.05, 0.1, seed 2" in words(folder)
    (folder / STARTED).unlink()  # without it the spec still tells of losses and attacks
    assert (
        open_run(folder)
        .unfinished[0]
        .endswith("asked for more: loss Center, more at eps 0.05, 0.1.")
    )


def test_a_finished_run_that_is_started_again_tells_what_is_so(finished, tmp_path, command):
    folder = copy_of(finished, tmp_path)
    noted = dict(load_run(folder).provenance) | {"started": "2030-01-01T00:00:00+00:00"}
    write_json(folder / STARTED, noted | {"asked": SPEC}, checked=True)
    assert not open_run(folder).unfinished  # nothing that it has would change
    shutil.rmtree(folder / "cells/l-gm/seed-0")
    assert open_run(folder).unfinished[0].endswith("which was then started again.")
    stop(folder, changed(train={**SPEC["train"], "lr": 0.03}), after=2)
    run = open_run(folder)
    assert run.unfinished[0].endswith("which was then started again with other settings.")
    assert run.unfinished[1].startswith("All 4 cells are there, but the folder does not tell")
    assert "4 of 4" not in " ".join([str(run), *run.unfinished])
    status, out, _ = command("report", folder, "--quiet")
    assert (status, out) == (0, f"{folder / 'report/index.html'}\n")
    assert "4 of 4" not in words(folder)


def test_seeds_that_a_finished_run_never_had_are_not_missed(finished, tmp_path):
    folder = copy_of(finished, tmp_path)
    spec = (folder / "spec.toml").read_text()
    assert "seeds = [0, 1]" in spec
    (folder / "spec.toml").write_text(spec.replace("seeds = [0, 1]", "seeds = [0, 1, 2]"))
    assert not open_run(folder).unfinished


def test_trials_that_are_done_are_shown_and_choose_the_values(tmp_path):
    folder = tmp_path / "run"
    spec = changed(seeds=[0], losses=[{"name": "softmax", "search": {"lr": [0.02, 0.05]}}])
    stop(folder, spec, after=1)
    run = open_run(folder)
    assert [(row["trial"], row["chosen"]) for row in run.trials] == [(1, False)] * len(run.trials)
    assert run.trials
    assert run.unfinished[1] == "1 of 2 trials of the search are finished."
    assert run.missing == ("Softmax seed 0",)
    runner.run(spec, out=folder)
    later = load_run(folder)
    (folder / "results.json").unlink()
    now = open_run(folder)
    assert now.trials == later.trials
    assert now.provenance["spec"] == later.provenance["spec"]
    assert now.counts == (1, 1)


def test_a_run_that_has_not_finished_is_refused_elsewhere_with_the_remedy(stopped, command):
    status, _, told = command("compare", stopped, stopped.parent)
    assert status == 2
    assert "see what is there with `robustloss report`" in told
    assert json.loads((stopped / STARTED).read_text())["seeds"] == [0, 1]
