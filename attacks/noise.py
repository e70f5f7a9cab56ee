"""Randomness that belongs to an image, not to a batch: a generator keyed by image index."""

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_WORDS_AT_ONCE = 1 << 20  # bounds the int64 temporaries to a few dozen MiB, whatever the image size

Words = tuple[Tensor, Tensor, Tensor, Tensor]


class ImageNoise:
    """Random numbers decided by (seed, image index, draw number) alone.

    The same image gets the same numbers in any batch, in any order and beside any neighbours. Every
    image counts its own draws, and a subset shares the counters of the batch that it came from.

    Args:
        seed: any integer, taken modulo 2^64.
        index: (B,) int64, non-negative: what identifies each image, say its position in the file.

    Source: Philox4x32-10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
        Integers only, so the words are the same bits on every device.
    """

    def __init__(self, seed: int, index: Tensor) -> None:
        self.seed = seed
        self.index = index
        # MPS has no float64 (normal needs it): numbers are then made on the CPU and moved.
        home = index.device if index.device.type in ("cpu", "cuda") else torch.device("cpu")
        self._counters = torch.zeros(len(index), dtype=torch.int64, device=home)
        self._rows = torch.arange(len(index), device=home)

    def __len__(self) -> int:
        return len(self.index)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Return (B, *shape) float32, uniform on [0, 1): multiples of 2^-24."""
        return self._draw(shape, lambda words: (words >> 8).to(torch.float32) * 2.0**-24)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Return (B, *shape) float32, standard normal (Box-Muller in float64, then rounded)."""
        return self._draw(shape, _box_muller)

    def select(self, mask: Tensor) -> "ImageNoise":
        """Follow a subset of the images; its draws count for the whole batch too.

        Args:
            mask: (B,) bool.

        Raises:
            ValueError: the mask is not bool or has another length.
        """
        if mask.dtype != torch.bool or mask.shape != self.index.shape:
            raise ValueError(
                f"mask (={mask.dtype}, shape {tuple(mask.shape)}) must be bool of shape "
                f"({len(self)},): one entry per image."
            )
        subset = ImageNoise(self.seed, self.index[mask.to(self.index.device)])
        subset._counters = self._counters  # shared on purpose: an image never sees a draw twice
        subset._rows = self._rows[mask.to(self._rows.device)]
        return subset

    def restart(self) -> "ImageNoise":
        """Return the same images at draw number 0.

        An attack that draws for one eps after the other starts each eps here; otherwise the result
        at one eps would depend on which others were asked for.
        """
        return ImageNoise(self.seed, self.index)

    def batch_seed(self) -> int:
        """Return one 63-bit number decided by the seed and the indices, to seed what is global."""
        content = f"{self.seed}:{self.index.tolist()}".encode()
        return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1

    def _draw(self, shape: tuple[int, ...], convert: Callable[[Tensor], Tensor]) -> Tensor:
        n = math.prod(shape)
        blocks = -(-n // 4)
        draws = self._counters[self._rows]
        index = self.index.to(draws.device)
        position = torch.arange(blocks, device=draws.device).unsqueeze(0)
        out = torch.empty((len(self), n), dtype=torch.float32, device=draws.device)
        step = max(1, _WORDS_AT_ONCE // max(1, 4 * blocks))
        for start in range(0, len(self), step):
            part = slice(start, start + step)
            # One counter for each four words: place in the draw, draw number, image index.
            image, draw = index[part].unsqueeze(1), draws[part].unsqueeze(1)
            counter = (position, draw & _MASK, image & _MASK, (image >> 32) & _MASK)
            words = philox(counter, (self.seed & _MASK, (self.seed >> 32) & _MASK))
            out[part] = convert(torch.stack(words, dim=-1).flatten(1))[:, :n]
        self._counters[self._rows] = draws + 1
        return out.reshape(len(self), *shape).to(self.index.device)


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Encrypt a counter under a key.

    Args:
        counter: four 32-bit words, each an int64 tensor; they broadcast.
        key: two 32-bit words.

    Returns:
        Four 32-bit words in int64, of the broadcast shape.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1, c2, c3


def _multiply(factor: int, word: Tensor) -> tuple[Tensor, Tensor]:
    # In 16-bit halves, so that no product leaves the positive int64 range.
    upper = factor * (word >> 16)
    lower = factor * (word & 0xFFFF)
    low = (((upper & 0xFFFF) << 16) + lower) & _MASK
    return (upper + (lower >> 16)) >> 16, low


def _box_muller(words: Tensor) -> Tensor:
    # A half is added so that the logarithm never sees 0; four words a block are always two pairs.
    unit = (words.to(torch.float64) + 0.5) * 2.0**-32
    distance = (-2.0 * unit[:, 0::2].log()).sqrt()
    angle = 2.0 * math.pi * unit[:, 1::2]
    pair = torch.stack((distance * angle.cos(), distance * angle.sin()), dim=-1)
    return pair.flatten(1).to(torch.float32)
