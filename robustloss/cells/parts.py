"""Parts of a cell's attacks as files: records of some of the images, until all of them are there.

A part lies beside the record that it will be a part of, under the name of that record with the
positions of its images, so that it is found again by whatever decides the record.
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
    """What an attack took.

    Attributes:
        forward: images through the model.
        backward: images back through it.
        seconds: inside the attack.
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
        record: of these images; pictures of the first images of the test set only.
        eps: the budgets that were computed together, at one cost.
        spent: that cost.
    """

    record: Record
    eps: tuple[float, ...]
    spent: Spent


def ranges(images: int, split: int) -> list[tuple[int, int]]:
    """Returns (start, stop) of each part of so many images."""
    return [(start, min(start + split, images)) for start in range(0, images, split)]


def part_path(record: Path, start: int, stop: int) -> Path:
    """Returns where the images from start to stop of a record lie until it is whole."""
    return record.with_name(f"{record.stem}.{start}-{stop}{SUFFIX}")


def save_part(path: Path, part: StoredPart, start: int) -> None:
    """Writes a part without the pictures that no record keeps.

    Args:
        path: See `part_path`.
        part: What was computed.
        start: Position of its first image.
    """
    pictures = part.record.images[: max(0, MAX_IMAGES - start)]
    meta = {"eps": list(part.eps), **asdict(part.spent)}
    save_record(path, replace(part.record, images=pictures), meta)


def load_part(path: Path) -> StoredPart | None:
    """Returns what save_part wrote; None where it is missing or damaged."""
    if not path.exists():
        return None
    try:
        record, meta = load_record_and_meta(path)
        eps = tuple(meta.pop("eps"))
        return StoredPart(record, eps, Spent(**meta))
    except (CorruptFile, KeyError, TypeError):
        return None


def write_plan(folder: Path, names: Mapping[str, Mapping[float, str]]) -> None:
    """Says which records a cell will have, by a worker who knows what decides them.

    Args:
        folder: The cell's.
        names: For each attack's slug, the file of each budget.
    """
    plain = {slug: [[eps, name] for eps, name in files.items()] for slug, files in names.items()}
    write_json(folder / PLAN, plain, checked=True)


def read_plan(folder: Path) -> dict[str, dict[float, str]]:
    """Returns what write_plan was told; nothing where that file is missing or damaged."""
    try:
        plain: dict[str, Any] = read_json(folder / PLAN, checked=True)
    except CorruptFile:
        return {}
    return {slug: dict(files) for slug, files in plain.items() if _is_files(files)}


def _is_files(value: object) -> bool:
    """Whether it is what write_plan writes of an attack: a run folder may be somebody else's."""
    return isinstance(value, list) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and isinstance(pair[0], int | float)
        and isinstance(pair[1], str)
        and Path(pair[1]).name == pair[1]
        for pair in value
    )


def remove_parts(folder: Path) -> None:
    """Takes away parts and plan of a cell whose records are whole."""
    for path in (*folder.glob(f"*{SUFFIX}"), folder / PLAN):
        path.unlink(missing_ok=True)
