"""Ten crops of every test image: the four corners, the center, and these mirrored.

Krizhevsky et al. 2012, section 4.1: the softmax outputs of the ten crops are averaged.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustloss.data.images import ImageSet, center
from robustloss.evaluation.passes import LAYOUT, to_numpy
from robustloss.metrics.rates import ranks
from robustloss.models.classifier import AnyClassifier

VERSION = 1  # raise when the same weights and images would give other ranks

CROPS = 10


def ten_crops(images: Tensor, size: tuple[int, int]) -> list[Tensor]:
    """Return ten crops (..., H, W) of images (..., H', W'), in the order of torchvision's TenCrop.

    Args:
        images: At least as large as the crops.
        size: (H, W).
    """
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
    """Return the ranks of the true classes (N,) in the mean of the ten crops' softmax outputs.

    Args:
        model: In eval mode, on the images' device.
        images: N images, larger than what the model sees; read batch by batch.
    """
    parts = []
    for piece in images.passes(views=CROPS):
        whole = images.images[piece]  # larger than `images.batch` gives them
        crops = torch.cat(ten_crops(whole, images.shape[1:])).float().div_(images.scale)
        logits = model(crops.contiguous(memory_format=LAYOUT)).double()
        mean = logits.softmax(1).view(CROPS, len(whole), -1).mean(0)
        parts.append(ranks(to_numpy(mean), to_numpy(images.labels[piece])))
    return np.concatenate(parts)
