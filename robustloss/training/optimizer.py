"""SGD or Adam, and the learning rate over time."""

import math
from typing import Any

import torch
from torch import Tensor

from robustloss.models.classifier import Classifier
from robustloss.spec.training import SHORT_NORM, SHORT_WARMUP, TrainSpec


def build_optimizer(
    model: Classifier, spec: TrainSpec, device: torch.device
) -> torch.optim.Optimizer:
    """Return the optimiser of a model: one group for the backbone, the head's own groups.

    Args:
        model: On the device.
        spec: The training settings.
        device: Where.
    """
    learning = [each for each in model.backbone.parameters() if each.requires_grad]
    groups: list[dict[str, Any]] = [{"params": learning, "lr": spec.lr}]
    groups += model.head.parameter_groups(spec.lr)
    groups = [{**group, "params": list(group["params"])} for group in groups]
    groups = [group for group in groups if group["params"]]
    decay, fused = spec.weight_decay, device.type in ("cpu", "cuda")
    if spec.optimizer == "adam":
        capturable = device.type == "cuda"
        return torch.optim.AdamW(
            groups, lr=spec.lr, weight_decay=decay, fused=fused, capturable=capturable
        )
    nesterov = spec.nesterov and spec.momentum > 0
    return torch.optim.SGD(
        groups, lr=spec.lr, weight_decay=decay, fused=fused, momentum=spec.momentum,
        nesterov=nesterov,
    )  # fmt: skip


def longest_gradient(spec: TrainSpec, steps: int) -> float | None:
    """Return the norm to which longer gradients of a step are shortened; None where none is.

    Args:
        spec: The training settings.
        steps: Of the whole training.
    """
    if spec.max_grad_norm == "if_short":
        return SHORT_NORM if spec.warmup * steps < SHORT_WARMUP else None
    return spec.max_grad_norm or None


class LearningRates:
    """The learning rates of an optimiser's groups, which rise and fall together.

    Args:
        optimizer: As built, with the base rate in each of its groups.
        spec: Has the schedule.
        steps: Of the whole training.
        device: Where the optimiser computes.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, spec: TrainSpec, steps: int, device: torch.device
    ) -> None:
        self.optimizer, self.spec, self.steps = optimizer, spec, steps
        self.base = [group["lr"] for group in optimizer.param_groups]
        self._factor = 1.0  # on the base rates, now in force
        if device.type == "cuda":
            # A tensor, because a captured step would keep a number as it was.
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"], device=device)

    def at(self, step: int) -> float:
        """Return the first group's rate at a step."""
        return self.base[0] * rate_factor(self.spec, step, self.steps)

    def set(self, step: int) -> None:
        """Give each group its rate at a step."""
        factor = rate_factor(self.spec, step, self.steps)
        if factor == self._factor:
            return
        self._factor = factor
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(base * factor)
            else:
                group["lr"] = base * factor


def rate_factor(spec: TrainSpec, step: int, steps: int) -> float:
    """Return the factor on the base learning rate at a step, in [0, 1].

    ``warmup`` is the linearly rising part (of one_cycle: the rise from 1/25 to 1).

    Args:
        spec: Has the schedule.
        step: From 0.
        steps: Of the whole training.
    """
    rising = spec.warmup * steps
    if step < rising:
        start = 1 / 25 if spec.schedule == "one_cycle" else 0.0
        return start + (1 - start) * (step + 1) / (rising + 1)
    if spec.schedule == "constant":
        return 1.0
    if spec.schedule == "step":
        every = spec.step_every
        drops = step // every if isinstance(every, int) else sum(step >= at for at in every)
        return spec.step_factor**drops
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, steps - rising)))
