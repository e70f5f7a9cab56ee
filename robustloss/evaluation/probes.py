"""Trial attacks on a few images, each a question about the gradient that attacks follow.

What they find is stored as plain arrays; whether it is a reason to doubt a number is decided from
these arrays by the checks, without torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from robustloss.attacks import AttackError, build_attack, perturb
from robustloss.attacks.base import Attack
from robustloss.attacks.objectives import margin
from robustloss.attacks.sealing import sealing
from robustloss.data.images import ImageSet

VERSION = 1  # raise when the same weights would give other arrays

Arrays = dict[str, NDArray]

STEPS = 10  # of the trial PGD, from the image itself
UNBOUNDED_STEPS = 50  # of the one without a budget
TEMPERATURES = (10.0, 100.0, 1000.0)  # logits of distances differ by hundreds
DEFAULT_EPS = 0.1  # where no attack of the run is bounded in L-inf


@dataclass(frozen=True)
class Traced:
    """An attack whose path is recorded, by the name of its array, with the budget to record at."""

    name: str
    attack: Attack
    eps: float


def probe_arrays(
    model: nn.Module,
    images: ImageSet,
    *,
    eps: float,
    traced: Sequence[Traced] = (),
    seed: int = 0,
) -> Arrays:
    """Puts the questions to a model.

    Args:
        model: In eval mode, on the device of the images; with ``joint`` and ``threshold`` where a
            traced attack needs them.
        images: M images.
        eps: L-inf budget of the trials.
        traced: Attacks of the run whose path is recorded.
        seed: Decides the randomness of traced attacks, and of a model that draws some.

    Returns:
        labels (M,); logits and logits_again (M,K) of two equal calls; gradient_zero and
        gradient_not_finite (M,), of the cross-entropy at the image; wrong_clean,
        wrong_cross_entropy, wrong_margin, wrong_unbounded (M,) and wrong_rescaled (T,M), after
        PGD with cross-entropy, with the margin, with the margin at eps 1, and with the
        cross-entropy of z/T for the temperatures (T,); eps; and of every traced attack
        NAME (S,M), the margin along its path, with NAME_eps. What a gradient that is
        not finite makes impossible is left out.
    """
    inputs, labels = images.batch(slice(None)), images.labels
    device = inputs.device
    with sealing(model, device, seed):
        with torch.no_grad():
            logits, again = model(inputs), model(inputs)
        zero, broken = _gradient_flags(model, inputs, labels)
    arrays: Arrays = {
        "labels": _array(labels),
        "eps": np.array(float(eps)),
        "logits": _array(logits.float()),
        "logits_again": _array(again.float()),
        "gradient_zero": _array(zero),
        "gradient_not_finite": _array(broken),
        "wrong_clean": _array(logits.argmax(1) != labels),
        "temperatures": np.array(TEMPERATURES),
    }
    trials = _Trials(model, images, inputs, seed)
    try:
        arrays["wrong_cross_entropy"] = trials.wrong("ce", eps)
        arrays["wrong_rescaled"] = np.stack([trials.wrong("ce", eps, t) for t in TEMPERATURES])
        arrays["wrong_margin"] = trials.wrong("margin", eps)
        arrays["wrong_unbounded"] = trials.wrong("margin", 1.0, steps=UNBOUNDED_STEPS)
    except AttackError:
        if not bool(broken.any()) and bool(torch.isfinite(logits).all()):
            raise
        return arrays
    for each in traced:
        trace = trials.trace(each)
        if trace is not None:
            arrays[each.name] = trace
            arrays[f"{each.name}_eps"] = np.array(float(each.eps))
    return arrays


def traceable(attack: Attack) -> bool:
    """Tells whether an attack walks one path of whole batches: PGD and its relatives."""
    return hasattr(attack, "steps") and hasattr(attack, "restarts") and hasattr(attack, "schedule")


def _gradient_flags(model: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (M,) bool: cross-entropy's input gradient is exactly 0; is NaN or infinite."""
    point = inputs.clone().requires_grad_()
    total = F.cross_entropy(model(point), labels, reduction="sum")
    if not total.requires_grad:
        nothing = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
        return ~nothing, nothing
    (gradient,) = torch.autograd.grad(total, point, materialize_grads=True)
    flat = gradient.flatten(1)
    return (flat == 0).all(dim=1), ~torch.isfinite(flat).all(dim=1)


@dataclass(frozen=True, eq=False)
class _Trials:
    """One model and the images that are tried on it."""

    model: nn.Module
    images: ImageSet
    inputs: Tensor
    seed: int

    def wrong(
        self, objective: str, eps: float, temperature: float = 1.0, steps: int = STEPS
    ) -> NDArray:
        """Returns (M,) bool after PGD from the image itself, judged on the model as it is."""
        attack = build_attack("pgd", objective=objective, steps=steps, random_start=False)
        target = self.model if temperature == 1.0 else _Rescaled(self.model, temperature)
        adv_inputs = self._run(attack, target, eps)
        with sealing(self.model, self.inputs.device, self.seed), torch.no_grad():
            return _array(self.model(adv_inputs).argmax(1) != self.images.labels)

    def trace(self, traced: Traced) -> NDArray | None:
        """Returns (S,M) float32 margins along a path; None where batches did not stay whole."""
        recorder = _Recorder(self.model, self.images.labels)
        attack = traced.attack
        if getattr(attack, "restarts", 1) > 1:
            attack = replace(cast(Any, attack), restarts=1)
        self._run(attack, recorder, traced.eps)
        steps = recorder.margins
        if any(len(step) != self.images.n for step in steps):
            return None
        return np.stack([_array(step.float()) for step in steps])

    def _run(self, attack: Attack, target: nn.Module, eps: float) -> Tensor:
        found = perturb(
            attack,
            target,
            self.inputs,
            self.images.labels,
            eps=[eps],
            seed=self.seed,
            batch_size=self.images.n,
            index=self.images.index,
        )
        return found.adv_inputs[0]


class _Rescaled(nn.Module):
    """A model whose logits are divided by a temperature: the same predictions, other gradients."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images) / self.temperature


class _Recorder(nn.Module):
    """A model that notes the margin of every batch that passes through it."""

    def __init__(self, model: nn.Module, labels: Tensor) -> None:
        super().__init__()
        self.model = model
        self.labels = labels
        self.margins: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        modules: Mapping[str, nn.Module] = self.__dict__.get("_modules", {})
        if name in modules or "model" not in modules:
            return super().__getattr__(name)
        return getattr(modules["model"], name)  # the threshold of a detector, and the like

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        self._note(logits)
        return logits

    def joint(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, likelihood = cast(Any, self.model).joint(images)
        self._note(logits)
        return logits, likelihood

    def _note(self, logits: Tensor) -> None:
        whole = len(logits) == len(self.labels)
        values = margin(logits.detach(), self.labels) if whole else logits.detach()[:, 0]
        self.margins.append(values)


def _array(tensor: Tensor) -> NDArray:
    return tensor.detach().cpu().numpy()
