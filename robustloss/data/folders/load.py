"""Data sets that are folders of images: in memory where they fit, else decoded when asked for."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from robustloss.data import decode
from robustloss.data.decode import Recipe, UnreadableImage
from robustloss.data.files import DataError, join_names
from robustloss.data.folders.listing import find_folder, read_layout
from robustloss.data.folders.survey import Survey, check, size_error, survey
from robustloss.data.reader import Content, Loaded, Part, Parts, Place
from robustloss.data.splits import stratified_split
from robustloss.data.streamed import StreamedImages
from robustloss.spec.data import DataSpec

# Below, every file is read and decoded once at the start: checksum, mean and damaged files are
# those of all bytes. Above, that would take as long as an epoch.
FULL_BYTES = 2 * 10**9
SAMPLE = 20_000  # training images whose pixels give mean and deviation of a larger folder
SHARE_OF_MEMORY = 4  # images are kept in memory up to this part of it


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
        places = [place.root] if place.near is None else [place.near, place.root]
        folder = find_folder(data.folder, places, quiet=place.quiet)
        class_names, parts = read_layout(folder)
        load = partial(
            load_files,
            folder=folder,
            all_train=parts["train"],
            class_names=class_names,
            data=data,
            quiet=place.quiet,
        )
        return Content(
            where=str(folder),
            train=parts["train"],
            test=parts["test"],
            validation=parts.get("validation"),
            class_names=class_names,
            turns=True,
            load=load,
        )


def load_files(
    parts: Parts,
    *,
    folder: Path,
    all_train: Part,
    class_names: tuple[str, ...],
    data: DataSpec,
    quiet: bool,
) -> Loaded:
    """Look at the files of every set; decode them now or, where they do not fit, when asked for.

    Args:
        parts: the sets that were cut, with paths relative to the folder.
        folder: the data folder.
        all_train: all training images of the folder, of which some show what the images are.
        class_names: in the order of the labels.
        data: what is done to the images, and whether they are kept in memory.
        quiet: no progress bar, no remark on stderr.

    Raises:
        DataError: files that cannot be decoded, or of different sizes where nothing is resized.
    """
    recipe = _choose_recipe(folder, all_train.images, data)
    keep = _fits(parts, recipe) if data.in_memory == "auto" else data.in_memory
    surveys, full = _survey_parts(parts, folder, recipe, keep, quiet)
    converted = [path for found in surveys.values() for path in found.converted]
    if converted and data.channels is None and not quiet:
        kinds = "grey ones among colour ones"
        if recipe.channels == 1:
            kinds = "colour ones among grey ones"
        remark = (
            f"{len(converted)} images were converted to {recipe.channels} channels, {kinds}: "
            f"{join_names(converted)}."
        )
        Console(stderr=True).print(remark, markup=False, soft_wrap=True)
    size = None if data.image_size is None else (data.image_size, data.image_size)
    return Loaded(
        images={
            name: StreamedImages(folder, parts[name].images, recipe)
            if found.pixels is None
            else torch.from_numpy(found.pixels)
            for name, found in surveys.items()
        },
        counts=surveys["train"].counts.tolist(),
        settings=f"image folder {decode.VERSION} {recipe} {size} {full} {list(class_names)}",
        contents={
            name: (f"{name} {parts[name].n}", found.digests) for name, found in surveys.items()
        },
        size=size,
        summary=_summarise(parts, recipe, size, converted),
        converted=tuple(converted),
    )


def _survey_parts(
    parts: Parts, folder: Path, recipe: Recipe, keep: bool, quiet: bool
) -> tuple[dict[str, Survey], bool]:
    """Look at the files of every set under one progress bar; tell whether every file was read."""
    files = [folder / path for part in parts.values() for path in part.images]
    full = sum(file.stat().st_size for file in files) < FULL_BYTES
    surveys = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet,
    ) as progress:
        task = progress.add_task(f"Reading {folder.name}", total=len(files))
        for name, part in parts.items():
            # Mean and deviation are those of the training pixels; of a large folder, of a sample.
            counted = np.full(part.n, name == "train")
            if name == "train" and not full and part.n > SAMPLE:
                counted[:] = False
                counted[stratified_split(part.labels, SAMPLE)[0]] = True
            surveys[name] = survey(
                folder,
                part.images,
                recipe,
                keep=keep,
                full=full,
                counted=counted,
                advance=lambda done: progress.advance(task, done),
            )
    check(folder, surveys.values())
    return surveys, full


def _choose_recipe(folder: Path, paths: NDArray[np.object_], data: DataSpec) -> Recipe:
    """Decide what is done to each image; what the spec leaves open, a sample of them decides."""
    sample = paths[np.unique(np.linspace(0, len(paths) - 1, 200).astype(int))]
    heads = {}
    for path in sample:
        try:
            heads[path] = decode.header(folder / path)
        except UnreadableImage:
            continue  # the survey names all of them
    channels: int = data.channels or max((own for _, _, own in heads.values()), default=1)
    if data.image_size is not None:
        resize = data.resize or data.image_size
        return Recipe(channels, (resize, resize), resize)
    one_each = {(height, width): path for path, (width, height, _) in heads.items()}
    if len(one_each) > 1:
        raise size_error(folder, [f"{path} is {w}x{h}" for (h, w), path in one_each.items()])
    return Recipe(channels, next(iter(one_each), (1, 1)), None)


def _fits(parts: Parts, recipe: Recipe) -> bool:
    """Tell whether all images take at most a quarter of the memory, and of that of a GPU."""
    needed = sum(part.n for part in parts.values()) * int(np.prod(recipe.shape))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if torch.cuda.is_available():
        memory = min(memory, torch.cuda.get_device_properties(0).total_memory)
    return needed <= memory / SHARE_OF_MEMORY


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
