"""The nearest class mean on the features of any trained loss: what does the head alone do?

A control for losses that classify by distances. Softmax with this head has the distances and the
likelihood of a Gaussian mixture, and none of its training.
"""

import math
from typing import Any

import torch
from torch import Tensor

from robustloss.losses.base import LossHead, LossTerms, check_inputs
from robustloss.losses.centers import class_means, half_squared_distances


class NearestMeanHead(LossHead):
    """Trains with another loss; then classifies by the nearest mean of the training features.

    The means mu_k and one variance s² are fitted by maximum likelihood after the training:
    logits_k = −‖f − mu_k‖² / (2 s²), with uniform priors. The variance changes no prediction. It
    gives the posterior the scale of the features, so that its gradient does not vanish.

    Until `fit` has run the head is the one that trains.

    Args:
        trained: The head of the loss that trains.

    Source: Mensink et al., Distance-Based Image Classification, 2013, with the Euclidean distance.
    """

    density = True
    centers: Tensor
    log_var: Tensor
    fitted: Tensor

    def __init__(self, trained: LossHead) -> None:
        super().__init__(trained.feature_dim, trained.num_classes)
        self.trained = trained
        self.batching = trained.batching  # type: ignore[misc]  # that of the loss which trains
        self.register_buffer("centers", torch.zeros(self.num_classes, self.feature_dim))
        self.register_buffer("log_var", torch.zeros(()))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def logits(self, features: Tensor) -> Tensor:
        """Return −‖f − mu_k‖² / (2 s²), (B,D) -> (B,K); before `fit` those of the trained head."""
        if not self.fitted:
            return self.trained.logits(features)
        check_inputs(self, features)
        return -half_squared_distances(features, self.centers) * torch.exp(-self.log_var)

    def loss(self, features: Tensor, labels: Tensor, *, progress: float) -> LossTerms:
        """Return the terms of the loss that trains."""
        return self.trained.loss(features, labels, progress=progress)

    @property
    def logits_while_training(self) -> bool:
        """Whether the loss that trains has logits."""
        return self.trained.logits_while_training

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return the groups of the loss that trains."""
        return self.trained.parameter_groups(lr)

    def start(self, class_counts: Tensor) -> None:
        """Start the loss that trains."""
        self.trained.start(class_counts)

    def after_step(self, features: Tensor, labels: Tensor) -> None:
        """Move what has a rule of its own in the loss that trains."""
        self.trained.after_step(features, labels)

    @torch.no_grad()
    def fit(self, features: Tensor, labels: Tensor) -> None:
        """Set the class means and the variance from all training features, (N,D) and (N,).

        Raises:
            ValueError: A class has no image.
        """
        check_inputs(self, features, labels)
        self.trained.fit(features, labels)
        self.centers.copy_(class_means(features, labels, self.num_classes))
        squares = (features - self.centers[labels]).square().mean(dtype=torch.float64)
        self.log_var.copy_(squares.clamp(min=torch.finfo(torch.float32).tiny).log())
        self.fitted.fill_(True)

    def phase(self, progress: float) -> tuple[float, ...]:
        """Return the phase of the loss that trains."""
        return self.trained.phase(progress)

    def tuples(self, features: Tensor, labels: Tensor) -> Tensor | None:
        """Count the tuples of the loss that trains."""
        return self.trained.tuples(features, labels)

    def class_log_likelihood(self, features: Tensor) -> Tensor:
        """Return log N(f; mu_k, s² I) in nats, (B,D) -> (B,K); before `fit` that of the trained."""
        if not self.fitted:
            return self.trained.class_log_likelihood(features)
        constant = 0.5 * self.feature_dim * (math.log(2.0 * math.pi) + self.log_var)
        return self.logits(features) - constant

    def class_vectors(self) -> Tensor:
        """Return mu_k, (K,D)."""
        return self.centers

    def boundary_terms(self) -> dict[str, Tensor]:
        """Return the variance, as a Gaussian mixture with one variance has it."""
        return {"log_var": self.log_var.expand(self.num_classes, 1)}

    def note(self) -> str:
        """Return what tables say of the loss that trains, and that the class means classify."""
        means = "classified by the nearest class mean of the training features"
        return "; ".join(filter(None, [self.trained.note(), means]))
