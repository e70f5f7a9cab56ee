"""Random features, labels and head states for the loss tests, all in float64."""

import numpy as np
import torch
from torch import Tensor

from robustloss.losses import build_loss
from robustloss.losses.base import LossHead

N, D, K = 12, 4, 3
MULTIPLE = ("l_softmax", "a_softmax", "fnorm_sphereface")
COSINE = (*MULTIPLE, "modified_softmax", "normface", "cosface", "arcface")
"""Heads with logits r cos(theta), and those of them that multiply the angle."""
NO_LAMBDA = {"anneal_base": 0.0, "anneal_min": 0.0}
"""Their margin at full strength from the start."""


def inputs(seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = spread * torch.randn(N, D, generator=generator, dtype=torch.float64)
    return features, torch.arange(N) % K


def head(name: str, seed: int = 0, **params: object) -> LossHead:
    """A float64 head; learned variances and priors are moved off their plain starting values."""
    torch.manual_seed(seed)
    built = build_loss(name, feature_dim=D, num_classes=K, **params).double()
    if getattr(built, "log_var", None) is not None:
        built.log_var.data.normal_(std=0.4)
    return built


def covariances(built: LossHead) -> np.ndarray:
    """Full (K,D,D) matrices of a Gaussian-mixture head."""
    if built.log_var is None:
        return np.stack([np.eye(D)] * K)
    variances = built.log_var.detach().exp().expand(K, D).numpy()
    return np.stack([np.diag(row) for row in variances])


def numpy(value: Tensor) -> np.ndarray:
    return value.detach().numpy()
