"""Damaged and forged files in a run folder: every reader works or says what is wrong.

    python -m tests.fuzz_run COUNT [--seed 0] [--first 0] [--only KIND]

Works in the working folder, under the guard, and prints JSON: what happened, and what must not.
"""

import argparse
import contextlib
import gc
import io
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import torch
import torchvision  # noqa: F401  (it loads libraries, when a spec names one of its networks)

from robustloss.cli import commands, cost
from robustloss.reports.drawing import album
from robustloss.reports.page import build, press
from robustloss.results.run import load_run
from robustloss.runs import runner
from robustloss.runs.classifier import load_classifier
from robustloss.spec.load import load_spec
from robustloss.storage import write_json
from tests.guard import BrokenOut, Guard
from tests.small_run import changed, files, numbers
from tests.spoiled import HTML, JUNK, displaced, spoiled

SPEC = changed(
    seeds=[0],
    data={"name": "digits", "train_size": 60, "validation_size": 30, "test_size": 30},
    model={"backbone": "digits_cnn", "feature_dim": 2},
    train={"epochs": 1, "batch_size": 30, "precision": "float32", "lr": 0.02},
    detection={"fit_size": 40},
    checks={"images": 10},
    losses=[
        {"name": name, "label": label, "search": {"lr": [0.02, 0.05]}}
        for name, label in (("softmax", "softmax"), ("lgm", "L-GM"))
    ],
    attacks=[{"name": "fgsm", "eps": [0.1], "transfer": True}],
    records={"images": "all"},
    outside=[{"name": "uniform_noise", "label": "noise", "images": 20}],
)
KINDS = {  # of files, by pattern: how often, and what is done with the folder afterwards
    "results.json": (6, ("verify", "export", "load", "report", "compare", "run")),
    "started.json": (2, ("report", "unfinished", "run")),
    "cells/*/*/cell.json": (
        5,
        ("verify", "export", "load", "report", "unfinished", "compare", "run"),
    ),
    "cells/*/*/train.json": (1, ("verify", "load", "unfinished", "compare", "run")),
    "cells/*/*/none-0-*.npz": (
        2,
        ("verify", "export", "load", "draw", "unfinished", "compare", "run"),
    ),
    "cells/*/*/fgsm-*.npz": (
        2,
        ("verify", "export", "load", "draw", "unfinished", "compare", "run"),
    ),
    "cells/*/*/reference-*.npz": (3, ("verify", "load", "draw", "unfinished", "compare", "run")),
    "cells/*/*/scores-*.npz": (2, ("verify", "load", "draw", "compare", "run")),
    "cells/*/*/probe-*.npz": (1, ("verify", "run")),
    "cells/*/*/noise-*.npz": (1, ("verify", "run")),
    "cells/*/*/outside-*.npz": (1, ("verify", "load", "draw", "run")),
    "cells/*/*/*-cost.json": (1, ("unfinished", "run", "report")),
    "cells/*/*/model-*.safetensors": (2, ("verify", "load", "run")),
    "cells/*/*/images-*.npy": (2, ("verify", "export", "run")),
    "transfer/*/*.npz": (1, ("verify", "run")),
    "trials/*/*/trial.json": (2, ("unfinished", "run")),
    "trials/*/*/model-*.safetensors": (1, ("run",)),
    "spec.toml": (2, ("show", "report", "unfinished", "run")),
}
LIMIT = 60  # seconds for one deed
BUGS = ("KeyError", "TypeError", "AttributeError", "IndexError", "AssertionError")


class Hangs(BaseException):
    """A deed took too long."""


def spoil_text(path, rng):
    """A spec with another value somewhere, as text."""
    lines = path.read_text().splitlines()
    settings = [i for i, line in enumerate(lines) if " = " in line]
    at = rng.choice(settings)
    value = rng.choice([each for each in JUNK if each is not None and each != "\ud800"])
    lines[at] = f"{lines[at].partition(' = ')[0]} = {json.dumps(value)}"
    path.write_text("\n".join(lines))


