"""The network as other runtimes want it, made from the state dict and kept beside the model.

MODEL/runtimes/KIND-VERSION-HASH/ holds one conversion, by the converter's version and the SHA-256 of the state dict, so
that a conversion is never used for other weights. Where the model's directory cannot be written, it is made anew at
each start.
"""

import contextlib
import importlib
import io
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from models import trained_model
from models.errors import ModelError
from models.trained_model import Manifest
from models.weights import TrainedModel

FOLDER = "runtimes"  # in the model's directory
# Kernels are compiled for each shape of batch. OpenVINO would keep 5,000 a thread, and oneDNN below it 1,024: some
# 600 MiB of a MiniLM-L6 once texts of all lengths have come. These hold 220, and take some 3 % longer if the lengths
# come in no order.
KEPT_KERNELS = 200
OPENVINO_FILE, ONNX_FILE = "model.xml", "model.onnx"


def openvino(model: TrainedModel, directory: str, threads: int, *, int8: bool, bf16: bool) -> Any:
    """A compiled OpenVINO model that takes ids and mask, both int64 (documents, tokens).

    It computes `threads` batches at once, each on one thread: of the int8 variant, or of the network as it is; and in
    bf16 or fp32 what is not int8.
    """
    ov = import_openvino()
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "CPU_RUNTIME_CACHE_CAPACITY": KEPT_KERNELS,
        "ENABLE_CPU_PINNING": False,  # processes that share the cores would pin themselves to the same ones
    }
    if int8:
        return ov.Core().compile_model(check_int8(model.manifest, directory) / OPENVINO_FILE, "CPU", settings)
    with _converted(model, directory, "openvino", _to_openvino) as folder:
        return ov.Core().compile_model(folder / OPENVINO_FILE, "CPU", settings)


def int8_folder(manifest: Manifest, directory: str | os.PathLike[str]) -> Path:
    """Where the model's int8 variant lies, if there is one."""
    return Path(directory) / FOLDER / f"int8-{manifest.files[trained_model.WEIGHTS][:16]}"


def check_int8(manifest: Manifest, directory: str | os.PathLike[str]) -> Path:
    """The folder of the model's int8 variant.

    Raises:
        ModelError: there is none of these weights.
    """
    folder = int8_folder(manifest, directory)
    if not folder.is_dir():
        raise ModelError(
            f"Model {str(directory)!r} has no int8 variant of these weights: make one with `python -m "
            f"inference.optimize --model {directory} --data LABELLED`, or take another --precision."
        )
    return folder


def quantize(model: TrainedModel, directory: str, batches: Sequence[tuple[Any, Any]], folder: Path) -> None:
    """Writes the int8 variant: ranges of activations come from `batches` of ids and mask (documents, tokens)."""
    ov = import_openvino()
    nncf = importlib.import_module("nncf")
    nncf.set_log_level(logging.ERROR)
    with _converted(model, directory, "openvino", _to_openvino) as exact, contextlib.redirect_stdout(io.StringIO()):
        quantized = nncf.quantize(
            ov.Core().read_model(exact / OPENVINO_FILE),
            nncf.Dataset(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(batches),
        )
    folder.mkdir(parents=True)
    ov.save_model(quantized, folder / OPENVINO_FILE, compress_to_fp16=False)


def import_openvino() -> Any:
    """OpenVINO, kept from reporting its use to its makers over the network, and its kernels from piling up."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KEPT_KERNELS))
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as where it is not installed
    import openvino as ov

    return ov


def onnxruntime(model: TrainedModel, directory: str) -> Any:
    """An ONNX Runtime session, of one thread, that takes ids and mask, both int64 (documents, tokens)."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with _converted(model, directory, "onnx", _to_onnx) as folder:
        return ort.InferenceSession(folder / ONNX_FILE, options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _converted(
    model: TrainedModel, directory: str, package: str, convert: Callable[[TrainedModel, Path], None]
) -> Iterator[Path]:
    """The folder of the conversion by this package, made where it is not there yet."""
    weights = model.manifest.files[trained_model.WEIGHTS]
    kept = Path(directory) / FOLDER / f"{package}-{metadata.version(package)}-{weights[:16]}"
    if kept.is_dir():
        yield kept
        return
    with contextlib.ExitStack() as stack:
        try:
            kept.parent.mkdir(exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".", dir=kept.parent))
        except OSError:  # a read-only image
            staging = Path(tempfile.mkdtemp(prefix="labelbeam_"))
        stack.callback(shutil.rmtree, staging, ignore_errors=True)
        with warnings.catch_warnings(), _quiet_transformers():
            warnings.simplefilter("ignore")  # of tracing: it goes through branches that the shapes decide
            convert(model, staging)
        if staging.parent == kept.parent:
            staging.chmod(0o755)
            with contextlib.suppress(OSError):  # another process was first
                staging.rename(kept)
        yield kept if kept.is_dir() else staging


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask that a converter traces the network with."""
    return torch.full((2, 8), 5), torch.ones(2, 8, dtype=torch.long)


def _to_openvino(model: TrainedModel, folder: Path) -> None:
    ov = import_openvino()
    converted = ov.convert_model(model.network, example_input=example())
    ov.save_model(converted, folder / OPENVINO_FILE, compress_to_fp16=False)


def _to_onnx(model: TrainedModel, folder: Path) -> None:
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        model.network,
        example(),
        folder / ONNX_FILE,
        input_names=["input_ids", "attention_mask"],
        dynamic_shapes=(sizes, sizes),
        dynamo=True,
        verbose=False,
    )
