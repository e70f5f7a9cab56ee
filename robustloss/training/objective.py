"""What one training step minimises, as one module: from images to the terms of the loss.

Shape suffixes: B batch, b this process's share of it, C channels, H height, W width, D feature.
"""

import copy
import time
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustloss.data.images import ImageSet
from robustloss.losses.base import LossTerms, check_logits, check_terms
from robustloss.models.classifier import Classifier
from robustloss.seeding import seed_global
from robustloss.training.adversary import Adversary
from robustloss.training.precision import autocast
from robustloss.training.processes import Group


class StepOutput(NamedTuple):
    """Terms and features of a step's batch."""

    classification: Tensor  # (B,) nats
    regulariser: Tensor  # (B,) nats
    features: Tensor  # (B,D), detached


class Objective(nn.Module):
    """Maps the images of a step to the terms of its loss.

    Args:
        model: What is trained.
        precision: Arithmetic of the backbone.
        adversary: Of adversarial training, for TRADES' term.
        group: The processes that share the batch.
    """

    def __init__(
        self, model: Classifier, precision: str, adversary: Adversary | None, group: Group
    ) -> None:
        super().__init__()
        self.model, self.precision = model, precision
        self.adversary, self.group = adversary, group
        self.checked = False
        self.head_seed: int | None = None  # of the random numbers of the head, one for all
        self.head_seconds = 0.0  # in the loss itself; on a GPU unknown without waiting for it

    def forward(
        self, images: Tensor, attacked: Tensor | None, labels: Tensor, progress: float
    ) -> StepOutput:
        """Return the terms of the whole batch.

        Args:
            images: (b,C,H,W) in [0,1], this process's share.
            attacked: (b,C,H,W), the same images attacked, where both are learnt (TRADES).
            labels: (B,) of the whole batch.
            progress: In [0,1).

        Raises:
            ValueError: In the first step, what the head or the backbone returns is wrong.
        """
        head = self.model.head
        features = self.group.gather(self._features(images), len(labels))
        others = None  # before the seed that all share: each has dropout masks of its own
        if attacked is not None:
            others = self.group.gather(self._features(attacked), len(labels))
        if self.head_seed is not None:
            seed_global(features.device, self.head_seed)
        if not self.checked and head.logits_while_training:
            with torch.no_grad():
                check_logits(head.logits(features.detach()), features, head.num_classes)
        began = time.perf_counter()
        terms = head.loss(features, labels, progress=progress)
        self.head_seconds += time.perf_counter() - began
        if not self.checked:
            if not any(term.requires_grad for term in check_terms(terms, features)):
                raise ValueError(
                    "loss() is connected to no parameter, so nothing can learn. Look for detach() "
                    "or no_grad."
                )
            self.checked = True
        if others is not None:
            assert self.adversary is not None
            term = self.adversary.divergence(features, others)
            terms = LossTerms(terms.classification, terms.regulariser + term)
        return StepOutput(*terms, features.detach())

    def _features(self, images: Tensor) -> Tensor:
        with autocast(images.device, self.precision):
            return self.model.features(images)


def is_known(model: Classifier, *, head: bool = True) -> bool:
    """Return whether each module of a model is ours or torch's.

    These do the same, with the same parameters, in every step. Other code may decide anew by the
    progress, by chance or by the mode.

    Args:
        model: What is trained.
        head: Whether its head counts too.
    """
    modules = (part for name, part in model.named_modules() if head or name[:4] != "head")
    packages = {type(part).__module__.partition(".")[0] for part in modules}
    return packages <= {"robustloss", "torch", "torchvision"}


def has_unused(model: Classifier, data: ImageSet, precision: str) -> bool:
    """Return whether a step may leave some parameters without a gradient.

    Args:
        model: What is trained; a copy of it takes a step.
        data: Two images at least, on the model's device.
        precision: Arithmetic of the backbone.
    """
    if not is_known(model):
        return True  # one step says nothing about the others
    some = slice(0, 2)
    trial = Objective(copy.deepcopy(model).eval(), precision, None, Group())
    terms = trial(data.batch(some), None, data.labels[some], 0.0)
    (terms.classification + terms.regulariser).mean().backward()
    return any(p.requires_grad and p.grad is None for p in trial.parameters())
