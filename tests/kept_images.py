"""Runs that keep attacked images: all, the worst, and 64 of them."""

import numpy as np
import pytest

from robustloss.runs import runner
from tests.small_run import changed

N, SHAPE = 70, (1, 8, 8)
SPEC = changed(
    seeds=[0, 1],
    model={"backbone": "digits_cnn", "feature_dim": 3},
    train={"epochs": 4, "batch_size": 15, "lr": 0.05, "precision": "float32"},
    losses=[{"name": "softmax"}, {"name": "lgm"}],
    attacks=[
        {"name": "fgsm", "eps": [0.1, "60/255"], "eight_bit": True},
        {"name": "pgd", "params": {"steps": 3}, "eps": [0.1]},
        {"name": "pgd", "label": "PGD L2", "params": {"steps": 3, "norm": "l2"}, "eps": [0.1, 1]},
    ],
    checks={"images": 0},
    detection={"fit_size": 30, "noise": False, "scores": ["class_log_likelihood"]},
)  # fmt: skip


def write_runs(folder):
    """Write a folder with data and three runs."""
    from robustloss import reports

    folder.mkdir()
    random = np.random.default_rng(0)
    arrays = {}
    for name, n in (("train", 90), ("test", N)):
        labels = np.arange(n) % 3
        images = random.integers(0, 60, (n, 8, 8))
        for position, label in enumerate(labels):
            images[position, 2 * label : 2 * label + 3] += 120
        arrays |= {f"{name}_images": images.astype(np.uint8), f"{name}_labels": labels}
    np.savez(folder / "data.npz", **arrays)
    data = {"name": "arrays", "file": str(folder / "data.npz"), "validation_size": 9}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "build_report", lambda path: path)
        for images in ("all", "worst", 64):
            spec = SPEC | {"data": data, "records": {"images": images}}
            assert runner.run(spec, out=folder / str(images)).exit_code == 0
