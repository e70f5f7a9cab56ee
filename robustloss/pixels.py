"""Mean and standard deviation of pixels, from exact integer sums."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def mean_and_std(
    counts: Sequence[Sequence[int]], scale: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, in [0, 1].

    Args:
        counts: of each channel, how often each value 0 to 255 occurs; Python's integers, because
            the squared sum over a large data set does not fit in 64 bits.
        scale: the value that becomes 1.
    """
    mean, std = [], []
    for each in counts:
        n = sum(each)
        total = sum(value * count for value, count in enumerate(each))
        squares = sum(value**2 * count for value, count in enumerate(each))
        mean.append(total / n / scale)
        std.append(math.sqrt(squares * n - total**2) / n / scale)
    return tuple(mean), tuple(std)


def value_counts(images: NDArray[np.uint8]) -> list[list[int]]:
    """How often each value 0 to 255 occurs in each channel of images (N, C, H, W)."""
    return [_counts(images[:, channel]) for channel in range(images.shape[1])]


def _counts(pixels: NDArray[np.uint8]) -> list[int]:
    # In pieces, because bincount widens its input to eight bytes a pixel.
    pieces = np.array_split(pixels, max(1, len(pixels) // 1000))
    counts: NDArray[np.int64] = sum(
        (np.bincount(piece.ravel(), minlength=256) for piece in pieces), np.zeros(256, np.int64)
    )
    return counts.tolist()
