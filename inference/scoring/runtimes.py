"""Chooses what computes a model on this machine: torch, torch.compile, OpenVINO or ONNX Runtime.

The module imports none of them; inference.scoring.starting starts the one that was chosen.
"""

import importlib.util
from dataclasses import dataclass

from inference.scoring.options import DeviceChoice, Precision, PrecisionChoice, RuntimeChoice, RuntimeName
from models import hardware
from models.errors import UserError
from models.hardware import Device, floats, has_amx, has_bf16, has_gpu

PACKAGES = {"openvino": "openvino", "onnxruntime": "onnxruntime onnx onnxscript"}


@dataclass(frozen=True)
class Runtime:
    """A runtime with its precision, device and threads."""

    name: RuntimeName
    precision: Precision
    device: Device
    threads: int
    reason: str  # why this runtime was chosen

    @property
    def batches_at_once(self) -> int:
        """The number of batches to compute in parallel, each with its share of the threads.

        A core with its own batch never waits for the others. A GPU computes one batch after another. So does
        torch.compile, because its network was never tested with several threads.
        """
        return 1 if self.device == "cuda" or self.name == "compile" else self.threads

    @property
    def tile(self) -> int:
        """The number of tokens to pad texts to a multiple of, if that saves time; 1 for no such padding."""
        return 16 if self.device == "cpu" and self.precision != "fp32" and has_amx() else 1

    def __str__(self) -> str:
        processors = "GPU" if self.device == "cuda" else f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"{self.name} in {self.precision} on {processors}"


@dataclass(frozen=True)
class Host:
    """What a machine offers to a runtime: this machine, or a worker that does not exist yet."""

    gpu: bool  # whether torch sees a CUDA GPU
    bf16: frozenset[str]  # types of its devices that multiply bf16 in hardware
    packages: frozenset[str]  # installed runtimes besides torch
    install: str = "pip install {}"  # how to get a missing package


def this_host() -> Host:
    """Return what this machine offers."""
    gpu = has_gpu()
    devices: tuple[Device, ...] = ("cpu", "cuda") if gpu else ("cpu",)
    return Host(
        gpu=gpu,
        bf16=frozenset(device for device in devices if has_bf16(device)),
        packages=frozenset(name for name in PACKAGES if is_installed(name)),
    )


def choose(
    name: RuntimeChoice, precision: PrecisionChoice, device: DeviceChoice, threads: int = 0, host: Host | None = None
) -> Runtime:
    """Choose a runtime for the flags.

    Args:
        name: a RuntimeName, or `auto` for openvino on a CPU if it is installed, else for torch.
        precision: a Precision, or `auto` for bf16 if the device and the runtime compute in it, else for fp16 on a GPU,
            else for fp32. `auto` never chooses int8, because it changes some labels.
        device: cpu, cuda, or `auto` for a GPU if there is one.
        threads: number of CPU threads, or 0 for one on each core that this process may use.
        host: the machine that will compute; None for this one.

    Raises:
        UserError: the runtime is not installed, the device is missing, or the choices contradict each other.
    """
    host = host or this_host()
    if device == "cuda" and not host.gpu:
        raise UserError("--device cuda: expected a CUDA GPU, found none; check the driver and the torch build.")
    chosen_device: Device = "cuda" if host.gpu and device != "cpu" else "cpu"
    chosen_name, reason = _name(name, chosen_device, host)
    chosen_precision = _precision(precision, chosen_name, chosen_device, host)
    return Runtime(chosen_name, chosen_precision, chosen_device, threads or hardware.cores(), reason)


def _name(asked: RuntimeChoice, device: Device, host: Host) -> tuple[RuntimeName, str]:
    if asked == "auto":
        if device == "cuda":
            return "torch", "the default on a GPU"
        if "openvino" in host.packages:
            return "openvino", "the default on a CPU if installed"
        return "torch", "openvino is not installed"
    if asked in PACKAGES:
        if device == "cuda":
            raise UserError(
                f"--runtime {asked}: expected a CPU, found a GPU; add --device cpu, or use --runtime torch."
            )
        if asked not in host.packages:
            raise UserError(f"--runtime {asked}: the package is not installed; {host.install.format(PACKAGES[asked])}.")
    return asked, "requested"


def _precision(asked: PrecisionChoice, runtime: RuntimeName, device: Device, host: Host) -> Precision:
    if runtime == "onnxruntime" and asked in ("auto", "fp32", "bf16"):
        if asked == "bf16":
            raise UserError("--precision bf16: onnxruntime computes only in fp32 on a CPU; use another --runtime.")
        return "fp32"
    if asked != "int8":
        return floats(asked, "--precision", device, bf16=device in host.bf16)
    if runtime != "openvino":
        raise UserError(f"--precision int8: expected the runtime openvino, found {runtime}; add --runtime openvino.")
    return "int8"


def is_installed(package: str) -> bool:
    """Return whether a package can be imported."""
    return importlib.util.find_spec(package) is not None
