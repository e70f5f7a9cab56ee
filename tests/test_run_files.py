"""Files of a run folder: no link is followed, nothing waits, nothing is read without bound."""

import os
import socket

import pytest

from robustloss import array_files, run_files, storage
from robustloss.models import weight_files
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from robustloss.storage import CorruptFile

PLACES = (
    "spec.toml",
    "results.json",
    "cells/soft/seed-0/cell.json",
    "trials/soft/0a1b/trial.json",
    "transfer/seed-0/soft-fgsm-0.1-0a.npz",
)


def steps(place):
    """The file and every folder between it and the run folder."""
    parts = place.split("/")
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


LINKS = [(place, step) for place in PLACES for step in steps(place)]


def linked(tmp_path, place, step):
    """A run folder in which the file lies, one step of its path a link out of the folder."""
    run, outside = tmp_path / "run", tmp_path / "outside"
    (run / place).parent.mkdir(parents=True)
    (run / place).write_text("secret")
    outside.mkdir()
    (run / step).rename(outside / "moved")
    (run / step).symlink_to(outside / "moved")
    return run / place


@pytest.mark.parametrize(("place", "step"), LINKS)
def test_no_link_is_followed_for_reading(tmp_path, place, step):
    path = linked(tmp_path, place, step)
    assert path.read_text() == "secret"  # as anybody else reads it
    with pytest.raises(OSError, match="is a link, and nothing is followed out") as told:
        run_files.read_file(path, 100)
    assert told.value.filename == str(tmp_path / "run" / step)
    with pytest.raises(CorruptFile, match=r"cannot be read \(is a link"):
        storage.read_json(path)


@pytest.mark.parametrize(("place", "step"), LINKS)
def test_no_link_is_followed_for_writing(tmp_path, place, step):
    path = linked(tmp_path, place, step)
    moved = tmp_path / "outside/moved"
    if step == place:  # the link itself is replaced
        storage.write_text(path, "mine")
        assert not path.is_symlink()
        assert moved.read_text() == "secret"
        return
    before = sorted(moved.rglob("*"))
    with pytest.raises(OSError, match="is a link") as told:
        storage.write_text(path, "mine")
    assert told.value.filename == str(tmp_path / "run" / step)
    assert sorted(moved.rglob("*")) == before
    assert path.read_text() == "secret"


@pytest.mark.parametrize(("place", "step"), LINKS)
def test_a_run_folder_with_a_link_is_refused_before_anything_is_deleted(tmp_path, place, step):
    linked(tmp_path, place, step)
    with pytest.raises(OSError, match="is a link") as told:
        run_files.check_run_folder(tmp_path / "run")
    assert told.value.filename == str(tmp_path / "run" / step)


@pytest.mark.parametrize("place", PLACES)
def test_the_run_folder_itself_may_be_a_link_and_be_called_anything(tmp_path, place):
    (tmp_path / "disk/b/seed-0").mkdir(parents=True)
    for name in ("cells", "trials", "transfer"):
        (tmp_path / name).symlink_to(tmp_path / "disk")
        path = tmp_path / name / "b/seed-0" / place
        storage.write_text(path, "mine")
        assert run_files.read_file(path, 4) == b"mine"


def test_a_link_of_the_temporary_name_is_not_written_through(tmp_path):
    target = tmp_path / "target"
    target.write_text("secret")
    (tmp_path / f".a.json.tmp-{os.getpid()}").symlink_to(target)
    storage.write_text(tmp_path / "a.json", "mine")
    assert (target.read_text(), (tmp_path / "a.json").read_text()) == ("secret", "mine")


def pipe(path):
    os.mkfifo(path)


def listener(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def endless(path):
    with path.open("wb") as file:
        file.truncate(10**13)


def device(path):
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero
        path.open("rb").close()
    except OSError as error:
        pytest.skip(f"no device can be made here: {error}")


@pytest.mark.parametrize("make", [pipe, listener, endless, device])
@pytest.mark.parametrize(
    "read", [storage.read_json, array_files.read_arrays, weight_files.load_tensors, load_spec]
)
@pytest.mark.timeout(20)
def test_what_is_no_ordinary_file_of_sane_size_is_refused_at_once(
    tmp_path, monkeypatch, read, make
):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    path = tmp_path / ("a.toml" if read is load_spec else "a")
    make(path.relative_to(tmp_path) if make is listener else path)
    known = "MiB" if make is endless else "no such file" if read is load_spec else "and no file"
    with pytest.raises((CorruptFile, SpecError), match=known):
        read(path)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(bytes(100))
    monkeypatch.setattr(run_files, "_check_ordinary", lambda *words: None)
    with pytest.raises(OSError, match="has more than"):
        run_files.read_file(path, 99)


def test_json_of_more_values_than_memory_holds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_MOST_VALUES", 1000)
    path = tmp_path / "a.json"
    path.write_text('{"a": [' + ",".join(["[]"] * 400) + "]}")
    assert len(storage.read_json(path)["a"]) == 400
    path.write_text('{"a": [' + ",".join(["[]"] * 600) + "]}")
    with pytest.raises(CorruptFile, match="1201 values, more than the 1000"):
        storage.read_json(path)
