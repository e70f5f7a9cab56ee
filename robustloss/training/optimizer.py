"""SGD or Adam, and the learning rate over time."""

import math

import torch

from robustloss.spec.training import TrainSpec


def build_optimizer(
    groups: list[dict], spec: TrainSpec, device: torch.device
) -> torch.optim.Optimizer:
    """Returns the optimiser of groups of parameters, each a dict with params and lr."""
    fused = device.type in ("cpu", "cuda")
    groups = [{**group, "params": list(group["params"])} for group in groups]
    groups = [group for group in groups if group["params"]]
    if spec.optimizer == "adam":
        return torch.optim.AdamW(
            groups,
            lr=spec.lr,
            weight_decay=spec.weight_decay,
            fused=fused,
            capturable=device.type == "cuda",
        )
    return torch.optim.SGD(
        groups,
        lr=spec.lr,
        momentum=spec.momentum,
        nesterov=spec.nesterov and spec.momentum > 0,
        weight_decay=spec.weight_decay,
        fused=fused,
    )


def rate_factor(spec: TrainSpec, step: int, steps: int) -> float:
    """Returns the factor on the base learning rate at a step, in [0, 1].

    ``warmup`` is the linearly rising part (of one_cycle: the rise from 1/25 to 1).
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
