"""The harness that runs an attack: cut batches, trust nothing, enforce box and ball, count."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustloss.attacks import arguments
from robustloss.attacks.ball import TOLERANCE, choose, distance, leaves, project
from robustloss.attacks.base import Attack, AttackError, AttackOutput, Budgets, Norm, Queries
from robustloss.attacks.cuda_graphs import TRIALS, Replayer, find_replayer
from robustloss.attacks.draws import average_draws, count_draws, images_at_once
from robustloss.attacks.functions import as_attack
from robustloss.attacks.noise import ImageNoise
from robustloss.attacks.objectives import mispredicts
from robustloss.attacks.sealing import CountedModel, OnPass, sealing
from robustloss.attacks.settings import preserving_settings
from robustloss.attacks.witness import find_witness, is_ours, watching
from robustloss.notation import eps_text


@dataclass(frozen=True, eq=False, repr=False)
class Perturbed:
    """Attacked images, inside box and ball whatever the attack did.

    Attributes:
        adv_inputs: (E,N,C,H,W) float32 in [0,1], in the order of eps; eps 0 gives the input's bits.
        zero_gradient: (N,) bool, the objective's first input gradient was exactly 0; or None.
        radius: (N,) float32, minimum-norm attacks only: the distance at which the image is fooled,
            measured here; inf where it is not.
        outside: (N,) bool, what the attack returned left the box or the ball by more than 1e-6.
        queries: images the attack sent forward and backward.
        seconds: time inside the attack.
        eps: E budgets, as asked for.
        success: (E,N) bool, the model's prediction is not the label; None in a part of
            `iter_perturb`, whose caller is about to look at the images anyway.
    """

    adv_inputs: Tensor
    zero_gradient: Tensor | None
    radius: Tensor | None
    outside: Tensor
    queries: Queries
    seconds: float
    eps: tuple[float, ...] = ()
    success: Tensor | None = None

    def __repr__(self) -> str:
        return "\n".join([self._describe(), *self._shares(), self._next_steps()])

    def _repr_html_(self) -> str:
        rows = "".join(f"<li>{text}</li>\n" for text in self._shares())
        return f"<p>{self._describe()}</p>\n<ul>\n{rows}</ul>\n<p>{self._next_steps()}</p>\n"

    def _describe(self) -> str:
        _, count, *shape = self.adv_inputs.shape
        size = " × ".join(map(str, shape))
        return f"Perturbed: {count:,} images of {size}, attacked in {self.seconds:.1f} s."

    def _shares(self) -> list[str]:
        """Say for each eps how many images the model gets wrong."""
        if self.success is None:
            return [f"eps {eps_text(eps)}" for eps in self.eps]
        counts = zip(self.eps, self.success.sum(dim=1).tolist(), strict=True)
        total = self.success.shape[1]
        return [
            f"eps {eps_text(eps)}: {wrong:,} of {total:,} wrong ({100 * wrong / total:.1f} %)"
            for eps, wrong in counts
        ]

    def _next_steps(self) -> str:
        known = ["adv_inputs[i]: the images at eps[i]"]
        if self.success is not None:
            known.append("success[i]: which of them are wrong")
        if self.radius is not None:
            known.append("radius: how far the nearest mistake is")
        if self.zero_gradient is not None:
            known.append("zero_gradient: where the attack had no direction")
        return f"Fields: {'; '.join(known)}; outside, queries, seconds."


def perturb(
    attack: Attack | Callable,
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: Budgets,
    seed: int = 0,
    batch_size: int = 512,
    index: Tensor | Sequence[int] | None = None,
) -> Perturbed:
    """Attack images at every eps.

    Model, global random state and inputs are afterwards as they were, also after an exception.

    Args:
        attack: from build_attack, or a function (model, inputs, labels, eps).
        model: maps (B,C,H,W) in [0,1] to logits (B,K). Batches move to its device.
        inputs: (N,C,H,W) float32 in [0,1].
        labels: (N,) int64, the true classes.
        eps: E budgets in pixel units of the attack's norm, in any order.
        seed: decides the attack's randomness, together with the index.
        batch_size: images per call of the attack; decides no result of our own attacks.
        index: (N,) identifies each image for its randomness; by default its position.

    Returns:
        Everything on the device of the inputs.

    Raises:
        ValueError: an argument is refused.
        AttackError: the attack returned what it must not (NaN, a wrong shape, ...).
    """
    attack = as_attack(attack)
    arguments.check_integer("batch_size", batch_size, least=1)
    at_once = images_at_once(attack, batch_size)
    batches = iter_perturb(
        attack, model, inputs, labels, eps=eps, seed=seed, batch_size=at_once, index=index
    )
    adv_inputs = torch.empty((len(eps), *inputs.shape), dtype=torch.float32, device=inputs.device)
    parts = []
    start = 0
    success = torch.empty((len(eps), len(inputs)), dtype=torch.bool, device=inputs.device)
    with watching():
        for part in batches:
            stop = start + len(part.outside)
            adv_inputs[:, start:stop] = part.adv_inputs
            success[:, start:stop] = _find_success(
                model, part.adv_inputs, labels[start:stop], count_draws(attack)
            )
            rest = part.zero_gradient, part.radius, part.outside, part.queries, part.seconds
            parts.append(rest)
            start = stop
    zero_gradient, radius, outside, queries, seconds = zip(*parts, strict=True)
    return Perturbed(
        adv_inputs=adv_inputs,
        zero_gradient=_join("zero_gradient", zero_gradient, inputs.device),
        radius=_join("radius", radius, inputs.device),
        outside=torch.cat(outside).to(inputs.device),
        queries=Queries(sum(q.forward for q in queries), sum(q.backward for q in queries)),
        seconds=sum(seconds),
        eps=tuple(map(float, eps)),
        success=success,
    )


def _find_success(model: nn.Module, adv_inputs: Tensor, labels: Tensor, draws: int) -> Tensor:
    """Return (E,B) bool: the mean of some calls, in eval mode, predicts another class."""
    labels = labels.to(adv_inputs.device)
    with sealing(model, adv_inputs.device, 0), torch.no_grad():
        judge = average_draws(CountedModel(model, highest_label=0).eval(), draws)
        return torch.stack([mispredicts(judge(each), labels) for each in adv_inputs])


def _join(field: str, parts: tuple[Tensor | None, ...], device: torch.device) -> Tensor | None:
    given = [part for part in parts if part is not None]
    if not given:
        return None
    if len(given) < len(parts):
        raise AttackError(f"the attack returned {field} for some batches only.")
    return torch.cat(given).to(device)


def iter_perturb(
    attack: Attack | Callable,
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    eps: Budgets,
    seed: int = 0,
    batch_size: int = 512,
    index: Tensor | Sequence[int] | None = None,
    on_pass: OnPass | None = None,
) -> Iterator[Perturbed]:
    """Attack images batch by batch, in their order; arguments and errors as for `perturb`.

    Between two batches the model is as it was before, and only one batch is held in memory. Each
    part stays on the model's device, where it is about to be looked at.

    `on_pass` is called before each pass with the images of the batch sent forward so far, but not
    where a GPU replays passes.
    """
    attack = as_attack(attack)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model (={type(model).__name__}) must be a torch.nn.Module.")
    offer = {"likelihood": "joint", "score": "scored"}.get(attack.needs)
    if offer and not (hasattr(model, offer) and hasattr(model, "threshold")):
        raise ValueError(
            f"model (={type(model).__name__}) must have {offer}(images) and threshold: "
            f"attack '{attack.name}' needs the {attack.needs}."
        )
    budgets = arguments.checked_eps(eps, attack.norm)
    arguments.check_inputs(inputs)
    highest_label = arguments.check_labels(labels, len(inputs))
    arguments.check_integer("seed", seed)
    arguments.check_integer("batch_size", batch_size, least=1)
    rows = arguments.checked_index(index, len(inputs))
    # A model without parameters and buffers works wherever the inputs are.
    tensors = (*model.parameters(), *model.buffers())
    device = tensors[0].device if tensors else inputs.device
    often = _asks_often(attack, len(budgets)) and count_draws(attack) == 1
    replayer = find_replayer(model, device) if often else None
    job = _Job(attack, model, budgets, seed, highest_label, device, replayer, on_pass)
    return (
        job.perturb_batch(*(each[start : start + batch_size] for each in (inputs, labels, rows)))
        for start in range(0, len(inputs), batch_size)
    )


def _asks_often(attack: Attack, budgets: int) -> bool:
    """Return whether an attack asks for so many gradients of one model that replaying pays.

    Only of our own attacks: another's may change what it asks from call to call.
    """
    passes = getattr(attack, "passes", None)
    return is_ours(attack) and passes is not None and passes(budgets).backward >= 2 * TRIALS


@dataclass(frozen=True, eq=False)
class _Job:
    """What does not change from batch to batch."""

    attack: Attack
    model: nn.Module
    eps: tuple[float, ...]
    seed: int
    highest_label: int
    device: torch.device
    replayer: Replayer | None
    on_pass: OnPass | None

    def perturb_batch(self, inputs: Tensor, labels: Tensor, index: Tensor) -> Perturbed:
        """Attack one batch, then check, judge and bound what came back."""
        inputs, labels = inputs.detach().to(self.device), labels.to(self.device)
        noise = ImageNoise(self.seed, index.to(self.device))
        # eps 0 is answered here; 0 alone still asks for the zero-gradient flag or the radius.
        asked = tuple(dict.fromkeys(e for e in self.eps if e > 0)) or (0.0,)
        with sealing(self.model, self.device, noise.batch_seed()) as freeze_again:
            if self.replayer is not None:
                self.replayer.renew()
            # Others' code may change the model, which is to judge what the attack returns.
            witness = (
                None if is_ours(self.attack) else find_witness(self.model, inputs, self.attack.name)
            )
            counted = CountedModel(
                self.model, self.highest_label, self.replayer, self.on_pass
            ).eval()
            started = time.perf_counter()
            with preserving_settings() if witness else nullcontext():
                target = average_draws(counted, count_draws(self.attack))
                returned = self.attack(
                    target, inputs.clone(), labels.clone(), eps=asked, noise=noise
                )
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
            seconds = time.perf_counter() - started
            if witness:
                freeze_again()
                witness.check()
            with torch.no_grad():
                output = _check_output(self.attack.name, returned, inputs, asked)
                outside = torch.zeros(len(inputs), dtype=torch.bool, device=self.device)
                if output.radius is not None:
                    output, outside = self._judge_nearest(output, inputs, labels)
                adv_inputs, left = _bound(output, inputs, self.eps, asked, self.attack.norm)
        return Perturbed(
            adv_inputs=adv_inputs,
            zero_gradient=output.zero_gradient,
            radius=output.radius,
            outside=outside | left,
            queries=Queries(counted.forward_images, counted.backward_images),
            seconds=seconds,
            eps=self.eps,
        )

    def _judge_nearest(
        self, output: AttackOutput, inputs: Tensor, labels: Tensor
    ) -> tuple[AttackOutput, Tensor]:
        """Measure a minimum-norm attack's radius on the image that it returned.

        Returns:
            The image once, (1,B,C,H,W), with its radius, inf where the model is not fooled; and
            (B,) bool: the image left the box, or lies farther away than the attack said.
        """
        assert output.radius is not None
        nearest = output.adv_inputs[-1]
        claimed = torch.isfinite(output.radius)
        outside = claimed & leaves(nearest, inputs, math.inf, self.attack.norm)
        nearest = nearest.clamp(0.0, 1.0)
        radius = distance(nearest - inputs, self.attack.norm)
        outside |= claimed & (radius > output.radius + TOLERANCE * output.radius.clamp(min=1.0))
        fooled = self.model(nearest.clone()).argmax(dim=1) != labels
        radius = radius.masked_fill(~(claimed & fooled), math.inf)
        return AttackOutput(nearest.unsqueeze(0), output.zero_gradient, radius), outside


def _check_output(
    name: str, returned: object, inputs: Tensor, asked: tuple[float, ...]
) -> AttackOutput:
    """Refuse what breaks the contract; detach the rest, on the device of the inputs."""
    output = AttackOutput(returned) if isinstance(returned, Tensor) else returned
    if not isinstance(output, AttackOutput):
        raise AttackError(
            f"attack '{name}' returned {type(returned).__name__}; it must return an AttackOutput "
            "or a tensor."
        )
    adv_inputs, zero_gradient, radius = output
    counts = {len(asked)} if radius is None else {1, len(asked)}
    shapes = {(count, *inputs.shape) for count in counts}
    _check_tensor(name, "adv_inputs", adv_inputs, torch.float32, shapes)
    pixels = adv_inputs.flatten(2)
    finite = torch.isfinite(pixels.amin(dim=2)) & torch.isfinite(pixels.amax(dim=2))
    if not finite.all():
        row, image = (~finite).nonzero()[0].tolist()
        raise AttackError(
            f"attack '{name}' returned NaN or infinity at eps {eps_text(asked[row])} for "
            f"{int((~finite).any(dim=0).sum())} of {len(inputs)} images (the first is number "
            f"{image} of its batch); look for NaN in the model's logits or gradients."
        )
    if zero_gradient is not None:
        _check_tensor(name, "zero_gradient", zero_gradient, torch.bool, {(len(inputs),)})
        zero_gradient = zero_gradient.detach().to(inputs.device, copy=True)
    if radius is not None:
        _check_tensor(name, "radius", radius, None, {(len(inputs),)})
        radius = radius.detach().to(inputs.device, torch.float32, copy=True)
        if not (radius >= 0).all():
            raise AttackError(f"attack '{name}' returned a radius that is NaN or below 0.")
    return AttackOutput(adv_inputs.detach().to(inputs.device), zero_gradient, radius)


def _check_tensor(
    name: str, field: str, value: object, dtype: torch.dtype | None, shapes: set[tuple[int, ...]]
) -> None:
    if not isinstance(value, Tensor):
        raise AttackError(f"attack '{name}' returned {field} as {type(value).__name__}, no tensor.")
    if tuple(value.shape) not in shapes:
        expected = " or ".join(map(str, sorted(shapes)))
        raise AttackError(
            f"attack '{name}' returned {field} of shape {tuple(value.shape)}; expected {expected}."
        )
    if value.dtype != dtype and not (dtype is None and value.is_floating_point()):
        raise AttackError(
            f"attack '{name}' returned {field} of dtype {value.dtype}; "
            f"expected {dtype or 'floating point'}."
        )


def _bound(
    output: AttackOutput, inputs: Tensor, eps: Budgets, asked: Budgets, norm: Norm
) -> tuple[Tensor, Tensor]:
    """Return (E,B,C,H,W) inside box and ball, and (B,) bool: something had to be brought back."""
    adv_inputs = torch.empty((len(eps), *inputs.shape), dtype=torch.float32, device=inputs.device)
    outside = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
    for row, budget in zip(adv_inputs, eps, strict=True):
        if budget == 0:
            row.copy_(inputs)
            continue
        if output.radius is None:
            raw = output.adv_inputs[asked.index(budget)]
            outside |= leaves(raw, inputs, budget, norm)
        else:  # one image for all budgets: fooled where the budget reaches it, unchanged elsewhere
            raw = choose(output.radius <= budget, output.adv_inputs[-1], inputs)
        row.copy_(project(raw, inputs, budget, norm))
        assert not leaves(row, inputs, budget, norm).any(), "projection failed"
    return adv_inputs, outside
