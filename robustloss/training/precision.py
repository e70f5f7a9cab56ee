"""The arithmetic of training: bfloat16 where the hardware multiplies it, else float32."""

import torch


def choose_precision(asked: str, device: torch.device) -> str:
    """Returns "bfloat16" or "float32"; "auto" takes bfloat16 where the hardware multiplies it."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    if device.type == "cpu":
        return "bfloat16" if any(_says(name) for name in _BFLOAT16_UNITS) else "float32"
    return "float32"


# AMX multiplies tiles (about 2.5 times as fast as float32), AVX-512 BF16 pairs (about 2 times).
_BFLOAT16_UNITS = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


def _says(name: str) -> bool:
    """What torch.cpu says: private, but the only way to ask; a torch without it says no."""
    return bool(getattr(torch.cpu, name, lambda: False)())


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns a context in which a backbone computes in the given precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
