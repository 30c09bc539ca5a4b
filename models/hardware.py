"""Tells in which number formats this machine's processors multiply matrices."""

from typing import Literal

import torch

from models.errors import UserError

Floats = Literal["fp32", "bf16", "fp16"]
FloatsChoice = Literal["auto", "fp32", "bf16", "fp16"]
BF16_CAPABILITY = (8, 0)  # compute capability from which NVIDIA's GPUs multiply bf16; older ones only emulate it


def has_bf16(device: torch.device) -> bool:
    """Return whether a device multiplies bf16 matrices in hardware.

    torch says yes for older GPUs too, because it emulates bf16 there. That is slower than fp32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= BF16_CAPABILITY
    return bool(torch.cpu._is_avx512_bf16_supported() or has_amx())


def has_int8() -> bool:
    """Return whether the processor multiplies int8 in hardware (VNNI or AMX)."""
    return bool(torch.cpu._is_vnni_supported() or has_amx())


def has_amx() -> bool:
    """Return whether the processor multiplies tiles of bf16 and int8 (AMX; Intel Sapphire Rapids and later)."""
    return bool(torch.cpu._is_amx_tile_supported())


def floats(asked: FloatsChoice, flag: str, device: str, *, bf16: bool) -> Floats:
    """Return the number format to compute in; `auto` is the fastest of the device.

    A GPU without bf16, such as T4 and V100, has fp16 instead.

    Args:
        asked: the choice of the user.
        flag: the name of the flag or key with that choice, for a refusal.
        device: cpu or cuda.
        bf16: whether the device multiplies bf16 in hardware.

    Raises:
        UserError: the device does not compute in it.
    """
    if asked == "fp16" and device == "cpu":
        raise UserError(f"{flag} fp16: expected a GPU, found a CPU; take fp32 or auto.")
    if asked == "bf16" and device == "cuda" and not bf16:
        raise UserError(f"{flag} bf16: expected a GPU that multiplies it, found an older one; take fp16 or auto.")
    if asked != "auto":
        return asked
    if bf16:
        return "bf16"
    return "fp16" if device == "cuda" else "fp32"
