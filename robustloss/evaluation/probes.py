"""Trial attacks on a few images, each a question about the gradient that attacks follow.

What they find is stored as plain arrays. The checks decide from these arrays, without torch,
whether it is a reason to doubt a number.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from robustloss.attacks import AttackError, Queries, ball, build_attack, iter_perturb
from robustloss.attacks.base import Attack
from robustloss.attacks.draws import average_draws, count_draws
from robustloss.attacks.objectives import differentiate, margin
from robustloss.attacks.sealing import sealing
from robustloss.data.images import ImageSet
from robustloss.evaluation.passes import Arrays, Report, to_numpy

VERSION = 1  # raise when the same weights would give other arrays

STEPS = 10  # of the trial PGD, from the image itself
UNBOUNDED_STEPS = 50  # of the one without a budget
TEMPERATURES = (10.0, 100.0, 1000.0)  # logits of distances differ by hundreds
_NONE: Mapping[str, int] = MappingProxyType({})
DEFAULT_EPS = 0.1  # where no attack of the run is bounded in L-inf


@dataclass(frozen=True)
class Traced:
    """An attack whose path is traced: the name of its array, and the budget to trace it at."""

    name: str
    attack: Attack
    eps: float


def probe_arrays(
    model: nn.Module,
    images: ImageSet,
    *,
    eps: float,
    traced: Sequence[Traced] = (),
    averaged: Mapping[str, int] = _NONE,
    seed: int = 0,
    halves: bool = False,
    report: Report = lambda done, total, text: None,
) -> Arrays:
    """Return what the trial attacks find on a model.

    Args:
        model: In eval mode, on the device of the images; with ``joint`` and ``threshold`` where a
            traced attack needs them.
        images: M images.
        eps: L-inf budget of the trials.
        traced: Attacks of the run whose path is traced.
        averaged: How many calls each attack with eot averages, by the name of its array. Trials
            are made on the mean of the most.
        seed: Decides the randomness of traced attacks, and of a model that draws some.
        halves: Also show the model one half of the images after the other.
        report: Called with (passes forward, all of them, "") after each trial.

    Returns:
        labels (M,) and eps; logits and logits_again (M,K), of two equal calls; gradient_zero and
        gradient_not_finite (M,), of the cross-entropy at the image; wrong_clean (M,). After PGD:
        wrong_cross_entropy (M,); wrong_margin (M,), with the margin; wrong_unbounded (M,), with the
        margin at eps 1; wrong_rescaled (T,M), with the cross-entropy of z/T for the temperatures
        (T,). Of every traced attack NAME (S,M), the margin along its path, and NAME_eps. Where a
        gradient is not finite, or the model has none, everything after PGD is left out. With
        `halves` logits_halves (M,K). Of every averaged attack NAME (M,), the cosine of the angle
        between two gradients of the margin, each of the mean of its calls, and NAME_calls.
    """
    inputs, labels = images.batch(slice(None)), images.labels
    device, draws = inputs.device, max(averaged.values(), default=1)
    judge = average_draws(model, draws)
    with sealing(model, device, seed):
        with torch.no_grad():
            logits, again = model(inputs), model(inputs)
            parts = [model(each) for each in inputs.tensor_split(2) if len(each)] if halves else []
            judged = logits if draws == 1 else judge(inputs)
        flags = [
            _gradient_flags(judge, inputs[piece], labels[piece]) for piece in _cut(images.n, draws)
        ]
    zero = torch.cat([each[0] for each in flags])
    broken = torch.cat([each[1] for each in flags])
    arrays: Arrays = {
        "labels": to_numpy(labels),
        "eps": np.array(float(eps)),
        "logits": to_numpy(logits.float()),
        "logits_again": to_numpy(again.float()),
        "gradient_zero": to_numpy(zero),
        "gradient_not_finite": to_numpy(broken),
        "wrong_clean": to_numpy(judged.argmax(1) != labels),
    }
    if halves:
        arrays["logits_halves"] = to_numpy(torch.cat(parts).float())
    if not all(connected for _, _, connected in flags):
        return arrays
    most = count_passes(traced, averaged).forward
    trials = _Trials(judge, images, inputs, draws, seed, report, most)
    # Attacks refuse a gradient that is not finite. That is a finding too: the flag says it, and the
    # checks do without the trials.
    try:
        arrays["wrong_cross_entropy"] = trials.wrong("ce", eps)
        arrays["wrong_rescaled"] = np.stack([trials.wrong("ce", eps, t) for t in TEMPERATURES])
        arrays["wrong_margin"] = trials.wrong("margin", eps)
        arrays["wrong_unbounded"] = trials.wrong("margin", 1.0, steps=UNBOUNDED_STEPS)
        arrays["temperatures"] = np.array(TEMPERATURES)
    except AttackError:
        if not bool(broken.any()) and bool(torch.isfinite(logits).all()):
            raise
        return arrays
    for name, calls in averaged.items():
        same = trials.compare_gradients(average_draws(model, calls), calls)
        arrays |= {name: same, f"{name}_calls": np.array(calls)}
    for each in traced:
        if (margins := trials.trace(each)) is not None:
            arrays |= {each.name: margins, f"{each.name}_eps": np.array(float(each.eps))}
    return arrays


def count_passes(traced: Sequence[Traced], averaged: Mapping[str, int] = _NONE) -> Queries:
    """Return how often an image is sent forward and a gradient is taken back, at most.

    Args:
        traced: Attacks of the run whose path is traced.
        averaged: As for `probe_arrays`.
    """
    steps = [*[STEPS] * (2 + len(TEMPERATURES)), UNBOUNDED_STEPS]
    # Twice as it is, once in halves, once for its gradient; then the trials, each of them judged.
    forward, backward = 4 + sum(each + 2 for each in steps), 1 + sum(steps)
    for each in traced:  # a gradient at the image itself, and a look at the last point
        walked = cast(Any, each.attack).steps
        forward, backward = forward + walked + 2, backward + walked + 1
    draws, compared = max(averaged.values(), default=1), 2 * sum(averaged.values())
    return Queries(draws * forward + compared, draws * backward + compared)


def _cut(n: int, draws: int) -> list[slice]:
    """Return n images in pieces; the graphs of all calls of one are in memory together."""
    at_once = max(1, n // draws)
    return [slice(start, start + at_once) for start in range(0, n, at_once)]


def is_traceable(attack: Attack) -> bool:
    """Return whether an attack walks one path of whole batches, as PGD and its relatives do."""
    return hasattr(attack, "steps") and hasattr(attack, "restarts") and hasattr(attack, "schedule")


def _gradient_flags(
    model: nn.Module, inputs: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, bool]:
    """Look at the gradient of the cross-entropy at the images.

    Returns:
        (M,) bool, it is exactly 0; (M,) bool, it is NaN or infinite; whether there is one at all.
    """
    # The sum over images gives each its own gradient, whatever the batch.
    point = inputs.clone().requires_grad_()
    total = F.cross_entropy(model(point), labels, reduction="sum")
    gradient = None
    if total.requires_grad:
        with suppress(NotImplementedError):  # a layer without a derivative
            (gradient,) = torch.autograd.grad(total, point, allow_unused=True)
    if gradient is None:
        nothing = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
        return ~nothing, nothing, False
    flat = gradient.flatten(1)
    return (flat == 0).all(dim=1), ~torch.isfinite(flat).all(dim=1), True


@dataclass(frozen=True, eq=False)
class _Trials:
    """One model and the images that are tried on it."""

    model: nn.Module
    images: ImageSet
    inputs: Tensor
    draws: int  # calls whose mean the model is
    seed: int
    report: Report
    passes: int
    made: list[int] = field(default_factory=list)  # passes forward of each trial, at most

    def wrong(
        self, objective: str, eps: float, temperature: float = 1.0, steps: int = STEPS
    ) -> NDArray:
        """Return (M,) bool after PGD from the image itself, judged on the model as it is."""
        # Who is fooled is all that is asked, and "first" answers it with fewer passes. On a GPU
        # batches that shrink could not replay recorded gradients.
        keep = "first" if self.inputs.device.type == "cpu" else "best"
        attack = build_attack(
            "pgd", objective=objective, steps=steps, random_start=False, keep=keep
        )
        target = self.model if temperature == 1.0 else _Rescaled(self.model, temperature)
        pieces = _cut(self.images.n, self.draws)
        adv_inputs = torch.cat([self._run(attack, target, eps, piece) for piece in pieces])
        self._tell(self.draws * (steps + 2))
        with sealing(self.model, self.inputs.device, self.seed), torch.no_grad():
            return to_numpy(self.model(adv_inputs).argmax(1) != self.images.labels)

    def trace(self, traced: Traced) -> NDArray | None:
        """Return (S,M) float32 margins along a path; None where batches did not stay whole."""
        attack, traces = traced.attack, []
        # A path has one start; the others would follow it in the same array.
        if getattr(attack, "restarts", 1) > 1:
            attack = replace(cast(Any, attack), restarts=1)
        if count_draws(attack) > 1:  # the model is a mean already
            attack = replace(cast(Any, attack), eot=1)
        for piece in _cut(self.images.n, self.draws):
            watched = _MarginTrace(self.model, self.images.labels[piece])
            self._run(attack, watched, traced.eps, piece)
            if any(len(step) != len(watched.labels) for step in watched.margins):
                return None
            traces.append(torch.stack(watched.margins).float())
        self._tell(self.draws * (cast(Any, attack).steps + 2))
        return to_numpy(torch.cat(traces, dim=1))

    def compare_gradients(self, mean: nn.Module, calls: int) -> NDArray:
        """Return (M,) the cosine between two gradients of a mean of calls, 1 where one is 0."""
        cosines = []
        with sealing(self.model, self.inputs.device, self.seed):
            for piece in _cut(self.images.n, calls):
                place = mean, self.inputs[piece], self.images.labels[piece]
                one, other = (
                    ball.ascent_direction(differentiate(*place, "margin").gradient, "l2")
                    for _ in range(2)
                )
                along = (one * other).flatten(1).sum(dim=1)
                cosines.append(along.masked_fill(ball.vanishes(one) | ball.vanishes(other), 1.0))
        self._tell(2 * calls)
        return to_numpy(torch.cat(cosines))

    def _run(self, attack: Attack, target: nn.Module, eps: float, piece: slice) -> Tensor:
        """Return some of the images (B,C,H,W), attacked."""
        inputs, labels = self.inputs[piece], self.images.labels[piece]
        (found,) = iter_perturb(
            attack, target, inputs, labels,
            eps=[eps], seed=self.seed, batch_size=len(inputs), index=self.images.index[piece],
        )  # fmt: skip
        return found.adv_inputs[0]

    def _tell(self, passes: int) -> None:
        """Report the passes forward of one more trial, at most."""
        self.made.append(passes)
        self.report(min(sum(self.made), self.passes), self.passes, "")


class _Rescaled(nn.Module):
    """A model whose logits are divided by a temperature: the same predictions, other gradients."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images) / self.temperature


class _MarginTrace(nn.Module):
    """A model that notes the margin of every batch that passes through it, (B,) each."""

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

    def unwrap(self) -> nn.Module:
        """Return the model itself, which may be asked without a note."""
        return self.model

    def _note(self, logits: Tensor) -> None:
        logits = logits.detach()
        whole = len(logits) == len(self.labels)
        # Which images a smaller batch holds is not known here: its length alone is looked at.
        self.margins.append(margin(logits, self.labels) if whole else logits[:, 0])
