"""Pair losses: contrastive and triplet, which compare images of a batch with each other.

A tuple is what a loss compares: two images, or an anchor with a positive (an image of its class)
and a negative (one of another class). d is the distance of two features.
"""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from robustloss.losses.angles import directions
from robustloss.losses.arguments import check_choice, check_flag, check_number
from robustloss.losses.base import LossHead, LossTerms, check_inputs
from robustloss.losses.centers import class_means, half_squared_distances

MININGS = ("semi_hard", "batch_hard", "all")


class PairHead(LossHead):
    """The skeleton of the family: no class weights, and logits from the class means of `fit`.

    A member says what the tuples of a batch cost. The loss is the mean over the tuples with a
    non-zero term (the usual one, and the default of pytorch-metric-learning), so its gradient does
    not fade as fewer are left. An image has the share of the tuples that it is the anchor of,
    times B; the mean over the batch is that mean.

    logits_k = −½‖e − mean_k‖² with e the features, on the unit sphere where the loss compares
    them there, and mean_k the mean of e over the training images of class k.

    Args:
        feature_dim: D.
        num_classes: K.
        normalise: whether the loss compares features on the unit sphere.
    """

    batching = "balanced"
    orders: ClassVar[int] = 1
    """How often a tuple stands among the terms: 2 for pairs, (i,j) and (j,i)."""
    means: Tensor
    fitted: Tensor

    def __init__(self, feature_dim: int, num_classes: int, *, normalise: bool) -> None:
        super().__init__(feature_dim, num_classes)
        self.normalise = check_flag("normalise", normalise)
        self.register_buffer("means", torch.zeros(num_classes, feature_dim))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @abstractmethod
    def costs(self, squares: Tensor, same: Tensor, progress: float) -> tuple[Tensor, ...]:
        """Return what the tuples of a batch cost.

        Args:
            squares: (B,B) squared distances.
            same: (B,B) bool, whether two images are of one class.
            progress: as in `loss`.

        Returns:
            Kinds of tuples that are averaged apart, each (B,...) non-negative, the anchor first;
            0 where there is no tuple.
        """

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return each image's share of the mean over tuples, no regulariser."""
        check_inputs(self, features, labels)
        shares = torch.zeros_like(features[:, 0])
        for cost in self._batch_costs(features, labels, progress):
            count = torch.count_nonzero(cost.detach()).clamp(min=1).to(shares.dtype)
            shares = shares + cost.flatten(1).sum(1) * (len(labels) / count)
        return LossTerms(shares, torch.zeros_like(shares))

    @torch.no_grad()
    def tuples(self, features: Tensor, labels: Tensor) -> Tensor:
        """Count the tuples with a non-zero term, as at the end of a schedule."""
        counts = [torch.count_nonzero(cost) for cost in self._batch_costs(features, labels, 1.0)]
        return torch.stack(counts).sum() // self.orders

    def phase(self, progress: float) -> tuple[float, ...]:
        """Return nothing, unless a member's mining has a schedule."""
        return ()

    def logits(self, features: Tensor) -> Tensor:
        """Return −½‖e − mean_k‖², (B,D) -> (B,K).

        Raises:
            RuntimeError: if `fit` has not run.
        """
        check_inputs(self, features)
        if not self.fitted:
            raise RuntimeError(
                f"{type(self).__name__} has no logits before fit(): it classifies by the class "
                "means of the training features. Train it, or call fit(features, labels)."
            )
        return -half_squared_distances(self._embed(features), self.means)

    @torch.no_grad()
    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Set the class means.

        Raises:
            ValueError: if a class has no image.
        """
        check_inputs(self, features, labels)
        self.means.copy_(class_means(self._embed(features), labels, self.num_classes))
        self.fitted.fill_(True)

    def class_vectors(self) -> Tensor | None:
        """Return the class means, (K,D), from `fit` on."""
        return self.means if self.fitted else None

    def _embed(self, features: Tensor) -> Tensor:
        return directions(features) if self.normalise else features

    def _batch_costs(self, features: Tensor, labels: Tensor, progress: float) -> tuple[Tensor, ...]:
        embedded = self._embed(features)
        squares = 2.0 * half_squared_distances(embedded, embedded)
        return self.costs(squares, labels.unsqueeze(1) == labels, progress)


class ContrastiveHead(PairHead):
    """Contrastive: ½d² for two images of one class, ½max(0, m − d)² for two of different classes.

    Over all pairs of the batch. Both kinds are averaged apart, so that the many pairs of different
    classes do not outweigh the few of one class. (pytorch-metric-learning's loss of this name has a
    linear hinge.)

    Args:
        feature_dim: D.
        num_classes: K.
        margin: m, the distance from which images of different classes leave each other alone; 1 in
            the siamese MNIST example of Caffe.
        normalise: compare features on the unit sphere, where m = 2 is the most.

    Raises:
        ValueError: if an argument is out of range.

    Source: Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006,
        equation 4; BVLC/caffe, examples/siamese (features not normalised).
    """

    orders = 2

    def __init__(
        self, feature_dim: int, num_classes: int, *, margin: float = 1.0, normalise: bool = False
    ) -> None:
        super().__init__(feature_dim, num_classes, normalise=normalise)
        self.margin = check_number("margin", margin)

    def costs(self, squares: Tensor, same: Tensor, progress: float) -> tuple[Tensor, ...]:
        """Return ½d² over pairs of one class and ½max(0, m − d)² over the others."""
        pull, push = 0.5 * squares, 0.5 * (self.margin - safe_roots(squares)).relu().square()
        return pull.masked_fill(~_pairs(same), 0.0), push.masked_fill(same, 0.0)


class TripletHead(PairHead):
    """Triplet: max(0, d_ap − d_an + m) over anchor, positive and negative.

    Mining chooses the triplets of a batch:
        "semi_hard": for every pair of anchor and positive the nearest negative that is farther
            than the positive; where none is, the farthest negative (as in TensorFlow's loss).
        "batch_hard": for every anchor its farthest positive and its nearest negative.
        "all": every triplet, B³ terms.

    The hardest negatives from the start drive all features into one point, where the loss rests at
    m. "batch_hard" therefore mines "semi_hard" until `hard_from`, and `tuples` always counts the
    hard ones.

    Args:
        feature_dim: D.
        num_classes: K.
        margin: m; .2 in FaceNet.
        mining: "semi_hard", "batch_hard" or "all".
        squared: whether d is the squared distance, as in FaceNet.
        normalise: compare features on the unit sphere, as FaceNet does.
        hard_from: fraction of training after which "batch_hard" is hard, in [0,1].

    Raises:
        ValueError: if an argument is out of range.

    Source: Schroff et al., FaceNet, CVPR 2015, equations 1 to 4; tensorflow_addons,
        triplet_semihard_loss; Hermans et al., In Defense of the Triplet Loss, 2017, equation 5.
    """

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        margin: float = 0.2,
        mining: str = "semi_hard",
        squared: bool = True,
        normalise: bool = True,
        hard_from: float = 0.1,
    ) -> None:
        super().__init__(feature_dim, num_classes, normalise=normalise)
        self.margin = check_number("margin", margin)
        self.mining = check_choice("mining", mining, MININGS)
        self.squared = check_flag("squared", squared)
        self.hard_from = check_number("hard_from", hard_from, at_most=1.0)

    def note(self) -> str:
        """Return when hard mining begins."""
        if self.mining != "batch_hard" or self.hard_from == 0.0:
            return ""
        return f"triplet batch_hard: semi-hard until {100 * self.hard_from:g} % of training"

    def phase(self, progress: float) -> tuple[float, ...]:
        """Return whether hard mining has begun."""
        return (float(self.mining == "batch_hard" and progress >= self.hard_from),)

    def costs(self, squares: Tensor, same: Tensor, progress: float) -> tuple[Tensor, ...]:
        """Return max(0, d_ap − d_an + m) over the mined triplets."""
        distances = squares if self.squared else safe_roots(squares)
        pairs, mined = _pairs(same), distances.detach()  # which triplets count has no gradient
        if self.mining == "all":  # (B,B,B): anchor, positive, negative
            gap = distances.unsqueeze(2) - distances.unsqueeze(1)
            triplets = pairs.unsqueeze(2) & ~same.unsqueeze(1)
        elif self.mining == "batch_hard" and progress >= self.hard_from:  # (B,1): anchor
            positive = mined.masked_fill(~pairs, -torch.inf).argmax(1, keepdim=True)
            negative = mined.masked_fill(same, torch.inf).argmin(1, keepdim=True)
            gap = distances.gather(1, positive) - distances.gather(1, negative)
            triplets = pairs.any(1, keepdim=True) & (~same).any(1, keepdim=True)
        else:  # semi-hard, (B,B): anchor, positive
            near_first, order = mined.masked_fill(same, torch.inf).sort(1)
            last = (~same).sum(1, keepdim=True) - 1
            # The first negative beyond the positive; past the last one stands for none.
            place = torch.searchsorted(near_first, mined.contiguous(), right=True)
            negative = order.gather(1, place.minimum(last).clamp(min=0))
            gap = distances - distances.gather(1, negative)
            triplets = pairs & (last >= 0)
        return ((gap + self.margin).relu().masked_fill(~triplets, 0.0),)


def safe_roots(squares: Tensor) -> Tensor:
    """Return square roots with slope 0, not infinity, at 0: equal images pull in no direction."""
    apart = squares > 0
    return torch.where(apart, squares, 1.0).sqrt() * apart


def _pairs(same: Tensor) -> Tensor:
    """Return whether two images are of one class, but not one image and itself, (B,B) bool."""
    return same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
