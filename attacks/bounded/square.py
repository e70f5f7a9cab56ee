"""Square attack: random search with square windows, no gradient asked."""

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustloss.attacks.arguments import check_integer, check_norm
from robustloss.attacks.ball import column, distance, project
from robustloss.attacks.base import AttackOutput, Budgets, Needs, Norm, Queries
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import checked_margin, mispredicts

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries
_AHEAD = 64  # queries whose random numbers are drawn at once: one draw costs nearly as much


@dataclass(frozen=True, kw_only=True)
class Square:
    """Black box: change one random square window at a time, and keep what raises the margin.

    The margin is the largest wrong logit minus the true one. L-inf: vertical stripes of ±eps to
    begin with, then each window takes one of ±eps per channel. L2: a grid of bumps to begin with,
    then each move takes the perturbation of two windows, adds what the box left unused of eps, and
    puts it all, with a bump, into the first. Windows cover the share p of the image, p_init at
    first and halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10,000 queries; for
    another number of queries these places are rescaled in proportion, as the authors do
    (resc_schedule). An image is left alone once it is fooled; without success its image with the
    highest margin is returned.

    Args:
        norm: "linf" or "l2".
        queries: images asked of the model at most, per image, eps and restart; at least 1. One more
            per image, for all eps, tells whether it is wrong anyway.
        p_init: share of the image that the first windows cover, in (0, 1].
        restarts: searches per image, at least 1; each only for images not fooled before.

    Raises:
        ValueError: an argument is out of range.

    Source: Andriushchenko et al., "Square Attack: a query-efficient black-box adversarial attack
        via random search" (ECCV 2020), algorithms 1 to 3. Windows and signs are drawn per image,
        and a window may touch the last row and column, which the released code never moves.
    """

    norm: Norm = "linf"
    queries: int = 5000
    p_init: float = 0.8
    restarts: int = 1

    name: ClassVar[str] = "square"
    needs: ClassVar[Needs] = "logits"

    def __post_init__(self) -> None:
        check_norm(self.norm, ("linf", "l2"))
        check_integer("queries", self.queries, least=1)
        check_integer("restarts", self.restarts, least=1)
        if not 0 < self.p_init <= 1:
            raise ValueError(f"p_init (={self.p_init}) must lie in (0, 1]: a share of the image.")

    def passes(self, budgets: int) -> Queries:
        """Return the most: the image itself, then every query of every search; no gradient."""
        return Queries(1 + budgets * self.restarts * self.queries, 0)

    @torch.no_grad()
    def __call__(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, *, eps: Budgets, noise: ImageNoise
    ) -> AttackOutput:
        """Search inside the ball of every eps; see Attack. There is no gradient to be zero."""
        clean = _ask(model, inputs, labels)
        adv_inputs = []
        for budget in eps:
            best, draws = _Answer(*(each.clone() for each in clean)), noise.restart()
            for _ in range(self.restarts if budget > 0 else 0):
                going = ~best.fooled
                if not going.any():
                    break
                part = inputs[going], labels[going]
                tried = self._search(model, *part, budget, draws.select(going))
                best.take(going.nonzero().squeeze(1), tried)
            adv_inputs.append(best.images)
        return AttackOutput(torch.stack(adv_inputs))

    def _search(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, eps: float, noise: ImageNoise
    ) -> "_Answer":
        """Return the best images of one search: a start and its moves."""
        linf = self.norm == "linf"
        start, move = (draw_stripes, recolour) if linf else (draw_bumps, regroup)
        best = _ask(model, start(inputs, eps, noise), labels)
        for query in range(1, self.queries):
            rows = (~best.fooled).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            drawn = (query - 1) % _AHEAD
            if drawn == 0:  # two corners of two numbers, one turn, and a sign for each channel
                numbers = noise.uniform((_AHEAD, 5 + inputs.shape[1]))
            side = self.window_side(query - 1, *inputs.shape[2:])
            moved = move(best.images[rows], inputs[rows], eps, side, numbers[rows, drawn])
            best.take(rows, _ask(model, moved, labels[rows]))
        return best

    def window_side(self, move: int, height: int, width: int) -> int:
        """Return the side of the windows, in pixels.

        Args:
            move: how many moves came before.
            height: of the images, in pixels.
            width: of the images, in pixels.
        """
        share = self.p_init / 2 ** bisect_left(_HALVINGS, int(move / self.queries * 10_000))
        side = max(round(math.sqrt(share * height * width)), 1)
        if self.norm == "l2":  # room for a bump with a middle
            side = max(side, 3)
            side += side % 2 == 0
        return min(side, height, width)


class _Answer(NamedTuple):
    """Images (B,C,H,W), their margins (B,), positive when fooled, and the prediction's verdict."""

    images: Tensor
    margins: Tensor
    fooled: Tensor

    def take(self, rows: Tensor, tried: "_Answer") -> None:
        """Write over the images at `rows` (b,) what is fooled or has a higher margin."""
        better = tried.fooled | (tried.margins > self.margins[rows])
        for mine, new in zip(self, tried, strict=True):
            mine[rows[better]] = new[better]


def _ask(model: nn.Module, images: Tensor, labels: Tensor) -> _Answer:
    logits = model(images)
    return _Answer(images, checked_margin(logits, labels), mispredicts(logits, labels))


def draw_stripes(inputs: Tensor, eps: float, noise: ImageNoise) -> Tensor:
    """Begin in L-inf: inputs ± eps, one sign per channel and column.

    Args:
        inputs: (B,C,H,W) in [0,1].
        eps: radius in pixel units.
        noise: of the same images.
    """
    _, channels, _, width = inputs.shape
    signs = _signs(noise.uniform((channels, 1, width)))
    return project(inputs + eps * signs, inputs, eps, "linf")


