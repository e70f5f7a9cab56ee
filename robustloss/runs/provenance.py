"""Where the numbers of a run come from, and what its attacks cost."""

import hashlib
import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import robustloss
from robustloss.attacks.plugins import PluginError, source_digest
from robustloss.data.images import Dataset
from robustloss.results.cell_notes import read_costs, read_reused
from robustloss.results.provenance import VERSIONS
from robustloss.results.run import STARTED
from robustloss.runs.executors.choose import cell_threads
from robustloss.runs.settings import RunSettings
from robustloss.spec.plugins import plugins_of
from robustloss.spec.prefixes import WEIGHT_FILES, is_model_file, own_code
from robustloss.spec.spec import Spec
from robustloss.spec.text import to_toml
from robustloss.storage import write_json
from robustloss.training.precision import choose_precision

_TRANSFORMERS = "transformers:"  # before the folder of a whole model


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
    cells = spec.cells(settings.seeds)
    places = [(cell.label, cell.seed, settings.folder / cell.folder) for cell in cells]
    found = provenance_at_start(settings, spec, dataset, start) | {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - start.clock, 1),
        "attack_cost": read_costs(places, {attack.slug: attack.label for attack in spec.attacks}),
    }
    if reused := read_reused(places):
        found["reused"] = reused
    return found


def write_started(settings: RunSettings, dataset: Dataset, start: Start) -> None:
    """Note in the run folder what the run was asked for, for reports that are made before its end.

    Args:
        settings: Of the run.
        dataset: Its data.
        start: When it began.
    """
    content = provenance_at_start(settings, settings.spec, dataset, start)
    content["asked"] = settings.spec.as_written()  # which labels name files, too
    write_json(settings.folder / STARTED, content, checked=True)


def provenance_at_start(
    settings: RunSettings, spec: Spec, dataset: Dataset, start: Start
) -> dict[str, Any]:
    """Return the provenance as far as it is known before anything is computed."""
    program = Path(sys.argv[0])  # without its folder, which tells nothing to anybody else
    started_by = [program.name]
    if program.name == "__main__.py":
        started_by = ["python", "-m", program.parent.name]
    found: dict[str, Any] = {
        **describe_machine(settings.device),
        "cores": os.cpu_count(),
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
            "test_class_counts": dataset.test.count_classes(dataset.num_classes),
        },
        "seeds": list(settings.seeds),
        "command": [*started_by, *sys.argv[1:]],
        "spec": spec.plain(),
        "spec_text": to_toml(settings.spec.as_written()),  # before any search, to run it again
        "started": start.date.isoformat(timespec="seconds"),
        "threads": cell_threads(settings.executor, spec),
    }
    if settings.published:
        found["published"] = list(settings.published)
    if named := digest_files(settings.spec):
        found["files"] = named
    if files := dataset.converted:  # the first names are enough to find out which they are
        found["data"]["converted"] = {"count": len(files), "files": list(files[:10])}
    return found


def describe_machine(device: str = "cpu") -> dict[str, str]:
    """Return what of this machine decides numbers: versions, platform, instructions, device.

    Args:
        device: "cpu", "cuda", which is told by the name of the GPU, or "mps".
    """
    found = {"robustloss": robustloss.__version__, "torch": torch.__version__}
    found["python"] = platform.python_version()
    for name in VERSIONS:
        if name not in found:
            with suppress(PackageNotFoundError):
                found[name] = version(name)  # importing it for its version may take a second
    found = {name: found[name] for name in VERSIONS if name in found}
    found["platform"] = f"{platform.system()} {platform.machine()}"
    found["instruction_set"] = torch.backends.cpu.get_cpu_capability()  # a CPU rounds by it
    found["device"] = torch.cuda.get_device_name() if device == "cuda" else device
    return found


def digest_file(name: str, folders: Sequence[Path]) -> str | None:
    """Return 16 hex digits over the bytes of a file; None where there is no such file.

    Args:
        name: As a spec names it; of `transformers:FOLDER` the files in the folder count.
        folders: Where a relative path is looked for.
    """
    inner = name.removeprefix(_TRANSFORMERS)
    for folder in folders:
        path = folder / os.path.expanduser(inner)
        if inner == name and path.is_file():
            return _digest_bytes(path)
        if inner != name and (path / "config.json").is_file():
            files = sorted(each for each in path.iterdir() if each.is_file())
            each = [f"{file.name} {_digest_bytes(file)}\n" for file in files]
            return hashlib.sha256("".join(each).encode()).hexdigest()[:16]
    return None


def _digest_bytes(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def digest_files(spec: Spec) -> list[dict[str, Any]]:
    """Return code of others, weights and published tables that a spec names, with digests."""
    folders = (spec.folder, Path.cwd())
    found = []
    for key, name in plugins_of(spec).items():
        digest = None
        if is_model_file(name):
            digest = digest_file(name, folders)
        else:
            with suppress(PluginError):  # a model in memory has no file
                digest = source_digest(own_code(name), (spec.folder,))
        found.append({"key": key, "name": name, "digest": digest})
    named = {"model.weights": spec.model.weights}
    for number, loss in enumerate(spec.losses):
        named[f"losses[{number}].weights"] = loss.weights
        named[f"losses[{number}].model.weights"] = loss.model_keys.get("weights")
        if (loss.factory or "").startswith(_TRANSFORMERS):
            found.append({"key": f"losses[{number}].model", "name": loss.factory,
                          "digest": digest_file(str(loss.factory), folders)})  # fmt: skip
    # others are names that a library has for weights
    files = {k: v for k, v in named.items() if v is not None and v.endswith(WEIGHT_FILES)}
    files |= {f"report.published[{i}]": name for i, name in enumerate(spec.report.published)}
    for key, file in files.items():
        found.append({"key": key, "name": file, "digest": digest_file(file, folders)})
    return found
