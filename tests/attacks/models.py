"""Small models whose answers are known, an ordinary one, and attacks made to measure."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SHAPE = (1, 6, 6)


class BinaryLinear(nn.Module):
    """Logits (0, w·x + b): FGSM's answer has a closed form."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(36, generator=generator))
        # The decision boundary runs through the middle of the box.
        self.bias = nn.Parameter(-0.5 * self.weight.detach().sum())

    def forward(self, images: Tensor) -> Tensor:
        score = images.flatten(1) @ self.weight + self.bias
        return torch.stack((torch.zeros_like(score), score), dim=1)


class ChangedLogits(nn.Module):
    """`convolutional` in evaluation and float64, with logits that are changed."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.change = convolutional().eval().double(), change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.model(images.double()))


class Distances(nn.Module):
    """Logits −½‖x·scale − mu_k‖² with one center per class: the logits of a Gaussian head."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("centers", torch.eye(4).repeat(1, 9))

    def forward(self, images: Tensor) -> Tensor:
        centers = self.get_buffer("centers")
        difference = self.scale * (images.flatten(1).unsqueeze(1) - centers)
        return -0.5 * difference.square().sum(dim=2)


def convolutional(seed: int = 0) -> nn.Module:
    """An ordinary small network with batch statistics, dropout and 5 classes, in train mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(6 * 36, 5),
        )
        model(torch.rand(64, *SHAPE))  # running statistics other than 0 and 1
    return model


class Gaussians(nn.Module):
    """Features with one Gaussian N(mean_k, I) per class: all that an attack on a detector sees.

    An input is rejected where the log-likelihood of the predicted class lies below the threshold.
    """

    threshold: float

    def __init__(self, extractor: nn.Module, class_means: Tensor, threshold: float) -> None:
        super().__init__()
        self.extractor = extractor
        self.register_buffer("class_means", class_means)
        self.threshold = threshold

    def features(self, images: Tensor) -> Tensor:
        return self.extractor(images)

    def joint(self, images: Tensor) -> tuple[Tensor, Tensor]:
        means = self.get_buffer("class_means")
        difference = self.features(images).unsqueeze(1) - means
        logits = -0.5 * difference.square().sum(dim=2)
        return logits, logits - 0.5 * means.shape[1] * math.log(2 * math.pi)

    def forward(self, images: Tensor) -> Tensor:
        return self.joint(images)[0]


def gaussians(seed: int = 0) -> Gaussians:
    """The ordinary small network, its 5 outputs as features."""
    means = torch.randn(5, 5, generator=torch.Generator().manual_seed(seed))
    return Gaussians(convolutional(seed), means, threshold=-8.0)


def images(n: int = 64, seed: int = 1, low: float = 0.0, high: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(n, *SHAPE, generator=generator)


def classes(n: int = 64, k: int = 5, seed: int = 2) -> Tensor:
    return torch.randint(0, k, (n,), generator=torch.Generator().manual_seed(seed))


@dataclass
class Made:
    """An attack made of a function (model, inputs, labels, eps, noise)."""

    do: Callable[..., Any]
    norm: str = "linf"
    needs: str = "logits"
    name: str = "made"

    def __call__(self, model, inputs, labels, *, eps, noise):
        return self.do(model, inputs, labels, eps, noise)


def noisy(model, inputs, labels, eps, noise) -> Tensor:
    """Random start, then a gradient step per eps; finished images drop out."""
    out = []
    for budget in eps:
        draws = noise.restart()
        start = inputs + budget * (2 * draws.uniform(inputs.shape[1:]) - 1)
        fooled = model(start).argmax(dim=1) != labels
        start[~fooled] += budget * draws.select(~fooled).normal(inputs.shape[1:])
        out.append(start)
    return torch.stack(out)
