"""Images that stay in files and are read when they are asked for.

A `StreamedImages` takes the place of the tensor (N, C, H, W) in an `ImageSet`. Indexing it gives
such a tensor, read by threads, on the device that `to` named. Where the images come from is a
`Source`: files that are decoded, or pixels that were written to a file because they do not fit in
memory.
"""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustloss.data.decode import CHUNK, Recipe, decode_files, pool
from robustloss.data.files import DataError, cache_folder

AHEAD = 2  # batches that are decoded while another one is computed on

Selection = Tensor | slice


class Source(Protocol):
    """Images by number, of one shape and type."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of a pixel."""

    def __len__(self) -> int: ...

    def read(self, positions: NDArray[np.int64], into: NDArray[Any]) -> None:
        """Fill `into` (B, C, H, W) with the images at some positions (B,)."""


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files, which are decoded.

    Attributes:
        folder: what the paths are relative to.
        paths: (N,) text.
        recipe: what is done to each.
    """

    folder: Path
    paths: NDArray[np.object_]
    recipe: Recipe
    dtype: torch.dtype = torch.uint8

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.recipe.shape

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, positions: NDArray[np.int64], into: NDArray[Any]) -> None:
        """Decode the files at some positions; see `Source.read`."""
        paths = [self.folder / path for path in self.paths[positions]]
        decode_files(paths, self.recipe, into)


class PixelFile:
    """Pixels in a file of the cache folder, for images that do not fit in memory.

    The file has no name: it is gone when the process ends, however that ends.

    Args:
        shape: (C, H, W).
        dtype: of a pixel.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype = torch.uint8) -> None:
        channels, height, width = shape
        self.shape, self.dtype = (channels, height, width), dtype
        self._kind = torch.empty(0, dtype=dtype).numpy().dtype
        self._bytes = channels * height * width * self._kind.itemsize  # of an image
        self._n = 0
        self._lock = Lock()
        self._file = _open_temporary()
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self._n

    def append(self, images: NDArray[Any]) -> None:
        """Write images (B, C, H, W) behind those that are there.

        Raises:
            DataError: there is no room for them.
        """
        left = np.ascontiguousarray(images, self._kind).data.cast("B")
        self._n += len(images)
        try:
            with self._lock:
                self._file.seek(0, 2)
                while len(left):
                    left = left[self._file.write(left) :]
        except OSError as error:
            raise _no_room(error) from None

    def read(self, positions: NDArray[np.int64], into: NDArray[Any]) -> None:
        """Read the images at some positions; see `Source.read`."""
        rows = into.reshape(len(positions), -1).view(np.uint8)
        for row, position in zip(rows, positions.tolist(), strict=True):
            at = position * self._bytes
            if hasattr(os, "preadv"):  # forked processes have one place in the file in common
                os.preadv(self._file.fileno(), [row.data], at)
                continue
            with self._lock:
                self._file.seek(at)
                self._file.readinto(row.data)


def make_array(shape: Sequence[int], dtype: Any, *, in_memory: bool) -> NDArray[Any]:
    """Return an array to be filled.

    Args:
        shape: of the array.
        dtype: of numpy.
        in_memory: False: it lies in a file without a name in the cache folder.

    Raises:
        DataError: there is no room for the file.
    """
    if in_memory:
        return np.empty(shape, dtype)
    file = _open_temporary()
    try:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if hasattr(os, "posix_fallocate"):  # else a full disk would end the process later
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
        return np.memmap(file, dtype, "w+", shape=tuple(shape))
    except OSError as error:
        raise _no_room(error) from None
    finally:
        file.close()  # the array keeps what it needs


