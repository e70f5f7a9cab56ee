"""Gradients captured once as a CUDA graph and replayed: the same work, one launch.

Forward and back through a small network is a hundred kernels of a few microseconds each. Starting
them one by one from Python takes several times as long as computing them.

Source: PyTorch's notes on CUDA graphs.
"""

import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

TRIALS = 6  # plain calls before one is captured: fewer of a kind would not pay for the capture
LARGEST = 2**22  # values in a batch of images: larger ones keep a GPU busy by themselves
MOST_GRAPHS = 2  # of one model at a time, each with the memory of its passes

_OWN = {"torch", "torchvision", "robustloss"}
# These run other modules, or kernels of their own making.
_OTHERS = (
    "torch._dynamo", "torch.fx", "torch.jit", "torch.nn.parallel", "torch.distributed",
    "torch.export", "torch.ao", "torchvision.transforms",
)  # fmt: skip
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_PLAIN = (bool, int, float, str, tuple, type(None))
_failures: list[str] = []  # captures of this process that broke: after one torch may be confused

T = TypeVar("T")
Measure = Callable[..., tuple[Tensor, ...]]  # of tensors; changes nothing


class Counts(Protocol):
    """Images sent forward and backward."""

    forward_images: int
    backward_images: int


class NotCapturableError(RuntimeError):
    """A function of tensors does something that a graph of its kernels would leave out."""


class Replayer:
    """Replays gradients of one model on a GPU, where a replay is sure to give the same.

    Calls stay plain where the model runs modules that are not torch's or ours, or hooks, which may
    count or decide in Python; where it draws random numbers or waits for the device; and where a
    replay does not give what the plain call gave.

    Args:
        model: what is attacked, in eval mode whenever it is called.
        device: where it lives.

    Attributes:
        reason: why calls are plain; "" while they may be captured.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model, self.device = model, device
        self.reason = _failures[0] if _failures else "not offered"
        if device.type == "cuda" and not _failures and is_transparent(model):
            self.reason = ""
        self._calls: dict[Hashable, _Call] = {}
        self._state: tuple = () if self.reason else _describe(model)

    def renew(self) -> None:
        """Forget every graph if the model has changed since, but for values in place."""
        if self.reason:
            return
        if not is_transparent(self.model):
            self._stay_plain("not offered")
        elif (state := _describe(self.model)) != self._state:
            self._calls, self._state = {}, state

    def call(
        self, kind: Hashable, measure: Measure, counted: Counts, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """Return measure(*tensors), replayed where it can be.

        Args:
            kind: what `measure` does, beside its tensors: equal kinds do the same.
            measure: asks the model something of tensors[0], images (B,C,H,W).
            counted: is told of the passes that are replayed; a plain call counts its own.
            tensors: each with one row per image.
        """
        if self.reason or tensors[0].numel() > LARGEST:
            return measure(*tensors)
        key = (kind, *((each.shape, each.stride(), each.dtype) for each in tensors))
        call = self._calls.pop(key, None) or _Call()
        self._calls[key] = call  # the last used comes last
        if call.graph is not None:
            counted.forward_images += call.forward_images
            counted.backward_images += call.backward_images
            return call.replay(*tensors)
        call.tried += 1
        forward, backward = counted.forward_images, counted.backward_images
        plain, fault = rehearse(measure, *tensors, device=self.device, waits=call.tried == 1)
        if fault:
            self._stay_plain(fault)
        elif call.tried >= TRIALS:
            self._make_room()
            call.forward_images = counted.forward_images - forward
            call.backward_images = counted.backward_images - backward
            try:
                call.capture(measure, tensors, plain, self.device)
            except NotCapturableError as error:
                self._stay_plain(str(error))
            except RuntimeError as error:  # of CUDA or of memory
                torch.cuda.synchronize(self.device)
                self._stay_plain(str(error))
                _failures.append(str(error))
            finally:
                # Capturing called the model again: those passes are not the attack's.
                counted.forward_images = forward + call.forward_images
                counted.backward_images = backward + call.backward_images
        return plain

    def _make_room(self) -> None:
        captured = [key for key, call in self._calls.items() if call.graph is not None]
        for key in captured[: max(0, len(captured) - MOST_GRAPHS + 1)]:
            del self._calls[key]

    def _stay_plain(self, reason: str) -> None:
        self.reason, self._calls = reason, {}


@dataclass
class _Call:
    """What is known of one kind of call: so many plain ones, or a graph with its tensors."""

    tried: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    forward_images: int = 0
    backward_images: int = 0

    def replay(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return what the captured call makes of other tensors of the same shapes."""
        assert self.graph is not None
        for mine, other in zip(self.inputs, tensors, strict=True):
            mine.copy_(other)
        self.graph.replay()
        return tuple(each.clone() for each in self.outputs)  # the next replay overwrites them

    def capture(
        self,
        measure: Measure,
        tensors: tuple[Tensor, ...],
        plain: tuple[Tensor, ...],
        device: torch.device,
    ) -> None:
        """Capture measure(*tensors), and compare a replay with what the plain call gave."""
        self.inputs = tuple(each.detach().clone() for each in tensors)
        self.outputs, self.graph = capture(measure, *self.inputs, device=device)
        # In another order, so that what was not captured and stands still is seen.
        moved = self.replay(*(each.roll(1, 0) for each in tensors))
        for replayed, expected in zip(moved, plain, strict=True):
            if not _agree(replayed, expected.roll(1, 0)):
                raise NotCapturableError("a replay differs from the plain call")


