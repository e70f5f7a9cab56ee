"""The types of what a report reads of the provenance in results.json, and what a page keeps of it.

A page keeps in its head what it takes to run its spec again: `write_origin` and `read_origin`.
"""

import html
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, InstanceOf, ValidationError

# Not plain `str`: pydantic refuses half a character (a lone surrogate), which JSON can hold.
Text = InstanceOf[str]


class Part(BaseModel):
    """A JSON object of which some values are read; it may hold more."""

    model_config = ConfigDict(strict=True)


class CellCost(Part):
    """What one attack took on one cell: gradients and forward passes over how many images."""

    attack_label: Text
    images: int
    budgets: int
    forward: int
    backward: int
    seconds: float


def is_cost(value: object) -> bool:
    """Return whether a value read from a file is a `CellCost`."""
    try:
        CellCost.model_validate(value)
    except ValidationError:
        return False
    return True


class AttackCost(CellCost):
    """What one attack took, and on which cell."""

    label: Text
    seed: int


class Loss(Part):
    """A loss of the spec."""

    label: Text
    name: Text = ""
    params: dict | None = None
    train: dict | None = None
    search: dict | None = None
    model: dict | Text | None = None


class Attack(Part):
    """An attack of the spec, with its budgets."""

    label: Text
    name: Text = ""
    params: dict | None = None
    eps: list[float] | None = None


class SpecTables(Part):
    """The spec of the run, resolved: every setting, also those that were left out."""

    losses: list[Loss] | None = None
    attacks: list[Attack] | None = None
    model: dict | None = None
    train: dict | None = None
    data: dict | None = None
    detection: dict | None = None
    checks: dict | None = None
    seeds: list | None = None


class Data(Part):
    """The data set: what it is called, its checksum, and the number of images in each set."""

    name: Text | None = None
    label: Text | None = None
    summary: Text | None = None
    checksum: Text | None = None
    train: int | None = None
    validation: int | None = None
    test: int | None = None
    class_names: list[Text] | None = None
    class_counts: list[int] | None = None
    test_class_counts: list[int] | None = None
    converted: dict | None = None


class CellSeal(Part):
    """A cell that results.json was made from, by the digest of its cell.json."""

    label: Text
    seed: int
    sha256: Text


class TransferSeal(Part):
    """A transfer that results.json was made from: its labels there, its file and that's digest."""

    source: Text
    targets: list[Text]
    attack_label: Text
    file: Text
    sha256: Text


class ReusedWeights(Part):
    """A cell whose weights were taken over, and the folder of the run that trained them."""

    label: Text
    seed: int
    run: Text


class PublishedRow(Part):
    """What others found of one loss under one attack; errors and AUROC are fractions."""

    label: Text
    attack_label: Text
    eps: float
    error: float | None
    low: float | None
    high: float | None
    auroc: float | None


class PublishedTable(Part):
    """Numbers of others that the spec names."""

    source: Text
    short: Text
    caveat: Text
    rows: list[PublishedRow]


class ReferenceRows(Part):
    """Losses of a merged run that were computed elsewhere, and the digest of reference.npz."""

    name: Text
    labels: list[Text]
    sha256: Text


class Searched(Part):
    """Which values a loss tried, as its key `search`, and the table [tuning] of its spec."""

    search: dict
    tuning: dict


class Provenance(Part):
    """Where the numbers come from: versions, machine, data, spec and times."""

    data: Data | None = None
    spec: SpecTables | None = None
    seeds: list | None = None
    command: Text | list[Any] | None = None
    attack_cost: list[AttackCost] | None = None
    cells: list[CellSeal] | None = None
    transfers: list[TransferSeal] | None = None
    reused: list[ReusedWeights] | None = None
    merged: list[dict] | None = None
    notes: list[Text] | None = None
    published: list[PublishedTable] | None = None
    reference: ReferenceRows | None = None
    searches: dict[Text, Searched] | None = None
    seconds: float | None = None
    spec_text: Text | None = None
    files: list[dict] | None = None


def find_reference_labels(provenance: Mapping[str, Any]) -> frozenset[str]:
    """Return the losses of a merged run that come from a reference; none of another run.

    Args:
        provenance: Of the run.
    """
    return frozenset((provenance.get("reference") or {}).get("labels") or ())


