"""Attacked images that a cell keeps beside its records, as [records] asks for them.

Those of an attack at one eps lie in a file that is called like their record. With "worst" these
files serve until the worst case of each eps is put together, and are removed then.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from robustloss.analysis.worst_images import (
    Entry,
    choose_worst,
    find_sources,
    gather_worst,
    list_worst,
)
from robustloss.cells import keys, parts
from robustloss.cells.workplace import Workplace
from robustloss.evaluation.passes import to_numpy
from robustloss.image_files import ImageFile, Shape, check_images, open_images, writing_images
from robustloss.results.records import MAX_IMAGES, Record
from robustloss.spec.resources import ALL, WORST
from robustloss.storage import CorruptFile

Place = tuple[str, float]  # norm and eps of a worst case


@dataclass(frozen=True)
class Keeping:
    """Which images a cell keeps.

    Attributes:
        count: How many of each attack, the first of the test set.
        total: Images of the test set.
        shape: (C,H,W).
        records: Records whose images are needed: to be kept, or for a worst case that is missing.
        worst: The file of each worst case; none unless the spec asks for "worst".
    """

    count: int
    total: int
    shape: tuple[int, int, int]
    records: frozenset[Path]
    worst: Mapping[Place, Path]

    def lacks(self, record: Path) -> bool:
        """Return whether the images of a record are needed and not there."""
        return record in self.records and not self._is_whole(images_path(record), self.count)

    def lacks_part(self, record: Path, start: int, stop: int) -> bool:
        """Return whether the images of a part of a record are needed and not there."""
        path = parts.part_path(images_path(record), start, stop)
        rows = self.rows(record, start, stop)
        return rows > 0 and not self._is_whole(path, rows)

    def rows(self, record: Path, start: int, stop: int) -> int:
        """Return how many of the images from start to stop are needed, the first of them."""
        return min(max(self.count - start, 0), stop - start) if record in self.records else 0

    def _is_whole(self, path: Path, rows: int) -> bool:
        return read_images(path, self.shape, rows, self.total) is not None


def images_path(record: Path) -> Path:
    """Return the file of the images of a record."""
    return record.with_name(f"images-{record.stem}.npy")


def read_images(path: Path, shape: tuple[int, ...], least: int, most: int) -> ImageFile | None:
    """Return a file of images, or None where it is missing, damaged or holds others.

    Args:
        path: The file.
        shape: (C,H,W) of each.
        least: Images that it must have.
        most: Images that it may have; a forged file may have no end.
    """
    try:
        found = open_images(path) if path.exists() else None
        if found is None or found.shape[1:] != shape or not least <= found.n <= most:
            return None
        return check_images(path)
    except CorruptFile:
        return None


def plan_keeping(place: Workplace, entries: Sequence[Entry]) -> Keeping:
    """Return which images the cell keeps.

    Args:
        place: The cell's.
        entries: Its records as cell.json will list them; none of them need be there.
    """
    asked, n = place.spec.records.images, place.dataset.test.n
    count = n if asked in (ALL, WORST) else min(int(asked), n)
    shape = place.dataset.test.shape
    attacked = [entry for entry in entries if entry["norm"] and entry["eps"] > 0]
    paths: set[Path] = set()
    worst: dict[Place, Path] = {}
    if asked == WORST:
        for norm, eps in list_worst(attacked):
            names = [entry["file"] for entry in find_sources(attacked, norm, eps)]
            path = place.folder / f"images-worst-case-{norm}-{eps:.6g}-{keys.worst_key(names)}.npy"
            worst[norm, eps] = path
            if read_images(path, shape, n, n) is None:
                paths |= {place.folder / name for name in names}
    elif asked == ALL or count > MAX_IMAGES:
        paths = {place.folder / entry["file"] for entry in attacked}
    return Keeping(count, n, shape, frozenset(paths), worst)


class Keeper:
    """Takes the attacked images of some records, batch by batch, and writes those that are needed.

    A context manager: the files are there once its block has ended well.

    Args:
        targets: By budget the file and how many images it takes, the first that come.
        shape: (C,H,W).
    """

    def __init__(self, targets: Mapping[float, tuple[Path, int]], shape: Sequence[int]) -> None:
        self._targets, self._shape = targets, shape
        self._stack = ExitStack()

    def __enter__(self) -> "Keeper":
        channels, height, width = self._shape
        with ExitStack() as stack:
            self._writers = {
                eps: stack.enter_context(writing_images(path, (rows, channels, height, width)))
                for eps, (path, rows) in self._targets.items()
            }
            self._stack = stack.pop_all()
        return self

    def __call__(self, eps: float, images: Tensor) -> None:
        """Take a batch (B,C,H,W) of attacked images."""
        writer = self._writers.get(eps)
        if writer is not None and writer.missing:
            writer.write(to_numpy(images[: writer.missing].contiguous()))

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)


def join_images(path: Path, pieces: Sequence[Path], shape: Shape) -> None:
    """Write the images of the parts of a cell as one file.

    Args:
        path: The file.
        pieces: Files of the parts, in order.
        shape: (N,C,H,W) of all.
    """
    with writing_images(path, shape) as writer:
        for piece in pieces:
            for _, images in check_images(piece).pieces():
                writer.write(images)


def ensure_worst(
    place: Workplace,
    keeping: Keeping,
    entries: Sequence[Entry],
    records: Mapping[Any, Record],
) -> list[dict[str, Any]]:
    """Return what cell.json lists of the worst cases, after writing those that are missing.

    Args:
        place: The cell's.
        keeping: What it keeps.
        entries: Its records as cell.json lists them.
        records: The records by label and eps, the clean one by ("none", 0).
    """
    test, shape = place.dataset.test, (place.dataset.test.n, *keeping.shape)

    def read_clean(start: int, stop: int) -> np.ndarray:
        return to_numpy(test.batch(slice(start, stop)))

    for (norm, eps), path in keeping.worst.items():
        if read_images(path, keeping.shape, test.n, test.n) is not None:
            continue
        place.report_scoring(f"worst case, {norm} {eps:.6g}")
        sources = find_sources(entries, norm, eps)
        named = [(each, records[each["attack_label"], each["eps"]]) for each in sources]
        chosen = choose_worst(records["none", 0.0], named, eps)
        files = [open_images(images_path(place.folder / each["file"])) for each in sources]
        with writing_images(path, shape) as writer:
            for images in gather_worst(chosen, [file.read for file in files], read_clean):
                writer.write(images)
    if keeping.worst:
        for entry in entries:
            images_path(place.folder / entry["file"]).unlink(missing_ok=True)
    return [
        {"norm": norm, "eps": eps, "file": path.name} for (norm, eps), path in keeping.worst.items()
    ]


def list_images(keeping: Keeping, entry: dict[str, Any], folder: Path) -> None:
    """Note in an entry of cell.json the file of its images, where they are kept.

    Args:
        keeping: What the cell keeps.
        entry: Of a record; it gets the name of the file, key "images".
        folder: The cell's.
    """
    record = folder / entry["file"]
    if record in keeping.records and not keeping.worst:
        entry["images"] = images_path(record).name
