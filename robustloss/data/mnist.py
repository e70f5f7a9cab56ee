"""The idx files of the MNIST family: find, check, read, download.

torchvision checks only the compressed files, and only while it downloads them: a raw file with a
flipped byte loads without a word. Here every file is checked on every load, and the bytes that
were checked are the bytes that are used, which is why the reader is not torchvision's.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robustloss.data.files import AbsentError, DataError, check_md5, download
from robustloss.data.reader import ArrayContent, Content, Part, Place
from robustloss.spec.data import DataSpec

FILES = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}
_LARGEST = max(map(math.prod, FILES.values())) + 16  # bytes of a file, packed or not


@dataclass(frozen=True)
class IdxReader:
    """Reads one data set in torchvision's layout, ROOT/FOLDER/raw/FILE or FILE.gz.

    Attributes:
        folder: name of the folder, which is also the name of torchvision's class.
        md5: of the uncompressed files in the order of FILES; None where none is published. Then a
            .gz is held against torchvision's MD5 of it, and a raw file only against its shape and
            ten classes of equal size.
    """

    folder: str
    md5: tuple[str, str, str, str] | None = None

    def read(self, data: DataSpec, place: Place) -> Content:
        """Read and check the four files, after a download of those that are absent.

        See `Reader.read`.
        """
        folder = place.root / self.folder / "raw"
        absent = [name for name in FILES if self._locate(folder, name) is None]
        tried = ""
        if absent and place.download:
            source = self._torchvision()
            wanted = {
                name: ([mirror + name for mirror in source.mirrors], md5)
                for name, md5 in source.resources
                if name.removesuffix(".gz") in absent
            }
            reason = download(folder, wanted, title=self.folder, quiet=place.quiet)
            tried = f", and it could not be downloaded ({reason})"
            absent = absent if reason else []
        if absent:
            raise AbsentError(
                f"{folder} lacks {len(absent)} of the 4 files of {self.folder}{tried}. Put "
                f"{', '.join(FILES)} there (or each as .gz), or name the folder that holds "
                f"{self.folder}/raw with --data or ROBUSTLOSS_DATA."
            )
        images, labels, test_images, test_labels = (self._read(folder, name) for name in FILES)
        if self.md5 is None:
            for own in (labels, test_labels):
                counts = np.bincount(own, minlength=10).tolist()
                if len(set(counts)) > 1:
                    raise DataError(
                        f"{folder}: the labels hold {counts} images per class, expected "
                        f"{len(own) // 10} of each of 10: not {self.folder}. Put the original "
                        "files there."
                    )
        return ArrayContent(
            where=data.name,
            files=str(folder),
            train=Part.whole(images, labels),
            test=Part.whole(test_images, test_labels),
        )

    def _locate(self, folder: Path, name: str) -> Path | None:
        raw, compressed = folder / name, folder / f"{name}.gz"
        # Whichever can be checked completely comes first.
        order = (raw, compressed) if self.md5 else (compressed, raw)
        try:
            return next((path for path in order if path.is_file()), None)
        except OSError as error:
            raise DataError(f"{folder}: cannot be read ({error.strerror}).") from None

    def _read(self, folder: Path, name: str) -> NDArray[np.uint8]:
        """Read one file as a read-only array of the shape that it must have."""
        path = self._locate(folder, name)
        assert path is not None
        remedy = (
            f"Delete it to have it downloaded anew, or put the original {self.folder} file there."
        )
        try:
            # A byte more than there should be tells a longer file, and a .gz its own checksum.
            with path.open("rb") as file:
                stored = file.read(_LARGEST + 1)
            content = stored
            if path.suffix == ".gz":
                with gzip.GzipFile(fileobj=io.BytesIO(stored)) as packed:
                    content = packed.read(_LARGEST + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: cannot be read ({error}). {remedy}") from None
        if self.md5:
            expected = dict(zip(FILES, self.md5, strict=True))[name]
            check_md5(path, content, expected, what=self.folder, remedy=remedy)
        elif path.suffix == ".gz":
            expected = dict(self._torchvision().resources)[path.name]
            check_md5(path, stored, expected, what=self.folder, remedy=remedy)
        # The format of http://yann.lecun.com/exdb/mnist: two zero bytes, type 8 (unsigned byte),
        # number of dimensions, each size as a big-endian 32-bit integer, then the values.
        shape = FILES[name]
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
        if content[: len(header)] != header or len(content) != len(header) + math.prod(shape):
            size = " x ".join(map(str, shape))
            raise DataError(f"{path}: is not an idx file of {size} bytes. {remedy}")
        return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)

    def _torchvision(self) -> Any:
        # Late, because only a download and a data set without published checksums need it.
        from torchvision import datasets

        return getattr(datasets, self.folder)


MNIST = IdxReader(
    "MNIST",
    (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
)
FASHION_MNIST = IdxReader(
    "FashionMNIST",
    (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
)
KMNIST = IdxReader("KMNIST")
