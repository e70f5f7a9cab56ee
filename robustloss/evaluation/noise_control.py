"""Noise of the size of an attack: what a detector says of a change that aims at nothing.

A detector that rejects the noise as readily as the attack has noticed that pixels changed, not that
somebody chose the change.
"""

import torch
from torch import Tensor

from robustloss.attacks.ball import distance
from robustloss.attacks.base import Norm
from robustloss.attacks.noise import ImageNoise
from robustloss.data.images import ImageSet
from robustloss.evaluation.passes import Columns, add_outputs
from robustloss.models.classifier import AnyClassifier
from robustloss.results.records import Record

VERSION = 1  # raise when the same weights and attack would give other noise
_STEPS = 40  # of a bisection: float32 has no more to find


def noise_record(
    model: AnyClassifier, images: ImageSet, attacked: Record, norm: Norm, seed: int
) -> Record:
    """Return the Record of images under noise, on each image as large as the attack was on it.

    Args:
        model: In eval mode, on the device of the images.
        images: The N images that were attacked, in the same order.
        attacked: Their Record after the attack, with the size of its change in the norm.
        norm: Of the attack, and so of the noise.
        seed: Decides the noise, together with each image's index.

    Returns:
        A Record without pictures. Images that the attack did not change are not changed here.

    Source: Feinman et al. 2017 and Lee et al. 2018 set noisy images beside clean and attacked ones;
    here the size is equal for each image, where they tune one for all.
    """
    sizes = torch.from_numpy(attacked.arrays[norm])
    columns = Columns(images.n)
    for piece in images.passes():
        clean, noise = images.batch(piece), ImageNoise(seed, images.index[piece])
        noisy = add_noise(clean, sizes[piece].to(clean), noise, norm)
        add_outputs(columns, model, noisy, clean, norm=norm, pictures=False)
    return columns.make_record(images)


def add_noise(clean: Tensor, sizes: Tensor, noise: ImageNoise, norm: Norm) -> Tensor:
    """Add noise of a given size to images, inside [0, 1].

    L-inf: a random sign for each pixel, times the size. L2 and L1: a normal direction, so long that
    the change has the size after the box cut it. It is smaller only where the box is too small.

    Args:
        clean: (B,C,H,W) in [0, 1].
        sizes: (B,) in pixel units of the norm.
        noise: Of these images.
        norm: Of the sizes.

    Returns:
        (B,C,H,W); bit-equal where the size is 0.
    """
    direction = noise.normal(tuple(clean.shape[1:])).to(clean)
    if norm == "linf":
        return (clean + _each(sizes) * direction.sign()).clamp(0, 1)
    # Find by bisection how long the direction must be. First double the upper end until the change
    # is large enough everywhere, or so long that the box must be full.
    low, high = torch.zeros_like(sizes), torch.ones_like(sizes)
    for _ in range(_STEPS):
        short = _length(clean, high, direction, norm) < sizes
        if not bool(short.any()) or float(high.max()) > 1e6:
            break
        high = torch.where(short, 2 * high, high)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        short = _length(clean, middle, direction, norm) < sizes
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    moved = (clean + _each(high) * direction).clamp(0, 1)
    return torch.where(_each(sizes) > 0, moved, clean)


def _length(clean: Tensor, factor: Tensor, direction: Tensor, norm: Norm) -> Tensor:
    moved = (clean + _each(factor) * direction).clamp(0, 1)
    return distance(moved - clean, norm)


def _each(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1, 1)
