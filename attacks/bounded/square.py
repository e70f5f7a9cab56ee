"""Square attack: random search with square windows, no gradient asked."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustloss.attacks.arguments import check_integer, check_norm
from robustloss.attacks.ball import distance, project
from robustloss.attacks.base import AttackError, AttackOutput, Needs, Norm, Queries
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import margin

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries
_AHEAD = 64  # queries whose random numbers are drawn at once: one draw costs nearly as much

Index = tuple[Tensor, Tensor, Tensor, Tensor]


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
        check_norm(self.norm)
        check_integer("queries", self.queries, least=1)
        check_integer("restarts", self.restarts, least=1)
        if not 0 < self.p_init <= 1:
            raise ValueError(f"p_init (={self.p_init}) must lie in (0, 1]: a share of the image.")

    def passes(self, budgets: int) -> Queries:
        """The image itself, and every query of every search; no gradient."""
        return Queries(1 + budgets * self.restarts * self.queries, 0)

    @torch.no_grad()
    def __call__(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensor,
        *,
        eps: Sequence[float],
        noise: ImageNoise,
    ) -> AttackOutput:
        """Search inside the ball of every eps; see Attack. There is no gradient to be zero."""
        clean = _ask(model, inputs, labels)
        found = []
        for budget in eps:
            best = _Best(clean)
            draws = noise.restart()
            for _ in range(self.restarts if budget > 0 else 0):
                going = ~best.fooled
                if not going.any():
                    break
                part = inputs[going], labels[going]
                tried = self._search(model, *part, budget, draws.select(going))
                best.take(going.nonzero().squeeze(1), tried)
            found.append(best.images)
        return AttackOutput(torch.stack(found))

    def _search(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, eps: float, noise: ImageNoise
    ) -> "_Answer":
        """One start and its moves."""
        start, move = _MOVES[self.norm]
        best = _Best(_ask(model, start(inputs, eps, noise), labels))
        draws = _draws(noise, inputs.shape[1])
        for query in range(1, self.queries):
            rows = (~best.fooled).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            side = self._side(query - 1, *inputs.shape[2:])
            moved = move(best.images[rows], inputs[rows], eps, side, next(draws).of(rows))
            best.take(rows, _ask(model, moved, labels[rows]))
        return _Answer(best.images, best.margins, best.fooled)

    def _side(self, move: int, height: int, width: int) -> int:
        """Side of the windows in pixels, at the move that comes after so many others."""
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


class _Best:
    """Image by image, the best answer so far."""

    def __init__(self, first: _Answer) -> None:
        self.images, self.margins, self.fooled = (each.clone() for each in first)

    def take(self, rows: Tensor, tried: _Answer) -> None:
        """Take over, at the places `rows`, what is fooled or has a higher margin."""
        better = tried.fooled | (tried.margins > self.margins[rows])
        rows = rows[better]
        self.images[rows] = tried.images[better]
        self.margins[rows] = tried.margins[better]
        self.fooled[rows] = tried.fooled[better]


def _ask(model: nn.Module, images: Tensor, labels: Tensor) -> _Answer:
    logits = model(images)
    margins = margin(logits, labels)
    if margins.isnan().any():
        raise AttackError(
            f"the logits are NaN or infinite for {int(margins.isnan().sum())} of {len(labels)} "
            "attacked images; look for an overflow in the model."
        )
    # The prediction decides: where two logits tie, the first one is predicted.
    return _Answer(images, margins, logits.argmax(dim=1) != labels)


class _Draw(NamedTuple):
    """The random numbers of one query: (B,...) uniform on [0,1)."""

    corner: Tensor  # (B,2): from the top, from the left
    other_corner: Tensor  # (B,2), of the second window in L2
    turn: Tensor  # (B,1), which way a bump lies
    colour: Tensor  # (B,C)

    def of(self, rows: Tensor) -> "_Draw":
        """Follow some of the images."""
        return _Draw(*(each[rows] for each in self))


def _draws(noise: ImageNoise, channels: int) -> Iterator[_Draw]:
    """Yield the numbers of one query after the other."""
    while True:
        for numbers in noise.uniform((_AHEAD, 5 + channels)).unbind(dim=1):
            yield _Draw(*numbers.split((2, 2, 1, channels), dim=1))


def _signs(numbers: Tensor) -> Tensor:
    return torch.where(numbers < 0.5, -1.0, 1.0)


def _corner(numbers: Tensor, inputs: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return top and left (B,1) int64 of windows that lie inside the image, all equally likely."""
    height, width = inputs.shape[2:]
    top, left = numbers.split(1, dim=1)
    return (top * (height - side + 1)).long(), (left * (width - side + 1)).long()


def _stripes(inputs: Tensor, eps: float, noise: ImageNoise) -> Tensor:
    """L-inf, to begin with: inputs ± eps, one sign per channel and column."""
    _, channels, _, width = inputs.shape
    signs = _signs(noise.uniform((channels, 1, width)))
    return project(inputs + eps * signs, inputs, eps, "linf")