class Fuzz:
    """The folders, the guard, and what was found."""

    def __init__(self, seed: int) -> None:
        self.seed, self.here = seed, Path.cwd()
        self.run, self.merged = self.here / "case/run", self.here / "case/merged"
        self.whole, self.other = self.here / "whole", self.here / "other"
        self.spec = self.here / "spec.toml"
        self.path = self.run / "results.json"  # the spoiled one
        self.told: Counter[str] = Counter()
        self.faults: list[str] = []

    def prepare(self) -> None:
        """Two whole runs; every deed once, so that everything is imported that ever is."""
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        cost.measure.__defaults__ = (0.01,)
        album.save = self._not_rendered
        self.draw, build.draw_all = build.draw_all, lambda folder, contents, **how: []
        self.spec.write_text(load_spec(SPEC).text)
        (self.here / "evil.py").write_text("open('ran', 'x')\nclass Loss: pass\n")
        runner.run(self.spec, out=self.whole)
        mmc = load_spec(changed(**{**SPEC, "name": "other", "losses": [{"name": "center"}]}))
        runner.run(mmc, out=self.other)
        found = load_run(self.whole).provenance
        started = {key: found[key] for key in ("torch", "device", "data", "seeds", "started")}
        started["spec"] = load_spec(SPEC).plain()  # of the searches, not what they chose
        write_json(self.here / "started.json", started, checked=True)
        self.numbers, self.files = numbers(self.whole), files(self.whole)
        shutil.copytree(self.whole, self.here / "away")
        self.renew()
        for deed in (*("verify", "export", "load", "report"), "unfinished", "draw", "show",
                     "compare", "run"):  # fmt: skip
            if problem := self.done(deed):
                raise SystemExit(f"{deed} fails with a whole folder: {problem}")
        (self.here / "tmp").mkdir()
        tempfile.tempdir = str(self.here / "tmp")
        self.guard = Guard([self.run, self.merged, self.here / "tmp"])
        self.kept = self.outside()
        gc.collect()
        gc.freeze()  # what is imported stays: collections look at the cases alone
        resource.setrlimit(resource.RLIMIT_DATA, (8 * 2**30, 8 * 2**30))

    @staticmethod
    def _not_rendered(figure, folder, name, **how):
        for suffix in ("png", "svg"):
            (folder / f"{name}.{suffix}").write_bytes(b"")

    def renew(self) -> None:
        """A whole folder to spoil."""
        shutil.rmtree(self.here / "case", ignore_errors=True)
        shutil.copytree(self.whole, self.run)
        shutil.copy(self.here / "started.json", self.run)
        self.merged.mkdir()

    def outside(self) -> dict[str, int]:
        """What lies beside the folders that may change, and its sizes."""
        found = [p for p in self.here.rglob("*") if p.is_file()]
        inside = (self.run, self.merged, self.here / "tmp")
        return {
            str(path): path.stat().st_size
            for path in found
            if not any(path.is_relative_to(each) for each in inside)
        }

    def case(self, number: int, only: str | None) -> None:
        """Spoils one file and reads the folder in every way that concerns it."""
        rng = random.Random(f"{self.seed} {number}")
        self.renew()
        chosen = {k: v for k, v in KINDS.items() if only is None or only in k}
        most = max(often for often, _ in chosen.values())
        # each kind in turn, then those again that come more often
        turns = [k for turn in range(most) for k, (often, _) in chosen.items() if turn < often]
        pattern = turns[number % len(turns)]
        paths = sorted(self.run.glob(pattern))
        path = self.path = rng.choice(paths)
        sealed = False
        if rng.random() < 0.15:
            sealed = displaced(path, self.run, self.here / "away", rng)
        elif pattern == "spec.toml" and rng.random() < 0.6:
            spoil_text(path, rng)
        else:
            sealed = spoiled(path, rng)
        for deed in chosen[pattern][1]:
            if deed == "draw" and rng.random() < 0.7:
                continue  # it takes most of the time
            began = time.monotonic()
            problem = self.watched(deed)
            self.told[f"seconds of {deed}"] += time.monotonic() - began
            if not problem and deed == "run":
                problem = self.wrong(sealed or pattern == "results.json")
            if problem:
                kind = "forged" if sealed else "damaged"
                place = path.relative_to(self.run)
                self.faults.append(f"{number} {kind} {place}, {deed}: {problem}"[-1500:])
        if self.outside() != self.kept:
            self.faults.append(f"{number} {pattern}: other files changed: {self.outside()}"[:500])

    def is_spoiled(self) -> bool:
        """Whether the file of the case says something else than it did."""
        whole = self.whole / self.path.relative_to(self.run)
        if not self.path.is_file():
            return True
        if self.path.suffix == ".json":
            with contextlib.suppress(ValueError, RecursionError):
                return json.loads(self.path.read_text()) != json.loads(whole.read_text())
        return self.path.read_bytes() != whole.read_bytes()

    def watched(self, deed: str) -> str:
        """Does it under guard and limit; what went wrong."""
        before = len(self.guard.found)
        signal.signal(signal.SIGALRM, self._ring)
        signal.alarm(LIMIT)
        self.guard.armed = True
        try:
            problem = self.done(deed)
        except Hangs:
            problem = "hangs"
        except BrokenOut:
            problem = ""
        finally:
            self.guard.armed = False
            signal.alarm(0)
        return "; ".join(filter(None, (*self.guard.found[before:], problem)))

    @staticmethod
    def _ring(number, frame):
        raise Hangs

    def done(self, deed: str) -> str:
        """Does it; what went wrong, in words."""
        results, kept = self.run / "results.json", self.run / "kept.json"
        try:
            if deed == "load":
                self.load()
                return ""
            if deed != "unfinished":
                return self.command(deed)
            results.rename(kept)
            try:
                return self.command(deed)
            finally:
                kept.rename(results)
        except Exception:
            return traceback.format_exc()[-1200:]

    def load(self) -> None:
        """Everything that a run offers to Python; whatever is wrong is a ValueError."""
        with contextlib.suppress(ValueError):
            run = load_run(self.run)
            for cell in run.cells:
                ways = [cell.record, cell.reference, cell.scores, cell.training]
                ways += [lambda cell=cell: cell.record("fgsm", 0.1)]
                ways += [lambda cell=cell: cell.outside("noise")]
                ways += [lambda cell=cell: load_classifier(self.run, loss=cell.label,
                                                           seed=cell.seed)]  # fmt: skip
                for way in ways:
                    try:
                        way()
                        self.told["loaded"] += 1
                    except ValueError:
                        self.told["refused"] += 1

    def command(self, deed: str) -> str:
        """A command of the command line; what is wrong with its end."""
        words = {
            "report": ["report", self.run],
            "unfinished": ["report", self.run],
            "draw": ["report", self.run],
            "show": ["show", self.run / "spec.toml"],
            "compare": ["compare", self.run, self.other, "--out", self.merged / "out"],
            "verify": ["verify", self.run],
            "export": [
                "export",
                self.run,
                "--attack",
                "worst-case",
                "--loss",
                "lgm",
                "--out",
                self.merged / "worst.npz",
            ],
            "run": ["run", self.spec, "--out", self.run, "--seeds", "0", "--quiet"],
        }[deed]
        out, err = io.StringIO(), io.StringIO()
        build.draw_all = self.draw if deed == "draw" else lambda folder, contents, **how: []
        press.cores = lambda: 1  # the guard sees this process only
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                commands.main([str(word) for word in words])
            except SystemExit as end:
                status = end.code
        told = err.getvalue()
        self.told[f"{deed} {status}"] += 1
        if "Traceback" in told or status not in (
            (0, 1, 2) if deed in ("run", "verify") else (0, 2)
        ):
            return f"status {status}: {told[-1000:]}"
        if deed == "verify" and status == 0 and self.is_spoiled():
            return f"a spoiled file passes: {out.getvalue()[-1000:]}"
        if status and not (told + out.getvalue()).strip():
            return f"status {status} without a word"
        if status == 1 and any(bug in told for bug in BUGS):
            return f"a failure that tells nothing: {told[-500:]}"
        if status == 0 and deed in ("report", "unfinished", "draw"):
            page = (self.run / "report/index.html").read_text(encoding="utf-8")
            return "HTML of a label stands in the page" if HTML in page else ""
        return ""

    def wrong(self, forged: bool) -> str:
        """Whether a run that went on over damage has other numbers than a whole one."""
        if forged:
            return ""
        try:
            same = numbers(self.run) == self.numbers
        except (ValueError, KeyError):
            return ""
        mine = files(self.run)
        same &= all(mine.get(name) == content for name, content in self.files.items())
        return "" if same else "other numbers than the whole run"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="files of which the pattern has this in it")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    args = parser.parse_args()
    fuzz = Fuzz(args.seed)
    fuzz.prepare()
    for number in range(args.first, args.first + args.count):
        told = len(fuzz.faults)
        fuzz.case(number, args.only)
        for fault in fuzz.faults[told:]:
            print(fault, file=sys.stderr, flush=True)
    print(json.dumps({"faults": fuzz.faults, **fuzz.told}))


if __name__ == "__main__":
    main()
