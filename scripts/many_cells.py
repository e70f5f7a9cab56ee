"""Hundreds of cells in one run: do time and the coordinating process grow, how long is the report?

    python scripts/many_cells.py [--seeds 50] [--executors serial,processes:2] [--out FOLDER]

Four losses times 50 seeds of tiny cells (digits, one epoch, one attack), each executor in a process
of its own. Prints the resident memory of the coordinating process after 20 cells, at the end of
the last one and at the end of the run, the power of the number of cells with which the time after
the first four grows (of CPU seconds where one process does all), and the seconds of the report with
its pictures. Exit status 1 if the memory grows by 50 MB or more from the twentieth cell to the
last, the power lies outside 0.9 to 1.1, or the report takes 30 s or more.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SPEC = """\
name = "many"
seeds = {seeds}

[data]
name = "digits"
train_size = 60
validation_size = 30
test_size = 30

[model]
backbone = "digits_cnn"
feature_dim = 4

[train]
epochs = 1
batch_size = 30
precision = "float32"

[detection]
fit_size = 40

[checks]
images = 10

[[losses]]
name = "softmax"

[[losses]]
name = "center"

[[losses]]
name = "gm"

[[losses]]
name = "lgm"

[[attacks]]
name = "fgsm"
eps = [0.1]
"""
FIRST = 20  # cells after which everything is loaded that ever is
LOSSES = 4  # whose first cells load and compile what later ones have
MOST_MB, MOST_SECONDS = 50.0, 30.0
POWERS = 0.9, 1.1


def resident_mb() -> float:
    """Return the memory of this process that is in use now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Measured:
    """Notes memory and time as cells end."""

    def __init__(self, clock) -> None:
        self.clock, self.ended = clock, 0
        self.mb: dict[int, float] = {}
        self.seconds: dict[int, float] = {}

    def start(self, cells: int) -> None:
        """Nothing."""

    def __call__(self, event) -> None:
        if event.stage in ("done", "failed", "cached"):
            self.ended += 1
            self.mb[self.ended] = resident_mb()
            self.seconds[self.ended] = self.clock()

    def stop(self) -> None:
        """Nothing."""

    def fit_power(self) -> float:
        """Return p of seconds = c · cells^p, both counted from the first cell of every loss on."""
        cells = np.array([n for n in self.seconds if n >= 2 * LOSSES])
        seconds = np.array([self.seconds[n] for n in cells]) - self.seconds[LOSSES]
        # Many cells are close together on a logarithmic axis: each counts for its share of it.
        slope, _ = np.polyfit(np.log(cells - LOSSES), np.log(seconds), 1, w=cells**-0.5)
        return float(slope)


def measure(spec: str, folder: str, executor: str) -> dict:
    """Do one run and its report in this process; return what was measured."""
    from robustloss import reports
    from robustloss.runs import runner

    render, seconds = reports.build_report, []

    def timed(path):
        began = time.monotonic()
        page = render(path)
        seconds.append(time.monotonic() - began)
        return page

    reports.build_report = lambda path: Path(path)
    seen = Measured(time.process_time if executor == "serial" else time.monotonic)
    began = time.monotonic()
    outcome = runner.run(spec, out=folder, executor=executor, device="cpu", progress=seen)
    run_seconds, end = time.monotonic() - began, resident_mb()
    timed(folder)
    cells = max(seen.mb)
    return {
        "cells": cells,
        "failures": len(outcome.failures),
        "seconds": run_seconds,
        "mb": {str(n): round(seen.mb[n], 1) for n in (FIRST, cells // 2, cells)},
        "power": round(seen.fit_power(), 3),
        "mb_end": round(end, 1),
        "mb_report": round(resident_mb(), 1),
        "report_seconds": seconds[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--executors", default="serial,processes:2")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if 4 * args.seeds < FIRST:
        parser.error(f"--seeds (={args.seeds}) must be at least {FIRST // 4}: memory after {FIRST} "
                     "cells is what later memory is compared with")  # fmt: skip
    if args.measure:
        print(json.dumps(measure(*args.measure)))
        return
    failed = False
    with tempfile.TemporaryDirectory(prefix="many-") as work:
        root = args.out or Path(work)
        root.mkdir(parents=True, exist_ok=True)
        (root / "spec.toml").write_text(SPEC.format(seeds=list(range(args.seeds))))
        for number, executor in enumerate(args.executors.split(",")):
            words = [str(root / "spec.toml"), str(root / f"run-{number}"), executor]
            done = subprocess.run(
                [sys.executable, __file__, "--measure", *words], stdout=subprocess.PIPE, text=True
            )
            if done.returncode:
                sys.exit(f"{executor}: the run failed")
            found = json.loads(done.stdout.splitlines()[-1])
            first, *_, last = found["mb"].values()
            failed |= last - first >= MOST_MB or found["report_seconds"] >= MOST_SECONDS
            failed |= found["failures"] > 0 or not POWERS[0] <= found["power"] <= POWERS[1]
            print(
                f"{executor}: {found['cells']} cells in {found['seconds']:.0f} s, "
                f"{found['failures']} failed, time as cells^{found['power']}; "
                f"MB after so many cells {found['mb']}, at the end of "
                f"the run {found['mb_end']}, after the report {found['mb_report']}; "
                f"report {found['report_seconds']:.1f} s",
                flush=True,
            )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
