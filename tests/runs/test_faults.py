"""Disks that are full or read-only, data that vanish, clocks that go back, damaged state."""

import errno
import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from robustloss import progress, storage
from robustloss.array_files import read_arrays
from robustloss.results.run import load_run
from robustloss.runs import provenance, runner
from robustloss.runs.folder import RunFolderError
from robustloss.spec.load import load_spec
from robustloss.training import train
from tests.folders import write_folder
from tests.small_run import SPEC, changed, files, numbers

pytestmark = pytest.mark.usefixtures("no_report")


SMALL = changed(seeds=[0], data={**SPEC["data"], "train_size": 100, "test_size": 40})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run."""
    from robustloss import reports

    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "build_report", lambda path: Path(path))
        assert runner.run(SMALL, out=folder).exit_code == 0
    return folder


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a small disk; the whole test run may not: then it is skipped."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        try:
            done = subprocess.run(words, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if done.returncode:
            pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True)


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_intact(folder):
    """Every file that stands there is whole, and no part of one."""
    for path in folder.rglob("cells/**/*.npz"):
        read_arrays(path)
    assert not list(folder.rglob(".*.tmp-*"))


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_full_disk_loses_nothing_and_is_told(whole, disk, command, tmp_path, share):
    room = int(share * size_of(whole))
    place = disk("size=16m")
    filler, folder = place / "filler", place / "run"
    spec = tmp_path / "spec.toml"
    spec.write_text(load_spec(SMALL).text)
    folder.mkdir()
    filler.write_bytes(bytes(16 * 2**20 - room))
    status, _, told = command("run", spec, "--out", folder, "--quiet")
    assert status in (1, 2)
    assert "No space left on device. Make room, then run the command again" in told
    check_intact(folder)
    filler.unlink()
    assert command("run", spec, "--out", folder, "--quiet")[0] == 0
    assert numbers(folder) == numbers(whole)
    assert files(folder) == files(whole)


@pytest.mark.parametrize("good", [0, 1, 5, 20])
def test_a_disk_that_is_full_from_some_file_on(whole, tmp_path, monkeypatch, good):
    """The same without a disk of one's own: the system refuses every file after so many."""
    count, sync = 0, os.fsync

    def full(handle):
        nonlocal count
        count += 1
        if count > good:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(storage.os, "fsync", full)
        with pytest.raises((OSError, RunFolderError), match="No space left"):
            runner.run(SMALL, out=folder)  # of some file of every run the place is results.json
    check_intact(folder)
    assert not (folder / "results.json").exists()
    assert runner.run(SMALL, out=folder).exit_code == 0
    assert numbers(folder) == numbers(whole)


def test_a_read_only_folder_is_told_and_can_be_read(whole, disk, command, tmp_path):
    place = disk("size=16m")
    folder = shutil.copytree(whole, place / "run")
    spec = tmp_path / "spec.toml"
    spec.write_text(load_spec(SMALL).text)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    for words in (("run", spec, "--out", folder), ("run", spec, "--out", place / "new")):
        status, _, told = command(*words)
        assert status == 2
        assert "cannot be written: Read-only file system; name another folder with --out" in told
        assert len(told.splitlines()) == 1
    assert numbers(folder) == numbers(whole)
    assert load_run(folder).cells[0].record().n == 40


def test_a_read_only_folder_has_no_new_report(whole, disk, command, monkeypatch):
    from robustloss import reports
    from robustloss.reports.page.build import build_report

    monkeypatch.setattr(reports, "build_report", build_report)
    place = disk("size=16m")
    folder = shutil.copytree(whole, place / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    status, _, told = command("report", folder)
    assert status == 2
    assert "Read-only file system" in told
    assert len(told.splitlines()) == 1


VANISHING = """
import os
from pathlib import Path

from robustloss.losses.softmax import SoftmaxHead


class Own(SoftmaxHead):
    def loss(self, features, labels, *, progress):
        if progress > 0.3 and "VANISH" in os.environ:
            place = Path(os.environ["VANISH"])
            if place.exists():
                place.rename(place.with_name("away"))
        return super().loss(features, labels, progress=progress)
"""


def test_data_that_vanish_while_a_run_reads_them(tmp_path, monkeypatch):
    pictures = write_folder(tmp_path / "pictures", train=24, size=(12, 12))
    (tmp_path / "own.py").write_text(VANISHING)
    data = {"name": "image_folder", "folder": "pictures", "in_memory": False}
    spec = changed(
        seeds=[0],
        data=data,
        model={"backbone": "digits_cnn", "feature_dim": 4},
        train={"epochs": 4, "batch_size": 16, "precision": "float32", "lr": 0.02},
        losses=[{"name": "own.py:Own", "label": "own"}, {"name": "softmax"}],
    )
    path = tmp_path / "spec.toml"
    path.write_text(load_spec(spec).text)
    assert runner.run(path, out=tmp_path / "whole").exit_code == 0
    with monkeypatch.context() as patch:
        patch.setenv("VANISH", str(pictures))
        outcome = runner.run(path, out=tmp_path / "run")
    assert [(f["label"], f["stage"]) for f in outcome.failures] == [
        ("own", "train"), ("Softmax", "train"),
    ]  # fmt: skip
    for failure in outcome.failures:
        assert f"{pictures}/train/" in failure["reason"]
        assert "cannot be read (No such file or directory)" in failure["reason"]
    (tmp_path / "away").rename(pictures)
    assert runner.run(path, out=tmp_path / "run").exit_code == 0
    assert numbers(tmp_path / "run") == numbers(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_checkpoint_costs_time_only(whole, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1.0)
    folder = tmp_path / "run"

    class Stop(BaseException):
        pass

    class Stopping(progress.Silent):
        def __call__(self, event):
            if event.text.startswith("epoch 3"):
                raise Stop

    with pytest.raises(Stop):
        runner.run(SMALL, out=folder, progress=Stopping())
    (path,) = folder.rglob("checkpoint-*")
    data = path.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    path.write_bytes({"cut": data[:middle], "flip": flipped, "empty": b"",
                      "other": b"\x08\0\0\0\0\0\0\0{}      "}[damage])  # fmt: skip
    assert runner.run(SMALL, out=folder).exit_code == 0
    assert numbers(folder) == numbers(whole)
    assert not list(folder.rglob("checkpoint-*"))


@pytest.mark.parametrize("what", ["trial.json", "train.json", "model-*"])
def test_a_damaged_file_of_a_trial_is_made_anew(tmp_path, what):
    losses = [{"name": "softmax", "search": {"lr": [0.01, 0.05]}}]
    spec = changed(**{**SMALL, "losses": losses})
    folder = tmp_path / "run"
    assert runner.run(spec, out=folder).exit_code == 0
    before = numbers(folder)
    for path in folder.glob(f"trials/*/*/{what}"):
        path.write_bytes(path.read_bytes()[:-9])
    assert runner.run(spec, out=folder).exit_code == 0
    assert numbers(folder) == before
    assert len(list(folder.glob("trials/*/*/trial.json"))) == 2


def test_a_clock_that_goes_back_makes_no_negative_time(tmp_path, monkeypatch):
    class Back(datetime):
        hours = 0

        @classmethod
        def now(cls, zone=None):
            cls.hours += 1
            return datetime(2026, 1, 1, tzinfo=UTC) - timedelta(hours=cls.hours)

    monkeypatch.setattr(provenance, "datetime", Back)
    runner.run(SMALL, out=tmp_path / "run")
    found = load_run(tmp_path / "run").provenance
    assert found["finished"] < found["started"]
    assert 0 < found["seconds"] < 600
