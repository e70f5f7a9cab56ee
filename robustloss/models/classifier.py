"""Classifier: a backbone and a loss head, attacked in pixel units.

Shape suffixes: B batch, N images of a set, C channels, H height, W width, D feature, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustloss.attacks.draws import MeanOfDraws
from robustloss.attacks.sealing import cut_to_cache
from robustloss.data.images import ImageSet
from robustloss.losses.base import LossHead
from robustloss.models.given import GivenModel


class Classifier(nn.Module):
    """A backbone and a loss head behind one normalisation: an ordinary, attackable module.

    Images come in [0,1], so that a budget eps is in pixel units.

    Args:
        backbone: Maps normalised images (B,C,H,W) to features (B,D).
        head: Maps features to logits (B,K) and class log-likelihoods (B,K).
        mean: (C,) pixel means in [0,1].
        std: (C,) pixel standard deviations in [0,1].

    Attributes:
        remarks: What a reader must know of weights from elsewhere.
    """

    mean: Tensor
    std: Tensor
    remarks: tuple[str, ...] = ()

    def __init__(
        self, backbone: nn.Module, head: LossHead, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def features(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) in [0,1] to float32 features (B,D).

        Raises:
            ValueError: The backbone does not return (B,D).
        """
        pieces = (images,) if self.training else cut_to_cache(images)
        if len(pieces) > 1:
            return torch.cat([self.features(piece) for piece in pieces])
        features = self.backbone((images - self.mean) / self.std)
        expected = (images.shape[0], self.head.feature_dim)
        if not isinstance(features, Tensor) or features.shape != expected:
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(
                f"{type(self.backbone).__name__} must return features of shape (B, feature_dim) = "
                f"{expected}, got {got}."
            )
        return features.float()

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,C,H,W) in [0,1] to margin-free logits (B,K)."""
        return self.head.logits(self.features(images))

    def joint(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B,K) and class log-likelihoods (B,K), in nats, in one graph."""
        features = self.features(images)
        logits = self.head.logits(self._hand_out(features))
        return logits, self.head.class_log_likelihood(self._hand_out(features))

    def outputs(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features (B,D), logits (B,K) and class log-likelihoods (B,K)."""
        features = self.features(images)
        logits = self.head.logits(self._hand_out(features))
        return features, logits, self.head.class_log_likelihood(self._hand_out(features))

    def _hand_out(self, features: Tensor) -> Tensor:
        """Return the features for the head, which may write on them if it is not ours."""
        ours = type(self.head).__module__.startswith("robustloss.losses.")
        return features if ours else features.clone()


AnyClassifier = Classifier | GivenModel | MeanOfDraws


@torch.no_grad()
def compute_features(model: Classifier, images: ImageSet) -> Tensor:
    """Return the float32 features (N,D) of a set, in eval mode.

    Args:
        model: Left in eval mode.
        images: N images on the model's device.
    """
    model.eval()
    return torch.cat([model.features(images.batch(piece)) for piece in images.passes()])
