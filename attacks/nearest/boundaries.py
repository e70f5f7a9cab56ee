"""What minimum-norm attacks share: boundaries of the linearised model, and the nearest so far."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from robustloss.attacks.ball import choose, column, distance, dual_norm
from robustloss.attacks.base import Norm
from robustloss.attacks.objectives import checked_gradients


class Boundary(NamedTuple):
    """The planes n·δ = gap, one per image, on which a linearised wrong class draws level.

    Attributes:
        normal: (B,C,H,W) n, towards the wrong class; its largest entry is ±1, or all of it is 0
            where no tried class has a gradient.
        gap: (B,) float32, negative where the wrong class leads already; 0 without any gradient.
        distance: (B,) |gap| over the dual norm of n; inf without any gradient.
    """

    normal: Tensor
    gap: Tensor
    distance: Tensor


def nearest_boundary(
    logits: Tensor, point: Tensor, labels: Tensor, classes: Tensor, norm: Norm
) -> Boundary:
    """Linearise the model at a point and find, per image, the nearest boundary of some classes.

    Args:
        logits: (B,K) of the point, with its graph.
        point: (B,C,H,W), requires gradients.
        labels: (B,) the true classes.
        classes: (B,k) the wrong classes to try; one backward pass each.
        norm: in which distances are measured.

    Raises:
        AttackError: no gradient towards the point, or a NaN gradient.
    """
    lead = logits.gather(1, labels.unsqueeze(1)) - logits.gather(1, classes)
    normal, gap = torch.zeros_like(point), torch.zeros(len(point), device=point.device)
    shortest = torch.full_like(gap, math.inf)
    for k in range(classes.shape[1]):
        last = k == classes.shape[1] - 1
        gradient = checked_gradients(-lead[:, k], point, keep_graph=not last)
        # Scaled by the largest entry, since the squares of a small gradient underflow.
        largest = distance(gradient, "linf")
        scaled = gradient / column(largest.clamp(min=torch.finfo(gradient.dtype).tiny), gradient)
        height = (lead[:, k].detach() / largest).to(point.dtype)
        length = height.abs() / dual_norm(scaled, norm).clamp(min=1.0)
        nearer = (largest > 0) & (length < shortest)
        shortest = torch.where(nearer, length, shortest)
        gap = torch.where(nearer, height, gap)
        normal = choose(nearer, scaled, normal)
    return Boundary(normal, gap, shortest)


def step_to_plane(points: Tensor, normal: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """Return (B,C,H,W) the smallest steps δ inside the box onto the planes n·δ = gap.

    Pixel i moves by min(λ r_i, p_i) along ±sign n_i, where p_i is its room in the box and r_i is 1
    in L-inf and |n_i| in L2. What this gains along n is concave and piecewise linear in λ, with a
    bend at each p_i / r_i: sorted bends and their running sums give λ exactly.

    Args:
        points: (B,C,H,W) in [0,1].
        normal: (B,C,H,W), the largest entry ±1; entries below 1e-8 count as 0.
        gap: (B,), of any sign. Where the plane misses the box the step goes to the box's corner
            nearest to it.
        norm: which norm of δ is smallest.

    Source: Croce and Hein (ICML 2020), equations 3 and 4, solved as in their appendix.
    """
    towards = (normal * column(gap.sign(), normal)).flatten(1)
    size = towards.abs()
    size = torch.where(size < 1e-8, 0.0, size)
    room = torch.where(towards > 0, 1 - points.flatten(1), points.flatten(1))
    room = torch.where(size > 0, room, 0.0)
    rate = size if norm == "l2" else torch.ones_like(size)
    bends, order = torch.where(size > 0, room / rate, 0.0).sort(dim=1)
    full = (size * room).gather(1, order).cumsum(dim=1)
    full = torch.cat((torch.zeros_like(full[:, :1]), full), dim=1)  # gained by pixels at their end
    rise = (size * rate).gather(1, order).flip(1).cumsum(dim=1).flip(1)  # by the others, per λ
    gained = full[:, :-1] + bends * rise
    last = torch.searchsorted(gained, gap.abs().unsqueeze(1)).clamp(max=size.shape[1] - 1)
    left = gap.abs().unsqueeze(1) - full.gather(1, last)
    reach = left / rise.gather(1, last).clamp(min=torch.finfo(size.dtype).tiny)
    reach = torch.minimum(reach.clamp(min=0.0), bends[:, -1:])
    return (towards.sign() * torch.minimum(reach * rate, room)).view_as(points)


class Nearest:
    """The nearest adversarial image found so far; the image itself, at infinity, before that."""

    def __init__(self, inputs: Tensor) -> None:
        self.images = inputs.clone()
        self.radius = torch.full((len(inputs),), math.inf, device=inputs.device)

    def take(self, images: Tensor, radius: Tensor, fooled: Tensor) -> None:
        """Take over the images that fool the model and are nearer.

        Args:
            images: (B,C,H,W), one candidate for each image.
            radius: (B,), their distances to the images.
            fooled: (B,) bool, whether the model is wrong about them.
        """
        nearer = fooled & (radius < self.radius)
        self.images[nearer] = images[nearer]
        self.radius[nearer] = radius[nearer]