def find_searches(provenance: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return which values each loss tried before it was trained, by its label.

    Args:
        provenance: Of a run, a merged run or a baseline; {"spec": SPEC} of a run to come.

    Returns:
        For each loss that was tuned its keys as in `Searched`.
    """
    if "searches" in provenance:
        return provenance["searches"]
    spec = provenance.get("spec") or {}  # of a run with the values that were chosen
    text = provenance.get("spec_text")
    written = spec if text is None else tomllib.loads(text)
    tuning = written.get("tuning") or {}
    tuning = {key: value for key, value in tuning.items() if value is not None}
    pairs = zip(spec.get("losses") or (), written.get("losses") or (), strict=False)
    return {
        loss["label"]: {"search": own["search"], "tuning": tuning}
        for loss, own in pairs
        if own.get("search")
    }


VERSIONS = (
    *("robustloss", "torch", "torchvision", "torchattacks", "numpy", "scipy", "scikit-learn"),
    "python",
)
_MOST = 4 * 2**20  # bytes of what a page keeps; a spec has at most one MiB
_META = re.compile(rb'<meta name="robustloss-origin" content="([^"]*)">')


class NamedFile(Part):
    """A file that a spec names, by its key there, and 16 hex digits over its content."""

    key: Text
    name: Text
    digest: Text | None = None


class Origin(Part):
    """What it takes to run something again; in a page, and in the provenance of a run.

    Attributes:
        name: Of the spec.
        spec_text: The spec as TOML with every default; None in runs of older versions.
        versions: Of packages, Python, platform and instruction set, by name.
        device: "cpu", "mps", or the name of a GPU.
        threads: Of a cell.
        seeds: Of the run.
        checksum: Of the data.
        files: Code of others and weights that the spec names.
        merged: Folders of the runs that a merged run puts together; it has no spec.
    """

    name: Text
    spec_text: Text | None = None
    versions: dict[Text, Text] = {}
    device: Text | None = None
    threads: int | None = None
    seeds: list[int] = []
    checksum: Text | None = None
    files: list[NamedFile] = []
    merged: list[Text] = []


def take_origin(source: Path, name: str, provenance: Mapping[str, Any]) -> Origin:
    """Return what a provenance says of how to run it again.

    Args:
        source: Of the provenance, for messages.
        name: Of the spec.
        provenance: Of results.json or started.json.

    Raises:
        ValueError: It is damaged.
    """
    known = (*VERSIONS, "platform", "instruction_set")
    keys = ("spec_text", "device", "threads", "seeds", "files")
    found = {key: provenance[key] for key in keys if provenance.get(key) is not None}
    found["versions"] = {key: provenance[key] for key in known if key in provenance}
    found["checksum"] = (provenance.get("data") or {}).get("checksum")
    found["merged"] = [str(run.get("folder")) for run in provenance.get("merged") or []]
    try:
        return Origin.model_validate({"name": name, **found})
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise ValueError(f"{source}: what it says of {place} cannot be read.") from None


def write_origin(name: str, provenance: Mapping[str, Any]) -> str:
    """Return what a page keeps of a provenance to run it again, as ASCII; it needs escaping.

    Args:
        name: Of the spec.
        provenance: Of results.json or started.json; of a damaged one nothing is kept.
    """
    try:
        origin = take_origin(Path(name), name, provenance)
    except ValueError:
        return ""
    return json.dumps(origin.model_dump(exclude_defaults=True), separators=(",", ":"))


def read_origin(path: Path, page: bytes) -> Origin:
    """Return what a page keeps to run its spec again. The page may be anybody's.

    Args:
        path: Its file, for messages.
        page: Its content.

    Raises:
        ValueError: It is no report, keeps nothing, or something damaged.
    """
    found = _META.findall(page)
    if len(found) != 1:
        why = "was written by an older version, which kept no spec in it: name its run folder"
        if found:
            why = "holds several specs where a report has one"
        elif page.startswith(b"<!DOCTYPE html>") and not page.rstrip().endswith(b"</html>"):
            why = "is cut short"
        elif b"robustloss report, details" in page:
            why = "has the details alone: name the index.html beside it"
        elif b"robustloss report" not in page:
            why = "is no report of robustloss: name an index.html or a run folder"
        raise ValueError(f"{path} {why}.")
    damaged = f"{path}: what it keeps of its run is damaged."
    if len(found[0]) > _MOST:
        raise ValueError(damaged)
    try:
        origin = Origin.model_validate(json.loads(html.unescape(found[0].decode("ascii"))))
    except (ValueError, RecursionError):  # of pydantic, of JSON, of the letters
        raise ValueError(damaged) from None
    if origin.spec_text is None and not origin.merged:
        raise ValueError(f"{path} was written by a run that kept no spec: name its run folder.")
    return origin