def recolour(images: Tensor, inputs: Tensor, eps: float, side: int, numbers: Tensor) -> Tensor:
    """Move in L-inf: inputs ± eps inside one window, one sign per channel.

    Args:
        images: (B,C,H,W), the best so far.
        inputs: (B,C,H,W) in [0,1], the originals.
        eps: radius in pixel units.
        side: of the window, in pixels.
        numbers: (B,5+C) uniform on [0,1): 0 and 1 place the window, those from 5 on give the signs.

    Source: algorithm 2 of the publication.
    """
    window = _window(numbers[:, :2], inputs, side)
    signs = _signs(numbers[:, 5:]).view(*inputs.shape[:2], 1, 1)
    moved = images.clone()
    moved[window] = project(inputs + eps * signs, inputs, eps, "linf")[window]
    return moved


def draw_bumps(inputs: Tensor, eps: float, noise: ImageNoise) -> Tensor:
    """Begin in L2: a grid of bumps, five to the shorter side, of length eps in all.

    Args: as for `draw_stripes`.
    """
    batch, channels, height, width = inputs.shape
    side = max(1, min(height, width) // 5)
    down, across = height // side, width // side
    numbers = noise.uniform((channels + 1, down, across))
    turn, colour = numbers.view(batch, -1, down, 1, across, 1).split((1, channels), dim=1)
    bump = make_bump(side, inputs.device)
    lying, upright = (each.reshape(side, 1, side) for each in (bump, bump.T))
    bumps = torch.where(turn < 0.5, lying, upright) * _signs(colour)
    rest_down, rest_across = height - down * side, width - across * side
    delta = F.pad(
        bumps.reshape(batch, channels, down * side, across * side),
        (rest_across // 2, (rest_across + 1) // 2, rest_down // 2, (rest_down + 1) // 2),
    )
    return _stretch(delta, inputs, eps)


def regroup(images: Tensor, inputs: Tensor, eps: float, side: int, numbers: Tensor) -> Tensor:
    """Move in L2: what two windows hold and the box left unused goes into the first, as a bump.

    The arguments are those of `recolour`; numbers 0 and 1 place the first window, 2 and 3 the
    second, 4 turns the bump, and those from 5 on give the signs.

    Source: algorithm 3 of the publication.
    """
    batch, channels = inputs.shape[:2]
    delta = images - inputs
    first, second = (_window(numbers[:, at : at + 2], inputs, side) for at in (0, 2))
    covered = torch.zeros_like(delta, dtype=torch.bool)
    covered[first] = covered[second] = True
    held = (delta * covered).square().sum(dim=(2, 3), keepdim=True)
    unused = (eps**2 - delta.square().sum(dim=(1, 2, 3), keepdim=True)).clamp(min=0.0)
    bump = make_bump(side, inputs.device)
    turned = torch.where(numbers[:, 4].view(-1, 1, 1, 1) < 0.5, bump, bump.T)
    signs = _signs(numbers[:, 5:]).view(batch, channels, 1, 1)
    fresh = _unit(turned * signs + _unit(delta[first]))
    delta[second] = 0.0
    delta[first] = fresh * (held + unused / channels).sqrt()
    return _stretch(delta, inputs, eps)


def _window(numbers: Tensor, inputs: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the index (B,C,side,side) of one window per image, all places equally likely.

    Args: `numbers` (B,2) uniform on [0,1), how far from the top and from the left.
    """
    batch, channels, height, width = inputs.shape
    device, inside = inputs.device, torch.arange(side, device=inputs.device)
    top = (numbers[:, :1] * (height - side + 1)).long()
    left = (numbers[:, 1:] * (width - side + 1)).long()
    return (
        torch.arange(batch, device=device).view(-1, 1, 1, 1),
        torch.arange(channels, device=device).view(1, -1, 1, 1),
        (top + inside).view(-1, 1, side, 1),
        (left + inside).view(-1, 1, 1, side),
    )


def make_bump(side: int, device: torch.device) -> Tensor:
    """Return (side, side) of length 1: a pyramid above an inverted one.

    Equation 2 of the publication: a pyramid is, at the distance d from its middle in the maximum
    norm, the sum of 1 / j² for j from d + 1 to half the side + 1.

    Args:
        side: in pixels, at least 1.
        device: where the bump is wanted.
    """
    terms = 1.0 / torch.arange(1.0, side // 2 + 2, device=device).square()
    sums = terms.flip(0).cumsum(dim=0).flip(0)
    across = (torch.arange(side, device=device) - side // 2).abs()

    def pyramid(height: int) -> Tensor:
        down = (torch.arange(height, device=device) - height // 2).abs()
        return _unit(sums[torch.maximum(down.view(-1, 1), across)])

    return _unit(torch.cat((pyramid(side // 2), -pyramid(side - side // 2))))


def _signs(numbers: Tensor) -> Tensor:
    return torch.where(numbers < 0.5, -1.0, 1.0)


def _unit(windows: Tensor) -> Tensor:
    """Return (...,H,W) at length 1; 0 where it is 0."""
    length = torch.linalg.vector_norm(windows, dim=(-2, -1), keepdim=True)
    return windows / length.clamp(min=torch.finfo(windows.dtype).tiny)


def _stretch(delta: Tensor, inputs: Tensor, eps: float) -> Tensor:
    """Return inputs + delta, stretched to the length eps and then cut at the box."""
    length = distance(delta, "l2").clamp(min=torch.finfo(delta.dtype).tiny)
    return project(inputs + delta * (eps / column(length, delta)), inputs, eps, "l2")
