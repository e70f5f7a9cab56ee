"""Images that stay in their files and are decoded when they are asked for.

A `StreamedImages` takes the place of the uint8 tensor (N, C, H, W) in an `ImageSet`. Indexing it
gives such a tensor, decoded by threads, on the device that `to` named.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustloss.data.decode import CHUNK, Recipe, decode_files, pool

AHEAD = 2  # batches that are decoded while another one is computed on

Selection = Tensor | slice


class StreamedImages:
    """Image files as if they were one uint8 tensor (N, C, H, W).

    Args:
        folder: what the paths are relative to.
        paths: (N,) text.
        recipe: what is done to each.
        device: where batches come out.
    """

    dtype = torch.uint8
    ndim = 4

    def __init__(
        self,
        folder: Path,
        paths: NDArray[np.object_],
        recipe: Recipe,
        device: torch.device | str = "cpu",
    ) -> None:
        self.folder, self.paths, self.recipe = folder, paths, recipe
        self.device = torch.device(device)
        self._pending: OrderedDict[bytes, tuple[Tensor, list[Future[None]]]] = OrderedDict()

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self.paths), *self.recipe.shape))

    def __len__(self) -> int:
        return len(self.paths)

    def to(self, device: torch.device | str) -> StreamedImages:
        """Return the same images for another device."""
        return StreamedImages(self.folder, self.paths, self.recipe, device)

    def subset(self, selection: Selection) -> StreamedImages:
        """Return the images at the positions, without decoding any."""
        paths = self.paths[self._positions(selection)]
        return StreamedImages(self.folder, paths, self.recipe, self.device)

    def __getitem__(self, selection: Selection) -> Tensor:
        """Decode the images at the positions.

        After a slice, decoding of the next slice of the same length begins too: it is likely to be
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
        """Begin to decode a batch that will be asked for soon."""
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
        shape = (len(positions), *self.recipe.shape)
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        array = images.numpy()
        futures = []
        for start in range(0, len(positions), CHUNK):
            piece = slice(start, start + CHUNK)
            paths = [self.folder / path for path in self.paths[positions[piece]]]
            futures.append(pool().submit(decode_files, paths, self.recipe, array[piece]))
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
