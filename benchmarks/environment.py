"""Describes where a result file came from."""

import contextlib
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "scikit-learn", "datasets", "numpy", "apache-beam")
EXTRAS = ("openvino", "onnxruntime", "sentence-transformers")


def describe(commit: str | None = None) -> dict[str, Any]:
    """Return commit, date, command, hardware and versions; `commit` is that of a copy without its history."""
    installed = {distribution.name for distribution in metadata.distributions()}
    packages = [name for name in (*PACKAGES, *EXTRAS) if name in installed]
    return {
        "commit": commit
        or _git("rev-parse", "--short=12", "HEAD") + ("-changed" if _git("status", "--porcelain") else ""),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m " + shlex.join([_module(), *map(short, sys.argv[1:])]),
        "hardware": {
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "bf16": torch.cpu._is_avx512_bf16_supported(),
            "amx": torch.cpu._is_amx_tile_supported(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in packages},
    }


def peak_memory(command: Sequence[str], every: float = 0.5, **settings: Any) -> int:
    """Return the peak memory of a command's largest process, children included, in MiB.

    It is read while the command runs, `every` so many seconds, as Linux's high-water mark, because a process inherits
    getrusage's peak from its parent.

    Raises:
        CalledProcessError: the command failed.
    """
    largest = 0
    with psutil.Popen(command, **settings) as process:
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                largest = max(largest, *map(_high_water, [process, *process.children(recursive=True)]))
            time.sleep(every)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return largest


def _high_water(process: psutil.Process) -> int:
    with contextlib.suppress(OSError):  # it has ended
        for line in Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) // 1024
    return 0


def short(argument: str) -> str:
    """Return an argument without this machine's folders: the last two parts of a path outside the clone."""
    name, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    path = Path(value)
    if not path.is_absolute():
        return argument
    inside = path.is_relative_to(ROOT)
    return name + equals + str(path.relative_to(ROOT) if inside else Path("...", *path.parts[-2:]))


def _module() -> str:
    return ".".join(Path(sys.argv[0]).resolve().relative_to(ROOT).with_suffix("").parts)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True).stdout.strip()


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
