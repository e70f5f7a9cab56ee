"""Distances and projections: the ball around an image, and the box of pixel values."""

import math

import torch
from torch import Tensor

from robustloss.attacks.base import Norm
from robustloss.attacks.noise import ImageNoise

TOLERANCE = 1e-6
"""Pixel units, relative above 1: float32 rounding stays below it, a real step does not."""

_GRID = 1e-3  # of a level: what float32 makes of 255 · (k / 255) stays below it


def distance(delta: Tensor, norm: Norm) -> Tensor:
    """Return (B,) L-inf or L2 norms of (B,...) perturbations."""
    if norm == "linf":
        return delta.flatten(1).abs().amax(dim=1)
    return torch.linalg.vector_norm(delta.flatten(1), dim=1)


def project(adv_inputs: Tensor, inputs: Tensor, eps: float | Tensor, norm: Norm) -> Tensor:
    """Bring (B,C,H,W) images into the box [0,1] and the ball of radius eps around the inputs.

    What is already inside comes back bit for bit.
    """
    boxed = adv_inputs.clamp(0.0, 1.0)
    if norm == "linf":
        return boxed.clamp(inputs - eps, inputs + eps).clamp(0.0, 1.0)
    delta = boxed - inputs
    length = distance(delta, "l2").reshape(-1, *[1] * (inputs.dim() - 1))
    shrunk = inputs + delta * (eps / length.clamp(min=eps))
    # The box is convex and holds the inputs: shrinking cannot leave it but for rounding.
    return torch.where(length > eps, shrunk.clamp(0.0, 1.0), boxed)


def to_8bit(adv_inputs: Tensor, inputs: Tensor, eps: float, norm: Norm) -> Tensor:
    """Round (B,C,H,W) images to multiples of 1/255, what a file of 8 bits holds, inside the ball.

    To the nearest where that stays within eps; where it does not, towards the inputs: pixel by
    pixel in L-inf, the whole image in L2. The inputs must be multiples of 1/255 themselves, or
    nothing on that grid may lie in the ball.
    """
    levels, start = 255 * adv_inputs, (255 * inputs).round()
    nearest = levels.round()
    towards = torch.where(levels >= start, (levels + _GRID).floor(), (levels - _GRID).ceil())
    if norm == "linf":
        reach = 255 * eps + _GRID
        rounded = torch.where((nearest - start).abs() > reach, towards, nearest)
    else:
        far = leaves(nearest / 255, start / 255, eps, norm).reshape(-1, *[1] * (inputs.dim() - 1))
        rounded = torch.where(far, towards, nearest)
    return rounded / 255


def uniform_start(inputs: Tensor, eps: float, norm: Norm, noise: ImageNoise) -> Tensor:
    """Return (B,C,H,W) points drawn uniformly from the ball, then brought into the box."""
    shape = tuple(inputs.shape[1:])
    if norm == "linf":
        return project(inputs + eps * (2 * noise.uniform(shape) - 1), inputs, eps, "linf")
    delta = noise.normal(shape)
    column = (-1, *[1] * len(shape))
    radius = eps * noise.uniform((1,)).view(column) ** (1 / math.prod(shape))
    return project(
        inputs + delta * (radius / distance(delta, "l2").view(column)), inputs, eps, "l2"
    )


def leaves(adv_inputs: Tensor, inputs: Tensor, eps: float, norm: Norm) -> Tensor:
    """Return (B,) bool: the image lies outside box or ball by more than rounding explains."""
    far = distance(adv_inputs - inputs, norm) > eps + TOLERANCE * max(1.0, eps)
    pixels = adv_inputs.flatten(1)
    low, high = pixels.amin(dim=1), pixels.amax(dim=1)
    return far | (low < -TOLERANCE) | (high > 1.0 + TOLERANCE)


def ascent_direction(gradient: Tensor, norm: Norm) -> Tensor:
    """Return (B,...) the step of unit length in the norm that climbs fastest; 0 where it is 0.

    L-inf: the sign, with sign(0) = 0. L2: gradient / ‖gradient‖₂, scaled by its largest entry
    first, since the squares of a small gradient underflow.
    """
    if norm == "linf":
        return gradient.sign()
    column = (-1, *[1] * (gradient.dim() - 1))
    largest = distance(gradient, "linf").reshape(column)
    scaled = torch.where(largest > 0, gradient / largest, torch.zeros_like(gradient))
    length = distance(scaled, "l2").reshape(column)
    return scaled / length.clamp(min=1.0)