def _agree(replayed: Tensor, plain: Tensor) -> bool:
    """Return whether two tensors are equal, but for the order of sums that a GPU may change."""
    if not plain.is_floating_point():
        return torch.equal(replayed, plain)
    largest = float(plain.abs().nan_to_num(posinf=0.0).amax()) if plain.numel() else 0.0
    return torch.allclose(replayed, plain, rtol=1e-4, atol=1e-5 * largest, equal_nan=True)


_Replayers = dict[tuple[int, torch.device], Replayer]
_kept: ContextVar[_Replayers | None] = ContextVar("kept", default=None)


@contextmanager
def keeping_graphs() -> Iterator[None]:
    """Keep the graphs that one call of the harness captures for the next calls in the block."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def find_replayer(model: nn.Module, device: torch.device) -> Replayer:
    """Return a new replayer, or in a block of `keeping_graphs` the one that the model has.

    Args:
        model: what is attacked.
        device: where it lives.
    """
    known = _kept.get()
    if known is None:
        return Replayer(model, device)
    key = id(model), device  # its replayer holds it, so no other takes its place
    if key not in known:
        known[key] = Replayer(model, device)
    return known[key]


def is_transparent(model: nn.Module) -> bool:
    """Return whether all it does in Python is to start the same kernels, as far as is known.

    True of modules of torch, torchvision and this project without hooks or functions of others,
    with ordinary tensors.
    """
    hooked = any(getattr(torch.nn.modules.module, f"_global{hooks}", None) for hooks in _HOOKS)
    tensors = (*model.parameters(), *model.buffers())
    return (
        not hooked
        and all(type(t) in (Tensor, nn.Parameter) and t.layout == torch.strided for t in tensors)
        and all(_is_known(part) for part in model.modules())
    )


def _is_known(part: nn.Module) -> bool:
    kinds = type(part).__mro__  # what is parametrised has a class of torch's before its own
    if not all(_is_own(kind) for kind in kinds[: kinds.index(nn.Module)]):
        return False
    if getattr(part, "_compiled_call_impl", None) is not None:
        return False
    if any(getattr(part, hooks, None) for hooks in _HOOKS):
        return False
    functions = [each for each in vars(part).values() if callable(each)]
    return "forward" not in vars(part) and all(
        _is_own(each.func if isinstance(each, partial) else each)
        for each in functions
        if not isinstance(each, nn.Module)
    )


def _is_own(code: object) -> bool:
    module = getattr(code, "__module__", None) or ""
    return module.partition(".")[0] in _OWN and not module.startswith(_OTHERS)


def _describe(model: nn.Module) -> tuple:
    """Return what a graph rests on: the modules, their settings and where their tensors lie."""
    parts = [
        (part, *(item for item in vars(part).items() if isinstance(item[1], _PLAIN)))
        for part in model.modules()
    ]
    return *parts, *(each.data_ptr() for each in (*model.parameters(), *model.buffers()))


def rehearse(
    function: Callable[..., T], *given: object, device: torch.device, waits: bool = False
) -> tuple[T, str]:
    """Call a function of tensors on a stream of its own, and see whether it can be captured.

    Args:
        function: what may be captured later.
        given: its arguments.
        device: a GPU.
        waits: it may wait for the device, as a first call may that allocates.

    Returns:
        What it returns, and why it cannot be captured, "" if it can.
    """
    device = _add_index(device)
    before = torch.get_rng_state(), torch.cuda.get_rng_state(device)
    mode = torch.cuda.get_sync_debug_mode()
    current = torch.cuda.current_stream(device)
    stream = _get_stream(device)
    stream.wait_stream(current)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with torch.cuda.stream(stream):
                value = function(*given)
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    current.wait_stream(stream)
    waited = _warn_again(heard, but="synchronizing")
    after = torch.get_rng_state(), torch.cuda.get_rng_state(device)
    if any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)):
        return value, "draws random numbers"
    if waited and not waits:
        return value, "waits for the device"
    return value, ""


def capture(
    function: Callable[..., T], *given: object, device: torch.device
) -> tuple[T, torch.cuda.CUDAGraph]:
    """Capture the kernels that a function starts on a device; nothing is computed.

    Args:
        function: what is captured.
        given: its arguments; tensors are read again at each replay.
        device: a GPU.

    Returns:
        What it returns, tensors that each replay fills, and the graph.

    Raises:
        NotCapturableError: it started no kernel there.
        RuntimeError: it does what cannot be captured.
    """
    device = _add_index(device)
    graph, stream = torch.cuda.CUDAGraph(), _get_stream(device)
    # By default torch captures what happens on the current GPU, which need not be this one. The
    # stream is entered twice, because a capture that breaks does not leave its own.
    with (
        warnings.catch_warnings(record=True) as heard,
        torch.cuda.device(device),
        torch.cuda.stream(stream),
        torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
    ):
        warnings.simplefilter("always")
        value = function(*given)
    if _warn_again(heard, but="CUDA Graph is empty"):
        raise NotCapturableError(f"no kernel was started on {device}")
    return value, graph


def _warn_again(heard: list[warnings.WarningMessage], but: str) -> bool:
    """Warn of what was heard, except of one thing; return whether that was heard."""
    for each in heard:
        if but not in str(each.message):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return any(but in str(each.message) for each in heard)


def _add_index(device: torch.device) -> torch.device:
    """Return the GPU with its number: without one it is whichever is current."""
    if device.index is not None:
        return device
    return torch.device(device.type, torch.cuda.current_device())


@cache
def _get_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream for all calls: memory that a stream has freed is kept for it."""
    return torch.cuda.Stream(device)
