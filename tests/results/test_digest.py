"""Is results.json what the run wrote, and are the cells those that it was made from?"""

import json
import random
import shutil

import pytest

from robustloss import reports
from robustloss.results.run import load_run
from robustloss.results.write import seals_of
from robustloss.storage import digest_content, read_json, write_json
from tests.reports.markup import Page
from tests.reports.synthetic import write_run
from tests.reports.world import MOCKS, Layout, MockAttack

SMALL = Layout(mocks=MOCKS[2:], seeds=(0, 1), attacks=(MockAttack(eps=(0.1,)),), n=60, dim=3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two losses and two seeds whose results name their cells, as those of a run do."""
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", SMALL)
    rewrite(folder, lambda r: r["provenance"].update(cells=seals_of(load_run(folder).cells)))
    return folder


def rewrite(folder, change):
    """Change results.json and seal it again."""
    results = read_json(folder / "results.json")
    change(results)
    results.pop("digest", None)
    results["digest"] = digest_content(results)
    write_json(folder / "results.json", results, sort_keys=False)


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def test_a_whole_run_has_no_doubts(whole):
    run = load_run(whole)
    assert (run.doubts, run.digest_state, run.readable_cells[1]) == ((), "fits", [])
    assert len(run.readable_cells[0]) == len(run.provenance["cells"]) == 4


def test_every_flipped_bit_is_refused_doubted_or_harmless(copied):
    path = copied / "results.json"
    data, chance = path.read_bytes(), random.Random(0)
    before = read_json(path)
    doubted = 0
    for _ in range(150):
        flipped = bytearray(data)
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            run = load_run(copied)
        except ValueError:
            continue
        doubted += bool(run.doubts)
        assert run.doubts or run.results == before  # white space only
    assert doubted > 30


CHANGES = {
    "a digit": lambda r: r["rows"][0].update(error=r["rows"][0]["error"] / 10),
    "a row": lambda r: r["rows"].pop(),
    "an order": lambda r: r["summary"].reverse(),
    "a table": lambda r: r["flags"].append({}),
    "a name": lambda r: r.update(name="other"),
    "the provenance": lambda r: r["provenance"].update(device="other"),
    "the digest": lambda r: r.update(digest="0" * 64),
    "no digest": lambda r: r.pop("digest"),
    "a digest of another kind": lambda r: r.update(digest=[1]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_marked_on_the_page_and_told(copied, command, name):
    results = read_json(copied / "results.json")
    CHANGES[name](results)
    (copied / "results.json").write_text(json.dumps(results))
    status, _, told = command("report", copied)
    assert status == 0
    assert told.startswith("warning: results.json was altered after it was written")
    page = Page((copied / "report/index.html").read_text(encoding="utf-8"))
    assert "Altered. results.json was altered after it was written" in page.text


def test_a_run_of_an_older_version_has_no_digest_and_is_told_so(copied, command):
    results = read_json(copied / "results.json")
    del results["digest"], results["provenance"]["cells"]
    (copied / "results.json").write_text(json.dumps(results))
    assert load_run(copied).doubts == ()
    assert command("report", copied)[2] == ""
    page = Page((copied / "report/index.html").read_text(encoding="utf-8"))
    assert "no digest: an older version wrote the run" in page.text
    assert "Altered." not in page.text


def test_another_cell_than_the_results_were_made_from_is_told(copied):
    path = copied / "cells/gm/seed-1/cell.json"
    cell = read_json(path, checked=True)
    write_json(path, {**cell, "more": 1}, checked=True)
    (doubt,) = load_run(copied).doubts
    assert doubt.startswith("GM, seed 1: cell.json is another one than the numbers")


def gaps(folder):
    page = Page(reports.build_report(folder).read_text(encoding="utf-8"))
    assert "Failures" in page.text
    assert "Incomplete." in page.text
    return page.text


def test_cells_that_are_missing_are_gaps(copied):
    shutil.rmtree(copied / "cells/gm")
    assert "GM, seed 0: its cell.json is missing" in gaps(copied)
    shutil.rmtree(copied / "cells")
    assert gaps(copied).count("its cell.json is missing") == 4


@pytest.mark.parametrize("instead", ["file", "link", "folder"])
def test_cells_that_cannot_be_read_are_gaps(copied, instead):
    path = copied / "cells/gm/seed-0"
    path.rename(copied / "away")
    if instead == "link":
        path.symlink_to(copied / "away")
    elif instead == "file":
        path.write_text("x")
    else:
        (path / "cell.json").mkdir(parents=True)
    told = "its cell.json is missing" if instead == "file" else "cannot be read"
    assert told in gaps(copied)


def test_what_the_spec_asks_for_and_nobody_tells_of_is_a_gap(copied):
    def forget(results):
        results["rows"] = [r for r in results["rows"] if (r["label"], r["seed"]) != ("GM", 1)]

    rewrite(copied, forget)
    assert "GM, seed 1: the spec asks for it, and it has neither numbers nor a" in gaps(copied)
    failure = {"loss": "gm", "label": "GM", "seed": 1, "stage": "train", "reason": "it diverged"}
    rewrite(copied, lambda results: results["failures"].append(failure))
    assert load_run(copied).readable_cells[1] == []


def test_a_folder_of_cells_that_may_not_be_read_is_a_gap(copied, monkeypatch):
    import os

    scan = os.scandir

    def refuse(path="."):
        if os.fspath(path).endswith("gm"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "GM, seed 0: its cell.json is missing" in load_run(copied).readable_cells[1][0]
