"""Converts the network for other runtimes and keeps the conversions beside the model.

MODEL/runtimes/PACKAGE-VERSION-HASH/ holds one conversion. Its name has the converter's version and the SHA-256 of the
state dict, so a conversion is never used for other weights. If the model's directory is not writable, the network is
converted again at each start.
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

FOLDER = "runtimes"  # folder of the conversions in the model's directory
# A kernel is compiled for each shape of batch. By default, OpenVINO caches 5,000 a thread and oneDNN below it 1,024.
# For a MiniLM-L6 those take some 600 MiB after texts of all lengths. 200 take 220 MiB, and some 3 % more time if
# texts come in no order of length.
MAX_CACHED_KERNELS = 200
OPENVINO_FILE, ONNX_FILE = "model.xml", "model.onnx"


def openvino(model: TrainedModel, directory: str, threads: int, *, int8: bool, bf16: bool) -> Any:
    """Return a compiled OpenVINO model that takes ids and mask, both int64 (documents, tokens).

    It computes `threads` batches at once, each on one thread. `int8` picks the model's int8 variant. `bf16` computes
    whatever is not int8 in bf16 instead of fp32.

    Raises:
        ModelError: the model has no int8 variant, although `int8` is set.
    """
    ov = import_openvino()
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "CPU_RUNTIME_CACHE_CAPACITY": MAX_CACHED_KERNELS,
        "ENABLE_CPU_PINNING": False,  # two processes would pin their threads to the same cores
    }
    if int8:
        return ov.Core().compile_model(check_int8(model.manifest, directory) / OPENVINO_FILE, "CPU", settings)
    with _converted(model, directory, "openvino", _to_openvino) as folder:
        return ov.Core().compile_model(folder / OPENVINO_FILE, "CPU", settings)


def int8_folder(manifest: Manifest, directory: str | os.PathLike[str]) -> Path:
    """Return the path of the model's int8 variant, which may not exist."""
    return Path(directory) / FOLDER / f"int8-{manifest.files[trained_model.WEIGHTS][:16]}"


def check_int8(manifest: Manifest, directory: str | os.PathLike[str]) -> Path:
    """Return the folder of the model's int8 variant.

    Raises:
        ModelError: the model has no int8 variant of its present weights.
    """
    folder = int8_folder(manifest, directory)
    if not folder.is_dir():
        raise ModelError(
            f"Model {str(directory)!r} has no int8 variant of these weights; make one with `python -m "
            f"inference.optimize --model {directory} --data LABELLED`, or choose another --precision."
        )
    return folder


def quantize(model: TrainedModel, directory: str, batches: Sequence[tuple[Any, Any]], folder: Path) -> None:
    """Write the int8 variant of a model to `folder`, which must not exist.

    Calibrate the ranges of activations on `batches`, pairs of ids and mask, both int64 (documents, tokens).
    """
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
    """Import OpenVINO without its telemetry, which uses the network, and with a small cache of kernels."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(MAX_CACHED_KERNELS))
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes its import fail
    import openvino as ov

    return ov


def onnxruntime(model: TrainedModel, directory: str) -> Any:
    """Return an ONNX Runtime session with one thread that takes ids and mask, both int64 (documents, tokens)."""
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
    """Give the folder of the conversion by this package; convert the network first if there is none."""
    weights = model.manifest.files[trained_model.WEIGHTS]
    conversion = Path(directory) / FOLDER / f"{package}-{metadata.version(package)}-{weights[:16]}"
    if conversion.is_dir():
        yield conversion
        return
    with contextlib.ExitStack() as stack:
        try:
            conversion.parent.mkdir(exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".", dir=conversion.parent))
        except OSError:  # the model may lie in a read-only image
            staging = Path(tempfile.mkdtemp(prefix="labelbeam_"))
        stack.callback(shutil.rmtree, staging, ignore_errors=True)
        with warnings.catch_warnings(), _quiet_transformers():
            warnings.simplefilter("ignore")  # tracing warns about branches that depend on shapes
            convert(model, staging)
        if staging.parent == conversion.parent:
            staging.chmod(0o755)
            with contextlib.suppress(OSError):  # another process may have been faster
                staging.rename(conversion)
        yield conversion if conversion.is_dir() else staging


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask (documents, tokens) for a converter to trace the network with."""
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
