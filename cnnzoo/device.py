"""Which device, and which precision on it. A leaf."""

import torch

from cnnzoo.errors import InputError


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, else MPS, else the CPU. Raises InputError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        why = " ".join(str(error).splitlines()[0].split())
        raise InputError(f"the device is {name}, which cannot be used here ({why}); take cpu or auto") from None
    return device


def pick_precision(name: str, device: torch.device) -> str:
    """`auto` is bf16 on GPUs that compute in it, else fp32."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
