"""Runs a model in torch, torch.compile, OpenVINO or ONNX Runtime, behind one function.

The state dict is the only source of weights; inference.scoring.conversions converts it for other runtimes. Before a
runtime is used, its scores are compared with those of torch in fp32.
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

# A Forward turns token ids and mask (documents, tokens) into logits (documents, labels). The mask is 0 for padding, and
# None means no padding. A GPU may still be computing the logits when the call returns. Up to `Runtime.batches_at_once`
# threads may call it.
Logits = torch.Tensor | NDArray[np.float32]
Forward = Callable[[NDArray[np.int64], NDArray[np.int64] | None], Logits]

# On the probe texts, a probability may differ from torch's in fp32 by at most this much. A runtime with a larger
# difference is broken, not merely less exact. int8 has its own proof on labelled data (inference.optimize).
TOLERANCES = {"fp32": 1e-3, "bf16": 0.1, "int8": 0.3}
PACKAGES = {"openvino": "openvino", "onnxruntime": "onnxruntime onnx onnxscript"}
PROBE_TEXTS = (
    "We present a method that needs less memory.",
    "Yes!",
    "In this paper the stability of slender columns under periodic loads is studied by experiment and by simulation; "
    "the results agree to within three percent, and the remaining gap is explained by friction at the supports.",
    "so happy for you, congratulations",
)


@dataclass(frozen=True)
class Runtime:
    """A runtime with its precision, device and threads."""

    name: RuntimeName
    precision: Precision
    device: torch.device
    threads: int
    reason: str  # why this runtime was chosen

    @property
    def batches_at_once(self) -> int:
        """The number of batches to compute in parallel, each with its share of the threads.

        A core with its own batch never waits for the others. A GPU computes one batch after another. So does
        torch.compile, because its network was never tested with several threads.
        """
        return 1 if self.device.type == "cuda" or self.name == "compile" else self.threads

    @property
    def tile(self) -> int:
        """The number of tokens to pad texts to a multiple of, if that saves time; 1 for no such padding."""
        return 16 if self.device.type == "cpu" and self.precision != "fp32" and has_amx() else 1

    def __str__(self) -> str:
        processors = "GPU" if self.device.type == "cuda" else f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"{self.name} in {self.precision} on {processors}"


def choose(name: RuntimeChoice, precision: PrecisionChoice, device: DeviceChoice, threads: int = 0) -> Runtime:
    """Choose a runtime for the flags.

    Args:
        name: a RuntimeName, or `auto` for openvino on a CPU if it is installed, else for torch.
        precision: a Precision, or `auto` for bf16 if the device and the runtime compute in it, else for fp32. `auto`
            never chooses int8, because it changes some labels.
        device: cpu, cuda, or `auto` for a GPU if there is one.
        threads: number of CPU threads, or 0 for one on each core that this process may use.

    Raises:
        UserError: the runtime is not installed, the device is missing, or the choices contradict each other.
    """
    chosen_device = _device(device)
    chosen_name, reason = _name(name, chosen_device)
    chosen_precision = _precision(precision, chosen_name, chosen_device)
    return Runtime(chosen_name, chosen_precision, chosen_device, threads or cores(), reason)


def cores() -> int:
    """Return the number of cores that this process may use; all cores on a system that does not say, such as macOS."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device(asked: DeviceChoice) -> torch.device:
    available = torch.cuda.is_available()
    if asked == "cuda" and not available:
        raise UserError("--device cuda: expected a CUDA GPU, found none; check the driver and the torch build.")
    return torch.device("cuda" if asked == "cuda" or (asked == "auto" and available) else "cpu")


def _name(asked: RuntimeChoice, device: torch.device) -> tuple[RuntimeName, str]:
    if asked == "auto":
        if device.type == "cuda":
            return "torch", "the default on a GPU"
        if is_installed("openvino"):
            return "openvino", "the default on a CPU if installed"
        return "torch", "openvino is not installed"
    if asked in ("openvino", "onnxruntime"):
        if not is_installed(asked):
            raise UserError(f"--runtime {asked}: the package is not installed; pip install {PACKAGES[asked]}.")
        if device.type == "cuda":
            raise UserError(
                f"--runtime {asked}: expected a CPU, found a GPU; add --device cpu, or use --runtime torch."
            )
    return asked, "requested"