def _recoloured(images: Tensor, inputs: Tensor, eps: float, side: int, draw: _Draw) -> Tensor:
    """L-inf, each move: inputs ± eps inside one window, one sign per channel."""
    height, width = inputs.shape[2:]
    top, left = _corner(draw.corner, inputs, side)
    row, column = (torch.arange(n, device=inputs.device) for n in (height, width))
    high = (row >= top) & (row < top + side)
    wide = (column >= left) & (column < left + side)
    window = high.view(-1, 1, height, 1) & wide.view(-1, 1, 1, width)
    signs = _signs(draw.colour).view(-1, inputs.shape[1], 1, 1)
    return torch.where(window, project(inputs + eps * signs, inputs, eps, "linf"), images)


def _grid(inputs: Tensor, eps: float, noise: ImageNoise) -> Tensor:
    """L2, to begin with: a grid of bumps, five to the shorter side, of length eps in all."""
    batch, channels, height, width = inputs.shape
    side = max(1, min(height, width) // 5)
    down, across = height // side, width // side
    numbers = noise.uniform((channels + 1, down, across))
    turn, colour = numbers.view(batch, -1, down, 1, across, 1).split((1, channels), dim=1)
    bump = _bump(side, inputs.device)
    lying, upright = (each.reshape(side, 1, side) for each in (bump, bump.T))
    bumps = torch.where(turn < 0.5, lying, upright) * _signs(colour)
    rest_down, rest_across = height - down * side, width - across * side
    delta = F.pad(
        bumps.reshape(batch, channels, down * side, across * side),
        (rest_across // 2, (rest_across + 1) // 2, rest_down // 2, (rest_down + 1) // 2),
    )
    return _at_length(delta, inputs, eps)


def _regrouped(images: Tensor, inputs: Tensor, eps: float, side: int, draw: _Draw) -> Tensor:
    """L2, each move: what two windows hold and the box left unused, as a bump into the first."""
    channels = inputs.shape[1]
    delta = images - inputs
    first, second = (
        _window(*_corner(numbers, inputs, side), channels, side)
        for numbers in (draw.corner, draw.other_corner)
    )
    covered = torch.zeros_like(delta, dtype=torch.bool)
    covered[first] = covered[second] = True
    held = (delta * covered).square().sum(dim=(2, 3), keepdim=True)
    unused = (eps**2 - delta.square().sum(dim=(1, 2, 3), keepdim=True)).clamp(min=0.0)
    bump = _bump(side, inputs.device)
    turned = torch.where(draw.turn.view(-1, 1, 1, 1) < 0.5, bump, bump.T)
    fresh = _unit(turned * _signs(draw.colour).view(-1, channels, 1, 1) + _unit(delta[first]))
    delta[second] = 0.0
    delta[first] = fresh * (held + unused / channels).sqrt()
    return _at_length(delta, inputs, eps)


def _window(top: Tensor, left: Tensor, channels: int, side: int) -> Index:
    """Index (B,C,side,side) out of (B,C,H,W), one window per image."""
    inside = torch.arange(side, device=top.device)
    return (
        torch.arange(len(top), device=top.device).view(-1, 1, 1, 1),
        torch.arange(channels, device=top.device).view(1, -1, 1, 1),
        (top + inside).view(-1, 1, side, 1),
        (left + inside).view(-1, 1, 1, side),
    )


def _bump(side: int, device: torch.device) -> Tensor:
    """Return (side, side) of length 1: a pyramid above an inverted one.

    Equation 2 of the publication: a pyramid is, at the distance d from its middle in the maximum
    norm, the sum of 1 / j² for j from d + 1 to half the side + 1.
    """
    terms = 1.0 / torch.arange(1.0, side // 2 + 2, device=device).square()
    sums = terms.flip(0).cumsum(dim=0).flip(0)
    column = (torch.arange(side, device=device) - side // 2).abs()

    def pyramid(height: int) -> Tensor:
        row = (torch.arange(height, device=device) - height // 2).abs()
        return _unit(sums[torch.maximum(row.view(-1, 1), column)])

    return _unit(torch.cat((pyramid(side // 2), -pyramid(side - side // 2))))


def _unit(windows: Tensor) -> Tensor:
    """Return (...,H,W) at length 1; 0 where it is 0."""
    length = torch.linalg.vector_norm(windows, dim=(-2, -1), keepdim=True)
    return windows / length.clamp(min=torch.finfo(windows.dtype).tiny)


def _at_length(delta: Tensor, inputs: Tensor, eps: float) -> Tensor:
    """Return inputs + delta, stretched to the length eps and then cut at the box."""
    length = distance(delta, "l2").clamp(min=torch.finfo(delta.dtype).tiny).view(-1, 1, 1, 1)
    return project(inputs + delta * (eps / length), inputs, eps, "l2")


class _Moves(NamedTuple):
    start: Callable[[Tensor, float, ImageNoise], Tensor]
    move: Callable[[Tensor, Tensor, float, int, _Draw], Tensor]


_MOVES: dict[Norm, _Moves] = {
    "linf": _Moves(_stripes, _recoloured),
    "l2": _Moves(_grid, _regrouped),
}
