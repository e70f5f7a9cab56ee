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

_FAR = 1e3  # pixel units; from here on, how far beyond the box a point lies makes no difference
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
    """Return (B,) norms of (B,...) perturbations."""
    if norm == "l2":
        return torch.linalg.vector_norm(delta.flatten(1), dim=1)
    sizes = delta.abs().flatten(1)
    return sizes.amax(dim=1) if norm == "linf" else sizes.sum(dim=1)


def dual_norm(normal: Tensor, norm: Norm) -> Tensor:
    """Return (B,) the dual norms of normals n (B,C,H,W): the largest n·δ over δ of norm 1.

    Args:
        normal: (B,C,H,W).
        norm: of δ; "linf" and "l1" are each other's dual, "l2" its own.
    """
    dual: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}
    return distance(normal, dual[norm])


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
        norm: of the ball. In L-inf and L1 the nearest point of box and ball is returned; in L2 the
            box comes first, then the ball.
    """
    boxed = adv_inputs.clamp(0.0, 1.0)
    if norm == "linf":
        return boxed.clamp(inputs - eps, inputs + eps).clamp(0.0, 1.0)
    delta = boxed - inputs
    length = column(distance(delta, norm), inputs)
    if norm == "l1":
        near = _project_l1(adv_inputs - inputs, delta.abs(), eps)
        shrunk = inputs + near
        # Rounding away from the inputs would add up over the pixels.
        shrunk = torch.where(
            (shrunk - inputs).abs() > near.abs(), torch.nextafter(shrunk, inputs), shrunk
        )
    else:
        shrunk = inputs + delta * (eps / length.clamp(min=eps))
    # The box is convex and holds the inputs: shrinking cannot leave it but for rounding.
    return torch.where(length > eps, shrunk.clamp(0.0, 1.0), boxed)


def _project_l1(delta: Tensor, room: Tensor, eps: float | Tensor) -> Tensor:
    """Return (B,C,H,W) the nearest changes whose L1 norm is eps, none larger than its room.

    Pixel i becomes min(max(|δ_i| − λ, 0), room_i). The sum of these falls in λ, piecewise linearly,
    with bends at |δ_i| and |δ_i| − room_i: sorted bends and their running sums give λ exactly.

    Args:
        delta: (B,C,H,W), wanted.
        room: (B,C,H,W), as much of each |δ_i| as the box allows; their sum is above eps, or what is
            returned for the image means nothing.
        eps: as for `project`.

    Source: Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
        classifiers" (ICML 2021), proposition 2.1.
    """
    wanted = delta.abs().clamp(max=_FAR).flatten(1)
    bends, order = torch.cat((wanted, wanted - room.flatten(1)), dim=1).sort(1, descending=True)
    # As λ falls past a first bend a pixel begins to move, and past its second bend it is in place.
    moving = torch.where(order < wanted.shape[1], 1.0, -1.0).cumsum(dim=1)
    gaps = bends[:, :-1] - bends[:, 1:]
    sums = (moving[:, :-1] * gaps).cumsum(dim=1)  # at all bends but the first, where it is 0
    radius = torch.as_tensor(eps, dtype=wanted.dtype, device=wanted.device).reshape(-1, 1)
    radius = radius.expand(len(wanted), 1).contiguous()
    last = torch.searchsorted(sums, radius).clamp(max=sums.shape[1] - 1)
    beyond = sums.gather(1, last) - radius  # λ lies above that bend
    threshold = bends.gather(1, last + 1) + beyond / moving.gather(1, last).clamp(min=1.0)
    size = torch.minimum((wanted - threshold).clamp(min=0.0), room.flatten(1))
    size = size * (radius / size.sum(dim=1, keepdim=True).clamp(min=radius))  # rounding
    return delta.sign() * size.view_as(delta)


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
    that pixel towards the inputs, and L2 and L1 the whole image.

    Args:
        adv_inputs: (B,C,H,W) in box and ball.
        inputs: (B,C,H,W), multiples of 1/255 themselves; else the ball may hold none.
        eps: radius in pixel units.
        norm: of the ball.
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
        norm: of the ball.
        noise: of the same images; one draw in L-inf, two in L2 and L1.
    """
    delta = draw_direction(inputs, norm, noise)
    if norm == "linf":
        return project(inputs + eps * delta, inputs, eps, "linf")
    # In d dimensions the share r^d of the ball's volume lies within the radius r.
    radius = eps * column(noise.uniform((1,)), inputs) ** (1 / math.prod(inputs.shape[1:]))
    return project(
        inputs + delta * (radius / column(distance(delta, norm), delta)), inputs, eps, norm
    )


