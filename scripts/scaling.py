"""How time and memory grow with images, eps, losses and seeds: measured, fitted, plotted.

    python scripts/scaling.py [--data DIR] [--device cpu|cuda] [--repeats 3] [--out FOLDER]

Images and eps: an FGSM sweep with errors and scores on MNIST, each point in a process of its own,
so that its peak memory is its own. Cells: whole runs of a short spec with more losses and more
seeds. Fits: time = fixed + each · eps, in forward passes an eps; time = fixed + c · n^exponent over
images and cells. Writes scaling.json and scaling.png.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.optimize import curve_fit

IMAGES = (500, 1000, 2000, 4000, 8000)
EPS = (1, 2, 4, 8, 16)
CELLS = ((1, 1), (2, 1), (4, 1), (4, 2), (4, 4))  # losses, seeds
LOSSES = ("softmax", "center", "gm", "lgm")


def sweep(images: int, count: int, device: str, data: str | None, repeats: int) -> dict:
    """Measure one point of the sweep here: seconds, those of a forward pass, peak bytes."""
    import torch

    from robustloss import attacks
    from robustloss.data.load import load_dataset
    from robustloss.evaluation import attacked
    from robustloss.evaluation import passes as evaluation
    from robustloss.models.build import build_classifier
    from robustloss.seeding import using_seed
    from robustloss.spec.data import DataSpec

    where = torch.device(device)
    dataset = load_dataset(
        DataSpec(name="mnist", test_size=images), root=Path(data) if data else None
    )
    build = {
        "loss": "lgm", "loss_params": {}, "backbone": "lenet_plus", "backbone_params": {},
        "feature_dim": 100, "num_classes": 10, "image_shape": dataset.image_shape,
        "mean": dataset.mean, "std": dataset.std,
    }  # fmt: skip
    with using_seed("weights", 0):
        model = build_classifier(build).to(where, memory_format=torch.channels_last).eval()
    test = dataset.test.to(where)
    call = attacks.build_attack("fgsm")
    eps = [0.3 * (i + 1) / count for i in range(count)]
    clean = evaluation.clean_record(model, test)

    def timed(work) -> float:
        times = []
        for _ in range(repeats + 1):
            began = time.perf_counter()
            work()
            if where.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        return statistics.median(times[1:])

    forward = timed(lambda: evaluation.clean_record(model, test))
    attack_pass = attacked.AttackPass(call, test, eps)
    seconds = timed(lambda: attacked.attacked_records(model, attack_pass, clean=clean))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if where.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    return {"images": images, "eps": count, "seconds": seconds, "forward": forward, "peak": peak}


def sweep_apart(args, images: int, count: int) -> dict:
    """Measure one point of the sweep in a process of its own."""
    words = [sys.executable, __file__, "--point", f"{images},{count}", "--device", args.device,
             "--repeats", str(args.repeats)]  # fmt: skip
    words += ["--data", args.data] if args.data else []
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(found, flush=True)
    return found


def run_whole(args, losses: int, seeds: int) -> dict:
    """Run a short spec; return the seconds and the peak memory of its process."""
    spec = "\n".join(
        [
            'name = "scaling"',
            f"seeds = {list(range(seeds))}",
            '[data]\nname = "mnist"\ntrain_size = 2000\nvalidation_size = 500\ntest_size = 1000',
            '[model]\nbackbone = "small_cnn"\nfeature_dim = 32',
            "[train]\nepochs = 2\nbatch_size = 100\nlr = 0.01",
            "[checks]\nimages = 50",
            *(f'[[losses]]\nname = "{name}"' for name in LOSSES[:losses]),
            '[[attacks]]\nname = "fgsm"\neps = [0.1, 0.2]',
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scaling.toml"
        path.write_text(spec + "\n")
        words = [sys.executable, "-m", "robustloss", "run", str(path), "--device", args.device,
                 "--out", f"{folder}/run", "--quiet"]  # fmt: skip
        words += ["--data", args.data] if args.data else []
        code = (
            "import resource, subprocess, sys, time; t = time.perf_counter();"
            "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
            "print(time.perf_counter() - t,"
            "resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *words], check=True, capture_output=True, text=True
        )
    seconds, peak = done.stdout.split()
    found = {"losses": losses, "seeds": seeds, "seconds": float(seconds), "peak": float(peak)}
    print(found, flush=True)
    return found


def fit_exponent(sizes, seconds) -> tuple[float, float]:
    """Return fixed cost and power of time = fixed + c · size^power."""
    x, y = np.array(sizes, float), np.array(seconds, float)
    slope = (y[-1] - y[0]) / (x[-1] - x[0])
    (fixed, _, power), _ = curve_fit(
        lambda n, a, c, p: a + c * n**p,
        x, y, p0=(max(y[0] - slope * x[0], 0.0), slope, 1.0),
        bounds=([0, 0, 0.3], [y[0], np.inf, 2.0]), sigma=y, maxfev=20_000,
    )  # fmt: skip
    return float(fixed), float(power)


def draw(found: dict, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    axes = figure.subplots(2, 3)
    columns = [
        ("images", [(p["images"], p) for p in found["images"]], "test images (4 eps)"),
        ("eps", [(p["eps"], p) for p in found["eps"]], "number of eps (2,000 images)"),
        ("cells", [(p["losses"] * p["seeds"], p) for p in found["cells"]], "cells (loss × seed)"),
    ]
    for column, (name, points, label) in enumerate(columns):
        x = [a for a, _ in points]
        for row, (key, factor, unit) in enumerate(
            (("seconds", 1.0, "seconds"), ("peak", 2.0**-20, "peak memory, MiB"))
        ):
            ax = axes[row, column]
            ax.plot(x, [factor * p[key] for _, p in points], "o-", color="#0072B2")
            ax.set_xlabel(label)
            ax.set_ylabel(unit if column == 0 else "")
            ax.set_ylim(0, 1.08 * max(factor * p[key] for _, p in points))
            ax.set_xlim(left=0)
            ax.spines[["top", "right"]].set_visible(False)
        axes[0, column].set_title(found["fits"][name]["words"], fontsize=9)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("build/scaling"))
    parser.add_argument("--point", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.point:
        images, count = map(int, args.point.split(","))
        print(json.dumps(sweep(images, count, args.device, args.data, args.repeats)))
        return
    found: dict = {
        "images": [sweep_apart(args, n, 4) for n in IMAGES],
        "eps": [sweep_apart(args, 2000, count) for count in EPS],
        "cells": [run_whole(args, *cells) for cells in CELLS],
    }
    fits = found["fits"] = {}
    fixed, power = fit_exponent(IMAGES, [p["seconds"] for p in found["images"]])
    words = f"{fixed:.2f} s + c · n^{power:.2f}"
    fits["images"] = {"fixed": fixed, "exponent": power, "words": words}
    each, start = np.polyfit(EPS, [p["seconds"] for p in found["eps"]], 1)
    passes = each / statistics.median(p["forward"] for p in found["eps"])
    fits["eps"] = {
        "fixed": float(start), "each": float(each), "forward_passes_an_eps": float(passes),
        "words": f"{start:.2f} s + {passes:.2f} forward passes an eps",
    }  # fmt: skip
    sizes = [p["losses"] * p["seeds"] for p in found["cells"]]
    fixed, power = fit_exponent(sizes, [p["seconds"] for p in found["cells"]])
    fits["cells"] = {"fixed": fixed, "exponent": power,
                     "words": f"{fixed:.1f} s + c · cells^{power:.2f}"}  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "scaling.json").write_text(json.dumps(found, indent=1))
    draw(found, args.out / "scaling.png")
    print(json.dumps(fits, indent=1))


if __name__ == "__main__":
    main()
