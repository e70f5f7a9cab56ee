"""Kill a run at random moments and let it go on: nothing may be lost or come out different.

    python scripts/torture.py [--kills 300] [--seed 0] [--executors serial,processes:2]
                              [--split 20] [--plugin] [--pictures] [--out FOLDER]

A small real run (digits, two losses, two seeds, FGSM, PGD, transfer) goes through the command line
until a random moment, gets SIGKILL, SIGTERM or SIGINT, and is started again in the same folder,
until it ends by itself. Then every number of results.json but times and every stored array and
weight must be those of a run that nobody disturbed, no temporary file may be left, and no finished
file may have been computed twice; with --split no finished part either. SIGKILL hits the whole
process group, or only the parent: its workers then live on for a while beside the run that goes on.
Exit status 1 if anything differs.

Each run is a fork of a process that has imported all that it needs, so that the moments of a kill
lie in the run and not in imports. Pictures of the report are left out unless they are asked for.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from importlib import import_module
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it

import torch
from safetensors.torch import load_file

from robustloss.cli import commands
from robustloss.reports.page import build
from robustloss.runs import runner  # noqa: F401  (loaded here, each fork has it already)
from robustloss.runs.executors.server import PRELOADED

SPEC = """\
name = "torture"
seeds = [0, 1]

[data]
name = "digits"
train_size = 200
validation_size = 60
test_size = 80

[model]
backbone = "digits_cnn"
feature_dim = 4

[train]
epochs = 6
batch_size = 20
precision = "float32"
lr = 0.02

[detection]
fit_size = 100

[checks]
images = 20

[[losses]]
name = "softmax"

[[losses]]
name = "lgm"
label = "L-GM"

[[attacks]]
name = "fgsm"
eps = [0, 0.1, 0.2]
batch_size = 20
transfer = true

[[attacks]]
name = "pgd"
params = { steps = 5 }
eps = [0.1]
batch_size = 20
"""
PLUGIN = """
[[attacks]]
name = "own.py:step"
label = "own"
eps = [0.1]
batch_size = 20
"""
PLUGIN_CODE = """\
import torch


def step(model, inputs, labels, eps):
    point = inputs.clone().requires_grad_()
    torch.nn.functional.cross_entropy(model(point), labels).backward()
    return (inputs + eps * point.grad.sign()).clamp(0, 1)
