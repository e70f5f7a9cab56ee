"""Two convolutions without a non-linearity between them, computed as one.

Convolving is linear and associative: a kernel of k x k and then one of 3 x 3 are one kernel of
(k+2) x (k+2). Where the images have few channels and the layer between has many, it costs a small
part of the two. At the edge it is not the same, because the second convolution pads the output of
the first with zeros: what its taps outside would add is taken off again.

Shape suffixes: B batch, C channels of the images, O channels out, k side of the first kernel, K of
both together, X = C K K numbers that a place sees, P = H W places, R of them at the edge, S sorts
of these, T = 9 taps of the second kernel, M channels between.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def convolve_as_one(images: Tensor, first: nn.Conv2d, second: nn.Conv2d) -> Tensor:
    """Return second(first(images)), equal up to rounding.

    Args:
        images: (B,C,H,W).
        first: A square kernel, stride 1, no padding, with a bias.
        second: Kernel 3, stride 1, padding 1, with a bias.

    Returns:
        (B,O,H-k+1,W-k+1), channels last in memory.
    """
    assert first.bias is not None
    assert second.bias is not None
    (channels, high, wide), side = images.shape[1:], first.kernel_size[0] + 2
    edge = _edge(high - side + 3, wide - side + 3, channels, side, images.dtype, images.device)
    # What each tap of the second kernel makes of the first kernel and of its bias; then sums of
    # taps, at their places: of all, and of those outside.
    taps_OMT = second.weight.flatten(2)
    of_taps = torch.einsum("omt,mcx->octx", taps_OMT, first.weight.flatten(2))
    kernels = (of_taps.flatten(2).flatten(0, 1) @ edge.placed).unflatten(1, (-1, channels))
    biases_SO = edge.counted @ torch.einsum("omt,m->to", taps_OMT, first.bias)
    kernel_OCKK = kernels[0].unflatten(2, (side, side))
    kernels_SXO = kernels[1:].flatten(2).transpose(1, 2)
    # index_select, because indexing with [] takes several times as long, forward and backward.
    pixels = F.pad(images, (1, 1, 1, 1)).flatten(1)
    seen_BRX = pixels.index_select(1, edge.seen.flatten()).unflatten(1, edge.seen.shape)
    excess_RBO = torch.baddbmm(
        biases_SO[1:].index_select(0, edge.sort)[:, None],
        seen_BRX.transpose(0, 1),
        kernels_SXO.index_select(0, edge.sort),
    )
    excess_BRO = excess_RBO.transpose(0, 1)
    bias_O = second.bias + biases_SO[0]
    whole: Tensor = _Convolution.apply(images, kernel_OCKK, bias_O, excess_BRO, edge.places)
    return whole


class _Edge(NamedTuple):
    """The outermost places of an output, and which taps of the second kernel count there."""

    places: Tensor  # (R,) numbers in a flattened output
    sort: Tensor  # (R,) which of the eight sorts: four sides, four corners
    seen: Tensor  # (R,X) numbers of the pixels that a place sees, in flattened images padded by 1
    counted: Tensor  # (1+S,T) 1 where a tap counts, else 0: first all do, then those outside
    placed: Tensor  # (1+S,T k k,K K) the same, where each tap puts each pixel of the first kernel


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # a first call in that mode would leave tensors that cannot be saved
def _edge(
    high: int, wide: int, channels: int, side: int, dtype: torch.dtype, device: torch.device
) -> _Edge:
    """Return the edge of an output of high x wide, from images of so many channels."""
    places = torch.arange(high * wide, device=device)
    taps = torch.arange(-1, 2, device=device)
    rows, columns = (places // wide)[:, None] + taps, (places % wide)[:, None] + taps
    above, beside = (rows < 0) | (rows >= high), (columns < 0) | (columns >= wide)
    outside = (above[:, :, None] | beside[:, None, :]).flatten(1)
    places = places[outside.any(1)]
    sorts, sort_R = torch.unique(outside[places], dim=0, return_inverse=True)
    padded = (channels, high + side - 1, wide + side - 1)
    pixels = torch.arange(math.prod(padded), device=device).view(padded)
    corners = places // wide * padded[2] + places % wide
    seen_RX = corners[:, None] + pixels[:, :side, :side].flatten()

    counted = torch.cat([torch.ones_like(sorts[:1]), sorts]).to(dtype)
    cells = torch.arange(side * side, device=device).view(side, side)
    # A tap at (a,b) moves the first kernel by (a,b): windows of the cells of both together.
    moved_TX = cells.unfold(0, side - 2, 1).unfold(1, side - 2, 1).reshape(9, -1)
    placed = nn.functional.one_hot(moved_TX, side * side).to(dtype)
    placed = counted[:, :, None, None] * placed
    return _Edge(places, sort_R, seen_RX, counted, placed.flatten(1, 2))


class _Convolution(torch.autograd.Function):
    """A convolution that pads by 1, less an excess at some places.

    torch computes the gradient of an image of few channels several times as slowly as here, and
    copies whole gradients where numbers are changed through a view.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        images: Tensor, kernel: Tensor, bias: Tensor, excess_BRO: Tensor, places: Tensor
    ) -> Tensor:
        whole = F.conv2d(images, _with_channels_last(kernel), bias, padding=1)
        whole.permute(0, 2, 3, 1).flatten(1, 2).index_add_(1, places, excess_BRO, alpha=-1)
        return whole

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        images, kernel, _, _, places = inputs
        ctx.save_for_backward(images, kernel, places)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (images, kernel, places) = grads, ctx.saved_tensors
        of_images, of_kernel, of_bias, of_excess = None, None, None, None
        if ctx.needs_input_grad[0]:
            seen_BXP = kernel.flatten(1).t() @ grad.flatten(2)
            of_images = F.fold(seen_BXP, images.shape[2:], kernel.shape[2:], padding=1)
        if any(ctx.needs_input_grad[1:3]):
            _, of_kernel, of_bias = torch.ops.aten.convolution_backward(
                grad, images, _with_channels_last(kernel), [len(kernel)], [1, 1], [1, 1], [1, 1],
                False, [0, 0], 1, [False, True, True],
            )  # fmt: skip
        if ctx.needs_input_grad[3]:
            of_excess = -grad.permute(0, 2, 3, 1).flatten(1, 2).index_select(1, places)
        return of_images, of_kernel, of_bias, of_excess, None


def _with_channels_last(kernel: Tensor) -> Tensor:
    """Return a kernel whose strides ask for channels last, several times as fast.

    Of one channel a kernel is in both layouts at once, and torch takes the other one.
    """
    channels, high, wide = kernel.shape[1:]
    strides = (channels * high * wide, 1, wide * channels, channels)
    return torch.empty_like(kernel).as_strided(kernel.shape, strides).copy_(kernel)
