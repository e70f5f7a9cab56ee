"""Margin losses on the angle theta_k between a feature and the weight of class k.

    logits_k = r_k cos(theta_k);  in training t(cos(theta_y)) stands for cos(theta_y)

`CosineHead` is this skeleton. The losses differ in r, the radius, and in t, the target cosine:

    modified softmax   r = ‖f‖          no margin
    NormFace           r = s, learned   no margin
    CosFace            r = s            t = cos(theta) − m
    ArcFace            r = s            t = cos(theta + m)

Losses that multiply the angle stand in `multiple_angle`.

Shape suffixes: B batch, K classes.
"""

import math
from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustloss.losses import feasibility
from robustloss.losses.angles import directions, norms
from robustloss.losses.arguments import check_number
from robustloss.losses.base import LossHead, LossTerms, check_inputs
from robustloss.losses.centers import draw_centers

SMALLEST_SCALE = 0.01


class CosineHead(LossHead):
    """The skeleton of the family: logits_k = r_k · cos(theta_k), no bias.

    Training replaces cos(theta_y) of the true class by `target_cosine`; a member says what r is
    and overrides that one formula.

    Weights start uniform with norm 1 on average. Where r does not depend on their norm, only their
    direction counts, and weight decay would do nothing but shrink them and so speed up their
    rotation: they have none.

    Args:
        feature_dim: D.
        num_classes: K.
    """

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__(feature_dim, num_classes)
        self.weight = nn.Parameter(draw_centers("xavier", num_classes, feature_dim))

    @abstractmethod
    def radius(self, features: Tensor) -> Tensor | float:
        """Return r, which broadcasts to (B,K)."""

    def target_cosine(self, cosine: Tensor, progress: float) -> Tensor:
        """Return what stands for cos(theta_y) in training, elementwise; default: no margin.

        Args:
            cosine: cos(theta_y), any shape.
            progress: as in `loss`.
        """
        return cosine

    def cosines(self, features: Tensor) -> Tensor:
        """Return cos(theta_k), (B,D) -> (B,K); 0 for zero features."""
        return F.linear(directions(features), directions(self.weight))

    def logits(self, features: Tensor) -> Tensor:
        """Return r_k · cos(theta_k), (B,D) -> (B,K)."""
        check_inputs(self, features)
        return self.radius(features) * self.cosines(features)

    def training_logits(self, features: Tensor, labels: Tensor, *, progress: float) -> Tensor:
        """Return the logits with `target_cosine` at the true class."""
        check_inputs(self, features, labels)
        cosines_BK, true_class = self.cosines(features), labels.unsqueeze(1)
        target = self.target_cosine(cosines_BK.gather(1, true_class), progress)
        return self.radius(features) * cosines_BK.scatter(1, true_class, target)

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return the cross-entropy of the training logits per image, no regulariser."""
        logits_BK = self.training_logits(features, labels, progress=progress)
        classification = F.cross_entropy(logits_BK, labels, reduction="none")
        return LossTerms(classification, torch.zeros_like(classification))

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return the weights, without weight decay."""
        return [{"params": [self.weight], "lr": lr, "weight_decay": 0.0}]

    def phase(self, progress: float) -> tuple[float, ...]:
        """Return nothing: the margin is constant unless a member anneals it."""
        return ()

    def class_vectors(self) -> Tensor:
        """Return w_k, (K,D)."""
        return self.weight


class ModifiedSoftmaxHead(CosineHead):
    """Modified softmax: only the weights are normalised, logits_k = ‖f‖ cos(theta_k), no bias.

    A-Softmax with m = 1.

    Args:
        feature_dim: D.
        num_classes: K.

    Source: Liu et al., SphereFace, CVPR 2017, equation 3.
    """

    def radius(self, features: Tensor) -> Tensor:
        """Return ‖f‖, (B,1)."""
        return norms(features)


class ScaledHead(CosineHead):
    """Weights and features normalised: r is one scale s for all images.

    Args:
        feature_dim: D.
        num_classes: K.
        scale: s, at least 0.01.
    """

    scale: float | Tensor

    def __init__(self, feature_dim: int, num_classes: int, *, scale: float) -> None:
        super().__init__(feature_dim, num_classes)
        self.scale = check_number("scale", scale, at_least=SMALLEST_SCALE)

    def radius(self, features: Tensor) -> Tensor | float:
        """Return s."""
        return self.scale

    def boundary_terms(self) -> dict[str, Tensor]:
        """Return the scale as it stands."""
        return {"scale": torch.as_tensor(self.scale, dtype=torch.float64)}


