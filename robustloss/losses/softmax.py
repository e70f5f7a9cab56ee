"""Softmax cross-entropy on a linear layer: plain, with class weights, with features on a sphere."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustloss.losses.angles import directions
from robustloss.losses.arguments import check_flag, check_number
from robustloss.losses.base import LossHead, LossTerms, check_class_counts, check_inputs
from robustloss.losses.feasibility import warn_of_scale

SMALLEST_RADIUS = 0.01


class SoftmaxHead(LossHead):
    """Softmax cross-entropy: logits_k = w_k·f + b_k, loss −log posterior_y.

    The loss that all others are compared with.

    Args:
        feature_dim: D.
        num_classes: K.
        bias: whether the linear layer has b_k; without it the 2-D embedding is a plain star.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, feature_dim: int, num_classes: int, *, bias: bool = True) -> None:
        super().__init__(feature_dim, num_classes)
        self.linear = nn.Linear(feature_dim, num_classes, bias=check_flag("bias", bias))

    def logits(self, features: Tensor) -> Tensor:
        """Return w_k·f + b_k, (B,D) -> (B,K)."""
        check_inputs(self, features)
        return self.linear(features)

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return the cross-entropy per image, no regulariser."""
        check_inputs(self, features, labels)
        classification = F.cross_entropy(self.logits(features), labels, reduction="none")
        return LossTerms(classification, torch.zeros_like(classification))

    def phase(self, progress: float) -> tuple[float, ...]:
        """Return nothing: there is no schedule."""
        return ()

    def class_vectors(self) -> Tensor:
        """Return w_k, (K,D)."""
        return self.linear.weight

    def boundary_terms(self) -> dict[str, Tensor]:
        """Return the bias, if the layer has one."""
        return {} if self.linear.bias is None else {"bias": self.linear.bias}


class WeightedSoftmaxHead(SoftmaxHead):
    """Weighted softmax: −v_y log posterior_y, so that rare or costly classes count more.

    Only the ratios of the class weights matter: they are divided by their mean over the training
    images, so v is 1 on average and the learning rate means what it means for softmax. Torch's
    weighted cross-entropy divides each batch by the weights that it drew instead; over the whole
    training set both are the same number, on a batch they differ, and this one is unbiased.

    Args:
        feature_dim: D.
        num_classes: K.
        class_weights: K positive numbers, or "balanced": 1 / (training images of the class).
        bias: whether the linear layer has a bias.

    Raises:
        ValueError: if an argument is out of range.

    Source: King and Zeng, Logistic Regression in Rare Events Data, 2001, for "balanced".
    """

    relative: Tensor
    class_weights: Tensor

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        class_weights: str | Sequence[float] = "balanced",
        bias: bool = True,
    ) -> None:
        super().__init__(feature_dim, num_classes, bias=bias)
        self.balanced = isinstance(class_weights, str) and class_weights == "balanced"
        relative = [1.0] * num_classes
        if not self.balanced:
            rule = f"must be {num_classes} positive numbers, one per class, or 'balanced'"
            if isinstance(class_weights, str) or not isinstance(class_weights, Sequence):
                raise ValueError(f"class_weights (={class_weights!r}) {rule}.")
            given = list(class_weights)
            if len(given) != num_classes:
                raise ValueError(f"class_weights (={given}) {rule}; these are {len(given)}.")
            relative = [
                check_number(f"class_weights[{k}]", v, at_least=1e-9) for k, v in enumerate(given)
            ]
        self.register_buffer("relative", torch.tensor(relative))
        self.register_buffer("class_weights", self.relative / self.relative.mean())

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return v_y times the cross-entropy per image, no regulariser."""
        classification, regulariser = super().loss(features, labels, progress=progress)
        return LossTerms(self.class_weights[labels] * classification, regulariser)

    def start(self, class_counts: Tensor) -> None:
        """Set v from the class weights and the training images per class.

        Raises:
            ValueError: if class_counts are not K numbers, or a class is empty when balanced.
        """
        check_class_counts(
            self,
            class_counts,
            at_least=1 if self.balanced else 0,
            remedy="Give class_weights as a list when a class has no images.",
        )
        counts = class_counts.to(self.relative.device, torch.float64)
        relative = 1.0 / counts if self.balanced else self.relative.double()
        self.class_weights.copy_(relative * counts.sum() / (relative * counts).sum())


class L2SoftmaxHead(SoftmaxHead):
    """L2-constrained softmax: features on a sphere, logits_k = w_k·(alpha f/‖f‖) + b_k.

    The weights are not normalised and the bias stays.

    Args:
        feature_dim: D.
        num_classes: K.
        radius: the paper's alpha, the norm that all features are given. A posterior p needs at
            least log(p (K−2) / (1−p)): 4.3 for ten classes and .9, 6.8 for a hundred. Fixed at
            16 to 50 in the literature; far above the bound the constraint loses its effect.
        learn_radius: train the radius from there; the paper prefers it fixed, because a learned one
            grows without end.
        bias: whether the linear layer has a bias.

    Raises:
        ValueError: if an argument is out of range.

    Warns:
        LossWarning: if the radius is below the bound for p = .9.

    Source: Ranjan et al., L2-constrained Softmax Loss for Discriminative Face Verification, 2017.
    """

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        radius: float = 16.0,
        learn_radius: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__(feature_dim, num_classes, bias=bias)
        value = torch.tensor(check_number("radius", radius, at_least=SMALLEST_RADIUS))
        self.learn_radius = check_flag("learn_radius", learn_radius)
        if self.learn_radius:
            self.radius = nn.Parameter(value)
        else:
            self.register_buffer("radius", value)
        warn_of_scale("l2_softmax", radius, num_classes, "radius")

    def logits(self, features: Tensor) -> Tensor:
        """Return w_k·(alpha f/‖f‖) + b_k, (B,D) -> (B,K)."""
        check_inputs(self, features)
        return self.linear(self.radius * directions(features))

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return the linear layer, with the training's weight decay, and the radius, without."""
        groups: list[dict[str, Any]] = [{"params": list(self.linear.parameters()), "lr": lr}]
        if self.learn_radius:
            groups.append({"params": [self.radius], "lr": lr, "weight_decay": 0.0})
        return groups

    @torch.no_grad()
    def after_step(self, features: Tensor, labels: Tensor) -> None:
        """Bring a learned radius below 0.01 back to it."""
        if self.learn_radius:
            self.radius.clamp_(min=SMALLEST_RADIUS)

    def boundary_terms(self) -> dict[str, Tensor]:
        """Return the bias, if there is one, and the radius as it stands."""
        return {**super().boundary_terms(), "scale": self.radius}
