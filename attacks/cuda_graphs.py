"""Gradients recorded once as a CUDA graph and replayed: the same work, one launch.

Forward and back through a small network is a hundred kernels of a few microseconds each; starting
them one by one from Python takes several times as long as computing them. Source: PyTorch's notes
on CUDA graphs.
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

TRIALS = 6  # plain calls before one is recorded: fewer of a kind would not pay for the recording
LARGEST = 2**22  # values in a batch of images: larger ones keep a GPU busy by themselves
KEPT = 2  # recordings at a time, each with the memory of its passes
_OWN = {"torch", "torchvision", "robustloss"}
# these run other modules, or kernels of their own making
_OTHERS = (
    "torch._dynamo", "torch.fx", "torch.jit", "torch.nn.parallel", "torch.distributed",
    "torch.export", "torch.ao", "torchvision.transforms",
)  # fmt: skip
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_PLAIN = (bool, int, float, str, tuple, type(None))
_failed: list[str] = []  # recordings of this process that broke: after one torch may be confused

T = TypeVar("T")
Measure = Callable[..., tuple[Tensor, ...]]  # of tensors; changes nothing


class Counts(Protocol):
    """Images sent forward and backward."""

    forward_images: int
    backward_images: int


class NotRecordableError(RuntimeError):
    """A function of tensors does something that a recording of its kernels would leave out."""


def watched(
    function: Callable[..., T], *given: object, device: torch.device, waits: bool = False
) -> tuple[T, str]:
    """Call a function of tensors as for a recording, on a stream of its own.

    Args:
        waits: it may wait for the device, as a first call may that allocates.

    Returns:
        What it returns, and why it cannot be recorded, "" if it can.
    """
    device = _indexed(device)
    before = torch.get_rng_state(), torch.cuda.get_rng_state(device)
    mode = torch.cuda.get_sync_debug_mode()
    current = torch.cuda.current_stream(device)
    stream = _side_stream(device)
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
    waited = _reissue(heard, but="synchronizing")
    after = torch.get_rng_state(), torch.cuda.get_rng_state(device)
    if any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)):
        return value, "draws random numbers"
    if waited and not waits:
        return value, "waits for the device"
    return value, ""


def captured(
    function: Callable[..., T], *given: object, device: torch.device
) -> tuple[T, torch.cuda.CUDAGraph]:
    """Record the kernels that a function starts on a device; nothing is computed.

    Returns:
        What it returns, tensors that each replay fills, and the graph.

    Raises:
        NotRecordableError: it started none there.
        RuntimeError: it does what cannot be recorded.
    """
    device = _indexed(device)
    graph, stream = torch.cuda.CUDAGraph(), _side_stream(device)
    # By default torch records what happens on the current GPU, which need not be this one. The
    # stream is entered twice, because a recording that breaks does not leave its own.
    with (
        warnings.catch_warnings(record=True) as heard,
        torch.cuda.device(device),
        torch.cuda.stream(stream),
        torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
    ):
        warnings.simplefilter("always")
        value = function(*given)
    if _reissue(heard, but="CUDA Graph is empty"):
        raise NotRecordableError(f"no kernel was started on {device}")
    return value, graph


def _reissue(heard: list[warnings.WarningMessage], but: str) -> bool:
    """Warn again of what was heard, except of one thing; whether that was heard."""
    for each in heard:
        if but not in str(each.message):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return any(but in str(each.message) for each in heard)


def _indexed(device: torch.device) -> torch.device:
    """The GPU by its number: without one it is whichever is current."""
    if device.index is not None:
        return device
    return torch.device(device.type, torch.cuda.current_device())


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all calls: the memory that a stream has freed is kept for that stream."""
    return torch.cuda.Stream(device)


@dataclass
class _Recording:
    """What is known of one kind of call: so many plain ones, or a graph with its tensors."""

    tried: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    given: tuple[Tensor, ...] = ()
    found: tuple[Tensor, ...] = ()
    forward_images: int = 0
    backward_images: int = 0

    def replay(self, *given: Tensor) -> tuple[Tensor, ...]:
        """What the recorded call makes of other tensors of the same shapes."""
        assert self.graph is not None
        for mine, other in zip(self.given, given, strict=True):
            mine.copy_(other)
        self.graph.replay()
        return tuple(each.clone() for each in self.found)  # the next replay overwrites them


