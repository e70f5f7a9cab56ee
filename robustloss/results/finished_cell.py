"""A finished cell, read from its cell.json and the files that it names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, Field

from robustloss.array_files import read_arrays
from robustloss.image_files import ImageFile, open_images
from robustloss.notation import eps_text
from robustloss.results.checking import check, check_tables
from robustloss.results.layout import check_reference
from robustloss.results.provenance import Part, Text
from robustloss.results.records import Record, load_record
from robustloss.results.schema import SCHEMA_VERSION, TABLES, Row
from robustloss.results.scores import StoredScores, load_scores
from robustloss.storage import CorruptFile, digest_file, read_checked_json, read_json

MOST_CLASSES = 100_000  # a file that states more is damaged or forged: lists are made of so many
MOST_FEATURES = 10_000_000


class _RecordEntry(Part):
    """A record of the test images, clean or attacked."""

    file: Text
    attack_label: Text
    eps: float
    norm: Text | None = None
    noise: Text = ""
    images: Text = ""


class _WorstEntry(Part):
    """The images of a worst case, of one norm at one eps."""

    file: Text
    norm: Text
    eps: float


class _OutsideEntry(Part):
    """A record of images that are not of the data."""

    file: Text
    label: Text


class _ShiftEntry(_OutsideEntry):
    """A record of images that are shifted and keep their label."""

    severity: int


class _Files(Part):
    """Names of the files of a cell, by what they hold."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Text]

    training: Text
    scores: Text
    records: list[_RecordEntry]
    outside: list[_OutsideEntry] | None = None
    shifts: list[_ShiftEntry] | None = None
    worst: list[_WorstEntry] | None = None


class _CellFile(Part):
    """A cell.json without its tables; text and numbers of it become parts of paths."""

    loss: Text
    label: Text
    slug: Text
    seed: int
    num_classes: int = Field(ge=1, le=MOST_CLASSES)
    feature_dim: int = Field(ge=0, le=MOST_FEATURES)
    files: _Files
    density: bool
    weights: Text = ""
    digests: dict[Text, Text] | None = None


@dataclass(frozen=True)
class Cell:
    """A finished cell: one loss, one seed, and the files it left.

    Attributes:
        loss: key or plug-in name.
        label: the loss's name in tables.
        slug: the label as a folder name.
        seed: training seed.
        folder: where the files lie.
        num_classes: K.
        feature_dim: D.
        files: names by kind, as in cell.json.
        density: class_log_likelihood is a normalised log-density.
        weights: digest of the weights.
        digests: sha256 of the files by name; None of a cell that an older version wrote.
        sha256: digest of cell.json.
    """

    loss: str
    label: str
    slug: str
    seed: int
    folder: Path
    num_classes: int
    feature_dim: int
    files: dict[str, Any]
    density: bool = False
    weights: str = ""
    digests: Mapping[str, str] | None = None
    sha256: str = ""

    def record(self, attack_label: str = "none", eps: float = 0.0) -> Record:
        """Load one record; the clean pass by default.

        Args:
            attack_label: what tables call the attack.
            eps: its budget.

        Raises:
            ValueError: no such record; CorruptFile: its file is missing or altered.
        """
        entries = self.files["records"]
        for entry in entries:
            if entry["attack_label"] == attack_label and entry["eps"] == eps:
                return self._record(entry["file"])
        known = ", ".join(
            f"{entry['attack_label']} at {eps_text(entry['eps'])}" for entry in entries
        )
        raise ValueError(f"no record of {attack_label} at eps {eps_text(eps)}; there are: {known}.")

    def outside(self, label: str) -> Record:
        """Load the record of a set of images that are not of the data.

        Its labels mean nothing.

        Raises:
            ValueError: no such set; CorruptFile: its file is missing or altered.
        """
        entries = self.files.get("outside", ())
        for entry in entries:
            if entry["label"] == label:
                return self._record(entry["file"])
        known = ", ".join(entry["label"] for entry in entries) or "none"
        raise ValueError(f"no outside set {label!r}; there are: {known}.")

    def shifted(self, shift: str, severity: int) -> Record:
        """Load the record of images that are shifted and keep their label.

        Raises:
            ValueError: no such shift; CorruptFile: its file is missing or altered.
        """
        entries = self.files.get("shifts", ())
        for entry in entries:
            if (entry["label"], entry["severity"]) == (shift, severity):
                return self._record(entry["file"])
        known = ", ".join(f"{e['label']} at severity {e['severity']}" for e in entries) or "none"
        raise ValueError(f"no shift {shift!r} at severity {severity}; there are: {known}.")

    def images(self, entry: Mapping[str, Any]) -> ImageFile | None:
        """Open the kept images of a record or of a worst case; None where none are kept.

        Args:
            entry: of files["records"] or files["worst"].

        Raises:
            CorruptFile: the file is missing or holds something else.
        """
        name = entry.get("images", "") if "attack_label" in entry else entry["file"]
        return open_images(self._file(name)) if name else None

    def path_of(self, name: str) -> Path:
        """Return where a file of the cell lies.

        Raises:
            CorruptFile: the name would lead out of the cell's folder.
        """
        return self._file(name)

    def reference(self) -> dict[str, np.ndarray]:
        """Load the arrays that scores and pictures need beside the records (reference-KEY.npz).

        Raises:
            CorruptFile: missing, altered, or holding something else.
        """
        # older cells kept them under the other name
        path = self._file(self.files.get("reference", self.files["scores"]))
        arrays = read_arrays(path)[0]
        try:
            check_reference(arrays, self.num_classes, self.feature_dim)
        except ValueError as error:
            raise CorruptFile(f"{path} holds no reference: {error}") from error
        return arrays

    def scores(self) -> StoredScores:
        """Load every score of every pass (scores-KEY.npz).

        Raises:
            ValueError: an older version wrote the cell; CorruptFile: missing or altered.
        """
        if "reference" not in self.files:
            raise ValueError(
                f"{self.label} seed {self.seed} holds no stored scores: an older version wrote it. "
                "Run `robustloss run` again."
            )
        return load_scores(self._file(self.files["scores"]))

    def tables(self) -> dict[str, list[Row]]:
        """Load the cell's tables of results.json (cell.json).

        Raises:
            CorruptFile: missing or altered.
        """
        content = read_json(self.folder / "cell.json", checked=True)
        return {name: content[name] for name in TABLES if name in content}

    def training(self) -> dict[str, Any]:
        """Load the learning curve and its times (train.json).

        Raises:
            CorruptFile: missing, altered, or with a value of another kind than is read.
        """
        path = self._file(self.files["training"])
        log = read_json(path, checked=True)
        check_tables(path, {"training": [log]})
        return log

    @property
    def model_file(self) -> Path:
        """Where the weights lie.

        Raises:
            CorruptFile: cell.json names none.
        """
        return self._file(self.files.get("model", ""))

    def _record(self, name: str) -> Record:
        path = self._file(name)
        record = load_record(path)
        width = None if record.features is None else record.features.shape[1]
        if record.logits.shape[1] != self.num_classes or width not in (None, self.feature_dim):
            raise CorruptFile(
                f"{path} is no record of this cell, which has {self.num_classes} classes and "
                f"{self.feature_dim} features."
            )
        return record

    def _file(self, name: str) -> Path:
        # a run folder may come from somebody else: it must not point outside itself
        if not isinstance(name, str) or name in ("", ".", "..") or re.search(r"[/\\\0]", name):
            raise CorruptFile(f"{self.folder / 'cell.json'} names a file outside it ({name!r}).")
        return self.folder / name