def _precision(asked: PrecisionChoice, runtime: RuntimeName, device: torch.device) -> Precision:
    if asked == "auto":
        return "bf16" if has_bf16(device) and runtime != "onnxruntime" else "fp32"
    if asked == "bf16" and runtime == "onnxruntime":
        raise UserError("--precision bf16: onnxruntime computes only in fp32 on a CPU; use another --runtime.")
    if asked == "int8" and runtime != "openvino":
        raise UserError(f"--precision int8: expected the runtime openvino, found {runtime}; add --runtime openvino.")
    return asked


def is_installed(package: str) -> bool:
    """Return whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def has_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or has_amx())


def has_int8() -> bool:
    """Return whether the processor multiplies int8 in hardware (VNNI or AMX)."""
    return bool(torch.cpu._is_vnni_supported() or has_amx())


def has_amx() -> bool:
    """Return whether the processor multiplies tiles of bf16 and int8 (AMX; Intel Sapphire Rapids and later)."""
    return bool(torch.cpu._is_amx_tile_supported())


def start(runtime: Runtime, model: TrainedModel, directory: str) -> Forward:
    """Load the model's network into a runtime, compare it with torch in fp32, and return its Forward.

    Raises:
        ModelError: the runtime cannot compute the model, an int8 variant is missing, or the scores are not finite or
            differ from those of torch in fp32.
    """
    ids, mask = encoded_probe_texts(model)
    labels, temperature = model.manifest.labels, model.manifest.decision.temperature
    expected = to_numpy(_torch_forward(model.network, torch.device("cpu"), 0)(ids, mask))
    if not np.isfinite(expected).all():
        raise ModelError(f"Model {directory!r} gives scores that are not finite numbers; train or export it again.")
    try:
        forward = _STARTERS[runtime.name](runtime, model, directory)
        actual = to_numpy(forward(ids, mask))
    except UserError:
        raise
    except Exception as error:  # each runtime raises its own exceptions, for example on a damaged conversion
        raise ModelError(
            f"Model {directory!r}: {runtime} cannot compute it ({' '.join(str(error).split())[:200]}); delete "
            f"{os.path.join(directory, conversions.FOLDER)}, or use --runtime torch."
        ) from error
    scores = [probabilities(logits, labels.task, temperature) for logits in (actual, expected)]
    difference = float(np.abs(scores[0] - scores[1]).max())
    if not difference <= TOLERANCES[runtime.precision]:
        raise ModelError(
            f"Model {directory!r}: expected scores within {TOLERANCES[runtime.precision]} of torch's in fp32, found "
            f"that those of {runtime} differ by {difference:.3g}; use --runtime torch --precision fp32."
        )
    return forward


def encoded_probe_texts(model: TrainedModel) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask of the probe texts (documents, tokens)."""
    max_tokens = model.manifest.text.max_tokens
    texts = list(PROBE_TEXTS)
    encoded = model.tokenizer(texts, padding=True, truncation=True, max_length=max_tokens, return_tensors="np")
    return encoded["input_ids"].astype(np.int64), encoded["attention_mask"].astype(np.int64)


def to_numpy(logits: Logits) -> NDArray[np.float32]:
    """Return the logits as an array; wait until a GPU has computed them."""
    return logits.float().cpu().numpy() if isinstance(logits, torch.Tensor) else logits


def _torch_forward(network: Any, device: torch.device, threads: int) -> Forward:
    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        with torch.inference_mode(), _torch_threads(threads):
            return network(_on(ids, device), None if mask is None else _on(mask, device))

    return forward


@contextlib.contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Set torch's number of threads for the calling thread, and restore it at the end; 0 changes nothing."""
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
    of_thread = threading.local()

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        if not hasattr(of_thread, "request"):  # a request computes one batch at a time, so each thread needs its own
            of_thread.request = compiled.create_infer_request()
        return of_thread.request.infer([ids, np.ones_like(ids) if mask is None else mask])[0].astype(np.float32)

    return forward


def _start_onnxruntime(runtime: Runtime, model: TrainedModel, directory: str) -> Forward:  # noqa: ARG001
    session = conversions.onnxruntime(model, directory)
    names = [node.name for node in session.get_inputs()]

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
