"""Parts of a cell's attacks as files: records of some of the images, until all of them are there.

A part lies beside its record, under the name of the record with the positions of its images. So
whatever decides the record decides the part as well.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from robustloss.results.records import MAX_IMAGES, Record, load_record_and_meta, save_record
from robustloss.storage import CorruptFile, read_json, write_json

SUFFIX = ".part"
PLAN = "parts.json"


@dataclass(frozen=True)
class Spent:
    """What an attack cost.

    Attributes:
        forward: Images through the model.
        backward: Images back through it.
        seconds: Inside the attack.
    """

    forward: int = 0
    backward: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.forward + other.forward,
            self.backward + other.backward,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class StoredPart:
    """The record of some images at one budget.

    Attributes:
        record: Of these images; with pictures only of the first images of the test set.
        eps: The budgets that were computed together, at one cost.
        spent: That cost.
    """

    record: Record
    eps: tuple[float, ...]
    spent: Spent


def ranges(images: int, split: int) -> list[tuple[int, int]]:
    """Return (start, stop) of each part.

    Args:
        images: How many there are.
        split: How many a part has; the last one may have fewer.
    """
    return [(start, min(start + split, images)) for start in range(0, images, split)]


def part_path(record: Path, start: int, stop: int) -> Path:
    """Return the file that holds some images of a record until it is whole.

    Args:
        record: The record's file.
        start: Position of the first image.
        stop: Position after the last image.
    """
    return record.with_name(f"{record.stem}.{start}-{stop}{SUFFIX}")


def save_part(path: Path, part: StoredPart, start: int) -> None:
    """Write a part, without the pictures that no record keeps.

    Args:
        path: See `part_path`.
        part: Its content.
        start: Position of its first image.
    """
    pictures = part.record.images[: max(0, MAX_IMAGES - start)]
    meta = {"eps": list(part.eps), **asdict(part.spent)}
    save_record(path, replace(part.record, images=pictures), meta)


def load_part(path: Path) -> StoredPart | None:
    """Return what save_part wrote, or None where it is missing or damaged."""
    try:
        record, meta = load_record_and_meta(path)
        eps = tuple(meta.pop("eps"))
        return StoredPart(record, eps, Spent(**meta))
    except (CorruptFile, KeyError, TypeError):
        return None


def write_plan(folder: Path, names: Mapping[str, Mapping[float, str]]) -> None:
    """Write which records a cell will have, for the process that hands out the parts.

    Args:
        folder: The cell's.
        names: The file of each budget, by slug of the attack.
    """
    # Pairs, because JSON has only text as keys, and a budget must come back to the last bit.
    plain = {slug: [[eps, name] for eps, name in files.items()] for slug, files in names.items()}
    write_json(folder / PLAN, plain, checked=True)


def read_plan(folder: Path) -> dict[str, dict[float, str]]:
    """Return what write_plan wrote, or {} where it is missing or damaged."""
    try:
        plain: dict[str, Any] = read_json(folder / PLAN, checked=True)
    except CorruptFile:
        return {}
    return {slug: dict(files) for slug, files in plain.items() if _is_files(files)}


def _is_files(value: object) -> bool:
    """Return whether it is what write_plan writes: a run folder may come from somebody else."""
    return isinstance(value, list) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and isinstance(pair[0], int | float)
        and isinstance(pair[1], str)
        and Path(pair[1]).name == pair[1]
        for pair in value
    )


def remove_parts(folder: Path) -> None:
    """Remove parts and plan of a cell whose records are whole."""
    for path in (*folder.glob(f"*{SUFFIX}"), folder / PLAN):
        path.unlink(missing_ok=True)
