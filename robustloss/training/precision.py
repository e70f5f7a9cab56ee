"""The arithmetic of training: bfloat16 where the hardware multiplies it, else float32."""

import torch

# AMX multiplies tiles (about 2.5 times as fast as float32), AVX-512 BF16 pairs (about 2 times).
# Private to torch, but the only way to ask; a torch without the question has no such unit.
_BFLOAT16_UNITS = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


def choose_precision(asked: str, device: torch.device) -> str:
    """Return "bfloat16" or "float32".

    Args:
        asked: Either, or "auto", which takes bfloat16 where the hardware multiplies it.
        device: Where.
    """
    if asked != "auto":
        return asked
    fast = False
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    elif device.type == "cpu":
        fast = any(getattr(torch.cpu, name, lambda: False)() for name in _BFLOAT16_UNITS)
    return "bfloat16" if fast else "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context in which a backbone computes in a precision, "bfloat16" or "float32"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
