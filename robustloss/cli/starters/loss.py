"""A loss of your own. It stands on the features of a network and needs two methods.

All others have defaults, see robustloss.losses.base. B images of a batch, K classes, D features.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustloss.losses.base import LossHead, LossTerms


class MyLoss(LossHead):
    """Softmax over scaled cosines, with a margin that training subtracts from the true class's."""

    # Parameters of the loss stand after the *, each with a default.
    def __init__(
        self, feature_dim: int, num_classes: int, *, scale: float = 10.0, margin: float = 0.1
    ) -> None:
        super().__init__(feature_dim, num_classes)
        self.scale, self.margin = scale, margin
        # What the gradient trains is an nn.Parameter. What is kept but not trained must be a buffer
        # (self.register_buffer), else it is neither saved nor moved to a GPU.
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(num_classes, feature_dim)))

    def cosines(self, features: Tensor) -> Tensor:
        """Return (B,K) cosines between features (B,D) and the vector of each class."""
        return F.linear(F.normalize(features), F.normalize(self.weight))

    def logits(self, features: Tensor) -> Tensor:
        """Return (B,K) logits without margin: they classify, and they are attacked."""
        return self.scale * self.cosines(features)

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return two numbers for each image, (B,) and (B,), not their means.

        `progress` goes from 0 to 1 in training, for a margin or a weight on a schedule.
        """
        true = F.one_hot(labels, self.num_classes)
        asked = self.scale * (self.cosines(features) - self.margin * true)
        classification = F.cross_entropy(asked, labels, reduction="none")
        regulariser = torch.zeros_like(classification)  # whatever else is minimised, weighted
        return LossTerms(classification, regulariser)
