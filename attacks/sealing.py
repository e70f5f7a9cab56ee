"""A sealed room for an attack: what it does to model and global state is undone when it ends."""

import random
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustloss.attacks.base import AttackError
from robustloss.attacks.cuda_graphs import Measure, Replayer

OnPass = Callable[[int], None]  # images sent forward so far

# Pixels at once through a network on the CPU, or up to twice as many: 125 images of MNIST, of which
# 32 channels are 13 MB. Activations above 32 MB are memory that glibc asks the system for in every
# layer, a quarter of LeNet++'s time; fewer than these leave the cores too little to share.
PIXELS_AT_ONCE = 98_000
LEAST_AT_ONCE = 16  # images


def cut_to_cache(images: Tensor) -> tuple[Tensor, ...]:
    """Return a batch (B,C,H,W) in the pieces in which a network on a CPU is fastest."""
    at_once = max(LEAST_AT_ONCE, PIXELS_AT_ONCE // max(1, images.shape[2:].numel()))
    pieces = len(images) // at_once
    return images.tensor_split(pieces) if pieces > 1 and images.device.type == "cpu" else (images,)


class CountedModel(nn.Module):
    """The model as an attack sees it: the same attributes, every pass over images counted.

    Args:
        model: what is attacked; it is not changed.
        highest_label: the model must return more logits than this.
        replayer: replays gradients that are asked for again and again; None: every pass is plain.
        on_pass: called before each pass with the images sent forward until then.

    Attributes:
        forward_images: images sent through `model(...)` and its `joint`, `scored`, `features`.
        backward_images: images for which a gradient came back.
    """

    def __init__(
        self,
        model: nn.Module,
        highest_label: int,
        replayer: Replayer | None = None,
        on_pass: OnPass | None = None,
    ) -> None:
        super().__init__()
        self.attacked_model = model
        # Ours never write on the images that they are given.
        self.copies = not type(model).__module__.startswith("robustloss.")
        self.cuts = self.copies and not _is_compiled(model)  # ours cut for themselves
        self.replayer = replayer
        self.on_pass = on_pass
        self.highest_label = highest_label
        self.forward_images = 0
        self.backward_images = 0

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B,K) of images (B,C,H,W).

        Raises:
            ValueError: the model's output is no (B,K) tensor with room for every label.
        """
        pieces = cut_to_cache(images) if self.cuts else (images,)
        if len(pieces) > 1:
            return torch.cat([self.forward(piece) for piece in pieces])
        logits = self._count(self.attacked_model, images)
        self._check_logits("model output", logits, images)
        return logits

    def __getattr__(self, name: str) -> Any:
        modules = self.__dict__.get("_modules", {})
        if name in modules or "attacked_model" not in modules:
            return super().__getattr__(name)
        attribute = getattr(modules["attacked_model"], name)
        if name == "joint" and callable(attribute):
            return partial(self._count_joint, attribute)
        if name in ("features", "scored") and callable(attribute):
            return partial(self._count, attribute)
        return attribute

    def _count(self, call: Callable[[Tensor], Any], images: Tensor) -> Any:
        if self.on_pass is not None:
            self.on_pass(self.forward_images)
        self.forward_images += len(images)
        if images.requires_grad and torch.is_grad_enabled():
            # A view of its own for each pass: the hook then fires once per backward through it.
            images = images.view_as(images)
            images.register_hook(self._count_backward)
        return call(images.clone() if self.copies else images)

    def _count_backward(self, gradient: Tensor | None) -> None:
        if gradient is not None:  # none comes through layers without a derivative, as quantised
            self.backward_images += len(gradient)

    def _count_joint(self, call: Callable[[Tensor], Any], images: Tensor) -> tuple[Tensor, Tensor]:
        output = self._count(call, images)
        if not isinstance(output, tuple) or len(output) != 2:
            raise ValueError(
                f"model.joint output (={type(output).__name__}) must be a pair: logits and class "
                "log-likelihoods."
            )
        logits, log_likelihood = output
        self._check_logits("model.joint logits", logits, images)
        if log_likelihood.shape != logits.shape:
            raise ValueError(
                f"model.joint log-likelihoods (shape {tuple(log_likelihood.shape)}) must have the "
                f"shape of the logits, {tuple(logits.shape)}."
            )
        return logits, log_likelihood

    def _check_logits(self, name: str, logits: Any, images: Tensor) -> None:
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images):
            what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"{name} (={what}) must be a tensor of logits ({len(images)}, K).")
        if logits.shape[1] < 2:
            raise ValueError(f"{name} must have at least 2 logits: one per class.")
        if self.highest_label >= logits.shape[1]:
            raise ValueError(
                f"labels (highest {self.highest_label}) must lie in 0..{logits.shape[1] - 1}: "
                f"the model returns {logits.shape[1]} logits."
            )


def call_or_replay(
    model: nn.Module, kind: Hashable, measure: Measure, *tensors: Tensor
) -> tuple[Tensor, ...]:
    """Return measure(*tensors), replayed from a CUDA graph where the model's replayer has one.

    Args: as for `Replayer.call`.
    """
    if isinstance(model, CountedModel) and model.replayer is not None:
        return model.replayer.call(kind, measure, model, *tensors)
    return measure(*tensors)


@contextmanager
def sealing(model: nn.Module, device: torch.device, seed: int) -> Iterator[Callable[[], None]]:
    """Run the block with a frozen model, seeded generators, gradients on, and float32.

    A model on a CPU computes in its fastest layout.

    Yields what `freezing` yields.

    Args:
        model: as for `freezing`.
        device: where the model lives.
        seed: as for `seeding_generators`.

    Raises:
        AttackError: as for `freezing`.
    """
    with (
        freezing(model) as freeze_again,
        seeding_generators(device, seed),
        torch.inference_mode(False),  # a copy of the weights made in it could not be differentiated
        using_fast_layout(model, device),
        torch.enable_grad(),
        torch.autocast(device_type=device.type, enabled=False),
    ):
        yield freeze_again


@contextmanager
def freezing(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Hold the model in eval mode with frozen parameters; restore every flag, gradient and buffer.

    Yields:
        A function that makes the model in the block as it was at its beginning.

    Raises:
        AttackError: a parameter's value was changed inside.
    """
    # Frozen programs of TorchScript have no mode.
    modes = [(m, m.training) for m in model.modules() if hasattr(m, "training")]
    parameters = [(p, p.requires_grad, p.grad, p._version) for p in model.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]

    def freeze() -> None:
        model.eval()
        for parameter, *_ in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None  # out of reach of a zero_grad inside

    def freeze_again() -> None:
        freeze()
        _restore(buffers)

    try:
        freeze()
        yield freeze_again
    finally:
        # Flag by flag: model.train() would flip modules that were frozen on purpose.
        for module, training in modes:
            module.training = training
        for parameter, requires_grad, gradient, _ in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient
        _restore(buffers)
    if any(parameter._version != version for parameter, _, _, version in parameters):
        raise AttackError("the attack changed the model's parameters; load the model again.")


