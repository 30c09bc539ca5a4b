"""Tells how many cores this process may use, and in which number formats this machine multiplies matrices.

It asks Linux itself about the processor and the driver, and torch only elsewhere or about a GPU, because torch takes
more than a second to load.
"""

import ctypes
import functools
import math
import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from models.errors import UserError

Floats = Literal["fp32", "bf16", "fp16"]
FloatsChoice = Literal["auto", "fp32", "bf16", "fp16"]
Device = Literal["cpu", "cuda"]
BF16_CAPABILITY = (8, 0)  # compute capability from which NVIDIA's GPUs multiply bf16; older ones only emulate it
CPUINFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
USUAL_CACHE = 2**20  # bytes of a core's second-level cache where the system does not say
AMD_GPU = Path("/dev/kfd")  # what torch for AMD's GPUs opens
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
# Where Slurm and Grid Engine say how many cores a job has. Neither has to bind the job to them.
SLOTS = ("SLURM_CPUS_PER_TASK", "NSLOTS")
SIBLINGS = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")


def cores() -> int:
    """Return the number of cores that this process may use.

    It is the least of three numbers: the cores that the system lets it run on, the CPU quota of its container, rounded
    up, and the cores that Slurm or Grid Engine gave its job. A system that says none of them, such as macOS, has the
    machine's.
    """
    on = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slots = [int(value) for name in SLOTS if (value := os.environ.get(name, "")).isdecimal()]
    return max(1, min([on, *slots, *map(math.ceil, _quotas())]))


def _quotas() -> Iterator[float]:
    """Yield the CPU quotas, in cores, of this process's control groups and of all groups that hold them.

    Kernel documentation, cgroup-v2.rst: `cpu.max` holds quota and period in microseconds, or the word max for no quota.
    Version 1 has a file for each of the two numbers (sched-bwc.rst). A quota of -1 there is none.
    """
    for line in _text(OWN_GROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        mounted = GROUPS / controllers  # empty in version 2
        for inside in (Path(path.lstrip("/")), *Path(path.lstrip("/")).parents):
            folder = mounted / inside
            if controllers:
                pair = f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"
            else:
                pair = _text(folder / "cpu.max")
            if found := re.fullmatch(r"\s*(\d+)\s+(\d+)\s*", pair):
                yield int(found[1]) / int(found[2])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def threads_per_core() -> int:
    """Return how many of the system's processors share a core, or 1 if that is unknown."""
    return 2 if any(mark in _text(SIBLINGS) for mark in ",-") else 1


def peak_memory() -> int:
    """Return the most bytes of memory that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, and in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def has_gpu() -> bool:
    """Return whether torch sees a GPU that it calls cuda. Without a driver there is none, and torch is not asked."""
    if sys.platform == "linux" and not AMD_GPU.exists():
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return False
    import torch

    return torch.cuda.is_available()


def gpu_name() -> str:
    """Return the name of the GPU that torch uses."""
    import torch

    return torch.cuda.get_device_name()


def has_bf16(device: Device) -> bool:
    """Return whether a device multiplies bf16 matrices in hardware.

    torch says yes for older GPUs too, because it emulates bf16 there. That is slower than fp32.
    """
    if device == "cuda":
        import torch

        return torch.cuda.get_device_capability() >= BF16_CAPABILITY
    return _has("avx512_bf16") or has_amx()


def has_int8() -> bool:
    """Return whether the processor multiplies int8 in hardware (VNNI or AMX)."""
    return _has("avx512_vnni") or has_amx()


def has_amx() -> bool:
    """Return whether the processor multiplies tiles of bf16 and int8 (AMX; Intel Sapphire Rapids and later)."""
    return _has("amx_tile")


@functools.cache
def cache_bytes() -> int:
    """Return the size of a core's second-level cache."""
    for level in CACHES.glob("index*/level"):
        try:
            if level.read_text().strip() == "2":
                return int(level.with_name("size").read_text().strip().removesuffix("K")) * 1024
        except (OSError, ValueError):
            break
    return USUAL_CACHE


def _has(name: str) -> bool:
    """Return whether the processor has these instructions, which are named as in Linux."""
    found = instructions()
    if found is not None:
        return name in found
    import torch

    asked = {
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported,
        "avx512_vnni": torch.cpu._is_vnni_supported,
        "amx_tile": torch.cpu._is_amx_tile_supported,
    }
    return bool(asked[name]())


@functools.cache
def instructions() -> frozenset[str] | None:
    """Return the names of the processor's instructions, as Linux has them; None if the system is not Linux."""
    try:
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", CPUINFO.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return None
    return frozenset(found[1].split()) if found else None


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
