"""The log of a run: which events it has, that it changes nothing, and what it refuses."""

import json
import math
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robustloss.progress import EVENTS, Event
from robustloss.runs import runner
from robustloss.runs.watching.log import LogError, RunLog
from tests.small_run import SPEC, changed, files, numbers

pytestmark = pytest.mark.usefixtures("no_report")
ONE = changed(losses=SPEC["losses"][:1], seeds=[0])
STARTED = b'{"event": "run_started", "time": "2026-11-30T05:41:26.123+00:00", "name": "small"}\n'


def read(path):
    text = path.read_bytes()
    assert text.endswith(b"\n")
    assert text.isascii()
    return [json.loads(line) for line in text.splitlines()]


def named(events, name):
    return [event for event in events if event["event"] == name]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The run without a log."""
    from robustloss import reports

    folder = tmp_path_factory.mktemp("plain") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "build_report", lambda path: Path(path), raising=False)
        runner.run(SPEC, out=folder)
    return folder


@pytest.mark.parametrize("executor", ["serial", "processes:2"])
def test_every_event_is_a_line_and_the_results_are_those_without_a_log(
    executor, plain, tmp_path, one_thread
):
    folder, log = tmp_path / "run", tmp_path / "new" / "log.jsonl"
    assert runner.run(SPEC, out=folder, executor=executor, log=log).exit_code == 0
    assert files(folder) == files(plain)
    assert numbers(folder) == numbers(plain)
    events = read(log)
    first, last = events[0], events[-1]
    assert first["event"] == "run_started"
    assert {"name": "small", "cells": 4, "executor": executor}.items() <= first.items()
    assert (last["event"], last["status"], last["failures"]) == ("run_finished", 0, [])
    places = {("softmax", 0), ("softmax", 1), ("L-GM", 0), ("L-GM", 1)}
    results = {
        (row["label"], row["seed"], row["attack_label"], row["eps"]): row["error"]
        for row in json.loads((folder / "results.json").read_text())["rows"]
    }
    for name, count in {"cell_started": 1, "epoch": 3, "attack_started": 3, "attack_finished": 3,
                        "cell_finished": 1}.items():  # fmt: skip
        found = [(event["label"], event["seed"]) for event in named(events, name)]
        assert sorted(found) == sorted(count * list(places)), name
    for event in named(events, "attack_finished"):
        key = event["label"], event["seed"], event["attack"], event["eps"]
        assert event["error"] == results[key]
        assert event["images"] == 80
    for event in named(events, "cell_finished"):
        assert event["clean_error"] == results[event["label"], event["seed"], "none", 0.0]
        assert event["cached"] is False
    assert [event["epoch"] for event in named(events, "epoch")[:3]] == [1, 2, 3] or executor != (
        "serial"
    )
    assert all(0 < event["loss"] < 100 for event in named(events, "epoch"))
    assert {event["event"] for event in events} <= EVENTS.keys()
    for event in events:
        told = event.keys() - {"event", "time"}
        if event["event"] != "epoch":
            assert told <= set(re.findall(r"\w+", EVENTS[event["event"]])), event
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)


def test_a_run_that_goes_on_is_added_and_transfers_are_told(tmp_path):
    log = tmp_path / "run" / "log.jsonl"  # in the folder of the run itself
    spec = changed(seeds=[0], attacks=[{"name": "fgsm", "eps": [0.1], "transfer": True}])
    runner.run(spec, out=tmp_path / "run", log=log)
    first = read(log)
    assert [event["seed"] for event in named(first, "transfer_finished")] == [0]
    runner.run(spec, out=tmp_path / "run", log=log)
    events = read(log)
    assert events[: len(first)] == first
    again = events[len(first) :]
    assert again[0]["event"] == "run_started"
    assert not named(again, "epoch")
    assert [event["cached"] for event in named(again, "cell_finished")] == [True, True]
    assert [event["cached"] for event in named(again, "transfer_finished")] == [True]


def test_with_split_each_cell_starts_and_ends_once(tmp_path):
    spec = ONE | {"resources": {"split": 20}}
    spec["attacks"] = [{"name": "fgsm", "eps": [0.1], "batch_size": 20}]
    runner.run(spec, out=tmp_path / "run", executor="processes:2", log=tmp_path / "l.jsonl")
    events = read(tmp_path / "l.jsonl")
    names = [event["event"] for event in events]
    for name in ("cell_started", "attack_started", "attack_finished", "cell_finished"):
        assert names.count(name) == 1, name
    assert named(events, "cell_finished")[0]["cached"] is False


def test_failures_and_warnings_are_told(tmp_path):
    spec = changed(
        seeds=[0],
        losses=[
            {"name": "softmax", "label": "Später λ", "train": {"lr": 1000.0}},
            {"name": "cosface", "label": "narrow", "params": {"margin": 0.9}, "model":
             {"feature_dim": 2}, "train": {"epochs": 1}},
        ],
    )  # fmt: skip
    with pytest.warns(match="margin"):
        outcome = runner.run(spec, out=tmp_path / "run", log=tmp_path / "l.jsonl")
    events = read(tmp_path / "l.jsonl")
    assert "margin" in named(events, "warning")[0]["text"]
    failed = named(events, "cell_failed")
    assert (failed[0]["label"], failed[0]["stage"]) == ("Später λ", "train")
    assert "NaN" in failed[0]["reason"]
    assert events[-1]["status"] == outcome.exit_code == 1
    assert events[-1]["failures"] == outcome.failures


def test_json_has_no_nan(tmp_path):
    log = RunLog(tmp_path / "l.jsonl", "small")
    half = "half \ud800 a letter"
    log(Event("", "note", name="epoch", values={"loss": math.nan, "b": [math.inf], "text": half}))
    log(Event("no name", "train", 1, 2))
    (event,) = read(tmp_path / "l.jsonl")
    assert (event["loss"], event["b"], event["text"]) == (None, [None], half)


def refused(tmp_path, log, match, spec=ONE):
    with pytest.raises(LogError, match=match):
        runner.run(spec, out=tmp_path / "run", log=log)
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_a_log_is_refused_before_any_work(tmp_path, monkeypatch):
    refused(tmp_path, tmp_path / "a.log", r"must end in \.jsonl.*Write --log .*a\.jsonl\.")
    for folder in ("", ".", tmp_path):
        refused(tmp_path, folder, r"is a folder\. Name a file in it, as .*log\.jsonl\.")
    (tmp_path / "a.jsonl").mkdir()
    refused(tmp_path, tmp_path / "a.jsonl", r"is a folder\. Name a file in it")
    (tmp_path / "file").write_text("")
    refused(tmp_path, tmp_path / "file" / "a.jsonl", "cannot be written: (Not a dir|File exists)")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "file")
    refused(tmp_path, tmp_path / "link.jsonl", "it is a link")
    os.mkfifo(tmp_path / "pipe.jsonl")
    refused(tmp_path, tmp_path / "pipe.jsonl", "no ordinary file")
    for number, text in enumerate((b"mine", b"[]\n", b"1\n" * 9, b'{"event": "epoch"}\n',
                                   b"[" * 99999, b'{"event": ["run_started"]}\n')):  # fmt: skip
        other = tmp_path / f"{number}.jsonl"
        other.write_bytes(text)
        refused(tmp_path, other, "something other than the log of a run")
        assert other.read_bytes() == text
    (tmp_path / "l.jsonl").write_bytes(STARTED)
    refused(tmp_path, tmp_path / "l.jsonl", "spec 'small', this is spec 'x'", ONE | {"name": "x"})


def test_a_log_takes_one_run_at_a_time(tmp_path):
    first = RunLog(tmp_path / "l.jsonl", "small")
    refused(tmp_path, tmp_path / "l.jsonl", "being written by another run")
    first.close()
    RunLog(tmp_path / "l.jsonl", "small").close()


@pytest.mark.parametrize(("before", "after"), [
    (STARTED + b'{"event": "epo', STARTED),
    (STARTED[:30], b""),
    (STARTED + b'{"event": "epoch"}\n', STARTED + b'{"event": "epoch"}\n'),
])  # fmt: skip
def test_half_a_line_is_cut_off(before, after, tmp_path):
    (tmp_path / "l.jsonl").write_bytes(before)
    RunLog(tmp_path / "l.jsonl", "small").close()
    assert (tmp_path / "l.jsonl").read_bytes() == after


def test_a_full_disk_ends_the_log_and_not_the_run(tmp_path, capsys):
    log = RunLog(tmp_path / "l.jsonl", "small")
    from robustloss.runs.watching.audience import Audience

    audience = Audience(None, log)
    audience.tell("run_started", {"name": "small"})
    before = (tmp_path / "l.jsonl").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))
    try:
        audience.tell("epoch", {"loss": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    audience.tell("epoch", {"loss": 0.25})
    assert (tmp_path / "l.jsonl").read_bytes() == before
    told = capsys.readouterr().err
    assert told.count("cannot be written any more") == 1
    assert "The run goes on without it" in told


def test_a_log_that_is_removed_is_told(tmp_path, capsys):
    from robustloss.runs.watching.audience import Audience

    audience = Audience(None, RunLog(tmp_path / "l.jsonl", "small"))
    (tmp_path / "l.jsonl").unlink()
    audience.tell("epoch", {})
    assert "No such file" in capsys.readouterr().err


def test_a_killed_run_leaves_whole_lines_and_goes_on(tmp_path):
    spec = tmp_path / "small.toml"
    from robustloss.spec.load import load_spec
    from robustloss.spec.text import to_toml

    spec.write_text(to_toml(load_spec(ONE | {"train": {**ONE["train"], "epochs": 400}}).plain()))
    log = tmp_path / "l.jsonl"
    words = [sys.executable, "-m", "robustloss", "run", str(spec), "--log", str(log), "--quiet",
             "--out", str(tmp_path / "run"), "--executor", "processes:2"]  # fmt: skip
    process = subprocess.Popen(words, cwd=tmp_path, env=os.environ)
    for _ in range(600):
        if log.exists() and log.read_bytes().count(b'"event": "epoch"') >= 5:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    events = read(log)
    assert len(named(events, "epoch")) >= 5
    assert not named(events, "run_finished")
    RunLog(log, "small").close()  # the lock is gone with the process


def test_an_interrupted_run_says_so(tmp_path):
    def stop(event):
        if event.name == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(ONE, out=tmp_path / "run", log=tmp_path / "l.jsonl", progress=stop)
    last = read(tmp_path / "l.jsonl")[-1]
    assert (last["event"], last["status"], last["reason"]) == ("run_finished", 130, "interrupted")


def test_the_command_takes_a_log_and_refuses_a_folder(command, tmp_path, monkeypatch):
    status, out, err = command("run", "quickstart", "--log", tmp_path, "--out", tmp_path / "run")
    assert (status, out) == (2, "")
    assert "is a folder" in err
    assert not (tmp_path / "run").exists()
