"""Ten crops of every test image: the four corners, the center, and these mirrored.

Krizhevsky et al. 2012, section 4.1: the softmax outputs of the ten crops are averaged.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustloss.data.images import ImageSet, center
from robustloss.metrics.rates import ranks
from robustloss.models.classifier import AnyClassifier

VERSION = 1  # raise when the same weights and images would give other ranks

CROPS = 10


def ten_crops(images: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """Ten crops (..., H, W) of images (..., H', W'), in the order of torchvision's TenCrop."""
    height, width = size
    return [
        crop
        for view in (images, images.flip(-1))
        for crop in (
            view[..., :height, :width],
            view[..., :height, -width:],
            view[..., -height:, :width],
            view[..., -height:, -width:],
            center(view, size),
        )
    ]


@torch.no_grad()
def ten_crop_ranks(model: AnyClassifier, images: ImageSet) -> NDArray[np.int32]:
    """Ranks of the true classes (N,) in the mean of the ten crops' softmax outputs.

    Args:
        model: in eval mode, on the images' device.
        images: larger than what the model sees; read batch by batch.
    """
    found = []
    batch = max(1, images.pass_size // CROPS)
    size = images.shape[1:]
    for start in range(0, images.n, batch):
        piece = slice(start, start + batch)
        whole = images.images[piece]
        crops = torch.cat(ten_crops(whole, size)).float().div_(images.scale)
        logits = model(crops.contiguous(memory_format=torch.channels_last)).double()
        mean = logits.softmax(1).view(CROPS, len(whole), -1).mean(0)
        found.append(ranks(mean.cpu().numpy(), images.labels[piece].cpu().numpy()))
    return np.concatenate(found)
