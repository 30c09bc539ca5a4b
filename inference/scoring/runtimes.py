"""What computes the logits: the same weights in torch, torch.compile, OpenVINO or ONNX Runtime, behind one function.

The state dict stays the one source. What another runtime needs is made from it (inference.scoring.conversions). Before
a runtime is used, its scores are compared with those of torch in fp32.
"""

import contextlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.scoring import conversions
from inference.scoring.options import DeviceChoice, Precision, PrecisionChoice, RuntimeChoice, RuntimeName
from models.decision import probabilities
from models.errors import ModelError, UserError
from models.weights import TrainedModel

# Token ids and mask (documents, tokens), 0 where a token is padding, to logits (documents, labels). A mask of None
# says that there is no padding. A GPU may still be computing what is handed out. May be called from
# `Runtime.batches_at_once` threads.
Logits = torch.Tensor | NDArray[np.float32]
Forward = Callable[[NDArray[np.int64], NDArray[np.int64] | None], Logits]

# Largest difference of a probability from torch's in fp32 on the probe texts: beyond it a runtime is broken, not
# merely less exact. int8 has a proof of its own, on labelled data (inference.optimize).
TOLERANCES = {"fp32": 1e-3, "bf16": 0.1, "int8": 0.3}
PACKAGES = {"openvino": "openvino", "onnxruntime": "onnxruntime onnx onnxscript"}
PROBES = (
    "We present a method that needs less memory.",
    "Yes!",
    "In this paper the stability of slender columns under periodic loads is studied by experiment and by simulation; "
    "the results agree to within three percent, and the remaining gap is explained by friction at the supports.",
    "so happy for you, congratulations",
)


@dataclass(frozen=True)
class Runtime:
    """What computes, in which number format, where, on how many threads; and why it was chosen."""

    name: RuntimeName
    precision: Precision
    device: torch.device
    threads: int
    reason: str

    @property
    def batches_at_once(self) -> int:
        """How many batches are computed side by side, each with its share of the threads.

        A core that has a batch to itself never waits for the others; a GPU computes one after the other, and so does
        torch.compile, whose compiled network was not tried from several threads.
        """
        return 1 if self.device.type == "cuda" or self.name == "compile" else self.threads

    @property
    def tile(self) -> int:
        """Tokens that texts are filled up to a multiple of, where that takes less time; 1 for none."""
        return 16 if self.device.type == "cpu" and self.precision != "fp32" and has_amx() else 1

    def __str__(self) -> str:
        where = "GPU" if self.device.type == "cuda" else f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"{self.name} in {self.precision} on {where}"


def choose(name: RuntimeChoice, precision: PrecisionChoice, device: DeviceChoice, threads: int = 0) -> Runtime:
    """The runtime that the flags ask for; `auto` is torch on a GPU, on a CPU OpenVINO where it is installed.

    Args:
        name: auto, or a RuntimeName.
        precision: auto, or a Precision. `auto` is never int8, which changes some labels.
        device: auto, cpu or cuda.
        threads: 0 for as many as this process may use cores.

    Raises:
        UserError: what is asked for is not installed or not there, or does not go together.
    """
    place = _device(device)
    chosen, reason = _name(name, place)
    threads = threads or cores()
    return Runtime(chosen, _precision(precision, chosen, place), place, threads, reason)


