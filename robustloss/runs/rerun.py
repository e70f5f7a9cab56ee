"""A run again from its report or its folder: the spec, what is another here, the command.

A report may be somebody else's. Of it nothing is used but plain values of known types, nothing in
it is executed, and code that its spec names is named and not loaded.
"""

import os
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustloss.attacks.plugins import PluginError, source_digest
from robustloss.data.catalogue import DATASETS
from robustloss.data.files import DataError
from robustloss.data.load import load_dataset
from robustloss.models.given import IN_MEMORY
from robustloss.notation import one_line
from robustloss.results.provenance import VERSIONS, Origin, read_origin, take_origin
from robustloss.results.run import load_run, read_started
from robustloss.run_files import read_file
from robustloss.runs.provenance import describe_machine, digest_file
from robustloss.runs.settings import DEVICES, choose_device
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from robustloss.spec.prefixes import is_model_file, is_plugin, own_code
from robustloss.spec.spec import Spec
from robustloss.spec.text import to_toml

MOST_PAGE = 2**29  # bytes of a page; that of MNIST with ten attacks has some 15 million


@dataclass(frozen=True)
class Rerun:
    """How to run something again.

    Attributes:
        spec: What to run.
        lines: What is another here than it was, what is the same and what is not known, a sentence
            each.
        command: What runs it, with SPEC for the file of the spec.
    """

    spec: Spec
    lines: tuple[str, ...]
    command: str

    @property
    def text(self) -> str:
        """The spec as TOML, with every default of then."""
        return to_toml(self.spec.as_written())


def plan_rerun(source: str | Path, *, data: str | Path | None = None) -> Rerun:
    """Read how a run was made and compare that with what is here; nothing is computed or written.

    Args:
        source: The index.html of a report, or a run folder.
        data: The folder with the data sets, which are not fetched.

    Raises:
        ValueError: It is neither, holds no spec, or holds one that no command can run.
    """
    source = Path(source)
    old: Mapping[str, Any] | None = None
    if source.is_dir():
        origin, spec, old = _open_folder(source)
        near = [source]
    else:
        try:
            origin = read_origin(source, read_file(source, MOST_PAGE))
        except OSError as error:
            raise ValueError(f"{source} cannot be read: {error.strerror}.") from error
        _refuse_merged(source, origin)
        spec, near = _load_text(source, origin), []
    if any(loss.factory == IN_MEMORY for loss in spec.losses):
        raise ValueError(
            f"{source}: its models were objects in Python, which no spec can name. Call "
            "robustloss.evaluate again, with the model and the images."
        )
    lines = [
        *_compare_defaults(spec, old),
        *_compare_machine(origin),
        *_compare_data(spec, origin, None if data is None else Path(data)),
        *_compare_files(origin, [*near, Path.cwd()]),
    ]
    return Rerun(spec, tuple(map(one_line, lines)), _write_command(spec, origin))


def _open_folder(folder: Path) -> tuple[Origin, Spec, Mapping[str, Any] | None]:
    """Return what a run folder says of its run, the spec, and of an older run its values of then.

    Raises:
        ValueError: No run folder, or that of a merged run.
    """
    started = None if os.path.lexists(folder / "results.json") else read_started(folder)
    if started is None:
        run = load_run(folder)
        name, provenance = run.name, run.provenance
    else:
        name, provenance = folder.name, started
    origin = take_origin(folder, name, provenance)
    _refuse_merged(folder, origin)
    if origin.spec_text is not None:
        return origin, _load_text(folder, origin), None
    return origin, load_spec(folder / "spec.toml"), provenance.get("spec")


def _refuse_merged(source: Path, origin: Origin) -> None:
    if origin.merged:
        raise ValueError(
            f"{source} puts runs together, which have specs of their own. Name one of them "
            f"({', '.join(origin.merged)}), or its report."
        )


def _load_text(source: Path, origin: Origin) -> Spec:
    """Return the spec of a page.

    Raises:
        ValueError: It is none.
    """
    assert origin.spec_text is not None
    try:
        return load_spec(tomllib.loads(origin.spec_text))
    except (SpecError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{source}: its spec cannot be read here: {error} It may be of a newer version, or "
            "damaged."
        ) from error


