"""A report while something else happens in the run folder: another report, or the run itself."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from robustloss.reports.page import build
from robustloss.runs.folder import claiming
from robustloss.spec.load import load_spec
from robustloss.storage import read_json, write_json
from tests.drawing import build_report
from tests.reports.page.test_build import SMALL, contents
from tests.reports.synthetic import write_run

AGAIN = """
import sys
from robustloss.reports.page import build
build.draw_all = lambda folder, contents, **how: []
print("ready", flush=True)
for _ in range(5):
    build.build_report(sys.argv[1])
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", SMALL)


def test_reports_at_once_and_runs_that_begin_do_not_disturb_each_other(run: Path) -> None:
    build.build_report(run)
    (run / "report/notes.txt").write_text("mine")
    before = contents(run / "report")
    spec = load_spec(run / "spec.toml")
    others = [
        subprocess.Popen(
            [sys.executable, "-c", AGAIN, str(run)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
    try:
        while any(other.poll() is None for other in others):
            with claiming(run, spec):  # as a run begins
                pass
            assert (run / "report/index.html").read_bytes() == before["index.html"]
    finally:
        told = [other.communicate()[1] for other in others]
    assert told == ["", ""]
    assert [other.returncode for other in others] == [0, 0]
    assert contents(run / "report") == before
    assert not list(run.glob(".*"))


def test_results_that_are_replaced_while_a_report_is_drawn_are_in_no_part_of_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_report(run, cores=2)
    undisturbed = contents(run / "report")
    shutil.rmtree(run / "report")
    make_tables = build.make_tables

    def replacing(*words):  # type: ignore[no-untyped-def]
        made = make_tables(*words)
        results = read_json(run / "results.json")
        for table in ("rows", "summary"):
            for row in results[table]:
                row |= {key: 0.5 for key in ("error", "mean", "low", "high") if key in row}
        (run / "results.json").write_text(json.dumps(results))
        for path in run.glob("cells/*/*/cell.json"):
            cell = read_json(path, checked=True)
            write_json(path, {**cell, "num_classes": cell["num_classes"] + 1}, checked=True)
        (run / "spec.toml").write_text("name = 'other'")
        return made

    monkeypatch.setattr(build, "make_tables", replacing)
    build_report(run, cores=2)
    assert [
        name for name in undisturbed if contents(run / "report")[name] != undisturbed[name]
    ] == []
