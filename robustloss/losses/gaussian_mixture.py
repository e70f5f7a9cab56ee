"""Gaussian-mixture losses: GM and large-margin GM (L-GM).

Shape suffixes: B batch, K classes, D feature dimensions.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustloss.losses.arguments import check_choice, check_number
from robustloss.losses.base import LossHead, LossTerms, check_class_counts, check_inputs
from robustloss.losses.centers import draw_centers, half_squared_distances
from robustloss.losses.schedules import SCHEDULES, schedule_factor

COVARIANCES = ("identity", "spherical", "diagonal")
PRIORS = ("uniform", "counts")


class GaussianMixtureHead(LossHead):
    """GM loss: features follow a mixture of one Gaussian N(mu_k, S_k) per class.

    With d_k = ½ (f − mu_k)ᵀ S_k⁻¹ (f − mu_k):
        logits_k       = log p(k) − ½ log|S_k| − d_k
        classification = −log softmax of the logits
        regulariser    = lambda · (d_y + ½ log|S_y|)
    The family takes margin(d_y) off the true logit in training. GM has margin 0.

    Centers and log-variances are ordinary parameters, so they follow the loss gradient.

    Args:
        feature_dim: D.
        num_classes: K.
        likelihood_weight: the paper's lambda, at least 0.
        likelihood_weight_schedule: how lambda grows: "constant"; "linear" from 0; or "steps", from
            a thousandth by a factor of 10 at each third of the way, as in the released code.
        schedule_until: fraction of training after which scheduled values are full, in [0,1].
        covariance: S_k: "identity"; "spherical", one variance per class; "diagonal", one per
            class and dimension. Learned variances start at 1.
        variance_floor: smallest learned variance, in (0,1]. The likelihood has no bound without
            it: features shrink onto the centers while the variances go to 0.
        priors: p(k): "uniform", or "counts" for the class shares of the training set.
        center_init: where the centers start: "xavier", uniform with norm 1 on average; "normal",
            standard normal; or "zeros".
        center_lr_ratio: learning rate of centers and log-variances over that of the network, at
            least 0; 0.3 in the released MNIST configuration. Near 1, L-GM diverges earlier.
        center_weight_decay: weight decay of the centers; the released code decays them like any
            weight, which pulls the classes together. Log-variances are never decayed.

    Raises:
        ValueError: if an argument is out of range.

    Source: Wan et al., Rethinking Feature Distribution for Loss Functions in Image
        Classification, CVPR 2018, equations 5 to 18. Their released layer leaves out log p(k) and
        log|S_k|, and S⁻¹ in the likelihood term; this follows the paper.
    """

    density = True
    log_prior: Tensor

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        likelihood_weight: float = 0.1,
        likelihood_weight_schedule: str = "constant",
        schedule_until: float = 0.225,
        covariance: str = "identity",
        variance_floor: float = 0.01,
        priors: str = "uniform",
        center_init: str = "xavier",
        center_lr_ratio: float = 0.3,
        center_weight_decay: float = 0.0,
    ) -> None:
        super().__init__(feature_dim, num_classes)
        self.likelihood_weight = check_number("likelihood_weight", likelihood_weight)
        self.likelihood_weight_schedule = check_choice(
            "likelihood_weight_schedule", likelihood_weight_schedule, SCHEDULES
        )
        self.schedule_until = check_number("schedule_until", schedule_until, at_most=1.0)
        self.covariance = check_choice("covariance", covariance, COVARIANCES)
        self.variance_floor = check_number(
            "variance_floor", variance_floor, at_least=1e-12, at_most=1.0
        )
        self.priors = check_choice("priors", priors, PRIORS)
        self.center_lr_ratio = check_number("center_lr_ratio", center_lr_ratio)
        self.center_weight_decay = check_number("center_weight_decay", center_weight_decay)
        self.centers = nn.Parameter(draw_centers(center_init, num_classes, feature_dim))
        columns = {"identity": 0, "spherical": 1, "diagonal": feature_dim}[self.covariance]
        self.log_var = nn.Parameter(torch.zeros(num_classes, columns)) if columns else None
        self.register_buffer("log_prior", torch.full((num_classes,), -math.log(num_classes)))

    def margin(self, true_distance: Tensor, progress: float) -> Tensor:
        """Return what is taken off the true logit in training, (B,) -> (B,); GM: nothing.

        Args:
            true_distance: (B,) d_y.
            progress: as in `loss`.
        """
        return torch.zeros_like(true_distance)

    def logits(self, features: Tensor) -> Tensor:
        """Return log p(k) − ½ log|S_k| − d_k, (B,D) -> (B,K)."""
        check_inputs(self, features)
        return self.log_prior - self._half_log_det() - self._distances(features)

    def training_logits(self, features: Tensor, labels: Tensor, *, progress: float) -> Tensor:
        """Return the logits with margin(d_y) taken off the true one."""
        check_inputs(self, features, labels)
        return self._with_margin(self._distances(features), self._half_log_det(), labels, progress)

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return margin cross-entropy and weighted negative log-likelihood per image."""
        check_inputs(self, features, labels)
        distances_BK, half_log_det_K = self._distances(features), self._half_log_det()
        true_distance_B = distances_BK.gather(1, labels.unsqueeze(1)).squeeze(1)
        logits_BK = self._with_margin(distances_BK, half_log_det_K, labels, progress)
        classification = F.cross_entropy(logits_BK, labels, reduction="none")
        weight = self.likelihood_weight * schedule_factor(
            self.likelihood_weight_schedule, progress, self.schedule_until
        )
        return LossTerms(classification, weight * (true_distance_B + half_log_det_K[labels]))

    def start(self, class_counts: Tensor) -> None:
        """Set log p(k) to the log class shares, if priors="counts"."""
        if self.priors != "counts":
            return
        remedy = "Use priors='uniform' when a class has no images."
        check_class_counts(self, class_counts, at_least=1, remedy=remedy)
        shares = class_counts.to(self.log_prior.device, torch.float64) / class_counts.sum()
        self.log_prior.copy_(shares.log())

    @torch.no_grad()
    def after_step(self, features: Tensor, labels: Tensor) -> None:
        """Bring log-variances that fell below the floor back to it."""
        # Outside the graph: a clamp inside it would leave a variance at the floor without gradient.
        if self.log_var is not None:
            self.log_var.clamp_(min=math.log(self.variance_floor))

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return centers and log-variances with their own rate; by default without weight decay."""
        center_lr = lr * self.center_lr_ratio
        groups = [
            {"params": [self.centers], "lr": center_lr, "weight_decay": self.center_weight_decay}
        ]
        if self.log_var is not None:
            # One spherical variance takes the gradient of D: divided by D it moves like each of
            # D equal diagonal ones, and does not run away in high dimensions.
            shared = self.feature_dim // self.log_var.shape[1]
            log_var_lr = center_lr / shared
            groups.append({"params": [self.log_var], "lr": log_var_lr, "weight_decay": 0.0})
        return groups

    def phase(self, progress: float) -> tuple[float, ...]:
        """Return the share of the full likelihood weight."""
        name, until = self.likelihood_weight_schedule, self.schedule_until
        return (schedule_factor(name, progress, until),)

    def class_log_likelihood(self, features: Tensor) -> Tensor:
        """Return log N(f; mu_k, S_k) = −½ D log 2π − ½ log|S_k| − d_k, (B,D) -> (B,K)."""
        check_inputs(self, features)
        constant = 0.5 * self.feature_dim * math.log(2.0 * math.pi)
        return -self._distances(features) - self._half_log_det() - constant

    def class_vectors(self) -> Tensor:
        """Return mu_k, (K,D)."""
        return self.centers

    def boundary_terms(self) -> dict[str, Tensor]:
        """Return log-priors, and log-variances if they are learned."""
        terms = {"log_prior": self.log_prior}
        return terms if self.log_var is None else {**terms, "log_var": self.log_var}

    def _distances(self, features: Tensor) -> Tensor:
        """Return d_k = ½ (f − mu_k)ᵀ S_k⁻¹ (f − mu_k), (B,D) -> (B,K)."""
        if self.log_var is None:
            return half_squared_distances(features, self.centers)
        precision = torch.exp(-self.log_var)
        if self.covariance == "spherical":
            return half_squared_distances(features, self.centers) * precision.squeeze(1)
        return half_squared_distances(features, self.centers, precision)

    def _half_log_det(self) -> Tensor:
        """Return ½ log|S_k|, (K,)."""
        if self.log_var is None:
            return torch.zeros_like(self.log_prior)
        shared = self.feature_dim // self.log_var.shape[1]
        return 0.5 * shared * self.log_var.sum(1)

    def _with_margin(
        self, distances_BK: Tensor, half_log_det_K: Tensor, labels: Tensor, progress: float
    ) -> Tensor:
        """Return the logits with margin(d_y) taken off the true one, (B,K)."""
        true_distance_B = distances_BK.gather(1, labels.unsqueeze(1)).squeeze(1)
        margin_B = self.margin(true_distance_B, progress)
        return (self.log_prior - half_log_det_K - distances_BK).scatter_add(
            1, labels.unsqueeze(1), -margin_B.unsqueeze(1)
        )


class LargeMarginGaussianMixtureHead(GaussianMixtureHead):
    """L-GM loss: GM with margin alpha·d_y, so the true class counts as (1 + alpha) times as far.

    Args:
        feature_dim: D.
        num_classes: K.
        alpha: margin, at least 0; 0 is GM. Paper: 1 on MNIST, 0.3 on CIFAR-100, 0.01 on ImageNet.
        alpha_schedule: how alpha grows: "constant", "linear" or "steps", as lambda does in GM.
        likelihood_weight: as in GM, like all that follow.
        likelihood_weight_schedule: see GM.
        schedule_until: see GM; also for alpha.
        covariance: see GM.
        variance_floor: see GM.
        priors: see GM.
        center_init: see GM.
        center_lr_ratio: see GM.
        center_weight_decay: see GM.

    Raises:
        ValueError: if an argument is out of range.

    Source: Wan et al. 2018, equations 17 and 18.
    """

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        alpha: float = 1.0,
        alpha_schedule: str = "constant",
        likelihood_weight: float = 0.1,
        likelihood_weight_schedule: str = "constant",
        schedule_until: float = 0.225,
        covariance: str = "identity",
        variance_floor: float = 0.01,
        priors: str = "uniform",
        center_init: str = "xavier",
        center_lr_ratio: float = 0.3,
        center_weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            feature_dim,
            num_classes,
            likelihood_weight=likelihood_weight,
            likelihood_weight_schedule=likelihood_weight_schedule,
            schedule_until=schedule_until,
            covariance=covariance,
            variance_floor=variance_floor,
            priors=priors,
            center_init=center_init,
            center_lr_ratio=center_lr_ratio,
            center_weight_decay=center_weight_decay,
        )
        self.alpha = check_number("alpha", alpha)
        self.alpha_schedule = check_choice("alpha_schedule", alpha_schedule, SCHEDULES)

    def margin(self, true_distance: Tensor, progress: float) -> Tensor:
        """Return m = alpha · d_y, (B,) -> (B,)."""
        factor = schedule_factor(self.alpha_schedule, progress, self.schedule_until)
        return self.alpha * factor * true_distance

    def phase(self, progress: float) -> tuple[float, ...]:
        """Return the shares of the full likelihood weight and of the full alpha."""
        alpha_share = schedule_factor(self.alpha_schedule, progress, self.schedule_until)
        return (*super().phase(progress), alpha_share)