def cores() -> int:
    """How many cores this process may use; where the system does not say (macOS), all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device(asked: DeviceChoice) -> torch.device:
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise UserError("--device cuda: expected a CUDA GPU, found none; check the driver and the torch build.")
    return torch.device("cuda" if asked == "cuda" or (asked == "auto" and available) else "cpu")


def _name(asked: RuntimeChoice, device: torch.device) -> tuple[RuntimeName, str]:
    if asked == "auto":
        if device.type == "cuda":
            return "torch", "on a GPU"
        if is_installed("openvino"):
            return "openvino", "on a CPU, where it is installed"
        return "torch", "openvino is not installed"
    if asked in ("openvino", "onnxruntime"):
        if not is_installed(asked):
            raise UserError(f"--runtime {asked}: it is not installed; pip install {PACKAGES[asked]}.")
        if device.type == "cuda":
            raise UserError(f"--runtime {asked} computes on the CPU: add --device cpu, or take --runtime torch.")
    return asked, "asked for"


def _precision(asked: PrecisionChoice, runtime: RuntimeName, device: torch.device) -> Precision:
    if asked == "auto":
        return "bf16" if has_bf16(device) and runtime != "onnxruntime" else "fp32"
    if asked == "bf16" and runtime == "onnxruntime":
        raise UserError("--precision bf16: onnxruntime computes in fp32 on a CPU; take another --runtime.")
    if asked == "int8" and runtime != "openvino":
        raise UserError(f"--precision int8 is computed by openvino, not by {runtime}: add --runtime openvino.")
    return asked


def is_installed(package: str) -> bool:
    """Whether the package can be imported."""
    return importlib.util.find_spec(package) is not None


def has_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 matrix products in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or has_amx())


def has_int8() -> bool:
    """Whether the processor multiplies int8 in hardware."""
    return bool(torch.cpu._is_vnni_supported() or has_amx())


def has_amx() -> bool:
    """Whether the processor multiplies tiles of bf16 and int8 (Intel's Sapphire Rapids and later)."""
    return bool(torch.cpu._is_amx_tile_supported())


def start(runtime: Runtime, model: TrainedModel, directory: str) -> Forward:
    """The model's network in this runtime, compared with torch in fp32 before it is handed out.

    Raises:
        ModelError: it gives other scores than torch in fp32; or int8 is asked for and there is no such variant.
    """
    ids, mask = _probe(model)
    labels, temperature = model.manifest.labels, model.manifest.decision.temperature
    expected = to_numpy(_torch_forward(model.network, torch.device("cpu"), 0)(ids, mask))
    if not np.isfinite(expected).all():
        raise ModelError(f"Model {directory!r} gives scores that are not finite numbers: train or export it again.")
    try:
        forward = _STARTERS[runtime.name](runtime, model, directory)
        found = to_numpy(forward(ids, mask))
    except UserError:
        raise
    except Exception as error:  # each runtime raises its own kinds, on a damaged conversion for instance
        raise ModelError(
            f"Model {directory!r}: {runtime} cannot compute it ({' '.join(str(error).split())[:200]}); delete "
            f"{os.path.join(directory, conversions.FOLDER)}, or take --runtime torch."
        ) from error
    scores = [probabilities(logits, labels.task, temperature) for logits in (found, expected)]
    difference = float(np.abs(scores[0] - scores[1]).max())
    if not difference <= TOLERANCES[runtime.precision]:
        raise ModelError(
            f"Model {directory!r}: {runtime} gives scores that are {difference:.3g} apart from torch's in fp32, where "
            f"at most {TOLERANCES[runtime.precision]} was expected; take --runtime torch --precision fp32."
        )
    return forward


def _probe(model: TrainedModel) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    longest = model.manifest.text.max_tokens
    encoded = model.tokenizer(list(PROBES), padding=True, truncation=True, max_length=longest, return_tensors="np")
    return encoded["input_ids"].astype(np.int64), encoded["attention_mask"].astype(np.int64)


def to_numpy(logits: Logits) -> NDArray[np.float32]:
    """The logits once they are computed."""
    return logits.float().cpu().numpy() if isinstance(logits, torch.Tensor) else logits


def _torch_forward(network: Any, device: torch.device, threads: int) -> Forward:
    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        with torch.inference_mode(), _torch_threads(threads):
            return network(_on(ids, device), None if mask is None else _on(mask, device))

    return forward


@contextlib.contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Bounds torch's threads for the calling thread; 0 leaves their number as it is."""
    before = torch.get_num_threads()
    if count and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count and count != before:
            torch.set_num_threads(before)


def _on(array: NDArray[np.int64], device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _start_torch(runtime: Runtime, model: TrainedModel, directory: str) -> Forward:  # noqa: ARG001
    precision = torch.bfloat16 if runtime.precision == "bf16" else torch.float32
    threads = runtime.threads // runtime.batches_at_once
    return _torch_forward(model.network.to(runtime.device, precision), runtime.device, threads)


def _start_compile(runtime: Runtime, model: TrainedModel, directory: str) -> Forward:
    _start_torch(runtime, model, directory)
    return _torch_forward(torch.compile(model.network, dynamic=True), runtime.device, runtime.threads)


def _start_openvino(runtime: Runtime, model: TrainedModel, directory: str) -> Forward:
    int8 = runtime.precision == "int8"
    bf16 = runtime.precision == "bf16" or (int8 and has_bf16(runtime.device))
    compiled = conversions.openvino(model, directory, runtime.threads, int8=int8, bf16=bf16)
    mine = threading.local()

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        if not hasattr(mine, "request"):  # each thread has its own: a request computes one batch at a time
            mine.request = compiled.create_infer_request()
        return mine.request.infer([ids, np.ones_like(ids) if mask is None else mask])[0].astype(np.float32)

    return forward


def _start_onnxruntime(runtime: Runtime, model: TrainedModel, directory: str) -> Forward:  # noqa: ARG001
    session = conversions.onnxruntime(model, directory)
    names = [field.name for field in session.get_inputs()]

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        feed = dict(zip(names, (ids, np.ones_like(ids) if mask is None else mask), strict=True))
        return session.run(None, feed)[0]

    return forward


_STARTERS: dict[RuntimeName, Callable[[Runtime, TrainedModel, str], Forward]] = {
    "torch": _start_torch,
    "compile": _start_compile,
    "openvino": _start_openvino,
    "onnxruntime": _start_onnxruntime,
}
