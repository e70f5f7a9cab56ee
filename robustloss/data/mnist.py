"""The idx files of the MNIST family: find, check, read, download.

torchvision checks only the compressed files, and only while it downloads them: a raw file with a
flipped byte loads without a word. Here every file is checked on every load, and the bytes that
were checked are the bytes that are used, which is why the reader is not torchvision's.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustloss.data.files import DataError, download_progress, fetch_first, md5_of
from robustloss.storage import write_bytes

FILES = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}


@dataclass(frozen=True)
class Family:
    """One data set in torchvision's layout, ROOT/FOLDER/raw/FILE or FILE.gz.

    Attributes:
        folder: name of the folder, which is also the name of torchvision's class.
        md5: of the uncompressed files in the order of FILES; None where none is published. Then a
            .gz is held against torchvision's MD5 of it, and a raw file only against its shape and
            ten classes of equal size.
    """

    folder: str
    md5: tuple[str, str, str, str] | None = None


MNIST = Family(
    "MNIST",
    (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
)
FASHION_MNIST = Family(
    "FashionMNIST",
    (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
)
KMNIST = Family("KMNIST")


def read_family(
    family: Family, root: Path, *, download: bool, quiet: bool
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Read and check the four files, after downloading those that are absent.

    Args:
        family: which data set.
        root: folder that holds FOLDER/raw.
        download: whether absent files may be fetched.
        quiet: no progress bar.

    Returns:
        Training images (60000, 28, 28) and labels (60000,), test images (10000, 28, 28) and labels
        (10000,); read-only.

    Raises:
        DataError: a file is absent and cannot be fetched, or is not what it should be.
    """
    folder = root / family.folder / "raw"
    absent = [name for name in FILES if _locate(folder, name, family) is None]
    if absent:
        reason = _download(family, folder, absent, quiet=quiet) if download else ""
        if reason is not None:
            raise DataError(_absent(family, folder, absent, reason))
    arrays = [_read(folder, name, family) for name in FILES]
    if family.md5 is None:
        for labels in arrays[1::2]:
            _check_counts(labels, family, folder)
    return arrays[0], arrays[1], arrays[2], arrays[3]


def _absent(family: Family, folder: Path, absent: list[str], reason: str) -> str:
    tried = f", and it could not be downloaded ({reason})" if reason else ""
    return (
        f"{folder} lacks {len(absent)} of the 4 files of {family.folder}{tried}. Put "
        f"{', '.join(FILES)} there (or each as .gz), or name the folder that holds "
        f"{family.folder}/raw with --data or ROBUSTLOSS_DATA."
    )


def _locate(folder: Path, name: str, family: Family) -> Path | None:
    raw, compressed = folder / name, folder / f"{name}.gz"
    # Whichever can be checked completely comes first.
    order = (raw, compressed) if family.md5 else (compressed, raw)
    try:
        return next((path for path in order if path.is_file()), None)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}).") from None


def _read(folder: Path, name: str, family: Family) -> NDArray[np.uint8]:
    path = _locate(folder, name, family)
    assert path is not None
    try:
        stored = path.read_bytes()
        content = gzip.decompress(stored) if path.suffix == ".gz" else stored
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}). {_remedy(family)}") from None
    if family.md5:
        _check_md5(path, content, dict(zip(FILES, family.md5, strict=True))[name], family)
    elif path.suffix == ".gz":
        _check_md5(path, stored, dict(_torchvision(family).resources)[path.name], family)
    return _parse(path, content, FILES[name], family)


def _check_md5(path: Path, content: bytes, expected: str, family: Family) -> None:
    found = md5_of(content)
    if found != expected:
        raise DataError(
            f"{path}: MD5 is {found}, expected {expected}: the file is damaged or not "
            f"{family.folder}. {_remedy(family)}"
        )


def _remedy(family: Family) -> str:
    return f"Delete it to have it downloaded anew, or put the original {family.folder} file there."


def _parse(path: Path, content: bytes, shape: tuple[int, ...], family: Family) -> NDArray[np.uint8]:
    """Bytes of one idx file -> read-only array of the shape that the file must have.

    Source: the format of http://yann.lecun.com/exdb/mnist: two zero bytes, type 8 (unsigned byte),
    number of dimensions, each size as a big-endian 32-bit integer, then the values.
    """
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
    if content[: len(header)] != header or len(content) != len(header) + math.prod(shape):
        size = " x ".join(map(str, shape))
        raise DataError(f"{path}: is not an idx file of {size} bytes. {_remedy(family)}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _check_counts(labels: NDArray[np.uint8], family: Family, folder: Path) -> None:
    counts = np.bincount(labels, minlength=10)
    if len(set(counts.tolist())) > 1:
        raise DataError(
            f"{folder}: the labels hold {counts.tolist()} images per class, expected "
            f"{len(labels) // 10} of each of 10: not {family.folder}. Put the original files there."
        )


def _torchvision(family: Family) -> Any:
    # Late, because only a download and a data set without published checksums need it.
    from torchvision import datasets

    return getattr(datasets, family.folder)


def _download(family: Family, folder: Path, names: list[str], *, quiet: bool) -> str | None:
    """Fetch NAME.gz for each name; None when all came, else the reason in a few words."""
    source = _torchvision(family)
    checksums = dict(source.resources)
    with download_progress(quiet) as progress:
        for name in (f"{name}.gz" for name in names):
            task = progress.add_task(f"{family.folder} {name}", total=None)
            urls = [mirror + name for mirror in source.mirrors]
            content, reason = fetch_first(urls, checksums[name], progress, task)
            if content is None:
                return reason
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_bytes(folder / name, content)
            except OSError as error:
                return f"{folder} cannot be written: {error.strerror}"
    return None