class NormFaceHead(ScaledHead):
    """NormFace: weights and features normalised, logits_k = s cos(theta_k), s learned.

    Args:
        feature_dim: D.
        num_classes: K.
        scale: s at the start; 10 in the released code. Without a scale (s = 1) the loss cannot
            fall below log(1 + (K−1) e^{−K/(K−1)}), 1.37 nats for ten classes.
        weight_lr_ratio: learning rate of the weights over that of the network, at least 0. The
            released code has 100, to fine-tune a trained network with a small rate.

    Raises:
        ValueError: if an argument is out of range.

    Warns:
        LossWarning: if the scale is too small for K.

    Source: Wang et al., NormFace: L2 Hypersphere Embedding for Face Verification, ACM MM 2017;
        happynear/NormFace, scaled_cosine_softmax.prototxt, where s is kept at 0.01 or more.
    """

    scale: nn.Parameter

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        scale: float = 10.0,
        weight_lr_ratio: float = 1.0,
    ) -> None:
        super().__init__(feature_dim, num_classes, scale=scale)
        self.weight_lr_ratio = check_number("weight_lr_ratio", weight_lr_ratio)
        feasibility.warn_of_scale("normface", scale, num_classes)
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return the weights with their own rate, and the scale; no weight decay on either."""
        return [
            {"params": [self.weight], "lr": lr * self.weight_lr_ratio, "weight_decay": 0.0},
            {"params": [self.scale], "lr": lr, "weight_decay": 0.0},
        ]

    @torch.no_grad()
    def after_step(self, features: Tensor, labels: Tensor) -> None:
        """Bring a scale below 0.01 back to it."""
        # Outside the graph: a clamp inside it would leave a scale at the floor without gradient.
        self.scale.clamp_(min=SMALLEST_SCALE)


class CosFaceHead(ScaledHead):
    """CosFace, AM-Softmax: the true class counts as s (cos(theta_y) − m) in training.

    Args:
        feature_dim: D.
        num_classes: K.
        scale: s; AM-Softmax 30, CosFace 64. Small K needs less: 10 for ten classes and a posterior
            of .9999.
        margin: m, at least 0, in units of the cosine; .35 in both papers. K classes in the plane
            allow less than 1 − cos(2 pi/K), .191 for ten.

    Raises:
        ValueError: if an argument is out of range.

    Warns:
        LossWarning: if the margin cannot be met or the scale is too small for K.

    Source: Wang et al., Additive Margin Softmax for Face Verification, 2018; Wang et al., CosFace,
        CVPR 2018, equation 4.
    """

    def __init__(
        self, feature_dim: int, num_classes: int, *, scale: float = 30.0, margin: float = 0.35
    ) -> None:
        super().__init__(feature_dim, num_classes, scale=scale)
        self.margin = check_number("margin", margin)
        feasibility.warn_of_scale("cosface", scale, num_classes)
        bound = 1.0 - math.cos(feasibility.largest_angle_rad(feature_dim, num_classes))
        feasibility.warn_of_margin("cosface", "margin", margin, bound, feature_dim, num_classes)

    def target_cosine(self, cosine: Tensor, progress: float) -> Tensor:
        """Return cos(theta_y) − m."""
        return cosine - self.margin


class ArcFaceHead(ScaledHead):
    """ArcFace: the true class counts as s cos(theta_y + m) in training.

    Beyond theta = pi − m, where cos(theta + m) would rise again, it is cos(theta) − m sin m, as in
    the authors' code: lower by a small jump, and still falling.

    Args:
        feature_dim: D.
        num_classes: K.
        scale: s; 64 in the paper.
        margin_rad: m in radians, in [0, pi]; .5 in the paper. K classes in the plane allow less
            than 2 pi/K, .628 for ten.

    Raises:
        ValueError: if an argument is out of range.

    Warns:
        LossWarning: if the margin cannot be met or the scale is too small for K.

    Source: Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR
        2019, equation 3.
    """

    def __init__(
        self, feature_dim: int, num_classes: int, *, scale: float = 64.0, margin_rad: float = 0.5
    ) -> None:
        super().__init__(feature_dim, num_classes, scale=scale)
        self.margin_rad = check_number("margin_rad", margin_rad, at_most=math.pi)
        feasibility.warn_of_scale("arcface", scale, num_classes)
        bound = feasibility.largest_angle_rad(feature_dim, num_classes)
        feasibility.warn_of_margin(
            "arcface", "margin_rad", margin_rad, bound, feature_dim, num_classes
        )

    def target_cosine(self, cosine: Tensor, progress: float) -> Tensor:
        """Return cos(theta_y + m) = cos(theta_y) cos m − sin(theta_y) sin m."""
        cos_m, sin_m = math.cos(self.margin_rad), math.sin(self.margin_rad)
        # acos would have an infinite gradient at ±1. Below 1e-12 the root is constant: where, not
        # clamp, whose gradient at its bound depends on the version of torch.
        square = 1.0 - cosine.square()
        sine = torch.where(square > 1e-12, square, torch.full_like(square, 1e-12)).sqrt()
        beyond = cosine < -cos_m  # theta > pi − m
        return torch.where(beyond, cosine - self.margin_rad * sin_m, cosine * cos_m - sine * sin_m)
