"""Runs a model in torch, torch.compile, OpenVINO or ONNX Runtime, behind one function.

The state dict is the only source of weights; inference.scoring.conversions converts it for other runtimes. Before a
runtime is used, its scores are compared with those of torch in fp32.
"""

import contextlib
import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from inference.scoring import conversions, gpu, packed
from inference.scoring.conversion_folder import Checked
from inference.scoring.gpu import Arriving
from inference.scoring.options import DeviceChoice, Precision, PrecisionChoice, RuntimeChoice, RuntimeName
from models import trained_model
from models.decision import probabilities
from models.errors import ModelError, UserError
from models.hardware import floats, has_amx, has_bf16
from models.weights import TrainedModel

# A Forward turns token ids and mask (documents, tokens) into logits (documents, labels). The mask is 0 for padding, and
# None means no padding. A GPU may still be computing the logits when the call returns. Up to `Runtime.batches_at_once`
# threads may call it.
Logits = torch.Tensor | NDArray[np.float32] | Arriving
Forward = Callable[[NDArray[np.int64], NDArray[np.int64] | None], Logits]
Files = Mapping[str, bytes]  # the checked files of a conversion, by name

# On the probe texts, a probability may differ from torch's in fp32 by at most this much. A runtime with a larger
# difference is broken, not merely less exact. int8 has its own proof on labelled data (inference.optimize).
TOLERANCES = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.02, "int8": 0.3}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CONVERTERS: dict[RuntimeName, str] = {"openvino": "openvino", "onnxruntime": "onnx"}  # package that converts for it
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


@dataclass(frozen=True)
class Host:
    """What a machine offers to a runtime: this machine, or a worker that does not exist yet."""

    gpu: bool  # whether torch sees a CUDA GPU
    bf16: frozenset[str]  # types of its devices that multiply bf16 in hardware
    packages: frozenset[str]  # installed runtimes besides torch
    install: str = "pip install {}"  # how to get a missing package


