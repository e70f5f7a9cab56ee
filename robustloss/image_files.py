"""Images as one file, written batch by batch and read in pieces: all of them may not fit in memory.

The file is that of `numpy.save`, float32 (N,C,H,W), and ends with the sha256 of every byte before.
`numpy.load` reads it too.
"""

import hashlib
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from robustloss.run_files import opening
from robustloss.storage import CorruptFile, replacing

PIECE = 500  # images that are read at once
_SEAL = 64  # hexadecimal digits of sha256
HEAD = 1024  # bytes: header and digest of any such file have fewer together
_DTYPE = np.dtype("<f4")
_CHUNK = 2**20

Shape = tuple[int, int, int, int]


class ImageWriter:
    """Takes the images of a file in their order; see `writing_images`.

    Args:
        file: open and empty.
        shape: (N,C,H,W) of all images.
    """

    def __init__(self, file: BinaryIO, shape: Shape) -> None:
        self._file, self._shape = file, shape
        self._sha256 = hashlib.sha256()
        self._missing = shape[0]
        header = io.BytesIO()
        facts = {"descr": _DTYPE.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, facts)
        self._put(header.getvalue())

    @property
    def missing(self) -> int:
        """Images that are still to come."""
        return self._missing

    def write(self, images: np.ndarray) -> None:
        """Append images.

        Args:
            images: (B,C,H,W) float32, of which as many are taken as are missing.
        """
        images = images[: self._missing]
        if images.shape[1:] != self._shape[1:] or images.dtype != np.float32:
            raise ValueError(
                f"images (={images.dtype}, {images.shape}) must be float32 of {self._shape[1:]}."
            )
        self._missing -= len(images)
        self._put(np.ascontiguousarray(images, _DTYPE).tobytes())

    def seal(self) -> None:
        """Write the digest; all images must have come."""
        if self._missing:
            raise ValueError(f"images: {self._missing} of {self._shape[0]} were not written.")
        self._file.write(self._sha256.hexdigest().encode())

    def _put(self, data: bytes) -> None:
        self._sha256.update(data)
        self._file.write(data)


@contextmanager
def writing_images(path: str | Path, shape: Shape) -> Iterator[ImageWriter]:
    """Write a file of images while the block runs; it is there once all of them are written.

    Args:
        path: the file.
        shape: (N,C,H,W) of all images.

    Raises:
        OSError: as `storage.write_bytes`. ValueError: other images, or fewer, were written.
    """
    with replacing(path) as file:
        writer = ImageWriter(file, shape)
        yield writer
        writer.seal()


@dataclass(frozen=True)
class ImageFile:
    """A file of images, of which nothing is in memory.

    Attributes:
        path: the file.
        shape: (N,C,H,W).
        offset: bytes before the first image.
    """

    path: Path
    shape: Shape
    offset: int

    @property
    def n(self) -> int:
        """Number of images."""
        return self.shape[0]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return images start to stop, (B,C,H,W) float32.

        Raises:
            CorruptFile: the file is no longer there, or no longer whole.
        """
        start, stop = min(start, self.n), min(stop, self.n)
        each = math.prod(self.shape[1:]) * _DTYPE.itemsize
        data = bytearray((stop - start) * each)
        try:
            with opening(self.path) as file:
                file.seek(self.offset + start * each)
                if file.readinto(data) < len(data):
                    raise CorruptFile(f"{self.path} is truncated.")
        except OSError as error:
            raise CorruptFile(f"{self.path} cannot be read ({error.strerror}).") from error
        return np.frombuffer(data, _DTYPE).reshape(stop - start, *self.shape[1:])

    def pieces(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield positions and images, `PIECE` at a time."""
        for start in range(0, self.n, PIECE):
            stop = min(start + PIECE, self.n)
            yield slice(start, stop), self.read(start, stop)


def open_images(path: str | Path) -> ImageFile:
    """Open a file of images after a look at its header and its size.

    Raises:
        CorruptFile: missing, truncated, or something else.
    """
    path = Path(path)
    try:
        with opening(path) as file:
            head = io.BytesIO(file.read(HEAD))
            size = file.seek(0, io.SEEK_END)
        if np.lib.format.read_magic(head) != (1, 0):
            raise ValueError("an array of another version")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
        if fortran or dtype != _DTYPE or len(shape) != 4 or min(shape) < 1:
            raise ValueError(f"{dtype} of shape {shape}")
        if math.prod(shape) * dtype.itemsize + head.tell() + _SEAL != size:
            raise ValueError(f"shape {shape} in {size} bytes")
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read ({error.strerror}).") from error
    except Exception as error:  # whatever a damaged header makes the reader do
        text = " ".join(str(error).split()) or type(error).__name__
        raise CorruptFile(f"{path} is no file of kept images ({text}).") from error
    return ImageFile(path, shape, head.tell())


def check_images(path: str | Path) -> ImageFile:
    """Open a file of images after a look at every byte of it.

    Raises:
        CorruptFile: as `open_images`, or one byte was altered.
    """
    found, sha256 = open_images(path), hashlib.sha256()
    try:
        with opening(path) as file:
            left = file.seek(0, io.SEEK_END) - _SEAL
            file.seek(0)
            while left > 0:
                piece = file.read(min(_CHUNK, left))
                left -= len(piece) or left
                sha256.update(piece)
            stated = file.read()
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read ({error.strerror}).") from error
    if stated != sha256.hexdigest().encode():
        raise CorruptFile(f"{path} is truncated or altered: its sha256 does not fit.")
    return found
