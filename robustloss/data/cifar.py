"""CIFAR-10 and CIFAR-100 as published: find, check, read, download.

The files are pickles, and reading a pickle executes what it names. So a file is held against the
published MD5 first, and is then read by an unpickler that can build arrays, text and nothing else.
"""

from __future__ import annotations

import io
import pickle
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustloss.data.files import AbsentError, DataError, download_progress, fetch_first, md5_of
from robustloss.storage import write_bytes

# What an array in a pickle is made of, by the names of numpy 1 and 2.
_ALLOWED = {
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # how Python 3 writes bytes for Python 2
}


@dataclass(frozen=True)
class Cifar:
    """One of the two, in torchvision's layout.

    Attributes:
        torchvision: name of torchvision's class, which holds the published checksums.
        labels: name of the labels in a file.
    """

    torchvision: str
    labels: str


CIFAR10 = Cifar("CIFAR10", "labels")
CIFAR100 = Cifar("CIFAR100", "fine_labels")

Content = dict[str, Any]


def read_cifar(
    cifar: Cifar, root: Path, *, download: bool, quiet: bool
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """Read and check the files: from their folder, else from the archive, else a download.

    Args:
        cifar: which of the two.
        root: holds cifar-10-batches-py (cifar-100-python), or cifar-10-python.tar.gz.
        download: whether an absent archive may be fetched, to root.
        quiet: no progress bar.

    Returns:
        Training images (50000, 3, 32, 32) and labels, test images (10000, 3, 32, 32) and labels.

    Raises:
        DataError: a file is absent and cannot be fetched, or is not what it should be.
    """
    source = _source(cifar)
    train = [name for name, _ in source.train_list]
    test = [name for name, _ in source.test_list]
    files = _files(cifar, root, download, quiet)
    images, labels = zip(
        *(_read(name, files[name], cifar) for name in (*train, *test)), strict=True
    )
    n = len(train)
    return (
        np.concatenate(images[:n]),
        np.concatenate(labels[:n]),
        np.concatenate(images[n:]),
        np.concatenate(labels[n:]),
    )


def _source(cifar: Cifar) -> Any:
    from torchvision import datasets  # late, because only these data sets need it

    return getattr(datasets, cifar.torchvision)


def _checksums(source: Any) -> dict[str, str]:
    return dict((*source.train_list, *source.test_list))


def _files(cifar: Cifar, root: Path, download: bool, quiet: bool) -> dict[str, bytes]:
    """The checked content of every file by name."""
    source = _source(cifar)
    folder, archive = root / source.base_folder, root / source.filename
    names = list(_checksums(source))
    try:
        absent = [name for name in names if not (folder / name).is_file()]
        if absent and not archive.is_file():
            reason = _download(source, archive, quiet) if download else ""
            if reason is not None:
                raise AbsentError(_absent(source, root, absent, reason))
        if absent:
            content = _members(archive, source, names)
        else:
            content = {name: (folder / name).read_bytes() for name in names}
    except OSError as error:
        raise DataError(f"{error.filename or root}: cannot be read ({error.strerror}).") from None
    place = archive if absent else folder
    for name, expected in _checksums(source).items():
        found = md5_of(content[name])
        if found != expected:
            raise DataError(
                f"{place / name}: MD5 is {found}, expected {expected}: the file is damaged or not "
                f"of {cifar.torchvision}. {_remedy(source, root)}"
            )
    return content


def _absent(source: Any, root: Path, absent: list[str], reason: str) -> str:
    tried = f", and it could not be downloaded ({reason})" if reason else ""
    return (
        f"{root / source.base_folder} lacks {', '.join(absent)}, and {root} has no "
        f"{source.filename}{tried}. Put one of the two there, or name the folder that holds it "
        "with --data or ROBUSTLOSS_DATA."
    )


def _remedy(source: Any, root: Path) -> str:
    return f"Delete it and put the original {source.filename} into {root}."


def _members(archive: Path, source: Any, names: list[str]) -> dict[str, bytes]:
    """The files in the archive; nothing is unpacked to disk."""
    content = {}
    try:
        with tarfile.open(archive) as opened:
            for name in names:
                member = opened.extractfile(f"{source.base_folder}/{name}")
                if member is None:
                    raise KeyError(name)
                content[name] = member.read()
    except (tarfile.TarError, EOFError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{archive}: cannot be read ({reason}). {_remedy(source, archive.parent)}"
        ) from None
    return content


def _download(source: Any, archive: Path, quiet: bool) -> str | None:
    """Fetch the archive; None when it came, else the reason in a few words."""
    with download_progress(quiet) as progress:
        task = progress.add_task(source.filename, total=None)
        content, reason = fetch_first([source.url], source.tgz_md5, progress, task)
    if content is None:
        return reason
    try:
        write_bytes(archive, content)
    except OSError as error:
        return f"{archive.parent} cannot be written: {error.strerror}"
    return None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array")
        return super().find_class(module, name)


def restricted_loads(content: bytes) -> Any:
    """Unpickle dicts, lists, text, numbers and arrays, and nothing that could do something.

    Raises:
        pickle.UnpicklingError: the pickle names anything else, or is damaged.
    """
    try:
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # whatever a damaged stream makes the machine do
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from error


def _read(name: str, content: bytes, cifar: Cifar) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 3, 32, 32) and labels (N,) of one file."""
    try:
        batch = restricted_loads(content)
        images = np.asarray(batch["data"])
        labels = np.asarray(batch[cifar.labels], dtype=np.int64)
        if images.dtype != np.uint8 or images.shape != (len(labels), 3 * 32 * 32):
            raise ValueError(f"its images are {images.dtype} {images.shape}")
    except (pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{name} is no file of {cifar.torchvision}: {error}.") from None
    return images.reshape(-1, 3, 32, 32), labels
