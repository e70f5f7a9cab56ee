"""Data sets that are folders of images: in memory where they fit, else decoded when asked for."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from robustloss.data import decode
from robustloss.data.decode import Recipe, UnreadableImage, header
from robustloss.data.files import DataError, data_root
from robustloss.data.folders.listing import (
    Layout,
    Part,
    find_folder,
    is_archive,
    listed,
    read_layout,
    unpacked,
)
from robustloss.data.folders.survey import Report, Survey, check, size_error, survey
from robustloss.data.images import Dataset, ImageSet, mean_and_std
from robustloss.data.splits import check_fractions, class_prefix, stratified_split
from robustloss.data.streamed import StreamedImages

# Below, every file is read and decoded once at the start: checksum, mean and damaged files are
# those of all bytes. Above, that would take as long as an epoch.
FULL_BYTES = 2 * 10**9
SAMPLE = 20_000  # training images whose pixels give mean and deviation of a larger folder
SHARE_OF_MEMORY = 4  # images are kept in memory up to this part of it
VALIDATION = 5_000

Sizes = dict[str, int | None]  # "train", "validation", "test"


@dataclass(frozen=True)
class FolderOptions:
    """What of a folder is read, and how; as the keys of [data] say it.

    Attributes:
        folder: the folder or tar archive; relative names begin in `near`, then in the data root.
        image_size: side of the square that is cut out; None for images of one size.
        resize: length that the shorter side gets before; None for image_size.
        channels: 1 or 3; None for 3 if there is a colour image among a sample.
        ten_crop: also test on ten crops of each image.
        in_memory: "auto" for what fits.
        near: the folder of the spec.
    """

    folder: str | Path
    image_size: int | None = None
    resize: int | None = None
    channels: int | None = None
    ten_crop: bool = False
    in_memory: Literal["auto"] | bool = "auto"
    near: Path | None = None


def load_folder(
    options: FolderOptions,
    *,
    name: str,
    root: Path | None,
    asked: Sizes,
    fractions: Sequence[float] | None,
    quiet: bool,
) -> Dataset:
    """Load a folder of images as a data set.

    Args:
        options: which folder, and how.
        name: of the data set.
        root: see `data.load_dataset`.
        asked: sizes of the three sets; None for all.
        fractions: share of each class's training images that is kept.
        quiet: no progress bar, no remark on stderr.

    Raises:
        DataError: something is amiss in the folder or in what is asked of it.
    """
    _check_options(options)
    places = [*([options.near] if options.near else []), data_root(root)]
    folder = find_folder(options.folder, places)
    if is_archive(folder):
        folder = unpacked(folder, quiet=quiet)
    elif not folder.is_dir():
        raise DataError(f"data.folder (={options.folder!r}) is neither a folder nor a tar archive.")
    layout = read_layout(folder)
    if fractions is not None:
        check_fractions(fractions, len(layout.class_names), str(folder))
    parts, indices = _cut(layout, asked, fractions)
    recipe = _recipe(layout, options)
    keep = _fits(parts, recipe) if options.in_memory == "auto" else options.in_memory
    found, full = _survey_parts(folder, parts, recipe, keep, quiet)
    counts = found["train"].counts
    mean, std = mean_and_std(counts.tolist(), 255.0)
    size = None if options.image_size is None else (options.image_size,) * 2
    sets = {
        part: ImageSet(
            _images(found[part], folder, parts[part], recipe),
            torch.from_numpy(parts[part].labels.copy()),
            torch.from_numpy(indices[part]),
            255.0,
            size,
        )
        for part in parts
    }
    converted = [path for part in found.values() for path in part.converted]
    if converted and options.channels is None and not quiet:
        Console(stderr=True).print(_conversion(converted, recipe), markup=False, soft_wrap=True)
    text = f"{decode.VERSION} {recipe} {size} {full} {list(layout.class_names)}"
    return Dataset(
        name=name,
        num_classes=len(layout.class_names),
        class_names=layout.class_names,
        mean=mean,
        std=std,
        train=sets["train"],
        validation=sets["validation"],
        test=sets["test"],
        checksum=_checksum(text, ("train", "validation", "test"), found, sets),
        training_checksum=_checksum(text, ("train", "validation"), found, sets),
        summary=_summary(parts, recipe, size, converted),
        converted=tuple(converted),
        ten_crop=options.ten_crop,
    )


def _check_options(options: FolderOptions) -> None:
    size, resize = options.image_size, options.resize
    if options.channels not in (None, 1, 3):
        raise DataError(f"data.channels (={options.channels}) must be 1 or 3.")
    if size is None and resize is not None:
        raise DataError(f"data.resize (={resize}) needs data.image_size, the side that is cut out.")
    if size is not None and resize is not None and resize < size:
        raise DataError(
            f"data.resize (={resize}) must be at least data.image_size (={size}): the square is "
            "cut out of the resized image."
        )
    if options.ten_crop and (size is None or resize is None or resize <= size):
        raise DataError(
            f"data.ten_crop (=true) needs data.resize (={resize}) larger than data.image_size "
            f"(={size}): the ten crops are cut out of the resized image."
        )


def _cut(
    layout: Layout, asked: Sizes, fractions: Sequence[float] | None
) -> tuple[dict[str, Part], dict[str, NDArray[np.int64]]]:
    """The three sets that are asked for, and the positions of their images in their folders."""
    whole = {"train": layout.train, "validation": layout.validation, "test": layout.test}
    places = {part: np.arange(len(p.labels)) for part, p in whole.items() if p is not None}
    if layout.validation is None:
        whole["validation"] = layout.train
        places["validation"], places["train"] = _hold_out(layout)
    parts, indices = {}, {}
    for part, folder_part in whole.items():
        assert folder_part is not None
        chosen = places[part]
        size = asked[part]
        _check_size(part, size, layout, len(chosen))
        if size is not None:
            chosen = chosen[stratified_split(folder_part.labels[chosen], size)[0]]
        if part == "train" and fractions is not None:
            chosen = chosen[class_prefix(folder_part.labels[chosen], fractions)]
        if part == "test":
            chosen = chosen[_in_turn(folder_part.labels[chosen])]
        parts[part], indices[part] = folder_part.pick(chosen), chosen
    return parts, indices


def _in_turn(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order that takes one image of every class, then a second, so that the first show all."""
    order = np.argsort(labels, kind="stable")
    rounds = np.empty(len(labels), np.int64)
    rounds[order] = np.concatenate([np.arange(count) for count in np.bincount(labels)])
    return np.lexsort((labels, rounds))


