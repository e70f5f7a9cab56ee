"""Losses on a linear layer: softmax cross-entropy and what is made of it by one changed formula.

`SoftmaxHead` is the plain one. Its relatives weigh the classes, put the features on a sphere,
smooth the labels, weigh hard images, normalise the logits, or ask one question a class.
"""

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


class LabelSmoothingHead(SoftmaxHead):
    """Label smoothing: the cross-entropy against (1 − epsilon)·[k = y] + epsilon/K.

    The loss is least where the true logit is log(1 + K (1 − epsilon)/epsilon) above every other:
    4.5 for ten classes and epsilon .1. A larger gap costs again, so logits stay small and the
    gradient of an attack does not vanish.

    Args:
        feature_dim: D.
        num_classes: K.
        smoothing: epsilon, the share of the label that all classes divide, in [0, 1); .1 in the
            paper. 0 is softmax.
        bias: whether the linear layer has a bias.

    Raises:
        ValueError: if an argument is out of range.

    Source: Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016,
        section 7.
    """

    def __init__(
        self, feature_dim: int, num_classes: int, *, smoothing: float = 0.1, bias: bool = True
    ) -> None:
        super().__init__(feature_dim, num_classes, bias=bias)
        self.smoothing = check_number("smoothing", smoothing, at_most=0.99)

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return the cross-entropy against the smoothed label per image, no regulariser."""
        check_inputs(self, features, labels)
        log_posterior_BK = self.logits(features).log_softmax(1)
        of_label = -log_posterior_BK.gather(1, labels.unsqueeze(1)).squeeze(1)
        of_all = -log_posterior_BK.mean(1)
        classification = (1.0 - self.smoothing) * of_label + self.smoothing * of_all
        return LossTerms(classification, torch.zeros_like(classification))


class FocalHead(SoftmaxHead):
    """Focal loss: −(1 − posterior_y)^gamma log posterior_y, so that easy images count less.

    The form for K classes, without the class weight alpha of the detection paper.

    Args:
        feature_dim: D.
        num_classes: K.
        gamma: the focusing exponent, at least 0; 2 in the paper, 3 where calibration is the aim
            (Mukhoti et al., NeurIPS 2020). 0 is softmax.
        bias: whether the linear layer has a bias.

    Raises:
        ValueError: if an argument is out of range.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, equation 4.
    """

    def __init__(
        self, feature_dim: int, num_classes: int, *, gamma: float = 2.0, bias: bool = True
    ) -> None:
        super().__init__(feature_dim, num_classes, bias=bias)
        self.gamma = check_number("gamma", gamma)

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return the weighted cross-entropy per image, no regulariser."""
        check_inputs(self, features, labels)
        logits_BK, true_class = self.logits(features), labels.unsqueeze(1)
        log_sum = logits_BK.logsumexp(1)
        cross_entropy = log_sum - logits_BK.gather(1, true_class).squeeze(1)
        # log(1 − posterior_y) from the other logits: of the difference itself, all digits are lost
        # near posterior 1, and a gamma below 1 has no finite slope there.
        others = logits_BK.scatter(1, true_class, -torch.inf).logsumexp(1) - log_sum
        classification = (self.gamma * others).exp() * cross_entropy
        return LossTerms(classification, torch.zeros_like(classification))


class LogitNormHead(SoftmaxHead):
    """LogitNorm: the cross-entropy of z / (temperature ‖z‖), z_k = w_k·f + b_k.

    Training thus cannot lower the loss by longer logits. The normalisation belongs to training
    alone: as in the authors' code, what classifies, is attacked and says the confidence is z
    itself, whose length is what tells known images from unknown ones. It moves no decision
    boundary.

    Args:
        feature_dim: D.
        num_classes: K.
        temperature: the paper's tau, at least 0.001; .04 in the paper, .01 in the example of the
            authors' code. At 1 the loss of ten classes cannot fall below 1.4 nats.
        bias: whether the linear layer has a bias.

    Raises:
        ValueError: if an argument is out of range.

    Source: Wei et al., Mitigating Neural Network Overconfidence with Logit Normalization, ICML
        2022; hongxin001/logitnorm_ood.
    """

    def __init__(
        self, feature_dim: int, num_classes: int, *, temperature: float = 0.04, bias: bool = True
    ) -> None:
        super().__init__(feature_dim, num_classes, bias=bias)
        self.temperature = check_number("temperature", temperature, at_least=0.001)

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return the cross-entropy of the normalised logits per image, no regulariser."""
        check_inputs(self, features, labels)
        normalised_BK = directions(self.logits(features)) / self.temperature
        classification = F.cross_entropy(normalised_BK, labels, reduction="none")
        return LossTerms(classification, torch.zeros_like(classification))


class OneVsRestHead(SoftmaxHead):
    """One-vs-rest: K yes-or-no questions, −log σ(z_y) − sum over k ≠ y of log(1 − σ(z_k)).

    z_k = w_k·f + b_k is the log-odds that the image is a k, and σ(z_k) that probability. If
    exactly one of the K independent answers is yes, class k is it with probability proportional
    to σ(z_k)/(1 − σ(z_k)) = exp z_k: the softmax of z, which is the posterior here as for every
    loss. Detection ranks on z_k, which orders images as log σ(z_k) does and, in float32, has no
    ties where σ is 1.

    Args:
        feature_dim: D.
        num_classes: K.
        bias: whether the linear layer has a bias.

    Source: Padhy et al., Revisiting One-vs-All Classifiers for Predictive Uncertainty and
        Out-of-Distribution Detection in Neural Networks, 2020.
    """

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return the sum of the K binary cross-entropies per image, no regulariser."""
        check_inputs(self, features, labels)
        logits_BK, true_class = self.logits(features), labels.unsqueeze(1)
        # −log σ(z) = softplus(−z) and −log(1 − σ(z)) = softplus(z)
        against_BK = logits_BK.scatter(1, true_class, -logits_BK.gather(1, true_class))
        classification = F.softplus(against_BK).sum(1)
        return LossTerms(classification, torch.zeros_like(classification))
