"""Folders of the library `datasets` of Hugging Face: parquet files, or what save_to_disk wrote."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import MofNCompleteColumn

from robustloss.attacks.plugins import did_you_mean
from robustloss.data.brought.items import describe_pictures
from robustloss.data.brought.pixels import Given, check_classes, check_labels
from robustloss.data.brought.shards import SUFFIXES, Column, Shard, check_pyarrow
from robustloss.data.decode import (
    CHUNK,
    OtherSize,
    Recipe,
    UnreadableImage,
    decode,
    pool,
    read_head,
)
from robustloss.data.files import DataError, join_names, showing_progress
from robustloss.data.folders.listing import find_folder
from robustloss.data.folders.load import SHARE_OF_MEMORY, memory_size
from robustloss.data.reader import Content, Loaded, Part, Parts, Place, gather_pixels
from robustloss.data.splits import TEST_SHARE
from robustloss.data.streamed import PixelFile, StreamedImages
from robustloss.notation import printable
from robustloss.spec.data import DataSpec

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Set -> the words of file and folder names that `datasets` takes for it."""

COLUMNS = ("image", "label")  # keys of data.params that name columns; the others name splits
SAMPLE = 200  # images that decide on channels and size, as of an image folder
_LABELS = ("label", "labels", "class", "target", "y")  # names that say that a column has classes
_SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)")  # as `datasets` numbers the files of a split


class HuggingFaceReader:
    """Reads the folder that data.folder names."""

    def read(self, data: DataSpec, place: Place) -> Content:
        """Read the labels; the images are decoded once the sets are cut. See `Reader.read`."""
        assert data.folder is not None, "the spec refuses hugging_face without a folder"
        where = f"data.folder (={data.folder!r})"
        check_pyarrow(f'data.name (="{data.name}")')
        for key, value in data.params.items():
            known = (*COLUMNS, *SPLITS)
            if key not in known or not isinstance(value, str):
                raise DataError(
                    f"data.params.{key} (={value!r}) must be a name, under one of "
                    f"{', '.join(known)}{did_you_mean(key, known)}"
                )
        what = "with parquet files in it"
        folder = find_folder(data.folder, place.folders, what=what, quiet=place.quiet)
        splits = _choose_splits(find_splits(folder, where), data.params, where)
        image, label = _choose_columns(splits, data.params, where)
        labels, names = _read_labels(splits, label, where)
        parts, shards, start = {}, [], 0
        for name, files in splits.items():
            own = np.arange(start, start + len(labels[name]))
            parts[name] = Part(own, labels[name], own - start)
            start += len(own)
            shards += files
        remark = ""
        if "test" not in parts:
            remark = f"one image in {TEST_SHARE} held out for testing: it has no test images"
        return TablesContent(
            where=where,
            files=str(folder),
            train=parts["train"],
            test=parts.get("test"),
            validation=parts.get("validation"),
            class_names=names,
            shards=tuple(shards),
            column=image.name,
            data=data,
            remark=remark,
            quiet=place.quiet,
        )


def has_tables(folder: Path) -> bool:
    """Tell whether a folder, or one in it, holds parquet or Arrow files."""
    return any(path.suffix in SUFFIXES for way in ("*", "*/*") for path in folder.glob(way))


def find_splits(folder: Path, where: str) -> dict[str, list[Shard]]:
    """Return the files of each split, in their order, by the names of files and folders.

    Args:
        folder: holds parquet or Arrow files, at any depth.
        where: how messages call it.

    Raises:
        DataError: no file, several data sets, or a file of a split is missing.
    """
    found: dict[str, list[Path]] = {}
    sets: dict[str, None] = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in inner.parts)
        # `datasets` keeps what it computed beside the files of save_to_disk
        if path.suffix not in SUFFIXES or hidden or path.name.startswith("cache-"):
            continue
        above = [part for part in inner.parts[:-1] if _find_word(part) is None]
        sets.setdefault("/".join(above))
        words = (inner.stem, *reversed(inner.parts[:-1]))
        word = next((name for each in words if (name := _find_word(each))), None)
        numbered = _SHARD.fullmatch(inner.stem)
        other = numbered[1] if numbered and numbered[1] != "data" else ""
        found.setdefault(word or other, []).append(path)
    if not found:
        raise DataError(
            f"{where} holds no parquet or Arrow file. Name the folder that has train and test "
            "files, such as train-00000-of-00001.parquet; for class folders of images say "
            'name = "image_folder".'
        )
    if len(sets) > 1:
        raise DataError(
            f"{where} holds {len(sets)} data sets: {join_names([s or '.' for s in sets])}. Name "
            "the folder of one of them."
        )
    for name, paths in found.items():
        _check_whole(paths, where, name)
    return {name: [Shard(path) for path in paths] for name, paths in found.items()}