def list_files(files: Mapping[str, Any]) -> list[str]:
    """Return the names of all files of a cell, sorted.

    Args:
        files: by kind, as in cell.json.
    """
    entries = [
        each for kind in ("records", "outside", "shifts", "worst") for each in files.get(kind) or ()
    ]
    names = {name for name in files.values() if isinstance(name, str)}
    parts = ("file", "noise", "images")
    return sorted(names | {each[part] for each in entries for part in parts if each.get(part)})


def digest_files(folder: Path, files: Mapping[str, Any]) -> dict[str, str]:
    """Return the digests that cell.json states: sha256 of each file of arrays, by name.

    Not of the weights and the learning curve, which hold times: the weights have a digest of their
    own, and the curve stands in results.json.

    Args:
        folder: of the cell.
        files: their names by kind, as in cell.json.
    """
    arrays = (name for name in list_files(files) if name.endswith((".npz", ".npy")))
    return {name: digest_file(folder / name) for name in arrays}


def load_cell(path: str | Path) -> Cell:
    """Read a cell.json.

    Raises:
        CorruptFile: missing, altered, incomplete, or with a value of another type than is read;
            ValueError: a newer schema.
    """
    return read_cell(path)[0]


def read_cell(path: str | Path) -> tuple[Cell, dict[str, Any]]:
    """Read a cell.json as `load_cell` does, and return its whole content too."""
    path = Path(path)
    data, sha256 = read_checked_json(path)
    check_version(path, data)
    check(path, "", _CellFile, data)
    fields = {name: data[name] for name in _CellFile.model_fields if name in data}
    return Cell(folder=path.parent, sha256=sha256, **fields), data


def check_version(path: Path, data: Mapping[str, Any]) -> None:
    """Refuse a file that this version cannot read.

    Args:
        path: for the message.
        data: the content of a cell.json or of results.json.

    Raises:
        CorruptFile: no version; ValueError: a newer one.
    """
    version = data.get("schema_version")
    if type(version) is not int:  # True is an int too
        raise CorruptFile(f"{path} has no whole number 'schema_version' (={version!r}).")
    if version > SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema_version {version}, this robustloss reads up to {SCHEMA_VERSION}. "
            "Update robustloss."
        )
