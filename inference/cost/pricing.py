"""What a run on Dataflow costs: prices and machines from a file, and the bill. Numbers in, numbers out."""

import datetime
import math
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.errors import UserError

PRICES = Path(__file__).with_name("prices.toml")
OLD_DAYS = 365
DEADLINE_HOURS = 6.0  # sets the number of workers if the user does not

# GPUs, as prices and flags name them: as Dataflow does.
GPUS = {"l4": "nvidia-l4", "t4": "nvidia-tesla-t4", "a100": "nvidia-tesla-a100"}

# Assumptions that no measurement here can replace.
START_SECONDS = 300.0  # a worker's boot and the pull of its image, billed like work
DISK_GB = 50.0  # of each worker: holds an image of some gigabytes, packed and unpacked
SHUFFLED_BYTES_A_DOCUMENT = 16.0  # the hash of its id, once out and once back
SHUFFLED_BYTES_A_SLICE = 4_096.0  # its name and its receipt


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Strict):
    """A Compute Engine machine type."""

    vcpus: int = Field(ge=1)
    cores: float = Field(gt=0)  # two vCPUs share one on most types
    memory_gb: float = Field(gt=0)
    bf16: bool = False  # its processor multiplies that in hardware
    gpu: str | None = None  # one of Prices.gpu_hour, attached to each


class Prices(_Strict):
    """Dollars, where they were read and when."""

    source: str
    region: str
    date: datetime.date
    vcpu_hour: float = Field(ge=0)
    memory_gb_hour: float = Field(ge=0)
    disk_gb_hour: float = Field(ge=0)
    shuffle_gb: float = Field(ge=0)
    flexrs_discount: float = Field(ge=0, lt=1)
    gpu_hour: dict[str, float]
    machines: dict[str, Machine]

    @model_validator(mode="after")
    def _gpus_have_prices(self) -> Self:
        unpriced = sorted({kind.gpu for kind in self.machines.values() if kind.gpu} - self.gpu_hour.keys())
        if unpriced:
            raise ValueError(f"gpu_hour has no price for {', '.join(unpriced)}, which machines name")
        return self

    def find(self, machine_type: str, gpu: str | None = None) -> str | None:
        """The name here of a machine type with this GPU; None where there is none."""
        for name, kind in self.machines.items():
            if name.split("+")[0] == machine_type and kind.gpu == gpu:
                return name
        return None

    def warning(self, today: datetime.date) -> str | None:
        """A sentence where the prices are more than a year old."""
        days = (today - self.date).days
        return (
            f"the prices are of {self.date}, {days} days ago: compare them with {self.source}"
            if days > OLD_DAYS
            else None
        )


def load_prices(path: Path = PRICES) -> Prices:
    """Reads a prices file.

    Raises:
        UserError: it is missing, no TOML, or a line for each key that is missing or wrong.
    """
    try:
        return Prices.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"--prices {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--prices {path} is not valid TOML: {error}.") from None
    except ValidationError as error:
        lines = (f"--prices {path}: {'.'.join(map(str, one['loc']))}: {one['msg']}." for one in error.errors())
        raise UserError("\n".join(lines)) from None


def gpu_of(service_options: Iterable[str]) -> str | None:
    """The GPU that Dataflow's service options ask for, as prices name it, or else as Dataflow does; None without."""
    for option in service_options:
        if "worker_accelerator=" in option:
            asked = option.split("type:")[-1].split(";")[0]
            return next((name for name, kind in GPUS.items() if kind == asked), asked)
    return None


@dataclass(frozen=True)
class Work:
    """What there is to do."""

    documents: float
    slices: float
    core_seconds: float  # of one physical core, reading and writing included


@dataclass(frozen=True)
class Bill:
    """What some workers of one machine type take and cost, in hours and dollars."""

    machine: str
    workers: int
    flexrs: bool
    hours: float
    vcpu: float
    memory: float
    disk: float
    shuffle: float
    gpu: float

    @property
    def total(self) -> float:
        """Dollars in all."""
        return self.vcpu + self.memory + self.disk + self.shuffle + self.gpu

    def as_dict(self) -> dict[str, Any]:
        """Return the bill with its total, for JSON and for pages."""
        return asdict(self) | {"total": self.total}


def workers_for(work: Work, machine: Machine, hours: float) -> int:
    """How many workers finish the work in so many hours."""
    return max(math.ceil(work.core_seconds / machine.cores / (hours * 3600 - START_SECONDS)), 1)


def bill(prices: Prices, machine: str, workers: int, work: Work, *, flexrs: bool = False) -> Bill:
    """Prices the work on so many workers that share it evenly."""
    kind = prices.machines[machine]
    hours = (START_SECONDS + work.core_seconds / (workers * kind.cores)) / 3600
    machine_hours = workers * hours
    discount = 1 - prices.flexrs_discount if flexrs else 1.0
    shuffled = work.documents * SHUFFLED_BYTES_A_DOCUMENT + work.slices * SHUFFLED_BYTES_A_SLICE
    return Bill(
        machine=machine,
        workers=workers,
        flexrs=flexrs,
        hours=hours,
        vcpu=prices.vcpu_hour * kind.vcpus * machine_hours * discount,
        memory=prices.memory_gb_hour * kind.memory_gb * machine_hours * discount,
        disk=prices.disk_gb_hour * DISK_GB * machine_hours,
        shuffle=prices.shuffle_gb * shuffled / 1e9,
        gpu=prices.gpu_hour[kind.gpu] * machine_hours if kind.gpu else 0.0,
    )
