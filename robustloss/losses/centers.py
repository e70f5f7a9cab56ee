"""Class centers: where they start, and distances to them.

Shape suffixes: B batch (b of it at once), K classes, D feature dimensions.
"""

import math
from typing import Any

import torch
from torch import Tensor

from robustloss.losses.arguments import check_choice

# Most elements of a (b,K,D) temporary, 8 MiB in float32: 1,000 classes in 512 dimensions would
# otherwise take 0.5 GB for a batch of 256. MNIST's 10 classes in 100 dimensions stay one chunk.
MAX_ELEMENTS = 2**21


def draw_centers(init: str, num_classes: int, feature_dim: int) -> Tensor:
    """Draw (K,D) starting centers from the global random state.

    Args:
        init: "xavier", uniform in ±sqrt(3/D), so centers have norm 1 on average (Caffe's filler,
            which the released code of Wen et al. and of Wan et al. uses); "normal", standard
            normal; or "zeros".
        num_classes: K.
        feature_dim: D.

    Raises:
        ValueError: if init is none of these; the message calls it center_init.
    """
    check_choice("center_init", init, ("xavier", "normal", "zeros"))
    centers = torch.zeros(num_classes, feature_dim)
    if init == "xavier":
        bound = math.sqrt(3.0 / feature_dim)
        centers.uniform_(-bound, bound)
    elif init == "normal":
        centers.normal_()
    return centers


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return the mean features of every class, (K,D), summed in float64.

    Args:
        features: (N,D).
        labels: (N,).
        num_classes: K.

    Raises:
        ValueError: a class has no image.
    """
    means = features.new_empty(num_classes, features.shape[1])
    for label in range(num_classes):
        members = features[labels == label]
        if not len(members):
            raise ValueError(f"class {label} has no training images to take a mean of.")
        means[label] = members.mean(0, dtype=torch.float64)
    return means


def half_squared_distances(
    features: Tensor, centers: Tensor, precision: Tensor | None = None
) -> Tensor:
    """Return d_bk = ½ Σ_d p_kd (f_bd − mu_kd)², by explicit difference.

    The expansion ‖f‖² + ‖mu‖² − 2 f·mu would be cheaper and is wrong near a center: its rounding
    error is that of ‖f‖², not that of the distance.

    Args:
        features: (B,D).
        centers: (K,D).
        precision: (K,D) inverse variances; None stands for ones.

    Returns:
        (B,K), non-negative.
    """
    return _HalfSquaredDistances.apply(features, centers, precision)


class _HalfSquaredDistances(torch.autograd.Function):
    """The formula above with one small temporary, where plain autograd keeps three of (B,K,D).

    The backward is made of differentiable operations on the saved inputs, so it can itself be
    differentiated.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, centers: Tensor, precision: Tensor | None) -> Tensor:
        parts = []
        for part in features.split(_rows_at_once(centers)):
            squares = (part.unsqueeze(1) - centers).square_()
            total = (
                squares.sum(-1)
                if precision is None
                else torch.einsum("bkd,kd->bk", squares, precision)
            )
            parts.append(0.5 * total)
        return torch.cat(parts)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        features, centers, precision = ctx.saved_tensors
        rows = _rows_at_once(centers)
        of_features: list[Tensor] = []
        of_centers = of_precision = None
        for grad, part in zip(grad_outputs[0].split(rows), features.split(rows), strict=True):
            difference = part.unsqueeze(1) - centers
            if ctx.needs_input_grad[2]:
                own = 0.5 * torch.einsum("bk,bkd->kd", grad, difference.square())
                of_precision = own if of_precision is None else of_precision + own
            if precision is not None:
                difference = difference * precision
            if ctx.needs_input_grad[0]:
                of_features.append(torch.einsum("bk,bkd->bd", grad, difference))
            if ctx.needs_input_grad[1]:
                own = -torch.einsum("bk,bkd->kd", grad, difference)
                of_centers = own if of_centers is None else of_centers + own
        return torch.cat(of_features) if of_features else None, of_centers, of_precision


def _rows_at_once(centers: Tensor) -> int:
    return max(1, MAX_ELEMENTS // centers.numel())