def _compare_defaults(spec: Spec, old: Mapping[str, Any] | None) -> Iterator[str]:
    """Say which values a spec without them has today and had not when an older version ran it."""
    now = spec.plain()
    if old is None or any(loss.search for loss in spec.losses):
        return
    for table in ("data", "model", "train", "detection", "checks"):
        for key, value in dict(old.get(table) or {}).items():
            if key != "label" and key in now[table] and now[table][key] != value:
                yield f"Differs: {table}.{key} was {value!r}, is {now[table][key]!r} here."


def _compare_machine(origin: Origin) -> Iterator[str]:
    """Compare versions, instruction set and device."""
    here, same, unknown = describe_machine(), [], []
    for key in (*VERSIONS, "platform", "instruction_set"):
        was, now = origin.versions.get(key), here.get(key)
        name = key.replace("_", " ")
        if was is None:
            unknown.append(name)
        elif was == now:
            same.append(f"{name} {was}")
        else:
            yield f"Differs: {name} was {was}, is {now or 'not installed'} here."
    if same:
        yield f"Same: {', '.join(same)}."
    if unknown:
        yield f"Not known: {', '.join(unknown)}; an older version wrote the run."
    was, now, kind = origin.device, choose_device("auto"), _device_type(origin)
    if kind == "cuda" and now != "cuda":
        yield f"Differs: the device was {was}, and torch sees no GPU here."
    elif kind == "cuda" and (gpu := describe_machine(now).get("device")) != was:
        yield f"Differs: the device was {was}, is {gpu} here."
    elif was is not None:
        yield f"Same: device {was}."


def _compare_data(spec: Spec, origin: Origin, root: Path | None) -> Iterator[str]:
    """Compare the checksum of the data, as far as that reads no files that the spec chooses."""
    was, name = origin.checksum, spec.data.name
    if was is None:
        yield "Not known: the checksum of the data."
        return
    source = DATASETS.get(name)
    if source is None or not source.sizes:  # somebody's own files, wherever they are
        more = " --plugins" if is_plugin(name) else ""
        yield (
            f"Not compared: the data {name}, whose checksum was {was}. `robustloss show SPEC "
            f"--data{more}` tells that of yours."
        )
        return
    try:
        here = load_dataset(spec.data, root=root, download=False, quiet=True).checksum
    except DataError as error:
        first = str(error).splitlines()[0]
        yield f"Not here: the data {name}, checksum {was} ({first})"
        return
    if here == was:
        yield f"Same: data {name}, checksum {was}."
    else:
        yield f"Differs: the data {name} had checksum {was}, have {here} here."


def _compare_files(origin: Origin, folders: list[Path]) -> Iterator[str]:
    """Look for the files that the spec names, without loading them."""
    for file in origin.files:
        what = f'{file.key} = "{file.name}"'
        code = is_plugin(file.name) and not is_model_file(file.name)
        if code and not own_code(file.name).rpartition(":")[0].endswith(".py"):
            # To find a module of a package, Python executes the package.
            yield f"Not compared: {what}, a module of others, had digest {file.digest}."
            continue
        digest: str | None = None
        with suppress(PluginError, OSError):
            if code:
                digest = source_digest(own_code(file.name), folders)
            else:
                digest = digest_file(file.name, folders)
        if digest is None:
            yield f"Not here: {what}, digest {file.digest}. Put it beside the spec."
        elif digest == file.digest:
            yield f"Same: {what}, digest {digest}."
        else:
            yield f"Differs: {what} had digest {file.digest}, has {digest} here."


def _write_command(spec: Spec, origin: Origin) -> str:
    """Return the command that runs the spec as it was run."""
    device = _device_type(origin)
    words = ["robustloss", "run", "SPEC"]
    if device is not None:
        words += ["--device", device]
    if origin.seeds and tuple(origin.seeds) != spec.seeds:
        words += ["--seeds", ",".join(map(str, origin.seeds))]
    threads = ""
    if origin.threads and device in ("cpu", None):
        threads = f"OMP_NUM_THREADS={origin.threads} "  # which decide how a CPU adds
        words += ["--executor", "serial"]
    return threads + shlex.join(words)


def _device_type(origin: Origin) -> str | None:
    """Return "cpu", "cuda" or "mps"; provenance has the name of a GPU in place of "cuda"."""
    if origin.device is None or origin.device in DEVICES:
        return origin.device
    return "cuda"
