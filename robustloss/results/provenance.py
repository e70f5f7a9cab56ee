"""The types of what a report reads of the provenance in results.json."""

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
    error: float | None = None
    low: float | None = None
    high: float | None = None
    auroc: float | None = None


class PublishedTable(Part):
    """Numbers of others that the spec names."""

    source: Text
    short: Text
    caveat: Text
    rows: list[PublishedRow]


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
    seconds: float | None = None
