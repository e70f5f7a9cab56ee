"""The likelihood detector as an attack sees it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustloss.evaluation.passes import Arrays
from robustloss.metrics import feature_space
from robustloss.metrics.rates import threshold_at_fpr
from robustloss.models.classifier import AnyClassifier

FALSE_ALARMS = 0.05  # of the clean validation images, for the detector's threshold


class LikelihoodView(nn.Module):
    """What an attack on the detector may see: logits, likelihoods, features and the threshold.

    Args:
        model: The classifier.
        threshold: Log-likelihood of the predicted class below which an input is rejected.
        class_means: (K,D) mean features of every class, for attacks that aim at them.
    """

    def __init__(
        self, model: AnyClassifier, threshold: float, class_means: NDArray | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.threshold = threshold
        self.class_means: Tensor | None = None
        if class_means is not None:
            self.class_means = torch.from_numpy(class_means).to(next(model.parameters()).device)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) to logits (B,K)."""
        return self.model(images)

    def joint(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B,K) and class log-likelihoods (B,K), in nats."""
        return self.model.joint(images)

    def features(self, images: Tensor) -> Tensor:
        """Map images to features (B,D)."""
        return self.model.features(images)


def detector_view(model: AnyClassifier, reference: Arrays) -> LikelihoodView:
    """Return a model with its detector, for attacks on both.

    Args:
        model: The classifier.
        reference: Its arrays of clean images, see `reference_arrays`.
    """
    return LikelihoodView(model, detector_threshold(reference), class_means(reference))


def detector_threshold(reference: Arrays) -> float:
    """Return the log-likelihood below which 5 % of the clean validation images fall."""
    likelihood = reference["validation_class_log_likelihood"]
    predicted = reference["validation_logits"].argmax(1)
    return threshold_at_fpr(likelihood[np.arange(len(predicted)), predicted], FALSE_ALARMS)


def class_means(reference: Arrays) -> NDArray | None:
    """Return the mean clean training features (K,D) of every class; NaN for one without any.

    None where the model offers no features.
    """
    if "train_features" not in reference:
        return None
    classes = reference["validation_logits"].shape[1]
    features, labels = reference["train_features"], reference["train_labels"]
    return feature_space.class_means(features, labels, classes).astype(np.float32)
