"""Parts of a cell's attacks as files: records of some of the images, until all of them are there.

A part lies beside its record, under the name of the record with the positions of its images. So
whatever decides the record decides the part as well.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

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


class Planned(NamedTuple):
    """Files that a cell will have of one attack at one budget.

    Attributes:
        record: Name of the record.
        images: Name of the file of the attacked images; "" where none are kept.
        kept: How many images that file holds, the first of the test set.
    """

    record: str
    images: str = ""
    kept: int = 0

    def missing_files(self, folder: Path) -> list[Path]:
        """Return those of the files that are not there."""
        return [folder / name for name in self[:2] if name and not (folder / name).exists()]

    def missing_parts(self, folder: Path, start: int, stop: int) -> list[Path]:
        """Return those of the files of a part that are not there.

        Args:
            folder: The cell's.
            start: Position of the first image of the part.
            stop: Position after its last image.
        """
        names = [self.record, self.images if start < self.kept else ""]
        paths = [part_path(folder / name, start, stop) for name in names if name]
        return [path for path in paths if not path.exists()]


def ranges(images: int, split: int) -> list[tuple[int, int]]:
    """Return (start, stop) of each part.

    Args:
        images: How many there are.
        split: How many a part has; the last one may have fewer.
    """
    return [(start, min(start + split, images)) for start in range(0, images, split)]


def part_path(record: Path, start: int, stop: int) -> Path:
    """Return the file that holds some images of a record, or of the images, until it is whole.

    Args:
        record: The whole file.
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


def write_plan(folder: Path, plan: Mapping[str, Mapping[float, Planned]]) -> None:
    """Write which files a cell will have, for the process that hands out the parts.

    Args:
        folder: The cell's.
        plan: By slug of the attack and budget.
    """
    # Lists, because JSON has only text as keys, and a budget must come back to the last bit.
    plain = {slug: [[eps, *files] for eps, files in own.items()] for slug, own in plan.items()}
    write_json(folder / PLAN, plain, checked=True)


def read_plan(folder: Path) -> dict[str, dict[float, Planned]]:
    """Return what write_plan wrote, or {} where it is missing or damaged."""
    try:
        plain: dict[str, Any] = read_json(folder / PLAN, checked=True)
    except CorruptFile:
        return {}
    return {
        slug: {eps: Planned(*files) for eps, *files in own}
        for slug, own in plain.items()
        if isinstance(own, list) and all(map(_is_planned, own))
    }


def _is_planned(value: object) -> bool:
    """Return whether it is what write_plan writes: a run folder may come from somebody else."""
    return (
        isinstance(value, list)
        and len(value) == 4
        and type(value[0]) in (int, float)
        and all(type(name) is str and Path(name).name == name for name in value[1:3])
        and type(value[3]) is int
    )


def remove_parts(folder: Path) -> None:
    """Remove parts and plan of a cell whose records are whole."""
    for path in (*folder.glob(f"*{SUFFIX}"), folder / PLAN):
        path.unlink(missing_ok=True)
