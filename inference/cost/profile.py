"""Describes the speed at which one machine labels, and reads that of another machine from a file."""

import re
from dataclasses import dataclass
from pathlib import Path

import orjson

from inference.cost.pricing import GPUS, Machine
from inference.scoring.options import ScoringOptions
from models.errors import UserError

CPU = "CPU"


@dataclass(frozen=True)
class Profile:
    """The speed at which one machine labels with these models."""

    models: dict[str, str]  # SHA-256 of each model, by name
    runtime: str  # runtime and precision
    device: str  # name of the GPU that computed, or CPU
    cores: float  # number of physical cores that this process could use
    documents: int  # documents of the sample
    tokens: int  # tokens of the sample, of all models together
    seconds: float  # time to read, score and write the sample
    start_seconds: float  # time from the start of the command until the models are loaded

    def __str__(self) -> str:
        return f"{self.documents / self.seconds:.1f} docs/s, {self.runtime}"

    @property
    def seconds_per_token(self) -> float:
        """Return the seconds that one processor needs for a token: a GPU, or one core of a CPU."""
        return self.seconds * (self.cores if self.device == CPU else 1) / max(self.tokens, 1)


def read(path: Path, here: Profile, machine: Machine, scoring: ScoringOptions) -> Profile:
    """Read a profile that `python -m inference.estimate_cost --json` wrote on another machine.

    Args:
        path: The file.
        here: The speed of this machine.
        machine: The machine type that the profile stands for.
        scoring: The runtime and the precision that the machine will use; `auto` if they are unknown.

    Raises:
        UserError: the file does not hold a profile, or one of other models than `here`, of a device that the machine
            does not have, or of another runtime or precision.
    """
    try:
        profile = Profile(**orjson.loads(path.read_bytes())["profile"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"--profile {path}: expected the output of `python -m inference.estimate_cost --json`, found something "
            "else, or one without the device that computed; measure again on that machine."
        ) from None
    if profile.models != here.models:
        raise UserError(
            f"--profile {path}: expected a profile of the models {', '.join(here.models)} as they are now, found one "
            f"of {', '.join(profile.models)}, or of other weights; measure again on that machine."
        )
    if not is_of(profile.device, machine.gpu):
        raise UserError(
            f"--profile {path}: expected one measured on {machine.gpu or CPU}, as the machine type has, found one "
            f"measured on {profile.device}; measure again on such a machine."
        )
    name, _, precision = profile.runtime.partition(" on ")[0].partition(" in ")
    if scoring.runtime not in ("auto", name) or scoring.precision not in ("auto", precision):
        raise UserError(
            f"--profile {path}: expected one measured with --runtime {scoring.runtime} and --precision "
            f"{scoring.precision}, as the workers score, found {name} in {precision}; measure again with these flags."
        )
    return profile


def is_of(device: str, gpu: str | None) -> bool:
    """Return whether a device, such as "Tesla T4", is the GPU with this name in a prices file; None means a CPU."""
    if gpu is None or device == CPU:
        return gpu is None and device == CPU
    known = GPUS[gpu].device if gpu in GPUS else gpu
    return _words(known) - {"nvidia", "tesla"} <= _words(device)


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower()))
