"""What the tests of Auto-PGD share: models, images on them, and a record of every pass."""

import torch
from torch import Tensor, nn

from tests.attacks.models import BinaryLinear, convolutional, images

FORMS = [("apgd_ce", {}), ("apgd_dlr", {}), ("apgd_dlr", {"targets": 3})]
NORMS = ["linf", "l2"]
BUDGET = {"linf": 0.03, "l2": 0.15}  # at which ordinary() loses a third to a half


class Linear(nn.Module):
    """Logits W x + b of four classes that meet in the middle of the box."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("weight", torch.randn(4, 36, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.get_buffer("weight").T


class FromScore(nn.Module):
    """Logits of four classes, made from means over the left and the right half of the image."""

    def __init__(self, logits) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        left, right = images[..., :3].mean(dim=(1, 2, 3)), images[..., 3:].mean(dim=(1, 2, 3))
        columns = torch.broadcast_tensors(left, *self.logits(left, right))[1:]
        return torch.stack(columns, dim=1)


class Padded(BinaryLinear):
    """The logits (0, w·x + b) beside two that play no part."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.pad(super().forward(images), (0, 2), value=-50.0)


class Recording(nn.Module):
    """Remembers images and logits of every pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        self.seen.append((images.detach().clone(), logits.detach()))
        return logits


def fooled(model: nn.Module, adv_inputs: Tensor, labels: Tensor) -> Tensor:
    """(E,N) bool."""
    return torch.stack([model(each).argmax(dim=1) != labels for each in adv_inputs])


def ordinary() -> tuple[nn.Module, Tensor, Tensor]:
    """A model with images that it classifies rightly, away from the box."""
    model = convolutional().eval()
    inputs = images(100, low=0.2, high=0.8)
    return model, inputs, model(inputs).argmax(dim=1)
