"""Angles between features and class weights: directions, cos(m theta), and psi of the margins."""

import math

import torch
from torch import Tensor

SMALLEST_SQUARE = 1e-12
"""Added under the root of a norm (NormFace's epsilon): zero rows have norm 1e-6 and direction 0."""


def norms(rows: Tensor) -> Tensor:
    """Return sqrt(‖row‖² + 1e-12), (N,D) -> (N,1): positive, with a finite gradient at zero."""
    return (rows.square().sum(1, keepdim=True) + SMALLEST_SQUARE).sqrt()


def directions(rows: Tensor) -> Tensor:
    """Return row / ‖row‖, (N,D) -> (N,D); 0 for a zero row."""
    return rows / norms(rows)


def cos_of_multiple(cosine: Tensor, factor: int) -> Tensor:
    """Return cos(m theta) by Chebyshev's recursion T_n = 2 c T_{n−1} − T_{n−2}.

    A polynomial, so its gradient is finite at theta = 0 and pi, where that of acos is not.

    Args:
        cosine: cos(theta), any shape.
        factor: m, at least 1.
    """
    before, now = torch.ones_like(cosine), cosine
    for _ in range(factor - 1):
        before, now = now, 2.0 * cosine * now - before
    return now


def psi(cosine: Tensor, factor: int) -> Tensor:
    """Return psi(theta) = (−1)^k cos(m theta) − 2k for theta in [k pi/m, (k+1) pi/m], k = 0..m−1.

    psi falls from 1 at theta = 0 to 1 − 2m at pi, without a jump or a kink.

    Args:
        cosine: cos(theta), any shape.
        factor: m, at least 1.

    Source: Liu et al., Large-Margin Softmax Loss, ICML 2016, equation 6.
    """
    with torch.no_grad():  # k counts the borders k pi/m that theta has passed
        k = torch.zeros_like(cosine)
        for border in range(1, factor):
            k += (cosine < math.cos(border * math.pi / factor)).to(cosine.dtype)
        sign = 1.0 - 2.0 * (k % 2)
    return sign * cos_of_multiple(cosine, factor) - 2.0 * k
