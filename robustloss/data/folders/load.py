"""Data sets that are folders of images: in memory where they fit, else decoded when asked for."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from rich.progress import MofNCompleteColumn

from robustloss.data import decode
from robustloss.data.decode import Recipe, UnreadableImage
from robustloss.data.files import DataError, join_names, show_remark, showing_progress
from robustloss.data.folders.listing import find_folder, read_layout
from robustloss.data.folders.survey import Survey, check_surveys, find_copies, size_error, survey
from robustloss.data.reader import Content, Loaded, Parts, Place
from robustloss.data.splits import stratified_split
from robustloss.data.streamed import ImageFiles, StreamedImages
from robustloss.notation import printable
from robustloss.spec.data import DataSpec

# Below, every file is read and decoded once at the start: checksum, mean and damaged files are
# those of all bytes. Above, that would take as long as an epoch.
FULL_BYTES = 2 * 10**9
SAMPLE = 20_000  # training images whose pixels give mean and deviation of a larger folder
SHARE_OF_MEMORY = 4  # images are kept in memory up to this part of it
UNKNOWN_MEMORY = 8 * 2**30  # bytes that a machine is taken to have where it does not say


class FolderReader:
    """Reads a folder, or a tar archive of one, with train/CLASS/IMAGE and test/CLASS/IMAGE."""

    def read(self, data: DataSpec, place: Place) -> Content:
        """List the files of data.folder; the pixels are loaded once the sets are cut.

        See `Reader.read`.
        """
        if data.classes is not None:
            raise DataError(
                f"data.classes (={list(data.classes)}) is not for image_folder. Move the class "
                "folders elsewhere, and name that place in a table [[outside]]."
            )
        assert data.folder is not None, "the spec refuses image_folder without a folder"
        folder = find_folder(data.folder, place.folders, quiet=place.quiet)
        class_names, parts, others = read_layout(folder)
        return FolderContent(
            where=str(folder),
            files=str(folder),
            train=parts["train"],
            test=parts["test"],
            validation=parts.get("validation"),
            class_names=class_names,
            folder=folder,
            others=others,
            data=data,
            quiet=place.quiet,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class FolderContent(Content):
    """Images whose pixels are in files; each `Part` has their paths.

    Attributes:
        folder: what the paths are relative to.
        others: files that are no images by their suffix, or lie in no class folder.
        data: what is done to the images, and whether they are kept in memory.
        quiet: no progress bar, no remark on stderr.
    """

    turns: ClassVar[bool] = True
    folder: Path
    others: tuple[str, ...]
    data: DataSpec
    quiet: bool

    def load(self, parts: Parts) -> Loaded:
        """Look at all files; decode them now or, where they do not fit, when they are asked for.

        Raises:
            DataError: files that cannot be decoded, or of different sizes where nothing is resized.
        """
        data, recipe = self.data, self._choose_recipe()
        keep = data.in_memory
        if keep == "auto":
            needed = sum(part.n for part in parts.values()) * math.prod(recipe.shape)
            keep = needed <= memory_size() / SHARE_OF_MEMORY
        surveys, full = self._survey(parts, recipe, keep)
        converted = [path for found in surveys.values() for path in found.converted]
        if converted and data.channels is None:
            mix = "grey ones among colour" if recipe.channels == 3 else "colour ones among grey"
            show_remark(
                f"{len(converted)} images were converted to {recipe.channels} channels, {mix} "
                f"ones: {join_names(converted)}.",
                quiet=self.quiet,
            )
        size = None if data.image_size is None else (data.image_size, data.image_size)
        pixels = f"{decode.VERSION} {recipe} {size}"  # what makes the pixels out of a file
        return Loaded(
            images={
                name: StreamedImages(ImageFiles(self.folder, parts[name].images, recipe))
                if found.pixels is None
                else torch.from_numpy(found.pixels)
                for name, found in surveys.items()
            },
            counts=surveys["train"].counts,
            settings=f"image folder {pixels} {full} {list(self.class_names)}",
            contents={
                name: (f"{name} {parts[name].n}", found.digests) for name, found in surveys.items()
            },
            size=size,
            summary="; ".join(
                (_summarise(parts, recipe, size, converted), *self._tell_oddities(parts, surveys))
            ),
            converted=tuple(converted),
            digests=frozenset(
                row.tobytes() for found in surveys.values() if found.full for row in found.digests
            ),
        )

    def _tell_oddities(self, parts: Parts, surveys: Mapping[str, Survey]) -> list[str]:
        """Say, with names, what nobody would expect of the files; return it without the names."""
        files = {
            "left out: no image by the suffix, or in no class folder": list(self.others),
            "turned by their EXIF, and used as they are stored": [
                path for found in surveys.values() for path in found.turned
            ],
            **find_copies(parts, surveys),
        }
        found = {f"{len(names)} file{'s' if len(names) > 1 else ''} {what}": names
                 for what, names in files.items() if names}  # fmt: skip
        for name in ("validation", "test"):
            labels = set(parts[name].labels.tolist())
            absent = [each for i, each in enumerate(self.class_names) if i not in labels]
            if absent:
                found[f"{name} images of {len(labels)} of {len(self.class_names)} classes"] = absent
        for text, names in found.items():
            lacking = "none of " if text.startswith(("validation", "test")) else ""
            show_remark(f"{text}: {lacking}{join_names(names)}.", quiet=self.quiet)
        return list(found)

    def _choose_recipe(self) -> Recipe:
        """Decide what is done to each image; a sample of them decides what the spec leaves open."""
        paths, data = self.train.images, self.data
        heads = {}
        for path in paths[np.unique(np.linspace(0, len(paths) - 1, 200).astype(int))]:
            try:
                heads[path] = decode.read_header(self.folder / path)
            except UnreadableImage:
                continue  # the survey names all of them
        known = [head.channels for head in heads.values() if head.channels is not None]
        # Palettes of greys alone are taken for colour, as all palettes once were.
        channels: int = data.channels or max(known, default=3 if heads else 1)
        if data.image_size is not None:
            resize = data.resize or data.image_size
            return Recipe(channels, (resize, resize), resize)
        one_each = {(head.height, head.width): path for path, head in heads.items()}
        if len(one_each) > 1:
            sizes = [f"{path} is {w}x{h}" for (h, w), path in one_each.items()]
            raise size_error(self.folder, sizes)
        return Recipe(channels, next(iter(one_each), (1, 1)), None)

    def _survey(self, parts: Parts, recipe: Recipe, keep: bool) -> tuple[dict[str, Survey], bool]:
        """Look at the files of every set under one progress bar; tell whether all were read."""
        files = [self.folder / path for part in parts.values() for path in part.images]
        try:
            full = sum(file.stat().st_size for file in files) < FULL_BYTES
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be read ({error.strerror}).") from None
        surveys = {}
        with showing_progress(self.quiet, MofNCompleteColumn()) as bar:
            task = bar.add_task(printable(f"Reading {self.folder.name}"), total=len(files))
            for name, part in parts.items():
                # Mean and deviation are those of the training pixels; of a sample, where many.
                counted = np.full(part.n, name == "train")
                if name == "train" and not full and part.n > SAMPLE:
                    counted[:] = False
                    counted[stratified_split(part.labels, SAMPLE)[0]] = True
                surveys[name] = survey(
                    self.folder,
                    part.images,
                    recipe,
                    keep=keep,
                    full=full,
                    counted=counted,
                    advance=lambda done: bar.advance(task, done),
                )
        check_surveys(self.folder, surveys.values())
        return surveys, full


def memory_size() -> int:
    """Return the bytes of memory of this machine, or of its GPU where that has less."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        memory = UNKNOWN_MEMORY
    if torch.cuda.is_available():
        memory = min(memory, torch.cuda.get_device_properties(0).total_memory)
    return memory


def _summarise(
    parts: Parts, recipe: Recipe, size: tuple[int, int] | None, converted: list[str]
) -> str:
    """Say in one line what the files are and what was done to them."""
    suffixes = (path.rpartition(".")[2].upper() for part in parts.values() for path in part.images)
    formats = Counter({"JPG": "JPEG", "TIF": "TIFF"}.get(suffix, suffix) for suffix in suffixes)
    text = f"read from {', '.join(kind for kind, _ in formats.most_common())} files, "
    if size is None:
        text += f"{recipe.size[0]}x{recipe.size[1]} pixels"
    else:
        text += f"the center {size[0]}x{size[1]} pixels after the shorter side became "
        text += f"{recipe.resize}"
    if converted:
        text += f"; {len(converted)} images converted to {recipe.channels} channels"
    return text
