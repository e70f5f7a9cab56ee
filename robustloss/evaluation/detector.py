"""The detector as an attack sees it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustloss.evaluation.passes import Arrays
from robustloss.evaluation.torch_scores import Outputs, TorchScore, choose_precision
from robustloss.metrics import feature_space
from robustloss.metrics.rates import threshold_at_fpr
from robustloss.models.classifier import AnyClassifier
from robustloss.results.records import validation_record

FALSE_ALARMS = 0.05  # of the clean validation images, for the detector's threshold
_COMPARED = 500  # validation images on which the two forms of a score must agree
_AGREE = 1e-3  # of the scores' standard deviation


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


class ScoreView(LikelihoodView):
    """The same where the detector judges by another score.

    Args:
        model: The classifier.
        threshold: The score below which an input is rejected.
        class_means: See LikelihoodView.
        score: The score, see `build_torch_score`.
    """

    def __init__(
        self, model: AnyClassifier, threshold: float, class_means: NDArray | None, score: TorchScore
    ) -> None:
        super().__init__(model, threshold, class_means)
        self.score = score

    def scored(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (B,K), the score's goals (B,K) and the score (B,), in one graph."""
        features, logits, likelihood = self.model.outputs(images)
        goals, score = self.score(widen(logits, likelihood, features))
        return logits, goals, score


def score_view(
    model: AnyClassifier, reference: Arrays, score: TorchScore, validation_scores: NDArray
) -> ScoreView:
    """Return a model with the detector of a score, for attacks on both.

    Args:
        model: The classifier.
        reference: Its arrays of clean images, see `reference_arrays`.
        score: The score as the attack follows it.
        validation_scores: (V,) of the clean validation images, by the score's array form. They set
            the threshold.

    Raises:
        ValueError: The two forms give different numbers: an attack would deceive another score
            than the one that is reported.
    """
    threshold = threshold_at_fpr(validation_scores, FALSE_ALARMS)
    record, some = validation_record(reference), slice(_COMPARED)
    arrays = (record.logits, record.class_log_likelihood, record.features)
    device = next(model.parameters()).device
    outputs = (None if a is None else torch.from_numpy(a[some]).to(device) for a in arrays)
    with torch.no_grad():
        found = score(widen(*outputs)).score.cpu().numpy()  # type: ignore[arg-type]
    expected = validation_scores[some]
    far = float(np.abs(found - expected).max())
    if not far <= _AGREE * max(float(np.std(expected)), 1e-6 * float(np.abs(expected).max())):
        raise ValueError(
            f"the torch form of the score differs from its array form by up to {far:.3g} on clean "
            "validation images; both must compute the same."
        )
    return ScoreView(model, threshold, class_means(reference), score)


def widen(logits: Tensor, likelihood: Tensor, features: Tensor | None) -> Outputs:
    """Return outputs in the precision of scores.

    Args:
        logits: (B,K).
        likelihood: (B,K) class log-likelihoods.
        features: (B,D), or None.
    """
    precision = choose_precision(logits.device)
    wide = None if features is None else features.to(precision)
    return Outputs(logits.to(precision), likelihood.to(precision), wide)


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
