"""Where the numbers of a run come from, and what its attacks cost."""

import os
import platform
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import robustloss
from robustloss.cells.weights import REUSED
from robustloss.data.images import Dataset
from robustloss.results.finished_cell import load_cell
from robustloss.results.provenance import is_cost
from robustloss.runs.executors.choose import cell_threads
from robustloss.runs.settings import RunSettings
from robustloss.spec.spec import Spec
from robustloss.storage import CorruptFile, read_json
from robustloss.training.precision import choose_precision


@dataclass(frozen=True)
class Start:
    """When a run began: the date to show, and a clock that nobody sets back meanwhile."""

    date: datetime = field(default_factory=lambda: datetime.now(UTC))
    clock: float = field(default_factory=time.monotonic)


def provenance_of(settings: RunSettings, spec: Spec, dataset: Dataset, start: Start) -> dict:
    """Return where the numbers come from: versions, machine, data, spec, times, cost of attacks.

    Args:
        settings: Of the run.
        spec: Its spec, with the values that the searches chose.
        dataset: Its data.
        start: When it began.
    """
    program = Path(sys.argv[0])  # without its folder, which tells nothing to anybody else
    started_by = [program.name]
    if program.name == "__main__.py":
        started_by = ["python", "-m", program.parent.name]
    found: dict[str, Any] = {
        "robustloss": robustloss.__version__,
        "torch": torch.__version__,
        "torchvision": version("torchvision"),  # importing it for its version takes a second
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if settings.device == "cuda" else settings.device,
        "precision": choose_precision(spec.train.precision, torch.device(settings.device)),
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
        },
        "seeds": list(settings.seeds),
        "command": [*started_by, *sys.argv[1:]],
        "spec": spec.plain(),
        "started": start.date.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start.clock, 1),
        "threads": cell_threads(settings.executor, spec),
        "attack_cost": _attack_costs(settings, spec),
    }
    if reused := _reused_weights(settings, spec):
        found["reused"] = reused
    if files := dataset.converted:  # the first names are enough to find out which they are
        found["data"]["converted"] = {"count": len(files), "files": list(files[:10])}
    return found


def _reused_weights(settings: RunSettings, spec: Spec) -> list[dict]:
    """Return which cells have weights that another run trained, and in which folder that was."""
    found = []
    for cell in spec.cells(settings.seeds):
        folder = settings.folder / cell.folder
        try:
            note = read_json(folder / REUSED, checked=True)
            used = load_cell(folder / "cell.json").files.get("model")
        except ValueError:
            continue
        if note.get("weights") == used and isinstance(note.get("run"), str):
            found.append({"label": cell.label, "seed": cell.seed, "run": note["run"]})
    return found


def _attack_costs(settings: RunSettings, spec: Spec) -> list[dict]:
    """Return what each attack spent on each cell when it was last computed there."""
    costs = []
    for cell in spec.cells(settings.seeds):
        folder = settings.folder / cell.folder
        for attack in spec.attacks:
            try:
                cost = read_json(folder / f"{attack.slug}-cost.json", checked=True)
            except CorruptFile:
                continue
            if is_cost(cost):
                costs.append({**cost, "label": cell.label, "seed": cell.seed})
    return costs
