"""Class centers: where they start, and distances to them."""

import math
from typing import Any

import torch
from torch import Tensor

# Most elements of a (b,K,D) temporary, 8 MiB in float32: 1,000 classes in 512 dimensions would
# otherwise take 0.5 GB for a batch of 256. MNIST's 10 classes in 100 dimensions stay one chunk.
MAX_ELEMENTS = 2**21

CENTER_INITS = ("xavier", "normal", "zeros")


def initial_centers(init: str, num_classes: int, feature_dim: int) -> Tensor:
    """Draw (K,D) starting centers from the global random state.

    Args:
        init: "xavier", uniform in ±sqrt(3/D), so centers have norm 1 on average (Caffe's filler,
            which the released code of Wen et al. and of Wan et al. uses); "normal", standard
            normal; or "zeros".
        num_classes: K.
        feature_dim: D.
    """
    centers = torch.zeros(num_classes, feature_dim)
    if init == "xavier":
        bound = math.sqrt(3.0 / feature_dim)
        centers.uniform_(-bound, bound)
    elif init == "normal":
        centers.normal_()
    return centers


def half_squared_distances(
    features: Tensor, centers: Tensor, precision: Tensor | None = None
) -> Tensor:
    """d_bk = ½ Σ_d p_kd (f_bd − mu_kd)², by explicit difference.

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
        rows = _rows_at_once(centers)
        return torch.cat([_distances(part, centers, precision) for part in features.split(rows)])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        features, centers, precision = ctx.saved_tensors
        rows = _rows_at_once(centers)
        parts = [
            _gradients(grad, part, centers, precision, ctx.needs_input_grad)
            for grad, part in zip(grad_outputs[0].split(rows), features.split(rows), strict=True)
        ]
        of_features, of_centers, of_precision = zip(*parts, strict=True)
        return (
            torch.cat(of_features) if ctx.needs_input_grad[0] else None,
            sum(of_centers) if ctx.needs_input_grad[1] else None,
            sum(of_precision) if ctx.needs_input_grad[2] else None,
        )


def _rows_at_once(centers: Tensor) -> int:
    return max(1, MAX_ELEMENTS // centers.numel())


def _distances(features: Tensor, centers: Tensor, precision: Tensor | None) -> Tensor:
    squares = (features.unsqueeze(1) - centers).square_()
    if precision is None:
        return 0.5 * squares.sum(-1)
    return 0.5 * torch.einsum("bkd,kd->bk", squares, precision)


def _gradients(
    grad: Tensor,
    features: Tensor,
    centers: Tensor,
    precision: Tensor | None,
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The chunk's share of the gradients to features, centers and precision."""
    difference = features.unsqueeze(1) - centers
    of_features = of_centers = of_precision = None
    if precision is not None:
        if needed[2]:
            of_precision = 0.5 * torch.einsum("bk,bkd->kd", grad, difference.square())
        difference = difference * precision
    if needed[0]:
        of_features = torch.einsum("bk,bkd->bd", grad, difference)
    if needed[1]:
        of_centers = -torch.einsum("bk,bkd->kd", grad, difference)
    return of_features, of_centers, of_precision