def _find_word(name: str) -> str | None:
    """Return the set that a name of a file or folder speaks of."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((s for word in words for s, known in SPLITS.items() if word in known), None)


def _check_whole(paths: Sequence[Path], where: str, split: str) -> None:
    """Refuse numbered files of which some are missing."""
    for path in paths:
        if numbered := _SHARD.fullmatch(path.stem):
            stem, _, count = numbered.groups()
            own = {p.stem for p in paths if p.parent == path.parent}
            wanted = (f"{stem}-{i:0{len(count)}}-of-{count}" for i in range(min(int(count), 10**5)))
            if absent := [name + path.suffix for name in wanted if name not in own]:
                raise DataError(
                    f"{where} lacks {join_names(absent)}, of {int(count)} files of "
                    f"{split or stem}. Fetch them too."
                )


def _choose_splits(
    found: Mapping[str, list[Shard]], params: Mapping[str, Any], where: str
) -> dict[str, list[Shard]]:
    """Return the files of train, and of test and validation where there are any."""
    if "train" not in found and "train" not in params and len(found) == 1:
        found = {"train": next(iter(found.values()))}
    chosen = {}
    for name in SPLITS:
        asked = params.get(name, name)
        if asked in found:
            chosen[name] = found[asked]
        elif name in params:
            raise DataError(
                f"data.params.{name} (={asked!r}) is no split of {where}, which has "
                f"{join_names(sorted(found))}. Name one of them."
            )
    if "train" not in chosen:
        raise DataError(
            f"{where} has no training split; it has {join_names(sorted(found))}. Say which one is "
            'for training, as params = { train = "' + sorted(found)[0] + '" }.'
        )
    if "test" not in chosen and "validation" in chosen:  # as val of an image folder
        chosen["test"] = chosen.pop("validation")
    names = list(chosen)
    if same := [name for name in names[1:] if chosen[name] is chosen[names[0]]]:
        raise DataError(f"data.params.{same[0]} is the training split too. Name another.")
    return chosen


def _choose_columns(
    splits: Mapping[str, Sequence[Shard]], params: Mapping[str, Any], where: str
) -> tuple[Column, Column]:
    """Return the column of images and that of labels, which every file has."""
    columns = splits["train"][0].columns
    listed = ", ".join(f"{column.name} ({column.type[:60]})" for column in columns.values())
    for key in COLUMNS:
        if key in params and params[key] not in columns:
            raise DataError(
                f"data.params.{key} (={params[key]!r}) is no column of {where}, which has {listed}."
            )
    images = [c for c in columns.values() if c.kind == "image"]
    images = [c for c in images if c.feature.get("_type") == "Image"] or images
    image = columns[params["image"]] if "image" in params else _only_one(images, "image", where)
    if image is None or image.kind != "image":
        raise DataError(
            f"{where} has no column of images{' of that name' if image else ''}: it has {listed}. "
            "An image is an encoded file, as bytes or as a struct with bytes: write it by "
            'dataset.cast_column("image", datasets.Image()).'
        )
    others = [c for c in columns.values() if c is not image]
    ways = (
        [c for c in others if c.feature.get("_type") == "ClassLabel"],
        [c for c in others if c.name.lower() in _LABELS],
        [c for c in others if c.kind in ("integer", "text")],
    )
    found = next(filter(None, ways), [])
    label = columns[params["label"]] if "label" in params else _only_one(found, "label", where)
    if label is None:
        raise DataError(
            f"{where} has no column of labels: it has {listed}. Add one of integers or names."
        )
    for shard in (shard for shards in splits.values() for shard in shards):
        for column in (image, label):
            own = shard.columns.get(column.name)
            if own is None or own.kind != column.kind:
                kind = "is missing" if own is None else f"is {own.type}"
                raise DataError(
                    f"{where}: column {column.name} {kind} in {shard.path.name}, and is "
                    f"{column.type} in {splits['train'][0].path.name}. Write all files alike."
                )
    return image, label


def _only_one(columns: Sequence[Column], key: str, where: str) -> Column | None:
    """Return the one column, or that which is called as the key is; None where there is none."""
    named = [column for column in columns if column.name == key]
    if len(columns) > 1 and not (key == "label" and named):
        names = [column.name for column in columns]
        raise DataError(
            f"{where} has {len(names)} columns that may be the {key}: {join_names(names)}. Name "
            f'one, as params = {{ {key} = "{names[0]}" }}.'
        )
    return next(iter(named or columns), None)


def _read_labels(
    splits: Mapping[str, Sequence[Shard]], column: Column, where: str
) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...]]:
    """Return the labels of each set (N,), and the names of the classes."""
    values = {name: _join_column(shards, column, where) for name, shards in splits.items()}
    names: Sequence[object] = column.feature.get("names") or ()
    if any(each.dtype.kind in "US" for each in values.values()):
        names, values = _number_texts(values, column, where)
    given = {}
    for name, own in values.items():
        title = f"column {column.name} of {name}"
        if len(own) and own.dtype.kind in "iu" and (own == -1).all():
            raise DataError(
                f"{where}: {title} is -1 in all rows, which stands for no label. Name another "
                f'split, as params = {{ {name} = "validation" }}, or leave its files out.'
            )
        given[name] = Given(np.arange(len(own)), own, f"split {name}", title)
    labels = {name: check_labels(one, where) for name, one in given.items()}
    return labels, check_classes(given, labels, tuple(map(str, names)), where)


def _join_column(shards: Sequence[Shard], column: Column, where: str) -> NDArray[Any]:
    """Return the labels of a split as they stand in its files."""
    parts = []
    for shard in shards:
        if column.kind not in ("integer", "text"):
            raise DataError(
                f"{where}: column {column.name} is {column.type}, but labels are integers 0 to "
                "K - 1 or names of classes. Name another column, as params = { label = ... }."
            )
        part, missing = shard.read_column(column.name)
        if missing:
            raise DataError(
                f"{where}: column {column.name} is empty in {missing} rows of {shard.path.name}. "
                "Leave these rows out: dataset.filter(lambda row: row[...] is not None)."
            )
        parts.append(np.asarray(part) if len(part) else np.zeros(0, np.int64))
    return np.concatenate([part for part in parts if len(part)] or parts)


def _number_texts(
    values: Mapping[str, NDArray[Any]], column: Column, where: str
) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """Number classes that are given by name, in the order of their names as of class folders."""
    names = sorted({str(text) for own in values.values() for text in own.tolist()})
    count = len(values["train"])
    if 2 * len(names) > count:
        raise DataError(
            f"{where}: column {column.name} has {len(names)} different texts for {count} training "
            "images, which are no classes. Name another column, as params = { label = ... }."
        )
    numbers = {name: number for number, name in enumerate(names)}
    return names, {
        name: np.array([numbers[str(text)] for text in own.tolist()], np.int64)
        for name, own in values.items()
    }


@dataclass
class _Found:
    """What was odd in the images that were decoded."""

    damaged: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)
    converted: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class TablesContent(Content):
    """Images in tables; each `Part` has the numbers of their rows, counted through all files.

    Attributes:
        shards: the files.
        column: of the images.
        data: what is done to the images, and whether they are kept in memory.
        remark: what must stand beside the numbers; "" for nothing.
        quiet: no progress bar.
    """

    shards: tuple[Shard, ...]
    column: str
    data: DataSpec
    remark: str
    quiet: bool

    def load(self, parts: Parts) -> Loaded:
        """Decode the images of the sets, into memory or into a file that they are read from.

        Raises:
            DataError: images that cannot be decoded, or of several sizes where nothing is resized.
        """
        recipe, data = self._choose_recipe(), self.data
        keep = data.in_memory
        if keep == "auto":
            needed = sum(part.n for part in parts.values()) * math.prod(recipe.shape)
            keep = needed <= memory_size() / SHARE_OF_MEMORY
        found = _Found()
        pixels: dict[str, NDArray[np.uint8] | StreamedImages] = {}
        with showing_progress(self.quiet, MofNCompleteColumn()) as bar:
            task = bar.add_task(
                printable(f"Reading {Path(self.files).name}"),
                total=sum(p.n for p in parts.values()),
            )
            for name, part in parts.items():
                whole: NDArray[np.uint8] | PixelFile
                whole = (
                    np.empty((part.n, *recipe.shape), np.uint8) if keep else PixelFile(recipe.shape)
                )
                done = 0
                for names, contents in self._iter_rows(part.images):
                    piece = _decode_rows(names, contents, recipe, found)
                    if isinstance(whole, PixelFile):
                        whole.append(piece)
                    else:
                        whole[done : done + len(piece)] = piece
                    done += len(piece)
                    bar.advance(task, len(piece))
                pixels[name] = StreamedImages(whole) if isinstance(whole, PixelFile) else whole
        self._refuse(found)
        remarks = (self.remark, *describe_pictures(recipe, found.converted))
        size = None if data.image_size is None else (data.image_size, data.image_size)
        return gather_pixels(pixels, size=size, remark="; ".join(filter(None, remarks)))

    def _refuse(self, found: _Found) -> None:
        if found.damaged:
            n = len(found.damaged)
            raise DataError(
                f"{self.where}: {n} image{'s' if n > 1 else ''} cannot be decoded: "
                f"{join_names(found.damaged)}. Replace or leave out the rows."
            )
        if found.sizes:
            raise DataError(
                f"{self.where}: the images have different sizes ({join_names(found.sizes)}). Give "
                "data.image_size, the side of the square that is cut out of each, as image_size = "
                "64."
            )

    def _choose_recipe(self) -> Recipe:
        """Decide what is done to each image; a sample of them decides what the spec leaves open."""
        rows = self.train.images
        some = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(int))]
        heads = []
        for _, contents in self._iter_rows(some):
            for content in contents:
                try:
                    heads.append(read_head(content or b""))
                except UnreadableImage:
                    continue  # all of them are named when they are decoded
        known = [head.channels for head in heads if head.channels is not None]
        channels: int = self.data.channels or max(known, default=3 if heads else 1)
        if self.data.image_size is not None:
            resize = self.data.resize or self.data.image_size
            return Recipe(channels, (resize, resize), resize)
        size = (heads[0].height, heads[0].width) if heads else (1, 1)
        return Recipe(channels, size, None)

    def _iter_rows(self, rows: NDArray[np.int64]) -> Iterator[tuple[list[str], list[bytes | None]]]:
        """Yield names for messages and bytes of the images in some rows, which ascend."""
        start = 0
        for shard in self.shards:
            stop = start + shard.count_rows(self.column)
            own = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)] - start
            for numbers, contents in shard.iter_images(self.column, own) if len(own) else ():
                yield [f"row {i} of {shard.path.name}" for i in numbers.tolist()], contents
            start = stop


def _decode_rows(
    names: Sequence[str], contents: Sequence[bytes | None], recipe: Recipe, found: _Found
) -> NDArray[np.uint8]:
    """Return the pixels of images (B,C,H,W), decoded by threads; note what is wrong with some."""
    pixels = np.zeros((len(contents), *recipe.shape), np.uint8)

    def look(piece: slice) -> _Found:
        own = _Found()
        for into, name, content in zip(pixels[piece], names[piece], contents[piece], strict=True):
            try:
                into[...], head = decode(content or b"", recipe)
                own.converted += head.channels not in (recipe.channels, None)
            except OtherSize as size:
                own.sizes.append(f"{name} is {size}")
            except UnreadableImage as error:
                reason = error if content else "no bytes: a path, or nothing"
                own.damaged.append(f"{name} ({reason})")
        return own

    pieces = [slice(start, start + CHUNK) for start in range(0, len(contents), CHUNK)]
    futures: list[Future[_Found]] = [pool().submit(look, piece) for piece in pieces]
    for future in futures:
        one = future.result()
        found.damaged += one.damaged
        found.sizes += one.sizes
        found.converted += one.converted
    return pixels