def this_host() -> Host:
    """Return what this machine offers."""
    gpu = torch.cuda.is_available()
    devices = ("cpu", "cuda") if gpu else ("cpu",)
    return Host(
        gpu=gpu,
        bf16=frozenset(device for device in devices if has_bf16(torch.device(device))),
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
    chosen_device = torch.device("cuda" if host.gpu and device != "cpu" else "cpu")
    chosen_name, reason = _name(name, chosen_device, host)
    chosen_precision = _precision(precision, chosen_name, chosen_device, host)
    return Runtime(chosen_name, chosen_precision, chosen_device, threads or cores(), reason)


def cores() -> int:
    """Return the number of cores that this process may use; all cores on a system that does not say, such as macOS."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _name(asked: RuntimeChoice, device: torch.device, host: Host) -> tuple[RuntimeName, str]:
    if asked == "auto":
        if device.type == "cuda":
            return "torch", "the default on a GPU"
        if "openvino" in host.packages:
            return "openvino", "the default on a CPU if installed"
        return "torch", "openvino is not installed"
    if asked in PACKAGES:
        if device.type == "cuda":
            raise UserError(
                f"--runtime {asked}: expected a CPU, found a GPU; add --device cpu, or use --runtime torch."
            )
        if asked not in host.packages:
            raise UserError(f"--runtime {asked}: the package is not installed; {host.install.format(PACKAGES[asked])}.")
    return asked, "requested"


def _precision(asked: PrecisionChoice, runtime: RuntimeName, device: torch.device, host: Host) -> Precision:
    if runtime == "onnxruntime" and asked in ("auto", "fp32", "bf16"):
        if asked == "bf16":
            raise UserError("--precision bf16: onnxruntime computes only in fp32 on a CPU; use another --runtime.")
        return "fp32"
    if asked != "int8":
        return floats(asked, "--precision", device.type, bf16=device.type in host.bf16)
    if runtime != "openvino":
        raise UserError(f"--precision int8: expected the runtime openvino, found {runtime}; add --runtime openvino.")
    return "int8"


def is_installed(package: str) -> bool:
    """Return whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


class Started(NamedTuple):
    """A model in a runtime."""

    forward: Forward
    sha256: str  # SHA-256 of the manifest of the weights that compute: of conversion.json, or else of model.json
    padding: bool = True  # whether it computes the padding too


def start(runtime: Runtime, model: TrainedModel, directory: str) -> Started:
    """Load the model's network into a runtime, and compare it with torch in fp32.

    A conversion is kept beside the model only after this comparison.

    Raises:
        ModelError: the runtime cannot compute the model, an int8 variant is missing or changed, or the scores are not
            finite or differ from those of torch in fp32.
    """
    probe = encoded_probe_texts(model)
    expected = to_numpy(_torch_forward(model.network, torch.device("cpu"), 0)(*probe))
    if not np.isfinite(expected).all():
        raise ModelError(f"Model {directory!r} gives scores that are not finite numbers; train or export it again.")

    def compared(forward: Forward) -> Forward:
        _compare(runtime, model, directory, to_numpy(forward(*probe)), expected)
        return forward

    try:
        if runtime.device.type in packed.DEVICES and (forward := _start_packed(runtime, model, compared)):
            return Started(forward, trained_model.fingerprint(directory), padding=False)
        with _weights(runtime, model, directory) as weights:
            forward = compared(_STARTERS[runtime.name](runtime, model, weights.files))
    except UserError:
        raise
    except Exception as error:  # each converter and each runtime raises its own exceptions
        raise ModelError(
            f"Model {directory!r}: {runtime} cannot compute it ({' '.join(str(error).split())[:200]}); use --runtime "
            "torch."
        ) from error
    return Started(forward, weights.sha256)


def _weights(runtime: Runtime, model: TrainedModel, directory: str) -> contextlib.AbstractContextManager[Checked]:
    """Return a context with the checked files for a runtime; torch has none, because it takes the model's network."""
    if runtime.precision == "int8":
        return contextlib.nullcontext(conversions.int8(model.manifest, directory))
    if runtime.name in CONVERTERS:
        return conversions.exact(model, directory, CONVERTERS[runtime.name])
    return contextlib.nullcontext(Checked({}, trained_model.fingerprint(directory)))


def _compare(
    runtime: Runtime,
    model: TrainedModel,
    directory: str,
    actual: NDArray[np.float32],
    expected: NDArray[np.float32],
) -> None:
    """Compare a runtime's logits for the probe texts with torch's in fp32, both (documents, labels).

    Raises:
        ModelError: a probability differs by more than the precision's tolerance.
    """
    labels, temperature = model.manifest.labels, model.manifest.decision.temperature
    scores = [probabilities(logits, labels.task, temperature) for logits in (actual, expected)]
    difference = float(np.abs(scores[0] - scores[1]).max())
    if not difference <= TOLERANCES[runtime.precision]:
        raise ModelError(
            f"Model {directory!r}: expected scores within {TOLERANCES[runtime.precision]} of torch's in fp32, found "
            f"that those of {runtime} differ by {difference:.3g}; use --runtime torch --precision fp32."
        )


def encoded_probe_texts(model: TrainedModel) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask of the probe texts (documents, tokens)."""
    max_tokens = model.manifest.text.max_tokens
    texts = list(PROBE_TEXTS)
    encoded = model.tokenizer(texts, padding=True, truncation=True, max_length=max_tokens, return_tensors="np")
    return encoded["input_ids"].astype(np.int64), encoded["attention_mask"].astype(np.int64)


def to_numpy(logits: Logits) -> NDArray[np.float32]:
    """Return the logits as an array; wait until a GPU has computed them."""
    if isinstance(logits, Arriving):
        logits = logits.wait()
    return logits.float().cpu().numpy() if isinstance(logits, torch.Tensor) else logits


def _torch_forward(network: Any, device: torch.device, threads: int) -> Forward:
    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        with torch.inference_mode(), _torch_threads(threads):
            return gpu.fetch(network(gpu.send(ids, device), None if mask is None else gpu.send(mask, device)))

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


def _start_packed(runtime: Runtime, model: TrainedModel, compared: Callable[[Forward], Forward]) -> Forward | None:
    """Start a network that computes no padding; log why if it cannot be used, and return None."""
    device, dtype = runtime.device, DTYPES[runtime.precision]
    reason = packed.obstacle(model.network, device, dtype)
    if not reason:
        try:
            network = model.network.to(device, dtype)
            return compared(_packed_forward(packed.PackedNetwork(network, compiled=runtime.name == "compile"), device))
        except Exception as error:  # whatever the kernel raises or gets wrong, a network with padding may do without it
            reason = " ".join(str(error).split())[:200]
    logging.getLogger(__name__).warning("model %s: batches are padded, because %s", model.name, reason)
    return None


def _packed_forward(network: packed.PackedNetwork, device: torch.device) -> Forward:
    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        row = packed.row(ids, mask)
        with torch.inference_mode():
            sent = gpu.send(np.concatenate([row.starts, row.ids]), device)
            return gpu.fetch(network(sent[len(row.starts) :], sent[: len(row.starts)], row.longest))

    return forward


def _start_torch(runtime: Runtime, model: TrainedModel, files: Files) -> Forward:  # noqa: ARG001
    threads = runtime.threads // runtime.batches_at_once
    return _torch_forward(model.network.to(runtime.device, DTYPES[runtime.precision]), runtime.device, threads)


def _start_compile(runtime: Runtime, model: TrainedModel, files: Files) -> Forward:
    _start_torch(runtime, model, files)
    return _torch_forward(torch.compile(model.network, dynamic=True), runtime.device, runtime.threads)


def _start_openvino(runtime: Runtime, model: TrainedModel, files: Files) -> Forward:  # noqa: ARG001
    bf16 = runtime.precision == "bf16" or (runtime.precision == "int8" and has_bf16(runtime.device))
    compiled = conversions.openvino(files, runtime.threads, bf16=bf16)
    of_thread = threading.local()

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        if not hasattr(of_thread, "request"):  # a request computes one batch at a time, so each thread needs its own
            of_thread.request = compiled.create_infer_request()
        return of_thread.request.infer([ids, np.ones_like(ids) if mask is None else mask])[0].astype(np.float32)

    return forward


def _start_onnxruntime(runtime: Runtime, model: TrainedModel, files: Files) -> Forward:  # noqa: ARG001
    session = conversions.onnxruntime(files)
    names = [node.name for node in session.get_inputs()]

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        feed = dict(zip(names, (ids, np.ones_like(ids) if mask is None else mask), strict=True))
        return session.run(None, feed)[0]

    return forward


_STARTERS: dict[RuntimeName, Callable[[Runtime, TrainedModel, Files], Forward]] = {
    "torch": _start_torch,
    "compile": _start_compile,
    "openvino": _start_openvino,
    "onnxruntime": _start_onnxruntime,
}
