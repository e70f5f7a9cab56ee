"""Center loss: softmax cross-entropy and a pull towards the class center."""

import torch
import torch.nn.functional as F
from torch import Tensor

from robustloss.losses.arguments import check_number
from robustloss.losses.base import LossTerms, check_inputs
from robustloss.losses.centers import draw_centers, half_squared_distances
from robustloss.losses.softmax import SoftmaxHead


class CenterHead(SoftmaxHead):
    """Center loss: −log posterior_y + (lambda/2)·‖f − c_y‖².

    The centers follow the class means by a rule of their own, never by the loss gradient and
    never scaled by lambda.

    Args:
        feature_dim: D.
        num_classes: K.
        center_weight: the paper's lambda; 0.01 in the authors' MNIST example.
        center_rate: gamma, the share of the way to the batch mean that a center moves, in [0,1];
            the paper's alpha.
        center_init: where the centers start: "xavier", uniform with norm 1 on average; "normal",
            standard normal; or "zeros".
        bias: whether the linear layer has a bias.

    Raises:
        ValueError: if an argument is out of range.

    Source: Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition,
        ECCV 2016, equations 2 to 5.
    """

    centers: Tensor

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        center_weight: float = 0.01,
        center_rate: float = 0.5,
        center_init: str = "xavier",
        bias: bool = True,
    ) -> None:
        super().__init__(feature_dim, num_classes, bias=bias)
        self.center_weight = check_number("center_weight", center_weight)
        self.center_rate = check_number("center_rate", center_rate, at_most=1.0)
        self.register_buffer("centers", draw_centers(center_init, num_classes, feature_dim))

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return the cross-entropy and (lambda/2)·‖f − c_y‖² per image."""
        classification, _ = super().loss(features, labels, progress=progress)
        squared_distance = (features - self.centers[labels]).square().sum(1)
        return LossTerms(classification, 0.5 * self.center_weight * squared_distance)

    @torch.no_grad()
    def after_step(self, features: Tensor, labels: Tensor) -> None:
        """Move centers by c_j ← c_j − gamma · Σ_{i: y_i=j} (c_j − f_i) / (1 + n_j), equation 4."""
        # A product with the one-hot labels instead of index_add, whose order on a GPU varies.
        member = F.one_hot(labels, self.num_classes).to(features.dtype).T  # (K,B)
        pull = member @ (self.centers[labels] - features)
        count = member.sum(1, keepdim=True)
        self.centers -= self.center_rate * pull / (1.0 + count)

    def class_log_likelihood(self, features: Tensor) -> Tensor:
        """Return −½‖f − c_k‖², (B,D) -> (B,K): the log of the likelihood of Wan et al."""
        check_inputs(self, features)
        return -half_squared_distances(features, self.centers)

    def class_vectors(self) -> Tensor:
        """Return c_k, (K,D)."""
        return self.centers

    def boundary_terms(self) -> dict[str, Tensor]:
        """Return the linear layer: the centers have no part in the logits."""
        return {**super().boundary_terms(), "weight": self.linear.weight}
