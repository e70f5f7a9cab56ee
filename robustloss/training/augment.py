"""Augmentation of training images: shift, crop, flip, cut-out, on the device.

Shape suffixes: B batch, C channels, H height, W width.
"""

import torch
from torch import Tensor

from robustloss.data.images import center
from robustloss.seeding import new_generator

PAD = 4  # pixels, the usual border for random crops
SHIFT = 2  # pixels


def augment(
    images: Tensor,
    kind: str,
    *names: str | int,
    size: tuple[int, int] | None = None,
    of: tuple[int, int] | None = None,
) -> Tensor:
    """Return randomly moved copies of images (B,C,H,W), padded with zeros.

    Args:
        images: (B,C,H,W), any dtype, on any device.
        kind: "none", "shift" (up to 2 pixels), "crop" (pad 4, crop), "crop_flip" or
            "crop_flip_cutout" (then a square of half the image's side, its center anywhere in the
            image, is set to zero). From images larger than the size, crops are cut at a random
            place without a border.
        names: Name of the random stream; it alone decides the moves.
        size: (H,W) to cut out; the center where the kind is no crop. None: that of the images.
        of: Position of the first of these images in a batch, and the number of images in that
            batch: each image moves as it would in the whole batch. None: these are all.

    Source: of the square, DeVries and Taylor, "Improved regularization of convolutional neural
        networks with cutout" (arXiv 1708.04552, 2017), with their size for CIFAR-10; they fill it
        after the colours were centred.
    """
    if kind in ("none", "shift"):
        images, size = center(images, size), None
    if kind == "none":
        return images
    rng, device = new_generator("augment", *names), images.device
    count, _, height, width = images.shape
    first, total = of or (0, count)  # the whole batch is drawn, so that any share of it fits
    own = slice(first, first + count)
    if size is None or size == (height, width):
        reach = SHIFT if kind == "shift" else PAD
        images = torch.nn.functional.pad(images, (reach,) * 4)
        moves = torch.randint(0, 2 * reach + 1, (total, 2), generator=rng)[own].to(device)
    else:
        free = torch.tensor([height - size[0] + 1, width - size[1] + 1])
        moves = (torch.rand(total, 2, generator=rng, dtype=torch.float64) * free).long()
        moves = moves[own].to(device)
        height, width = size
    rows = moves[:, :1] + torch.arange(height, device=device)
    columns = moves[:, 1:] + torch.arange(width, device=device)
    if kind in ("crop_flip", "crop_flip_cutout"):
        flips = torch.rand(total, generator=rng)[own].to(device) < 0.5
        columns = torch.where(flips[:, None], columns.flip(1), columns)
    each = torch.arange(count, device=device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
    if kind == "crop_flip_cutout":
        places = torch.rand(total, 2, generator=rng)[own].to(device)
        moved = moved * ~_squares(places, height, width)[..., None]
    return moved.permute(0, 3, 1, 2)


def _squares(places: Tensor, height: int, width: int) -> Tensor:
    """Return (B,H,W) bool, squares around places (B,2) in [0,1), cut off at the border."""
    side = min(height, width) // 2
    starts = (places * torch.tensor([height, width], device=places.device)).long() - side // 2
    inside = []
    for start, length in zip(starts.unbind(1), (height, width), strict=True):
        at = torch.arange(length, device=places.device) - start[:, None]
        inside.append((at >= 0) & (at < side))
    return inside[0][:, :, None] & inside[1][:, None, :]