def _open_temporary() -> Any:
    """Return a new file without a name in the cache folder, unbuffered."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder, buffering=0)
    except OSError as error:
        raise _no_room(error) from None


def _no_room(error: OSError) -> DataError:
    return DataError(
        f"the images do not fit in memory and cannot be written to {cache_folder()} "
        f"({error.strerror}). Set XDG_CACHE_HOME to a folder with room, or take fewer images."
    )


class StreamedImages:
    """Images of a source as if they were one tensor (N, C, H, W).

    Iterating gives arrays of some images each, in their order.

    Args:
        source: where they come from.
        positions: (N,) which images of the source; None for all.
        device: where batches come out.
    """

    ndim = 4

    def __init__(
        self,
        source: Source,
        positions: NDArray[np.int64] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.source = source
        self.positions = np.arange(len(source)) if positions is None else positions
        self.dtype, self.device = source.dtype, torch.device(device)
        self._pending: OrderedDict[bytes, tuple[Tensor, list[Future[None]]]] = OrderedDict()

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self.positions), *self.source.shape))

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for start in range(0, len(self), 1000):
            some = self.positions[start : start + 1000]
            into = torch.empty((len(some), *self.source.shape), dtype=self.dtype).numpy()
            self.source.read(some, into)
            yield into

    def to(self, device: torch.device | str) -> StreamedImages:
        """Return the same images for another device."""
        return StreamedImages(self.source, self.positions, device)

    def subset(self, selection: Selection) -> StreamedImages:
        """Return the images at the positions, without reading any."""
        chosen = self.positions[self._positions(selection)]
        return StreamedImages(self.source, chosen, self.device)

    def __getitem__(self, selection: Selection) -> Tensor:
        """Read the images at the positions.

        After a slice, reading of the next slice of the same length begins too: it is likely to be
        the next batch.

        Raises:
            ValueError: a file cannot be decoded; the text names it.
        """
        positions = self._positions(selection)
        key = positions.tobytes()
        begun = self._pending.pop(key) if key in self._pending else self._start(positions)
        images, futures = begun
        if isinstance(selection, slice) and 0 < len(positions) < len(self):
            stop = int(positions[-1]) + 1
            self.prefetch(slice(stop, stop + len(positions)))
        for future in futures:
            future.result()
        return images.to(self.device, non_blocking=True)

    def prefetch(self, selection: Selection) -> None:
        """Begin to read a batch that will be asked for soon."""
        positions = self._positions(selection)
        key = positions.tobytes()
        if not len(positions) or key in self._pending:
            return
        while len(self._pending) >= AHEAD:  # never asked for: the reader went elsewhere
            _, (_, futures) = self._pending.popitem(last=False)
            for future in futures:
                future.cancel()
        self._pending[key] = self._start(positions)

    def _positions(self, selection: Selection) -> NDArray[np.int64]:
        if isinstance(selection, slice):
            return np.arange(*selection.indices(len(self)))
        positions = selection.cpu().numpy()
        return np.flatnonzero(positions) if positions.dtype == np.bool_ else positions

    def _start(self, positions: NDArray[np.int64]) -> tuple[Tensor, list[Future[None]]]:
        shape = (len(positions), *self.source.shape)
        images = torch.empty(shape, dtype=self.dtype, pin_memory=self.device.type == "cuda")
        array = images.numpy()
        futures = []
        for start in range(0, len(positions), CHUNK):
            piece = slice(start, start + CHUNK)
            chosen = self.positions[positions[piece]]
            futures.append(pool().submit(self.source.read, chosen, array[piece]))
        return images, futures


def iter_positions(
    batches: Iterable[Tensor],
    images: Tensor | StreamedImages,
    own: Callable[[Tensor], Tensor] = lambda positions: positions,
) -> Iterator[Tensor]:
    """Yield the positions of each batch on the device of the images.

    Of streamed images, the next batches are decoded ahead meanwhile.

    Args:
        batches: positions (B,) on the CPU.
        images: what the positions will index.
        own: returns those positions of a batch whose images are asked for in this process.
    """
    if isinstance(images, Tensor) and images.device.type == "cuda":
        # All at once: each small copy from the host would make the host wait.
        if epoch := list(batches):
            yield from torch.stack(epoch).to(images.device)
        return
    if isinstance(images, Tensor):
        for positions in batches:
            yield positions.to(images.device)
        return
    waiting: list[Tensor] = []
    for positions in batches:
        images.prefetch(own(positions))
        waiting.append(positions)
        if len(waiting) == AHEAD:
            yield waiting.pop(0)
    yield from waiting
