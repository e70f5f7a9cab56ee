"""A folder is put in place as a whole; what killed makers leave goes, what live ones have stays."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from robustloss import run_files, storage, work_folders
from robustloss.work_folders import making_folder, put_in_place, remove_left_folders
from tests.crashes import count_changes, killed_before

MAKER = """
import sys
from pathlib import Path
from robustloss.work_folders import making_folder
with making_folder(Path(sys.argv[1]), ".work-") as folder:
    (folder / "half").write_text("x")
    print("making", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def maker(tmp_path):
    """Another process that is making a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(tmp_path / "target")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "making\n"
    with process:
        yield process
        process.kill()


def left(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".work-")]


def test_a_live_maker_is_let_be_and_a_killed_one_is_cleaned_up_after(maker, tmp_path):
    remove_left_folders(tmp_path / "target", ".work-")
    with making_folder(tmp_path / "target", ".work-"):
        assert len(left(tmp_path)) == 2
    assert len(left(tmp_path)) == 1
    maker.kill()
    maker.wait()
    remove_left_folders(tmp_path / "target", ".work-")
    assert left(tmp_path) == []


def test_a_link_of_such_a_name_is_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("x")
    (tmp_path / ".work-1_345678").symlink_to(tmp_path / "mine")
    remove_left_folders(tmp_path / "target", ".work-")
    assert (tmp_path / "mine/file").exists()


def test_without_locks_only_what_lay_there_for_a_day_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(work_folders, "fcntl", None)
    (tmp_path / ".work-1_345678").mkdir()
    (tmp_path / ".work-2_345678").mkdir()
    day_ago = time.time() - 90_000
    os.utime(tmp_path / ".work-2_345678", (day_ago, day_ago))
    with making_folder(tmp_path / "target", ".work-"):
        pass
    assert left(tmp_path) == [".work-1_345678"]


def make(root, name):
    folder = root / name
    (folder / "tables").mkdir(parents=True)
    for part in ("page", "tables/a", "tables/b"):
        (folder / part).write_text(name)
    return folder


def contents(folder):
    """Files and what they hold; links and where they lead."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink()) if path.is_symlink()
        else path.read_text()
        for path in folder.rglob("*") if path.is_symlink() or path.is_file()
    }  # fmt: skip


def replace(root):
    with making_folder(root / "target", ".work-") as work:
        put_in_place(make(work, "new"), root / "target", ("page", "tables"))


@pytest.fixture
def place(tmp_path):
    """A folder to be replaced, with things of the user's in it."""
    tmp_path = tmp_path / "place"
    target = make(tmp_path, "target")
    (target / "notes").mkdir()
    (target / "notes/mine").write_text("mine")
    (target / "away").symlink_to("/nowhere")
    return tmp_path


def refuse(*paths):
    raise OSError("no such call")


@pytest.mark.parametrize("exchange", [work_folders._exchange, refuse])
def test_whatever_a_kill_leaves_is_the_old_folder_or_the_new_one(place, monkeypatch, exchange):
    monkeypatch.setattr(work_folders, "_exchange", exchange)
    whole = shutil.copytree(place, place.with_name("whole"), symlinks=True)
    old = contents(place / "target")
    new = {**old, **dict.fromkeys(("page", "tables/a", "tables/b"), "new")}
    changes = count_changes(lambda: replace(place), place)
    assert contents(place / "target") == new
    assert left(place) == []
    assert len(changes) > 15
    seen = []
    for number in range(len(changes)):
        shutil.rmtree(place)
        shutil.copytree(whole, place, symlinks=True)
        with killed_before(number, place):
            replace(place)
        if exchange is refuse:  # two steps: the next one who comes along ends them
            remove_left_folders(place / "target", ".work-")
        seen.append(contents(place / "target"))
        assert seen[-1] in (old, new), changes[number]
        remove_left_folders(place / "target", ".work-")
        assert left(place) == []
        assert contents(place / "target") == seen[-1]
    assert seen == sorted(seen, key=lambda each: each == new)  # first the old one, then the new
    assert old in seen
    assert new in seen


def test_without_exchange_an_error_puts_the_old_folder_back(place, monkeypatch):
    monkeypatch.setattr(work_folders, "_exchange", refuse)
    old, rename = contents(place / "target"), type(place).rename

    def fail(path, target):
        if path.name == "new":
            raise OSError("disk error")
        return rename(path, target)

    monkeypatch.setattr(type(place), "rename", fail)
    with pytest.raises(OSError, match="disk error"):
        replace(place)
    assert contents(place / "target") == old


def test_a_target_that_is_a_link_is_refused(tmp_path):
    old = make(tmp_path, "elsewhere")
    (tmp_path / "target").symlink_to(old)
    with pytest.raises(OSError, match="is a link"):
        replace(tmp_path)
    assert (old / "page").read_text() == "elsewhere"


def test_a_disk_without_hard_links_gets_copies(place, monkeypatch):
    def fail(*words, **more):
        raise OSError("no links here")

    monkeypatch.setattr(work_folders.os, "link", fail)
    replace(place)
    assert contents(place / "target")["notes/mine"] == "mine"
    assert str((place / "target/away").readlink()) == "/nowhere"


def nest(folder, count=1200):
    """Make so many folders, one in another, of which the path is longer than the system takes."""
    folder.mkdir(parents=True, exist_ok=True)
    here = os.open(folder, os.O_RDONLY)
    for _ in range(count):
        os.mkdir("a", dir_fd=here)
        inner = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


@pytest.fixture
def nested(tmp_path):
    """A run folder in which folders without end lie in every place."""
    for place in ("report/x", "report/tables", ".work-abcdefgh", "cells", "other"):
        nest(tmp_path / "run" / place)
    yield tmp_path / "run"
    subprocess.run(["rm", "-rf", tmp_path / "run"], check=True)


def test_folders_without_end_are_refused_or_let_be(nested):
    run_files.check_run_folder(nested)
    storage.remove_leftovers(nested)
    remove_left_folders(nested / "report", ".work-")
    with making_folder(nested / "report", ".work-") as folder:
        (folder / "fresh").mkdir()
        (folder / "other").mkdir()
        with pytest.raises(OSError, match="more than 50 folders"):
            put_in_place(folder / "fresh", nested / "report", ())
        put_in_place(folder / "other", nested / "report", ("x", "tables"))
    assert list((nested / "report").iterdir()) == []


def test_the_folders_of_another_target_are_let_be(tmp_path):
    others = (".run-a-b-abcdefgh", ".run-a-", ".run-a-mine", ".run-a-ABCDEFGH", ".run-[a]-abcdefgh")
    for name in (*others, ".run-a-abcdefgh"):
        (tmp_path / name / "earlier").mkdir(parents=True)
    remove_left_folders(tmp_path / "a", ".run-a-")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "a"])
    remove_left_folders(tmp_path / "[a]", ".run-[a]-")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others[:-1], "[a]", "a"])
