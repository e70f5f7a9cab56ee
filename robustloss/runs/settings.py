"""What a run was asked for, checked before any data are loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robustloss.cells.jobs import CellJob
from robustloss.run_files import is_file
from robustloss.runs.errors import RunError
from robustloss.runs.executors.choose import check_executor
from robustloss.runs.folder import RunFolderError, check_folder, choose_seeds
from robustloss.spec.errors import SpecError
from robustloss.spec.plugins import describe_plugins, plugins_of
from robustloss.spec.report import read_published
from robustloss.spec.spec import CellSpec, Spec

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class RunSettings:
    """What a run was asked for; together with the data it decides every number.

    Attributes:
        spec: The spec as it was loaded. A search replaces some of its values while the run goes on.
        folder: The run folder.
        device: "cpu", "cuda" or "mps".
        seeds: The training seeds.
        executor: See check_executor. "auto" until the data are known, see `choose_processes`.
        data_root: The folder with the data sets; None for the default, see load_dataset.
        reuse: Another run folder, whose weights serve where they are the same.
        published: Tables of others, as `read_published` gives them.
    """

    spec: Spec
    folder: Path
    device: str
    seeds: tuple[int, ...]
    executor: str = "serial"
    data_root: Path | None = None
    reuse: Path | None = None
    published: tuple[dict[str, Any], ...] = ()

    def job(self, spec: Spec, cell: CellSpec, module: torch.nn.Module | None = None) -> CellJob:
        """Return the work on one cell of this run.

        Args:
            spec: The spec as loaded for a trial; with the values that the trials chose for a cell.
            cell: A cell or a trial of that spec.
            module: The model, where it is in memory and not trained here.
        """
        return CellJob(spec, cell, self.folder, self.device, self.data_root, self.reuse, module)


def choose_settings(
    spec: Spec,
    *,
    out: str | Path | None,
    device: str,
    data: str | Path | None,
    seeds: Sequence[int] | None,
    executor: str,
    reuse: str | Path | None,
    plugins: bool,
) -> RunSettings:
    """Check what a run was asked for and fill in what was left to choose; write nothing.

    Args:
        spec: As it was loaded; for the others see `robustloss.run`.
        out: The run folder.
        device: One of DEVICES.
        data: The folder with the data sets.
        seeds: Training seeds instead of the spec's.
        executor: See check_executor.
        reuse: Another run folder.
        plugins: Whether the spec may name code of its own.

    Raises:
        SpecError: The spec names code of its own, which is not allowed, or a published table that
            is none.
        RunFolderError: `out` belongs to something else, or `reuse` is no run folder.
        RunError: No such device, executor or seeds.
    """
    if not plugins and (named := plugins_of(spec)):
        raise SpecError(
            f"the spec names code of its own: {describe_plugins(named)}. Read it, then run it "
            "without --no-plugins."
        )
    folder = Path("runs") / spec.name if out is None else Path(out)
    check_executor(executor)
    settings = RunSettings(
        spec,
        folder,
        device=choose_device(device),
        seeds=choose_seeds(spec, folder, seeds),
        executor=executor,
        data_root=None if data is None else Path(data),
        reuse=None if reuse is None else Path(reuse),
        published=read_published(spec.report.published, spec.folder, spec.losses, spec.attacks),
    )
    check_folder(folder, spec)
    if settings.reuse is not None and not is_file(settings.reuse / "spec.toml"):
        raise RunFolderError(f"reuse (={reuse}) is no run folder: it holds no spec.toml.")
    return settings


def choose_device(name: str) -> str:
    """Return "cpu", "cuda" or "mps".

    Raises:
        RunError: No such device, or not on this machine.
    """
    if name not in DEVICES:
        raise RunError(f"device (={name!r}) must be one of {', '.join(DEVICES)}.")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise RunError("device (='cuda') is not available: torch sees no GPU. Use cpu or auto.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise RunError("device (='mps') is not available on this machine. Use cpu or auto.")
    return name
