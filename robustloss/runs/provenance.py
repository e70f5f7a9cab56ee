"""Where the numbers of a run come from, and what its attacks cost."""

import os
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

import robustloss
from robustloss.data.images import Dataset
from robustloss.results.checking import is_cost
from robustloss.spec.spec import CellSpec, Spec
from robustloss.storage import CorruptFile, read_json
from robustloss.training.precision import choose_precision


def provenance_of(
    spec: Spec,
    dataset: Dataset,
    device: str,
    seeds: Sequence[int],
    started: datetime,
    clock: float,
) -> dict:
    """Returns where the numbers come from: versions, machine, data, spec and times.

    Args:
        spec: Of the run.
        dataset: Its data.
        device: "cpu", "cuda" or "mps".
        seeds: Training seeds.
        started: When it began.
        clock: time.monotonic() of then: a date may be set back while it runs.
    """
    precision = choose_precision(spec.train.precision, torch.device(device))
    return {
        "robustloss": robustloss.__version__,
        "torch": torch.__version__,
        "torchvision": version("torchvision"),  # not imported for its name: that takes a second
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "precision": precision,
        "data": {
            "name": dataset.name,
            "label": dataset.label or dataset.name,
            **({"summary": dataset.summary} if dataset.summary else {}),
            "checksum": dataset.checksum,
            "train": dataset.train.n,
            "validation": dataset.validation.n,
            "test": dataset.test.n,
            "class_names": list(dataset.class_names),
            "class_counts": dataset.class_counts,
            **({"converted": _some(dataset.converted)} if dataset.converted else {}),
        },
        "seeds": list(seeds),
        "command": _command(),
        "spec": spec.plain(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 1),
    }


def _some(files: Sequence[str]) -> dict:
    return {"count": len(files), "files": list(files[:10])}


def _command() -> list[str]:
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return ["python", "-m", program.parent.name, *sys.argv[1:]]
    return [program.name, *sys.argv[1:]]


def attack_cost(folder: Path, spec: Spec, cells: Sequence[CellSpec]) -> list[dict]:
    """Returns what each attack spent on each cell when it was last computed there."""
    found = []
    for cell in cells:
        for attack in spec.attacks:
            try:
                cost = read_json(folder / cell.folder / f"{attack.slug}-cost.json", checked=True)
            except CorruptFile:
                continue
            if is_cost(cost):
                found.append({**cost, "label": cell.label, "seed": cell.seed})
    return found