"""
TIMES = ("started", "finished", "seconds", "command", "attack_cost")
PATIENCE = 120.0  # seconds after which a run that was told to stop counts as hanging
WAYS = (
    (signal.SIGKILL, "group"),
    (signal.SIGKILL, "parent"),
    (signal.SIGTERM, "parent"),
    (signal.SIGINT, "group"),  # as a terminal sends it
)


def start_run(spec: Path, folder: Path, executor: str, log: Path, pictures: bool) -> int:
    """Fork a run of the command line as the head of its own process group; return its id."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setsid()
        # A job in the background inherits SIGINT as ignored, and no kill by it would be one.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, 1)
        os.dup2(target, 2)
        if not pictures:
            build.draw_all = lambda folder, contents, **how: []
        words = ["run", str(spec), "--out", str(folder), "--executor", executor, "--quiet"]
        try:
            commands.main([*words, "--device", "cpu"])
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:  # before the command line listens: Python's own end is the same
        status = 130
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait_for(child: int, seconds: float) -> int | None:
    """Return the exit status of a child, minus the signal if one killed it; None if it goes on."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(0.005)


def read_numbers(folder: Path) -> dict:
    """Return results.json without what may differ between equal runs.

    That is times and the command, and the digest, which covers them.
    """
    results = json.loads((folder / "results.json").read_text())
    del results["digest"]
    for key in TIMES:
        del results["provenance"][key]
    for training in results["training"]:
        del training["seconds"]
        for line in training["curve"]:
            del line["seconds"]
    return results


def digest_stored(folder: Path) -> dict[str, str]:
    """Return digests of what a run stores of its cells: every array's file, and the weights.

    The header of the weights holds the seconds of the training, so their tensors are compared.
    """
    found = {}
    for path in folder.rglob("cells/**/*.npz"):
        found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    for path in folder.rglob("cells/**/model-*.safetensors"):
        tensors = load_file(path)
        content = hashlib.sha256()
        for name in sorted(tensors):
            content.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
        found[str(path.relative_to(folder))] = content.hexdigest()
    return found


def list_finished(folder: Path) -> dict[str, int]:
    """Return finished files and which file of the disk each is: one written again is another."""
    names = ("*.npz", "*.part", "model-*.safetensors")
    paths = [path for name in names for path in folder.rglob(f"cells/**/{name}")]
    found = {}
    for path in paths:
        try:
            found[str(path)] = path.stat().st_ino
        except FileNotFoundError:
            continue  # an orphan is at work
    return found


def find_differences(folder: Path, whole: Path) -> list[str]:
    """Return in words how a finished run differs from an undisturbed one."""
    found = []
    mine, theirs = read_numbers(folder), read_numbers(whole)
    found += [f"results.json: {key}" for key in theirs if mine.get(key) != theirs[key]]
    here, there = digest_stored(folder), digest_stored(whole)
    found += [
        f"{name}: other content" for name in here if there.get(name, here[name]) != here[name]
    ]
    found += [f"{name}: missing" for name in there if name not in here]
    found += [f"{name}: not in the undisturbed run" for name in here if name not in there]
    paths = [*folder.rglob(".*"), *folder.rglob("*.part"), *folder.rglob("parts.json")]
    names = (path.relative_to(folder) for path in paths)
    found += [f"{name}: left over" for name in names if str(name) != ".lock"]
    return found


class Torture:
    """Starts, kills and compares runs with one executor, and counts."""

    def __init__(self, root: Path, whole: Path, executor: str, seconds: float, args) -> None:
        self.root, self.whole, self.executor, self.seconds = root, whole, executor, seconds
        self.pictures = args.pictures
        self.random = random.Random(f"{args.seed} {executor}")
        self.kills: Counter[str] = Counter()
        self.resumed: Counter[str] = Counter()
        self.ends, self.problems = 0, []

    def run(self, kills: int) -> None:
        while sum(self.kills.values()) < kills:
            self._torture_one(kills)

    def _torture_one(self, kills: int) -> None:
        """Start a run in a new folder, kill it until it ends by itself, then compare it."""
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=self.root)) / "run"
        log, orphans, before, last = folder.parent / "log", False, {}, None
        while True:
            child = start_run(self.root / "spec.toml", folder, self.executor, log, self.pictures)
            if last:
                self.resumed[last] += 1
            enough = sum(self.kills.values()) >= kills
            moment = PATIENCE if enough else self.random.uniform(0, 1.1) * self.seconds
            status, killed = wait_for(child, moment), False
            if status is None and enough:
                os.killpg(child, signal.SIGKILL)
                wait_for(child, PATIENCE)
                self.problems.append(f"{folder}: hangs, not ended after {PATIENCE:.0f} s")
                return
            if status is None:
                way, scope = self.random.choice(WAYS)
                last = f"{way.name} to the {scope}"
                self.kills[last] += 1
                (os.killpg if scope == "group" else os.kill)(child, way)
                orphans |= (way, scope) == (signal.SIGKILL, "parent")
                status = self._wait_for_end(child, way, folder)
                killed = status != 0
            now = list_finished(folder) if folder.is_dir() else {}
            gone = {path for path in before if path.endswith(".part") and path not in now}
            again = [p for p in before if not orphans and p not in gone and now.get(p) != before[p]]
            self.problems += [f"{path}: computed again" for path in again]
            before = now
            if killed:
                continue
            if status != 0:
                self.problems.append(f"{folder}: ended with {status}: {log.read_text()[-500:]}")
                return
            break
        self.ends += 1
        found = find_differences(folder, self.whole)
        self.problems += [f"{folder}: {text}" for text in found]
        if not found:
            shutil.rmtree(folder.parent, ignore_errors=True)

    def _wait_for_end(self, child: int, way: signal.Signals, folder: Path) -> int:
        """Return the exit status of a run that was told to stop."""
        status = wait_for(child, PATIENCE)
        if status is None:
            os.killpg(child, signal.SIGKILL)
            wait_for(child, PATIENCE)
            self.problems.append(f"{folder}: does not stop on {way.name}")
            return -9
        allowed = {-signal.SIGKILL} if way == signal.SIGKILL else {130, -way}  # -way: before main
        if status not in {0, *allowed}:
            self.problems.append(f"{folder}: ended with {status} on {way.name}")
        return status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--executors", default="serial,processes:2")
    parser.add_argument("--split", type=int, help="compute the attacks in parts of so many images")
    parser.add_argument("--plugin", action="store_true", help="attack with a plug-in too")
    parser.add_argument("--pictures", action="store_true", help="draw the figures too")
    parser.add_argument("--out", type=Path, help="keep the folders here")
    args = parser.parse_args()
    torch.set_num_threads(1)  # a fork of a process with running threads would wait for ever
    for name in PRELOADED:
        import_module(name)
    root = args.out or Path(tempfile.mkdtemp(prefix="torture-"))
    root.mkdir(parents=True, exist_ok=True)
    resources = f"\n[resources]\nsplit = {args.split}\n" if args.split else ""
    plugin = PLUGIN if args.plugin else ""
    (root / "own.py").write_text(PLUGIN_CODE)
    (root / "spec.toml").write_text(SPEC + plugin + resources)
    executors = args.executors.split(",")
    failed = False
    for number, executor in enumerate(executors):
        whole = root / f"whole-{number}"
        began = time.monotonic()
        child = start_run(root / "spec.toml", whole, executor, root / "log", args.pictures)
        if wait_for(child, 10 * PATIENCE) != 0:
            sys.exit(f"the undisturbed run failed: {(root / 'log').read_text()[-2000:]}")
        seconds = time.monotonic() - began
        share = args.kills // len(executors) + (number < args.kills % len(executors))
        torture = Torture(root, whole, executor, seconds, args)
        torture.run(share)
        torture.problems += [
            f"{way}: {count} kills and none stopped a run"
            for way, count in torture.kills.items()
            if count >= 5 and not torture.resumed[way]
        ]
        failed |= bool(torture.problems)
        print(f"{executor}: undisturbed {seconds:.1f} s, {sum(torture.kills.values())} kills, "
              f"{torture.ends} runs ended, {len(torture.problems)} problems")  # fmt: skip
        for way, count in sorted(torture.kills.items()):
            print(f"  {way}: {count}, went on {torture.resumed[way]} times")
        for text in torture.problems[:40]:
            print(f"  PROBLEM {text}")
        sys.stdout.flush()
    if not failed and args.out is None:
        shutil.rmtree(root, ignore_errors=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
