"""Models from elsewhere that tests name in specs, by the path of this file."""

import torch
import torchvision
from torch import nn


class OneChannel(nn.Module):
    """A torchvision network of three channels, shown grey images of one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images.expand(-1, 3, -1, -1))


def resnet(num_classes: int = 10) -> nn.Module:
    return OneChannel(torchvision.models.resnet18(num_classes=num_classes))


def plain(outputs: int = 10, probabilities: bool = False) -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(64, outputs)]
    return nn.Sequential(*layers, *([nn.Softmax(dim=1)] if probabilities else []))


class WithFeatures(nn.Module):
    """Offers features and a likelihood of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 5), nn.Linear(5, 10)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.first(images.flatten(1)).relu()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.features(images))

    def class_log_likelihood(self, images: torch.Tensor) -> torch.Tensor:
        return -((self.features(images)[:, None] - self.last.weight) ** 2).sum(2)
