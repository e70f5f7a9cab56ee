"""The geometry of attacks: the ball around an image, the box of pixel values, steps inside both."""

import math
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from robustloss.attacks.base import Norm
from robustloss.attacks.noise import ImageNoise

TOLERANCE = 1e-6
"""Pixel units, relative above 1: float32 rounding stays below it, a real step does not."""

_GRID = 1e-3  # of a level: what float32 makes of 255 · (k / 255) stays below it

Tensors = TypeVar("Tensors", bound=NamedTuple)


def column(values: Tensor, images: Tensor) -> Tensor:
    """Return one value per image (B,) as (B,1,1,1), to be multiplied with images (B,C,H,W)."""
    return values.reshape(-1, *[1] * (images.dim() - 1))


def choose(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Return (B,...), image by image from `yes` where the mask (B,) is true, else from `no`."""
    return torch.where(column(mask, yes), yes, no)


def choose_all(mask: Tensor, yes: Tensors, no: Tensors) -> Tensors:
    """Apply `choose` to every field of two named tuples of tensors (B,...)."""
    return yes._make(map(partial(choose, mask), yes, no))


def distance(delta: Tensor, norm: Norm) -> Tensor:
    """Return (B,) L-inf or L2 norms of (B,...) perturbations."""
    if norm == "linf":
        return delta.flatten(1).abs().amax(dim=1)
    return torch.linalg.vector_norm(delta.flatten(1), dim=1)


def vanishes(gradient: Tensor) -> Tensor:
    """Return (B,) bool: every entry of the image's gradient (B,...) is exactly 0."""
    return (gradient == 0).flatten(1).all(dim=1)


def project(adv_inputs: Tensor, inputs: Tensor, eps: float | Tensor, norm: Norm) -> Tensor:
    """Bring images into the box [0,1] and the ball of radius eps around the inputs.

    What is already inside comes back bit for bit.

    Args:
        adv_inputs: (B,C,H,W), anywhere.
        inputs: (B,C,H,W) in [0,1], the centers.
        eps: radius in pixel units, one for all images or broadcast over them.
        norm: "linf" or "l2".
    """
    boxed = adv_inputs.clamp(0.0, 1.0)
    if norm == "linf":
        return boxed.clamp(inputs - eps, inputs + eps).clamp(0.0, 1.0)
    delta = boxed - inputs
    length = column(distance(delta, "l2"), inputs)
    shrunk = inputs + delta * (eps / length.clamp(min=eps))
    # The box is convex and holds the inputs: shrinking cannot leave it but for rounding.
    return torch.where(length > eps, shrunk.clamp(0.0, 1.0), boxed)


def leaves(adv_inputs: Tensor, inputs: Tensor, eps: float, norm: Norm) -> Tensor:
    """Return (B,) bool: the image lies outside box or ball by more than rounding explains.

    Args: as for `project`.
    """
    far = distance(adv_inputs - inputs, norm) > eps + TOLERANCE * max(1.0, eps)
    pixels = adv_inputs.flatten(1)
    low, high = pixels.amin(dim=1), pixels.amax(dim=1)
    return far | (low < -TOLERANCE) | (high > 1.0 + TOLERANCE)


def to_8bit(adv_inputs: Tensor, inputs: Tensor, eps: float, norm: Norm) -> Tensor:
    """Round images to multiples of 1/255, what a file of 8 bits holds, inside the ball.

    Each goes to the nearest multiple where that stays within eps. Where it does not, L-inf rounds
    that pixel towards the inputs, and L2 the whole image.

    Args:
        adv_inputs: (B,C,H,W) in box and ball.
        inputs: (B,C,H,W), multiples of 1/255 themselves; else the ball may hold none.
        eps: radius in pixel units.
        norm: "linf" or "l2".
    """
    levels, start = 255 * adv_inputs, (255 * inputs).round()
    nearest = levels.round()
    towards = torch.where(levels >= start, (levels + _GRID).floor(), (levels - _GRID).ceil())
    if norm == "linf":
        reach = 255 * eps + _GRID
        rounded = torch.where((nearest - start).abs() > reach, towards, nearest)
    else:
        rounded = choose(leaves(nearest / 255, start / 255, eps, norm), towards, nearest)
    return rounded / 255


def uniform_start(inputs: Tensor, eps: float, norm: Norm, noise: ImageNoise) -> Tensor:
    """Return (B,C,H,W) points drawn uniformly from the ball, then brought into the box.

    Args:
        inputs: (B,C,H,W) in [0,1], the centers.
        eps: radius in pixel units.
        norm: "linf" or "l2".
        noise: of the same images; one draw in L-inf, two in L2.
    """
    delta = draw_direction(inputs, norm, noise)
    if norm == "linf":
        return project(inputs + eps * delta, inputs, eps, "linf")
    # In d dimensions the share r^d of the ball's volume lies within the radius r.
    radius = eps * column(noise.uniform((1,)), inputs) ** (1 / math.prod(inputs.shape[1:]))
    return project(
        inputs + delta * (radius / column(distance(delta, "l2"), delta)), inputs, eps, "l2"
    )


def surface_start(inputs: Tensor, eps: float, norm: Norm, noise: ImageNoise) -> Tensor:
    """Return (B,C,H,W) random points on the ball's surface, then brought into the box.

    Args: as for `uniform_start`; one draw.
    """
    delta = draw_direction(inputs, norm, noise)
    length = distance(delta, norm).clamp(min=torch.finfo(delta.dtype).tiny)
    return project(inputs + eps * delta / column(length, delta), inputs, eps, norm)


def draw_direction(inputs: Tensor, norm: Norm, noise: ImageNoise) -> Tensor:
    """Draw (B,C,H,W) random directions: uniform in the cube [-1,1) for "linf", normal for "l2"."""
    shape = tuple(inputs.shape[1:])
    return 2 * noise.uniform(shape) - 1 if norm == "linf" else noise.normal(shape)


def ascent_direction(gradient: Tensor, norm: Norm) -> Tensor:
    """Return (B,...) the step of unit length in the norm that climbs fastest; 0 where it is 0.

    L-inf: the sign, with sign(0) = 0. L2: gradient / ‖gradient‖₂.
    """
    if norm == "linf":
        return gradient.sign()
    scaled = scale_by_largest(gradient)
    return scaled / column(distance(scaled, "l2"), scaled).clamp(min=1.0)


def scale_by_largest(gradient: Tensor) -> Tensor:
    """Return each image's gradient (B,...) over its largest entry; 0 where it is 0.

    Squares of a small gradient underflow and sums of a huge one overflow; those of this do not.
    """
    largest = column(distance(gradient, "linf"), gradient)
    return torch.where(largest > 0, gradient / largest, torch.zeros_like(gradient))