@contextmanager
def using_fast_layout(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Give the convolutions of a model on a CPU channels_last weights for the block.

    In the default layout oneDNN would convert images and weights again at every pass, which takes a
    fifth of the time. The values are the same, and the caller's own tensors come back at the end.
    A compiled model stays as it is: it would be compiled again for other strides.
    """
    before: list[tuple[nn.Parameter, Tensor]] = []
    if device.type == "cpu" and torch.backends.mkldnn.is_available() and not _is_compiled(model):
        for module in model.modules():
            # Not the weight that a parametrisation computes, nor one of a scripted module.
            weight = module._parameters.get("weight") if isinstance(module, nn.Conv2d) else None
            if weight is not None and weight.dtype == torch.float32:
                before.append((weight, weight.data))
    try:
        for weight, _ in before:
            # Not contiguous(): it leaves the strides of a single channel, which oneDNN takes for
            # the default layout.
            weight.data = weight.data.to(memory_format=torch.channels_last)
        yield
    finally:
        for weight, values in before:
            weight.data = values


def _is_compiled(model: nn.Module) -> bool:
    """Return whether the model, or a part of it, would be compiled again for other tensors."""
    return any(
        module._compiled_call_impl is not None or hasattr(module, "_orig_mod")
        for module in model.modules()
    )


def _restore(buffers: list[tuple[Tensor, Tensor]]) -> None:
    with torch.no_grad():
        for buffer, content in buffers:
            # Batch statistics move in train mode without a new version number. What did not
            # move is not written: a graph of the caller's may still hold it.
            if not _are_equal(buffer, content):
                buffer.copy_(content)


def _are_equal(one: Tensor, other: Tensor) -> bool:
    if one.is_meta or other.is_meta:
        return True
    if one.is_nested:
        return all(map(torch.equal, one.unbind(), other.unbind()))
    if one.layout != torch.strided:
        one, other = one.to_dense(), other.to_dense()
    return torch.equal(one, other)


@contextmanager
def seeding_generators(device: torch.device, seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators; put their states back at the end.

    Args:
        device: the generator of an MPS device is among them; CUDA's are wherever CUDA has started.
        seed: a non-negative integer below 2^63.
    """
    python, cpu = random.getstate(), torch.get_rng_state()
    numpy = np.random.get_state()  # noqa: NPY002 - the global state is what others' code uses
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    mps = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        seed_generators(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)


def seed_generators(seed: int) -> None:
    """Seed every global generator that exists by now.

    Not torch.manual_seed: before CUDA is started it leaves a seed behind for later, which no
    restoring could take back.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
