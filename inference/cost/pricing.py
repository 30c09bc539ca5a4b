"""Reads prices and machine types from a file, and computes the bill of a run on Dataflow."""

import datetime
import math
import re
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.errors import UserError

PRICES = Path(__file__).with_name("prices.toml")
OLD_DAYS = 365  # age of the prices above which a warning is printed
DEADLINE_HOURS = 6.0  # time in which the workers have to finish if the user does not give their number

# Ways to pay a machine: Dataflow's standard prices, those of FlexRS, or those of Compute Engine's spot machines, which
# can run `labelbeam worker`. Dataflow has no spot machines.
Rate = Literal["standard", "FlexRS", "spot"]

# Family, which is n1 if it is missing; vCPUs, and memory in MiB.
CUSTOM = re.compile(r"(?:([a-z]\w*)-)?custom-([1-9]\d*)-([1-9]\d*)(?:-ext)?")
WITHOUT_BF16 = ("n1", "n2", "n2d", "e2")  # families of custom types, none of whose processors multiply bf16

# These assumptions about Dataflow cannot be measured on this machine.
START_SECONDS = 300.0  # billed time in which a worker boots and pulls its image
DISK_GB = 50.0  # default disk of each worker, which holds an image of some gigabytes both packed and unpacked
SHUFFLED_BYTES_PER_DOCUMENT = 16.0  # hash of the id, which is written once and read once
SHUFFLED_BYTES_PER_SLICE = 4_096.0  # name and receipt of the slice


@dataclass(frozen=True)
class Gpu:
    """A GPU that workers on Dataflow can have."""

    type: str  # Dataflow's name of it
    machine: str  # machine type with one of it
    device: str  # words in the name that its driver gives it
    bf16: bool  # whether it multiplies bf16 in hardware


GPUS = {
    "l4": Gpu("nvidia-l4", "g2-standard-8", "L4", bf16=True),
    "t4": Gpu("nvidia-tesla-t4", "n1-standard-8", "T4", bf16=False),
    "a100": Gpu("nvidia-tesla-a100", "a2-highgpu-1g", "A100 40GB", bf16=True),
}


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Machine(_Strict):
    """A Compute Engine machine type."""

    vcpus: int = Field(ge=1)  # number of vCPUs
    cores: float = Field(gt=0)  # physical cores; two vCPUs share one on most machine types
    memory_gb: float = Field(gt=0)  # memory in GB
    bf16: bool | None = False  # whether the processor multiplies bf16 in hardware; None if that is unknown
    gpu: str | None = None  # name in gpu_hour of the GPU in each machine

    @property
    def processors(self) -> float:
        """Return how many processors compute side by side: its one GPU, or its cores."""
        return 1 if self.gpu else self.cores


class Spot(_Strict):
    """Prices in dollars of spot machines on Compute Engine."""

    source: str  # publication that the prices come from
    date: datetime.date  # day on which the prices were read
    vcpu_hour: float = Field(ge=0)  # price of a vCPU for an hour
    memory_gb_hour: float = Field(ge=0)  # price of a GB of memory for an hour
    disk_gb_hour: float = Field(ge=0)  # price of a GB of disk for an hour
    gpu_hour: dict[str, float] = Field(default_factory=dict)  # price of each GPU for an hour, by name


class Prices(_Strict):
    """Prices in dollars, and the machine types."""

    source: str  # publication that the prices come from
    region: str  # region that the prices apply to
    date: datetime.date  # day on which the prices were read
    vcpu_hour: float = Field(ge=0)  # price of a vCPU for an hour
    memory_gb_hour: float = Field(ge=0)  # price of a GB of memory for an hour
    disk_gb_hour: float = Field(ge=0)  # price of a GB of standard disk for an hour
    ssd_gb_hour: float = Field(ge=0)  # price of a GB of SSD for an hour
    shuffle_gb: float = Field(ge=0)  # price of a GB of shuffled data
    flexrs_discount: float = Field(ge=0, lt=1)  # share of the price of vCPUs and memory that FlexRS saves
    gpu_hour: dict[str, float]  # price of each GPU for an hour, by name
    machines: dict[str, Machine]  # machine types, by name
    spot: Spot | None = None  # prices of spot machines; None if nobody gave them
    disk_gb: float = Field(default=DISK_GB, gt=0)  # disk of each worker in GB
    ssd: bool = False  # whether the workers have SSDs

    @model_validator(mode="after")
    def _gpus_have_prices(self) -> Self:
        unpriced = sorted({machine.gpu for machine in self.machines.values() if machine.gpu} - self.gpu_hour.keys())
        if unpriced:
            raise ValueError(f"gpu_hour has no price for {', '.join(unpriced)}, which machines name")
        return self

    def find(self, machine_type: str, gpu: str | None = None) -> str | None:
        """Return the name in `machines` of a machine type with this GPU, or None if it is not there."""
        for name, machine in self.machines.items():
            if name.split("+")[0] == machine_type and machine.gpu == gpu:
                return name
        return None

    def with_custom(self, machine_type: str, gpu: str | None = None) -> "Prices":
        """Return the prices with a custom machine type, such as n2-custom-8-16384.

        Return them as they are for another name, and for a GPU without a price.
        """
        shape = CUSTOM.fullmatch(machine_type)
        if not shape or self.find(machine_type, gpu) or (gpu and gpu not in self.gpu_hour):
            return self
        vcpus, memory_mib = int(shape[2]), int(shape[3])
        bf16 = False if (shape[1] or "n1") in WITHOUT_BF16 else None
        machine = Machine(vcpus=vcpus, cores=vcpus / 2, memory_gb=memory_mib / 1024, bf16=bf16, gpu=gpu)
        return self.model_copy(
            update={"machines": {**self.machines, f"{machine_type}{f'+{gpu}' * bool(gpu)}": machine}}
        )

    def with_disk(self, gigabytes: float, disk_type: str | None) -> "Prices":
        """Return the prices for workers with this disk. Each type but pd-standard counts as an SSD, the dearest one."""
        ssd = bool(disk_type) and not str(disk_type).endswith("pd-standard")
        return self.model_copy(update={"disk_gb": gigabytes, "ssd": ssd})

    def rates(self, machine: Machine) -> tuple[Rate, ...]:
        """Return how a machine type can be paid. FlexRS has no GPUs."""
        rates: tuple[Rate, ...] = ("standard",) if machine.gpu else ("standard", "FlexRS")
        if self.spot and (machine.gpu is None or machine.gpu in self.spot.gpu_hour):
            return (*rates, "spot")
        return rates

    def sources(self) -> list[str]:
        """Return a line about date and source of the prices, and one about those of spot machines."""
        lines = [f"prices of {self.date} for {self.region}, from {self.source}"]
        return [*lines, f"spot prices of {self.spot.date}, from {self.spot.source}"] if self.spot else lines

    def warning(self, today: datetime.date) -> str | None:
        """Return a warning if prices are more than a year old, else None."""
        dated = [("prices", self.date, self.source)]
        if self.spot:
            dated.append(("spot prices", self.spot.date, self.spot.source))
        old = [
            f"the {what} are of {date}, {days} days ago; compare them with {source}"
            for what, date, source in dated
            if (days := (today - date).days) > OLD_DAYS
        ]
        return "; ".join(old) or None


