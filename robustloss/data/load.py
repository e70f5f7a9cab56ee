"""Load the data set that a spec names: read it, cut it into its sets, sum up its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from robustloss.data import splits
from robustloss.data.catalogue import find_source
from robustloss.data.files import data_root
from robustloss.data.images import Dataset, mean_and_std
from robustloss.data.reader import Loaded, Parts, Place
from robustloss.spec.data import DataSpec


def load_dataset(
    data: DataSpec,
    *,
    near: Path | None = None,
    root: Path | None = None,
    download: bool = True,
    quiet: bool = False,
) -> Dataset:
    """Load a data set, check its files, and cut it into its fixed sets.

    The sets never change sides: a size asks for a stratified subset of the fixed set of that name,
    and a smaller subset lies within a larger one.

    Args:
        data: the table [data] of a spec.
        near: the folder of the spec, in which a relative data.folder may lie.
        root: folder that holds MNIST/raw and so on; else ROBUSTLOSS_DATA; else a cache folder.
        download: whether absent files may be fetched.
        quiet: no progress bar, no remark on stderr.

    Raises:
        DataError: unknown name, files absent or damaged, or a choice of images that they do not
            give.
    """
    source = find_source(data)
    if source.class_names:  # known beforehand: judged before any file is looked for
        sizes = source.sizes if data.classes is None else {}  # of some classes: known when read
        splits.check_choice(data, len(source.class_names), sizes, data.name)
    content = source.reader.read(data, Place(data_root(root), near, download, quiet))
    all_names = source.class_names or content.class_names
    parts = splits.cut(content, data, all_names, source.sizes)
    names = all_names if data.classes is None else tuple(all_names[i] for i in data.classes)
    loaded = content.load(parts)
    sets = {name: loaded.image_set(name, part) for name, part in parts.items()}
    mean, std = mean_and_std(loaded.counts, loaded.scale)
    remarks = [loaded.summary]
    if flat := [str(i) for i, each in enumerate(loaded.counts, 1) if (each > 0).sum() == 1]:
        remarks.append(f"channel {', '.join(flat)} has one value in all training images")
    if data.classes is not None:
        remarks.append(f"{len(names)} of {len(all_names)} classes: {', '.join(names)}")
    if data.class_fractions is not None:
        remarks.append(_describe_fractions(data.class_fractions))
    return Dataset(
        name=data.name,
        num_classes=len(names),
        class_names=names,
        mean=mean,
        std=std,
        train=sets["train"],
        validation=sets["validation"],
        test=sets["test"],
        checksum=_checksum(loaded, parts, ("train", "validation", "test")),
        training_checksum=_checksum(loaded, parts, ("train", "validation")),
        label=data.label,
        summary="; ".join(filter(None, remarks)),
        converted=loaded.converted,
        digests=loaded.digests,
        ten_crop=data.ten_crop,
        held_out=sets.get("held_out"),
        files=content.files,
    )


def _describe_fractions(fractions: Sequence[float]) -> str:
    text = ", ".join(f"{fraction:g}" for fraction in fractions)
    if len(set(fractions)) == 1:
        text = f"{fractions[0]:g} of each"
    elif len(fractions) > 20:
        text = f"{min(fractions):g} to {max(fractions):g}"
    return f"training images kept of the classes: {text}"


def _checksum(loaded: Loaded, parts: Parts, names: Sequence[str]) -> str:
    """Sum up all that decides some sets, in 16 hex digits of SHA-256.

    Weights and records are stored under this sum: any change here orphans all stored runs.
    """
    digest = hashlib.sha256(loaded.settings.encode())
    for name in names:
        line, content = loaded.contents[name]
        digest.update(line.encode())
        for piece in content:
            digest.update(piece.tobytes())
        digest.update(parts[name].labels.astype("<i8").tobytes())
        digest.update(parts[name].index.astype("<i8").tobytes())
    return digest.hexdigest()[:16]