def _hold_out(layout: Layout) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    labels, classes = layout.train.labels, len(layout.class_names)
    size = min(VALIDATION, max(len(labels) // 10, classes))
    chosen, rest = stratified_split(labels, min(size, len(labels)))
    left = np.bincount(labels[rest], minlength=classes)
    if (left == 0).any():
        bare = [layout.class_names[label] for label in np.flatnonzero(left == 0)]
        raise DataError(
            f"{layout.folder}/train: nothing is left to train {listed(bare)} on when {size} of "
            f"{len(labels)} images are kept for validation. Add images, or a folder validation."
        )
    return chosen, rest


def _check_size(part: str, size: int | None, layout: Layout, largest: int) -> None:
    smallest = len(layout.class_names)
    if size is not None and not smallest <= size <= largest:
        raise DataError(
            f"data.{part}_size (={size}) must be a whole number in [{smallest}, {largest}]: "
            f"{layout.folder} has {smallest} classes and {largest} images in that set. Leave it "
            "out for all of them."
        )


def _recipe(layout: Layout, options: FolderOptions) -> Recipe:
    """What is done to each image, as far as the spec leaves it to a sample of the images."""
    n = len(layout.train.paths)
    sample = layout.train.paths[np.unique(np.linspace(0, n - 1, 200).astype(int))]
    heads = {}
    for path in sample:
        try:
            heads[path] = header(layout.folder / path)
        except UnreadableImage:
            continue  # the survey names all of them
    channels = options.channels or max((own for _, _, own in heads.values()), default=1)
    if options.image_size is not None:
        resize = options.resize or options.image_size
        return Recipe(channels, (resize, resize), resize)
    common = Counter((height, width) for width, height, _ in heads.values()).most_common()
    if len(common) > 1:
        one_each = {(w, h): f"{path} is {w}x{h}" for path, (w, h, _) in heads.items()}
        raise size_error(layout.folder, list(one_each.values()))
    return Recipe(channels, common[0][0] if common else (1, 1), None)


def _fits(parts: dict[str, Part], recipe: Recipe) -> bool:
    """Whether all images take at most a quarter of the memory, a GPU's too where there is one."""
    needed = sum(len(part.labels) for part in parts.values()) * int(np.prod(recipe.shape))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if torch.cuda.is_available():
        memory = min(memory, torch.cuda.get_device_properties(0).total_memory)
    return needed <= memory / SHARE_OF_MEMORY


def _survey_parts(
    folder: Path, parts: dict[str, Part], recipe: Recipe, keep: bool, quiet: bool
) -> tuple[dict[str, Survey], bool]:
    files = [folder / path for part in parts.values() for path in part.paths]
    full = sum(file.stat().st_size for file in files) < FULL_BYTES
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet,
    ) as progress:
        task = progress.add_task(f"Reading {folder.name}", total=len(files))
        return _surveys(
            folder, parts, recipe, keep, full, lambda done: progress.advance(task, done)
        ), full


def _surveys(
    folder: Path, parts: dict[str, Part], recipe: Recipe, keep: bool, full: bool, report: Report
) -> dict[str, Survey]:
    found = {}
    for name, part in parts.items():
        counted = np.full(len(part.labels), name == "train")
        if name == "train" and not full and len(counted) > SAMPLE:
            counted[:] = False
            counted[stratified_split(part.labels, SAMPLE)[0]] = True
        found[name] = survey(
            folder, part, recipe, keep=keep, full=full, counted=counted, report=report
        )
    check(folder, found.values())
    return found


def _images(
    found: Survey, folder: Path, part: Part, recipe: Recipe
) -> torch.Tensor | StreamedImages:
    if found.pixels is None:
        return StreamedImages(folder, part.paths, recipe)
    return torch.from_numpy(found.pixels)


def _checksum(
    text: str, names: tuple[str, ...], found: dict[str, Survey], sets: dict[str, ImageSet]
) -> str:
    digest = hashlib.sha256(f"image folder {text}".encode())
    for name in names:
        digest.update(f"{name} {sets[name].n}".encode())
        digest.update(found[name].digests.tobytes())
        digest.update(sets[name].labels.numpy().astype("<i8").tobytes())
        digest.update(sets[name].index.numpy().astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def _conversion(converted: list[str], recipe: Recipe) -> str:
    kinds = "grey ones among colour ones" if recipe.channels == 3 else "colour ones among grey ones"
    return (
        f"{len(converted)} images were converted to {recipe.channels} channels, {kinds}: "
        f"{listed(converted)}."
    )


def _format(path: str) -> str:
    suffix = path.rpartition(".")[2].upper()
    return {"JPG": "JPEG", "TIF": "TIFF"}.get(suffix, suffix)


def _summary(
    parts: dict[str, Part], recipe: Recipe, size: tuple[int, int] | None, converted: list[str]
) -> str:
    kinds = Counter(_format(path) for part in parts.values() for path in part.paths)
    formats = ", ".join(kind for kind, _ in kinds.most_common())
    pixels = f"{recipe.size[0]}x{recipe.size[1]} pixels"
    if size is not None:
        pixels = f"the center {size[0]}x{size[1]} pixels after the shorter side became "
        pixels += f"{recipe.resize}"
    text = f"read from {formats} files, {pixels}"
    if converted:
        text += f"; {len(converted)} images converted to {recipe.channels} channels"
    return text