def load_prices(path: Path = PRICES) -> Prices:
    """Read a prices file.

    Raises:
        UserError: the file is missing or is not TOML, or keys are missing or wrong. Each key has a line.
    """
    try:
        return Prices.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"--prices {path} cannot be read: {error.strerror}; name another file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--prices {path} is not valid TOML: {error}.") from None
    except ValidationError as error:
        lines = (f"--prices {path}: {'.'.join(map(str, one['loc']))}: {one['msg']}." for one in error.errors())
        raise UserError("\n".join(lines)) from None


def gpus_of(options: Iterable[str]) -> int:
    """Return how many GPUs the service options and experiments of a job give each worker, one if they do not say."""
    accelerators = [option for option in options if "worker_accelerator=" in option]
    counts = [re.search(r"count:(\d+)", option) for option in accelerators]
    return sum(int(count[1]) if count else 1 for count in counts)


def gpu_of(options: Iterable[str]) -> str | None:
    """Return the GPU in the service options and experiments of a job, by its short name if it has one, or None."""
    for option in options:
        if "worker_accelerator=" in option:
            accelerator = option.split("type:")[-1].split(";")[0]
            return next((name for name, known in GPUS.items() if known.type == accelerator), accelerator)
    return None


@dataclass(frozen=True)
class Work:
    """The amount of work in a run."""

    documents: float  # number of documents
    slices: float  # number of slices
    processor_seconds: float  # time that one processor needs, a core or a GPU, including reading and writing


@dataclass(frozen=True)
class Bill:
    """The time in hours and the cost in dollars of a number of workers of one machine type."""

    machine: str  # name of the machine type in the prices file
    workers: int  # number of workers; 0 if it is unknown
    rate: Rate  # how the machines are paid
    hours: float  # time from start to end
    vcpu: float  # cost of vCPUs in dollars
    memory: float  # cost of memory in dollars
    disk: float  # cost of disks in dollars
    shuffle: float  # cost of shuffled data in dollars
    gpu: float  # cost of GPUs in dollars
    start: float | None = None  # part of the total that the workers cost before they label; None if it is unknown

    @property
    def total(self) -> float:
        """Return the total cost in dollars."""
        return self.vcpu + self.memory + self.disk + self.shuffle + self.gpu

    def __str__(self) -> str:
        return self.machine + (f", {self.rate}" if self.rate != "standard" else "")

    def as_dict(self) -> dict[str, Any]:
        """Return the bill with its total, for JSON and for pages."""
        return asdict(self) | {"total": self.total}


def workers_for(work: Work, machine: Machine, hours: float) -> int:
    """Return the smallest number of workers that finish the work in this many hours, and at most one a slice."""
    needed = math.ceil(work.processor_seconds / machine.processors / (hours * 3600 - START_SECONDS))
    return max(min(needed, math.ceil(work.slices)), 1)


def bill(prices: Prices, name: str, workers: int, work: Work, rate: Rate = "standard") -> Bill:
    """Return the bill of the work on this many workers that share it evenly. Spot machines are not pre-empted."""
    machine = prices.machines[name]
    spot = prices.spot if rate == "spot" else None
    paid = spot or prices
    hours = (START_SECONDS + work.processor_seconds / (workers * machine.processors)) / 3600
    machine_hours = workers * hours
    discount = 1 - prices.flexrs_discount if rate == "FlexRS" else 1.0
    shuffled = work.documents * SHUFFLED_BYTES_PER_DOCUMENT + work.slices * SHUFFLED_BYTES_PER_SLICE
    costs = {
        "vcpu": paid.vcpu_hour * machine.vcpus * machine_hours * discount,
        "memory": paid.memory_gb_hour * machine.memory_gb * machine_hours * discount,
        "disk": (paid.disk_gb_hour if spot or not prices.ssd else prices.ssd_gb_hour) * prices.disk_gb * machine_hours,
        "gpu": paid.gpu_hour[machine.gpu] * machine_hours if machine.gpu else 0.0,
    }
    start = sum(costs.values()) * START_SECONDS / 3600 / hours
    shuffle = 0.0 if spot else prices.shuffle_gb * shuffled / 1e9
    return Bill(name, workers, rate, hours, **costs, shuffle=shuffle, start=start)
