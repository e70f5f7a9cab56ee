"""CIFAR-10 and CIFAR-100 as published: find, check, read, download.

The files are pickles, and reading a pickle executes what it names. So a file is held against the
published MD5 first, and is then read by an unpickler that can build arrays, text and nothing else.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robustloss.data.archives import ArchiveError, iter_members
from robustloss.data.files import AbsentError, DataError, check_md5, download
from robustloss.data.reader import ArrayContent, Content, Part, Place
from robustloss.spec.data import DataSpec

LARGEST = 200 * 2**20  # bytes of a file in the archive; the published ones have up to 155 MB

# What an array in a pickle is made of, by the names of numpy 1 and 2.
_ALLOWED = {
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # how Python 3 writes bytes for Python 2
}


@dataclass(frozen=True)
class CifarReader:
    """Reads one of the two: its folder, else its archive, else a download of the archive.

    Attributes:
        name: of torchvision's class, which holds the published checksums.
        labels: name of the labels in a file.
    """

    name: str
    labels: str

    def read(self, data: DataSpec, place: Place) -> Content:
        """Read and check the files; see `Reader.read`.

        The root holds cifar-10-batches-py (cifar-100-python), or cifar-10-python.tar.gz.
        """
        from torchvision import datasets  # late, because only these data sets need it

        source = getattr(datasets, self.name)
        folder, archive = place.root / source.base_folder, place.root / source.filename
        checksums = dict((*source.train_list, *source.test_list))
        remedy = f"Delete it and put the original {source.filename} into {place.root}."
        tried = ""
        try:
            absent = [name for name in checksums if not (folder / name).is_file()]
            if absent and place.download and not archive.is_file():
                wanted = {source.filename: ([source.url], source.tgz_md5)}
                reason = download(place.root, wanted, title=self.name, quiet=place.quiet)
                tried = f", and it could not be downloaded ({reason})"
            if absent and not archive.is_file():
                raise AbsentError(
                    f"{folder} lacks {', '.join(absent)}, and {place.root} has no "
                    f"{source.filename}{tried}. Put one of the two there, or name the folder that "
                    "holds it with --data or ROBUSTLOSS_DATA."
                )
            if absent:
                contents = _read_archive(archive, source.base_folder, checksums, remedy)
            else:
                contents = {name: (folder / name).read_bytes() for name in checksums}
        except OSError as error:
            path = error.filename or place.root
            raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
        at = archive if absent else folder
        for name, expected in checksums.items():
            check_md5(at / name, contents[name], expected, what=f"of {self.name}", remedy=remedy)
        return ArrayContent(
            where=data.name,
            files=str(archive if absent else folder),
            train=self._part([(name, contents[name]) for name, _ in source.train_list]),
            test=self._part([(name, contents[name]) for name, _ in source.test_list]),
        )

    def _part(self, files: list[tuple[str, bytes]]) -> Part:
        """Join the images of some files, given by name and content."""
        images, labels = [], []
        for name, content in files:
            try:
                batch = restricted_loads(content)
                pixels = np.asarray(batch["data"])
                own = np.asarray(batch[self.labels], dtype=np.int64)
                if pixels.dtype != np.uint8 or pixels.shape != (len(own), 3 * 32 * 32):
                    raise ValueError(f"its images are {pixels.dtype} {pixels.shape}")
            except (pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
                raise DataError(f"{name} is no file of {self.name}: {error}.") from None
            images.append(pixels.reshape(-1, 3, 32, 32))
            labels.append(own)
        return Part.whole(np.concatenate(images), np.concatenate(labels))


CIFAR10 = CifarReader("CIFAR10", "labels")
CIFAR100 = CifarReader("CIFAR100", "fine_labels")


def _read_archive(
    archive: Path, folder: str, names: Iterable[str], remedy: str
) -> dict[str, bytes]:
    """Read files of an archive; nothing is unpacked to disk."""
    wanted = {f"{folder}/{name}": name for name in names}
    contents = {}
    try:
        for member in iter_members(archive):
            if member.name in wanted and member.size <= LARGEST:
                contents[wanted[member.name]] = b"".join(member.pieces)
    except (ArchiveError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{archive}: cannot be read ({reason}). {remedy}") from None
    if absent := [name for name in wanted.values() if name not in contents]:
        raise DataError(f"{archive}: cannot be read (it has no {absent[0]}). {remedy}")
    return contents


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
