"""A problem that every loss must learn: three Gaussian blobs in the plane, one linear layer."""

import math

import torch
from torch import Tensor, nn

from robustloss.losses.base import LossHead

PER_CLASS = 30
RADIUS = 3.0  # six standard deviations from each blob to the next, so the best error is near 0
SPREAD = 0.8
LEARNING_RATE = 0.03


def blobs() -> tuple[Tensor, Tensor]:
    """Draw points (90,2) and labels (90,) of three classes around the origin."""
    labels = torch.arange(3).repeat(PER_CLASS)
    angles_rad = labels * (2.0 * math.pi / 3.0)
    middles = RADIUS * torch.stack([angles_rad.cos(), angles_rad.sin()], dim=1)
    return middles + SPREAD * torch.randn(len(labels), 2), labels


def train_on_blobs(head: LossHead, steps: int) -> tuple[nn.Module, Tensor]:
    """Train a linear layer and a head with feature_dim 2 and 3 classes, as the trainer would.

    Args:
        head: trained in place, left fitted and in eval mode.
        steps: full-batch Adam steps.

    Returns:
        The layer, and the loss of each step, (steps,) nats.
    """
    points, labels = blobs()
    layer = nn.Linear(2, 2)
    head.train()
    head.start(torch.bincount(labels, minlength=3))
    network = {"params": list(layer.parameters()), "lr": LEARNING_RATE}
    groups = [network, *head.parameter_groups(LEARNING_RATE)]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]])
    losses = []
    for step in range(steps):
        features = layer(points)
        terms = head.loss(features, labels, progress=step / steps)
        loss = (terms.classification + terms.regulariser).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        head.after_step(features.detach(), labels)
        losses.append(loss.detach())
    head.eval()
    with torch.no_grad():
        head.fit(layer(points), labels)
    return layer, torch.stack(losses)


@torch.no_grad()
def error_on_blobs(head: LossHead, layer: nn.Module) -> float:
    """Return the error of the trained pair on freshly drawn blobs, a fraction in [0,1]."""
    points, labels = blobs()
    return float((head.logits(layer(points)).argmax(1) != labels).float().mean())
