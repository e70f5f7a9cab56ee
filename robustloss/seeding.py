"""Randomness as a plain value: every stream is named by what it is for, never ambient."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(*parts: str | int) -> int:
    """Return a seed in [0, 2**63) decided by the named parts, equal on every machine.

    Args:
        parts: What the stream is for, as ``("order", seed, epoch)``.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def new_generator(*parts: str | int) -> torch.Generator:
    """Return a CPU generator for the named stream; CPU, so that every device sees one order."""
    return torch.Generator().manual_seed(derive_seed(*parts))


@contextmanager
def using_seed(*parts: str | int) -> Iterator[None]:
    """Run a block under the named seed and put torch's global random state back after it.

    For code that only knows the global generator, as the initialisers of torch.nn.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(*parts))
        yield


def seed_global(device: torch.device, seed: int) -> None:
    """Seed the global generators that code on the device draws from, as torch.manual_seed.

    torch.manual_seed also leaves the seed for GPUs that are not in use yet, and keeps a stack trace
    of its caller. That takes half a millisecond, which small networks would spend in every step.

    Args:
        device: Where the code computes.
        seed: In [0, 2**63).
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


@contextmanager
def preserving_global_state(device: torch.device) -> Iterator[None]:
    """Put torch's global random state, the CPU's and the device's, back after the block."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def using_repeatable_kernels() -> Iterator[None]:
    """Ask cuDNN for repeatable algorithms inside the block, so a GPU gives one result a seed."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
