"""The settings of a process that decide numbers, or what runs later, put back after others' code.

Somebody else's code may set a data type, change the working folder or replace a signal handler.
Nothing of that may reach the code that runs after it.
"""

import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.overrides import _get_current_function_mode_stack as function_modes
from torch.overrides import _pop_mode as pop_function_mode
from torch.overrides import _push_mode as push_function_mode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack as dispatch_modes
from torch.utils._python_dispatch import _pop_mode as pop_dispatch_mode
from torch.utils._python_dispatch import _push_mode as push_dispatch_mode

# Arithmetic of float32 products as torch has it at the start, by backend and operation.
_PRECISION = {
    ("generic", "all"): "none",
    ("cuda", "all"): "none",
    ("cuda", "matmul"): "none",
    ("cuda", "conv"): "tf32",
    ("cuda", "rnn"): "tf32",
    ("mkldnn", "all"): "none",
    ("mkldnn", "matmul"): "none",
    ("mkldnn", "conv"): "none",
    ("mkldnn", "rnn"): "none",
}
_DEVICES = ("cpu", "cuda", "mps")

Setting = tuple[Callable[[], Any], Callable[[Any], Any]]  # reads it, sets it


@contextmanager
def preserving_settings() -> Iterator[None]:
    """Put back at the end, also after an exception, what the block changed of these settings.

    Of torch: default type and device, modes, gradients, autocast, threads, precision of products,
    deterministic algorithms and cuDNN. Of Python: environment, working folder, import path,
    warnings, signal handlers, standard streams. Of NumPy: how it treats floating-point errors.
    """
    before = [(_read(get), get, put) for get, put in (*_torch_settings(), *_python_settings())]
    modes = function_modes(), dispatch_modes()
    try:
        yield
    finally:
        for value, get, put in before:
            if _read(get) != value:
                # What the platform does not let us set, others have not set either.
                with suppress(Exception):
                    put(value)
        _set_modes(*modes)


@contextmanager
def using_default_settings() -> Iterator[None]:
    """Run the block with torch as it is by default, whatever the caller has set, or others set.

    Gradients can be taken inside, also where the caller has switched on torch.inference_mode.
    """
    with preserving_settings(), torch.inference_mode(False):
        reset_settings()
        yield


def reset_settings() -> None:
    """Set what decides numbers in torch to its default, apart from the number of threads."""
    torch.set_default_device(None)
    _set_modes([], [])
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.set_flush_denormal(False)
    torch.set_deterministic_debug_mode(0)
    torch.autograd.set_detect_anomaly(False)
    torch.backends.cudnn.enabled = True
    for device in _DEVICES:
        torch.set_autocast_enabled(device, False)
    if _read(torch.get_float32_matmul_precision) != "highest":
        torch.set_float32_matmul_precision("highest")
    for (_, put), value in _precision_settings():
        put(value)


def _read(get: Callable[[], Any]) -> Any:
    """Return a setting; None where this version or platform has none, or its folder is gone."""
    try:
        return get()
    except Exception:
        return None


def _set_modes(functions: list[Any], dispatches: list[Any]) -> None:
    """Leave exactly these modes, which see every operation of torch."""
    if function_modes() != functions:
        while function_modes():
            pop_function_mode()
        for mode in functions:
            push_function_mode(mode)
    if dispatch_modes() != dispatches:
        while dispatch_modes():
            pop_dispatch_mode()
        for mode in dispatches:
            push_dispatch_mode(mode)


def _attribute(owner: object, name: str) -> Setting:
    return partial(getattr, owner, name), partial(setattr, owner, name)


def _torch_settings() -> list[Setting]:
    found: list[Setting] = [
        (_default_device, torch.set_default_device),
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.get_num_threads, torch.set_num_threads),
        (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        (_flushes_denormals, torch.set_flush_denormal),
        (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        *(_attribute(torch.backends.cudnn, n) for n in ("enabled", "benchmark", "deterministic")),
    ]
    # After the older setting above, which writes them too.
    found += [setting for setting, _ in _precision_settings()]
    for device in _DEVICES:
        switch = partial(torch.set_autocast_enabled, device)
        found.append((partial(torch.is_autocast_enabled, device), switch))
        kind = partial(torch.set_autocast_dtype, device)
        found.append((partial(torch.get_autocast_dtype, device), kind))
    found.append((_autocast_depth, _set_autocast_depth))
    found.append((torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled))
    if torch.cuda.is_initialized():
        found.append((torch.cuda.current_device, torch.cuda.set_device))
    return found


def _precision_settings() -> list[tuple[Setting, Any]]:
    """Return the settings of float32 products, each with its default."""
    if not hasattr(torch._C, "_set_fp32_precision_setter"):  # torch 2.8
        return [(_attribute(torch.backends.cudnn, "allow_tf32"), True)]
    get, put = torch._C._get_fp32_precision_getter, torch._C._set_fp32_precision_setter
    return [
        ((partial(get, *names), partial(put, *names)), value) for names, value in _PRECISION.items()
    ]


def _default_device() -> torch.device | None:
    """Return the device that was set; torch.get_default_device does not tell none from the CPU."""
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else context.device


def _autocast_depth() -> int:
    """Return how many blocks of torch.autocast are open."""
    torch.autocast_increment_nesting()
    return int(torch.autocast_decrement_nesting())


def _set_autocast_depth(depth: int) -> None:
    """Close blocks of torch.autocast that were left open, or open those that were closed.

    While one is open, later blocks compute with the weights as they were cast first, so that a
    training seems to learn nothing.
    """
    while _autocast_depth() > depth:
        torch.autocast_decrement_nesting()
    while _autocast_depth() < depth:
        torch.autocast_increment_nesting()
    torch.clear_autocast_cache()


def _flushes_denormals() -> bool:
    return float(torch.full((1,), 1e-39, dtype=torch.float32, device="cpu") * 1.0) == 0.0


def _python_settings() -> list[Setting]:
    found: list[Setting] = [
        (lambda: dict(os.environ), _set_environment),
        (os.getcwd, os.chdir),
        (lambda: list(sys.path), lambda value: sys.path.__setitem__(slice(None), value)),
        (lambda: list(warnings.filters), _set_filters),
        _attribute(warnings, "showwarning"),
        (np.geterr, lambda value: np.seterr(**value)),
        (gc.isenabled, lambda value: gc.enable() if value else gc.disable()),
        (sys.getrecursionlimit, sys.setrecursionlimit),
        (sys.gettrace, sys.settrace),
        *(_attribute(sys, name) for name in ("stdin", "stdout", "stderr", "excepthook")),
    ]
    if threading.current_thread() is threading.main_thread():  # elsewhere they cannot be set
        for number in signal.valid_signals():
            found.append((partial(signal.getsignal, number), partial(signal.signal, number)))
    return found


def _set_environment(value: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(value)


def _set_filters(value: list[Any]) -> None:
    warnings.filters[:] = value  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]
