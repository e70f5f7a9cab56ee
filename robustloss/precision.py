"""The arithmetic of training: bfloat16 where the hardware multiplies it, else float32."""

import torch


def choose_precision(asked: str, device: torch.device) -> str:
    """Returns "bfloat16" or "float32"; "auto" takes bfloat16 where the hardware multiplies it."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    if device.type == "cpu":
        # Private, but the only way torch offers to ask; without it float32 is always right.
        has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
        return "bfloat16" if has_amx else "float32"
    return "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Returns a context in which a backbone computes in the given precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