class Recorder:
    """Replays gradients of one model where that is sure to be the same, on a GPU.

    Calls stay plain where the model runs modules that are not torch's or ours, or hooks (which may
    count or decide in Python), draws random numbers, waits for the device, or where a replay does
    not give what the plain call gave.

    Args:
        model: what is attacked, in eval mode whenever it is asked.
        device: where it lives.

    Attributes:
        reason: why calls are plain; "" while they may be recorded.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model, self.device = model, device
        self.reason = _failed[0] if _failed else "not offered"
        if device.type == "cuda" and not _failed and is_transparent(model):
            self.reason = ""
        self._recordings: dict[Hashable, _Recording] = {}
        self._state: tuple = () if self.reason else _state(model)

    @property
    def replays(self) -> bool:
        """Whether something is recorded."""
        return any(each.graph is not None for each in self._recordings.values())

    def renew(self) -> None:
        """Forget what was recorded if the model is another by now, but for values in place."""
        if self.reason:
            return
        if not is_transparent(self.model):
            self._stay_plain("not offered")
        elif (state := _state(self.model)) != self._state:
            self._recordings, self._state = {}, state

    def call(
        self, kind: Hashable, measure: Measure, counted: Counts, *given: Tensor
    ) -> tuple[Tensor, ...]:
        """Return measure(*given), replayed where it can be.

        Args:
            kind: what measure does, beside its tensors: equal kinds do the same.
            measure: asks the model something of given[0], images (B,C,H,W).
            counted: learns of the passes that are replayed; a plain call counts its own.
        """
        if self.reason or given[0].numel() > LARGEST:
            return measure(*given)
        key = (kind, *((each.shape, each.stride(), each.dtype) for each in given))
        known = self._recordings.pop(key, None) or _Recording()
        self._recordings[key] = known  # the last used comes last
        if known.graph is not None:
            counted.forward_images += known.forward_images
            counted.backward_images += known.backward_images
            return known.replay(*given)
        known.tried += 1
        forward, backward = counted.forward_images, counted.backward_images
        found, fault = watched(measure, *given, device=self.device, waits=known.tried == 1)
        if fault:
            self._stay_plain(fault)
        elif known.tried >= TRIALS:
            self._make_room()
            known.forward_images = counted.forward_images - forward
            known.backward_images = counted.backward_images - backward
            try:
                self._record(known, measure, given, found)
            except NotRecordableError as error:
                self._stay_plain(str(error))
            except RuntimeError as error:  # of CUDA or of memory
                torch.cuda.synchronize(self.device)
                self._stay_plain(str(error))
                _failed.append(str(error))
            finally:
                counted.forward_images = forward + known.forward_images
                counted.backward_images = backward + known.backward_images
        return found

    def _record(
        self,
        known: _Recording,
        measure: Measure,
        given: tuple[Tensor, ...],
        found: tuple[Tensor, ...],
    ) -> None:
        known.given = tuple(each.detach().clone() for each in given)
        known.found, known.graph = captured(measure, *known.given, device=self.device)
        # In another order, so that what was not recorded and stands still is seen.
        moved = known.replay(*(each.roll(1, 0) for each in given))
        for replayed, plain in zip(moved, found, strict=True):
            if not _agree(replayed, plain.roll(1, 0)):
                raise NotRecordableError("a replay differs from the plain call")

    def _make_room(self) -> None:
        kept = [key for key, each in self._recordings.items() if each.graph is not None]
        for key in kept[: max(0, len(kept) - KEPT + 1)]:
            del self._recordings[key]

    def _stay_plain(self, reason: str) -> None:
        self.reason, self._recordings = reason, {}


_Kept = dict[tuple[int, torch.device], Recorder]
_kept: ContextVar[_Kept | None] = ContextVar("kept", default=None)


@contextmanager
def kept_recordings() -> Iterator[None]:
    """Inside, what one call of the harness recorded of a model serves the next ones too."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def recorder_of(model: nn.Module, device: torch.device) -> Recorder:
    """Return a new recorder, or inside `kept_recordings` the one that the model has."""
    known = _kept.get()
    if known is None:
        return Recorder(model, device)
    key = id(model), device  # its recorder holds it, so no other takes its place
    if key not in known:
        known[key] = Recorder(model, device)
    return known[key]


def is_transparent(model: nn.Module) -> bool:
    """Whether all it does in Python is to start the same kernels each time, as far as is known.

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


def _agree(replayed: Tensor, plain: Tensor) -> bool:
    """Equal but for the order of sums, which a GPU does not keep everywhere."""
    if not plain.is_floating_point():
        return torch.equal(replayed, plain)
    largest = float(plain.abs().nan_to_num(posinf=0.0).amax()) if plain.numel() else 0.0
    return torch.allclose(replayed, plain, rtol=1e-4, atol=1e-5 * largest, equal_nan=True)


def _state(model: nn.Module) -> tuple:
    """What a recording rests on: the modules, their settings and where their tensors lie."""
    parts = [
        (part, *(item for item in vars(part).items() if isinstance(item[1], _PLAIN)))
        for part in model.modules()
    ]
    return *parts, *(each.data_ptr() for each in (*model.parameters(), *model.buffers()))