def surface_start(inputs: Tensor, eps: float, norm: Norm, noise: ImageNoise) -> Tensor:
    """Return (B,C,H,W) random points on the ball's surface, then brought into the box.

    Args: as for `uniform_start`; one draw.
    """
    delta = draw_direction(inputs, norm, noise)
    length = distance(delta, norm).clamp(min=torch.finfo(delta.dtype).tiny)
    return project(inputs + eps * delta / column(length, delta), inputs, eps, norm)


def draw_direction(inputs: Tensor, norm: Norm, noise: ImageNoise) -> Tensor:
    """Draw (B,C,H,W) random directions; scaled to norm 1, uniform on the surface of the ball.

    Uniform in the cube [-1,1) for "linf" (on its surface once the largest entry is 1), normal for
    "l2", double exponential for "l1".
    """
    shape = tuple(inputs.shape[1:])
    if norm == "l2":
        return noise.normal(shape)
    cube = 2 * noise.uniform(shape) - 1
    if norm == "linf":
        return cube
    return -cube.sign() * (1 - cube.abs()).clamp(min=2.0**-24).log()


def ascend(point: Tensor, gradient: Tensor, length: float | Tensor, norm: Norm) -> Tensor:
    """Return (B,C,H,W) the points after the step that climbs fastest; unmoved by a gradient of 0.

    L-inf: along the sign, with sign(0) = 0. L2: along the gradient. In these the step may leave the
    box. L1: inside the box, one pixel after the other goes to 0 or 1, that of the largest gradient
    first, until the length is spent.

    Args:
        point: (B,C,H,W) in [0,1].
        gradient: (B,C,H,W) there.
        length: of the step in the norm, one for all images or broadcast over them.
        norm: of the step.
    """
    if norm != "l1":
        return point + length * ascent_direction(gradient, norm)
    end = torch.where(gradient > 0, 1.0, torch.where(gradient < 0, 0.0, point)).to(point)
    room = (end - point).flatten(1)
    order = gradient.flatten(1).abs().argsort(dim=1, descending=True, stable=True)
    size = room.abs().gather(1, order)
    before = size.cumsum(dim=1) - size
    left = torch.as_tensor(length).to(point).reshape(-1, 1) - before
    size = torch.zeros_like(size).scatter(1, order, torch.minimum(size, left.clamp(min=0.0)))
    return point + (room.sign() * size).view_as(point)


def ascent_direction(gradient: Tensor, norm: Norm) -> Tensor:
    """Return (B,...) the step of unit length in the norm that climbs fastest; 0 where it is 0.

    L-inf: the sign, with sign(0) = 0. L2: gradient / ‖gradient‖₂. L1: along the pixel of the
    largest gradient, or evenly along several.
    """
    if norm == "linf":
        return gradient.sign()
    scaled = scale_by_largest(gradient)
    if norm == "l1":
        scaled = scaled * (scaled.abs() == 1.0)
        return scaled / column(distance(scaled, "l1"), scaled).clamp(min=1.0)
    return scaled / column(distance(scaled, "l2"), scaled).clamp(min=1.0)


def scale_by_largest(gradient: Tensor) -> Tensor:
    """Return each image's gradient (B,...) over its largest entry; 0 where it is 0.

    Squares of a small gradient underflow and sums of a huge one overflow; those of this do not.
    """
    largest = column(distance(gradient, "linf"), gradient)
    return torch.where(largest > 0, gradient / largest, torch.zeros_like(gradient))
