"""Softmax cross-entropy on a linear layer: the loss that all others are compared with."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustloss.losses.arguments import flag
from robustloss.losses.base import LossHead, LossTerms, check_inputs


class SoftmaxHead(LossHead):
    """Softmax cross-entropy: logits_k = w_k·f + b_k, loss −log posterior_y.

    Args:
        feature_dim: D.
        num_classes: K.
        bias: whether the linear layer has b_k; without it the 2-D embedding is a plain star.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, feature_dim: int, num_classes: int, *, bias: bool = True) -> None:
        super().__init__(feature_dim, num_classes)
        self.linear = nn.Linear(feature_dim, num_classes, bias=flag("bias", bias))

    def logits(self, features: Tensor) -> Tensor:
        """w_k·f + b_k, (B,D) -> (B,K)."""
        check_inputs(self, features)
        return self.linear(features)

    def class_vectors(self) -> Tensor:
        """w_k, (K,D)."""
        return self.linear.weight

    def boundary_terms(self) -> dict[str, Tensor]:
        """The bias, if the layer has one."""
        return {} if self.linear.bias is None else {"bias": self.linear.bias}

    def phase(self, progress: float) -> tuple[float, ...]:
        """Nothing: there is no schedule."""
        return ()

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Cross-entropy per image, no regulariser."""
        check_inputs(self, features, labels)
        classification = F.cross_entropy(self.logits(features), labels, reduction="none")
        return LossTerms(classification, torch.zeros_like(classification))
