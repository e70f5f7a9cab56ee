"""Attacks that must prove themselves: networks that are known to be breakable, one for each image.

The features of the model stay as they are. In place of its head each image gets a linear readout of
its own for two classes: points well inside the ball belong to the image's class, and one point on
its surface to the other. The boundary between the two lies just before that point. So an
adversarial image exists, and an attack that finds none is too weak, whatever the model.

For an attack on a detector the score of the model stays too. The threshold lies just below the
score of the point on the surface, so an image exists that fools and is accepted. In the inverted
test the detector is turned round: it accepts what the first one rejects, and only an attack that
follows the detector finds that as well.

Source: Zimmermann et al., "Increasing confidence in adversarial robustness evaluations" (NeurIPS
    2022), and its code: 999 inner points in 0.95 of the ball and the image itself, one boundary
    point, the boundary at 0.999 of the way to it, logits that span 1, 200 random points. Their
    readout is a logistic regression; ours is the linear discriminant, which has a closed form. They
    keep a detector's own threshold and redraw points until it accepts them.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustloss.attacks import AttackError, Queries, iter_perturb
from robustloss.attacks.ball import surface_start, uniform_start
from robustloss.attacks.base import Attack, Norm
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.sealing import sealing
from robustloss.data.images import ImageSet
from robustloss.evaluation.detector import widen
from robustloss.evaluation.passes import Arrays, Report, to_numpy
from robustloss.evaluation.torch_scores import TorchScore, choose_precision
from robustloss.models.classifier import AnyClassifier

VERSION = 1  # raise when the same weights would give other arrays

INNER = 999  # points inside the ball, beside the image itself
REACH = 0.95  # of the ball that holds them
CLOSENESS = 0.999  # of the way from the last inner point to the boundary point
RANDOM = 200  # points of a random search on the surface
_RIDGE = 1e-3  # of the mean variance of a feature, added to each: many features never move


class Tested(NamedTuple):
    """An attack that is tested.

    Attributes:
        name: Of its array.
        attack: The attack.
        eps: The budget to test it at.
        on_detector: It must be accepted too; else it need only fool the classifier.
        score: That the detector judges by, as the attack follows it; None for the likelihood.
    """

    name: str
    attack: Attack
    eps: float
    on_detector: bool = False
    score: TorchScore | None = None


@dataclass(frozen=True, eq=False)
class Readouts:
    """What the networks of R images are made of.

    Attributes:
        rows: (R,) which of the images have one; for the others the point on the surface could not
            be told from those inside, or another image is too near.
        weights: (R,D) direction in feature space from inside to the point on the surface.
        points: (R,D) features of that point.
        slack: (R,) by how much it lies beyond the boundary, along the weights.
        scores: (R,) the detector's score of that point.
        spread: (R,) range of the scores inside.
        lead: (R,RANDOM) as `slack`, of random points on the surface.
        random_scores: (R,RANDOM) their scores.
    """

    rows: Tensor
    weights: Tensor
    points: Tensor
    slack: Tensor
    scores: Tensor
    spread: Tensor
    lead: Tensor
    random_scores: Tensor


def unit_arrays(
    model: AnyClassifier,
    images: ImageSet,
    tested: Sequence[Tested],
    *,
    seed: int = 0,
    report: Report = lambda done, total, text: None,
) -> Arrays:
    """Return whether attacks break networks that are known to be breakable.

    Args:
        model: In eval mode, on the device of the images.
        images: M images.
        tested: The attacks; those that aim at features are left out, which have no readout.
        seed: Decides the points, and the randomness of the attacks.
        report: Called with (attacks done, all of them, "") after each.

    Returns:
        Of every attack NAME two rows (2,R) bool over the images that have a network: the attack
        broke it; as many random points as the attack made passes, at most RANDOM, broke it. Of an
        attack on a detector also NAME_inverted. And NAME_eps.
    """
    arrays: Arrays = {}
    made: dict[tuple[Norm, float, TorchScore | None], Readouts] = {}
    for number, (name, attack, eps, on_detector, score) in enumerate(tested):
        place = (attack.norm, eps, score)
        if place not in made:
            made[place] = make_readouts(model, images, attack.norm, eps, seed, score)
        arrays[f"{name}_eps"] = np.array(float(eps))
        with suppress(AttackError):  # the attack on the model itself tells it
            for sign in (1, -1) if on_detector else (0,):
                network = Binarised(model, images, made[place], sign, score)
                arrays[f"{name}_inverted" if sign < 0 else name] = network.attack(attack, eps, seed)
        report(number + 1, len(tested), "")
    return arrays


def count_passes(tested: Sequence[Tested]) -> Queries:
    """Return how often an image is sent forward and a gradient is taken back, at most.

    Args:
        tested: The attacks.
    """
    # Each score has readouts of its own; here it is known by its name alone.
    places = {
        (each.attack.norm, each.eps, getattr(each.attack, "score", None))
        if each.attack.needs == "score"
        else (each.attack.norm, each.eps)
        for each in tested
    }
    forward, backward = len(places) * (1 + INNER + 2 + RANDOM), 0
    for each in tested:
        passes = getattr(each.attack, "passes", None)
        spent = passes(1) if passes else Queries(1, 1)
        times = 2 if each.on_detector else 1
        forward, backward = (
            forward + times * (spent.forward + 1),
            backward + times * spent.backward,
        )
    return Queries(forward, backward)


def make_readouts(
    model: AnyClassifier,
    images: ImageSet,
    norm: Norm,
    eps: float,
    seed: int,
    score: TorchScore | None = None,
) -> Readouts:
    """Make a network for every image that can have one.

    Args:
        model: In eval mode, on the device of the images.
        images: M images.
        norm: Of the ball.
        eps: Its radius.
        seed: Decides the points.
        score: See `Tested`.
    """
    inputs = images.batch(slice(None))
    rows, points, found = [], [], []
    with sealing(model, inputs.device, seed), torch.no_grad():
        for row in _find_apart(inputs, norm, eps):
            clean, index = inputs[row : row + 1], int(images.index[row])
            inside, surface = _draw_points(clean, norm, eps, seed, index)
            seen = _measure(model, torch.cat([clean, inside, surface]), score)
            fitted = _fit(seen.features, seen.scores)
            if fitted is not None:
                rows.append(row)
                points.append(surface[0])
                found.append(fitted)
        columns = [torch.stack(each).to(inputs) for each in zip(*found, strict=True)]
        # The likelihood is float32, other scores keep their precision.
        if score is not None and found:
            wide = choose_precision(inputs.device)
            kept = [torch.stack(each).to(inputs.device, wide) for each in zip(*found, strict=True)]
            for number, each in enumerate(fields(Readouts)[1:]):
                if each.name in ("scores", "spread", "random_scores"):
                    columns[number] = kept[number]
        if not columns:
            return Readouts(torch.zeros(0, dtype=torch.int64), *[torch.zeros(0)] * 7)
        made = Readouts(torch.tensor(rows, device=inputs.device), *columns)
        # In another batch the features differ by rounding: it must stay below the slack.
        again = _measure(model, torch.stack(points), score).features
        sure = ((again - made.points) * made.weights).sum(1) + made.slack > 0
    return Readouts(*(getattr(made, each.name)[sure] for each in fields(made)))


def _find_apart(inputs: Tensor, norm: Norm, eps: float) -> list[int]:
    """Return which images (M,C,H,W) to keep, so that any point in the ball of one is nearest to it.

    With x in the ball of a and d = b − a, x is nearer to a than to b where 2 (x − a)·d < ‖d‖²; and
    (x − a)·d is at most eps ‖d‖₁ in L-inf, eps ‖d‖₂ in L2, eps ‖d‖∞ in L1.
    """
    flat = inputs.flatten(1)
    square = torch.cdist(flat, flat).square()
    dual = {"linf": 1.0, "l2": 2.0, "l1": math.inf}[norm]
    reach = torch.cdist(flat, flat, p=dual)
    meet = (2 * eps * reach > 0.999 * square).cpu()
    kept: list[int] = []
    for row in range(len(inputs)):
        if not meet[row, kept].any():
            kept.append(row)
    return kept


def _draw_points(
    clean: Tensor, norm: Norm, eps: float, seed: int, index: int
) -> tuple[Tensor, Tensor]:
    """Return INNER points inside the ball of an image (1,C,H,W), and 1 + RANDOM on its surface."""

    def make_noise(first: int, count: int) -> ImageNoise:
        # An index of its own for each point, above all that images have.
        points = torch.arange(first, first + count, device=clean.device)
        return ImageNoise(seed, points + (index + 1 << 32))

    def repeat(count: int) -> Tensor:
        return clean.expand(count, *clean.shape[1:])

    outer = 1 + RANDOM
    inside = uniform_start(repeat(INNER), REACH * eps, norm, make_noise(0, INNER))
    return inside, surface_start(repeat(outer), eps, norm, make_noise(INNER, outer))


def _fit(features: Tensor, scores: Tensor) -> tuple[Tensor, ...] | None:
    """Return the columns of `Readouts` for one image; None where no boundary lies between.

    Args:
        features: (1 + INNER + 1 + RANDOM, D) of the image, inside, on the surface.
        scores: Of the same.
    """
    features = features.cpu().double()  # small, and float32 would not do for the inverse
    inside, point = features[: 1 + INNER], features[1 + INNER]
    centred = inside - inside.mean(0)
    scatter = centred.T @ centred / len(inside)
    ridge = _RIDGE * scatter.diagonal().mean()
    if ridge == 0:
        return None
    scatter += ridge * torch.eye(len(point), dtype=scatter.dtype)
    weights = torch.linalg.solve(scatter, point - inside.mean(0))
    lead = (features - point) @ weights
    gap, span = -lead[: 1 + INNER].max(), -lead[: 1 + INNER].min()
    if gap <= 0:
        return None
    slack = (1 - CLOSENESS) * gap / span
    lead = lead[2 + INNER :] / span + slack
    scores = scores.cpu().double()
    own = scores[: 1 + INNER]
    return (
        *(weights / span, point, slack, scores[1 + INNER], own.max() - own.min()),
        *(lead, scores[2 + INNER :]),
    )


class _Measured(NamedTuple):
    """What readouts are made of.

    Attributes:
        features: (B,D); the logits where a model has none.
        goals: (B,) what an attack raises to raise the score: itself, if it has a gradient, else the
            goal of the class that it is most typical of.
        scores: (B,) the detector's.
    """

    features: Tensor
    goals: Tensor
    scores: Tensor


def _measure(model: AnyClassifier, images: Tensor, score: TorchScore | None) -> _Measured:
    """Return what the model and its detector say of images (B,C,H,W)."""
    features, logits, likelihood = model.outputs(images)
    predicted = logits.argmax(1, keepdim=True)
    read = logits if features is None else features
    if score is None:
        own = likelihood.gather(1, predicted).squeeze(1)
        return _Measured(read, own, own)
    goals, scores = score(widen(logits, likelihood, features))
    raised = scores if scores.requires_grad else goals.amax(dim=1)
    return _Measured(read, raised, scores)


class Binarised(nn.Module):
    """The networks of all images as one: the nearest image decides whose readout answers.

    The balls of the images do not meet (see `_find_apart`), so an image that an attack makes is
    answered by its own, in whatever batch it comes.

    Args:
        model: Whose features are read.
        images: The M images.
        readouts: Made of them.
        sign: 0 without a detector, 1 with it, -1 with the inverted one.
        score: See `Tested`.
    """

    threshold = 0.0  # of `joint`'s likelihoods: the scores are measured from their own threshold

    def __init__(
        self,
        model: AnyClassifier,
        images: ImageSet,
        readouts: Readouts,
        sign: int,
        score: TorchScore | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.readouts = readouts
        self.sign = sign
        self.score = score
        self.classes = model.head.num_classes
        self.images = images.take(readouts.rows)
        self.clean = self.images.batch(slice(None)).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) to logits (B,K): the image's class, the other one, and no other."""
        has = self.model.head.feature_dim
        features = self.model.features(images) if has else self.model(images)
        return self._read(features, self._find_rows(images))

    def joint(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B,K) and the detector's score of every class (B,K), accepted from 0 on.

        Without a detector that is the log-posterior, for attacks that climb a likelihood.
        """
        logits, _, gap = self._look(images)
        if not self.sign:
            return logits, logits.log_softmax(1)
        return logits, gap.unsqueeze(1).expand_as(logits)

    def scored(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (B,K), goals for each class (B,K), and the score (B,), as for `joint`."""
        logits, goals, gap = self._look(images)
        return logits, goals.unsqueeze(1).expand_as(logits), gap

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (B,K), what raises the score (B,), and the score above its threshold."""
        rows = self._find_rows(images)
        seen = _measure(self.model, images, self.score)
        gap = self.sign * (seen.scores - self.readouts.scores[rows])
        gap = gap + (1 - CLOSENESS) * self.readouts.spread[rows]
        return self._read(seen.features, rows), self.sign * seen.goals, gap

    def attack(self, attack: Attack, eps: float, seed: int) -> NDArray:
        """Return (2,R) bool: broken by the attack, and by as many random points; see `unit_arrays`.

        Args:
            attack: Gets the networks as one batch.
            eps: Its budget.
            seed: As for `perturb`.
        """
        made, n = self.readouts, self.images.n
        if n == 0:
            return np.zeros((2, 0), bool)
        inputs = self.images.batch(slice(None))
        (found,) = iter_perturb(
            *(attack, self, inputs, torch.zeros_like(self.images.labels)),
            eps=[eps], seed=seed, batch_size=n, index=self.images.index,
        )  # fmt: skip
        with sealing(self, inputs.device, seed), torch.no_grad():
            logits, _, gap = self._look(found.adv_inputs[0])
        tries = min(RANDOM, max(1, found.queries.forward // n))
        broken, random = logits.argmax(1) != 0, made.lead > 0
        if self.sign:
            least = -(1 - CLOSENESS) * made.spread[:, None]
            random &= self.sign * (made.random_scores - made.scores[:, None]) >= least
            broken &= gap >= 0
        return to_numpy(torch.stack([broken, random[:, :tries].any(1)]))

    def _read(self, features: Tensor, rows: Tensor) -> Tensor:
        """Return logits (B,K) of features (B,D) by the readouts of some images (B,)."""
        made = self.readouts
        lead = ((features - made.points[rows]) * made.weights[rows]).sum(1) + made.slack[rows]
        half = lead / 2
        # Attacks with targets, or with a third logit, need all classes: these are never likeliest.
        never = (-half.detach().abs() - 1).unsqueeze(1).expand(-1, self.classes - 2)
        return torch.cat([-half.unsqueeze(1), half.unsqueeze(1), never], dim=1)

    def _find_rows(self, images: Tensor) -> Tensor:
        """Return (B,) which readout each image has: that of the nearest clean image."""
        with torch.no_grad():
            products = images.flatten(1) @ self.clean.T
            return (self.clean.square().sum(1) - 2 * products).argmin(1)
