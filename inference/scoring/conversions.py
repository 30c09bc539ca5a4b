"""Converts the network for other runtimes, keeps the conversions beside the model, and loads only what was checked.

The files of a conversion are read once, compared with its manifest, and given to the runtime as the bytes that were
compared. If the model's directory is not writable, the network is converted again at each start.
"""

import contextlib
import functools
import importlib
import io
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from inference.scoring import conversion_folder
from inference.scoring.conversion_folder import (
    ONNX,
    ONNX_WEIGHTS,
    OPENVINO,
    OPENVINO_WEIGHTS,
    ChangedError,
    Checked,
    Conversion,
)
from models.errors import ModelError
from models.trained_model import Manifest
from models.weights import TrainedModel

# A kernel is compiled for each shape of batch. By default, OpenVINO caches 5,000 a thread and oneDNN below it 1,024.
# For a MiniLM-L6 those take some 600 MiB after texts of all lengths. 200 take 220 MiB, and some 3 % more time if
# texts come in no order of length.
MAX_CACHED_KERNELS = 200


def openvino(files: Mapping[str, bytes], threads: int, *, bf16: bool) -> Any:
    """Return a compiled OpenVINO model that takes ids and mask, both int64 (documents, tokens).

    It computes `threads` batches at once, each on one thread. `bf16` computes whatever is not int8 in bf16 instead of
    fp32. The model and its weights come from these bytes alone: OpenVINO's format names no other files.
    """
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "CPU_RUNTIME_CACHE_CAPACITY": MAX_CACHED_KERNELS,
        "ENABLE_CPU_PINNING": False,  # two processes would pin their threads to the same cores
    }
    core = _openvino_core()
    return core.compile_model(core.read_model(files[OPENVINO], files[OPENVINO_WEIGHTS]), "CPU", settings)


@functools.cache
def _openvino_core() -> Any:
    """Return the one core of this process.

    The CPU plugin of OpenVINO 2026.4 sets a stack for signals, and frees it with its last model. If that happens in
    another thread or order than it began, the next signal, such as Ctrl-C, kills the process. A kept core frees none.
    """
    return import_openvino().Core()


def quantize(model: TrainedModel, batches: Sequence[tuple[Any, Any]], folder: Path) -> None:
    """Write the int8 variant of a model to `folder`, which must not exist.

    Calibrate the ranges of activations on `batches`, pairs of ids and mask, both int64 (documents, tokens).
    """
    ov = import_openvino()
    nncf = importlib.import_module("nncf")
    nncf.set_log_level(logging.ERROR)
    with _quiet(), contextlib.redirect_stdout(io.StringIO()):
        quantized = nncf.quantize(
            ov.convert_model(model.network, example_input=example()),
            nncf.Dataset(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(batches),
        )
    folder.mkdir(parents=True)
    ov.save_model(quantized, folder / OPENVINO, compress_to_fp16=False)
    conversion_folder.seal(folder, conversion_folder.int8(model.manifest))


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which uses the network, and with a small cache of kernels."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(MAX_CACHED_KERNELS))
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes its import fail
    import openvino as ov

    return ov


def onnxruntime(files: Mapping[str, bytes]) -> Any:
    """Return an ONNX Runtime session with one thread that takes ids and mask, both int64 (documents, tokens).

    The model and its weights come from these bytes alone. A model that names another file is refused by ONNX Runtime.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    weights = files[ONNX_WEIGHTS]
    options.add_external_initializers_from_files_in_memory([ONNX_WEIGHTS], [weights], [len(weights)])
    return ort.InferenceSession(files[ONNX], options, providers=["CPUExecutionProvider"])


def has_int8(manifest: Manifest, directory: str | os.PathLike[str]) -> bool:
    """Return whether the model has an int8 variant of its present weights, with its manifest."""
    folder = conversion_folder.path_of(directory, conversion_folder.int8(manifest))
    return (folder / conversion_folder.MANIFEST).is_file()


def int8_folder(manifest: Manifest, directory: str | os.PathLike[str]) -> Path:
    """Return the folder of the model's int8 variant.

    Raises:
        ModelError: the model has no int8 variant of its present weights.
    """
    if not has_int8(manifest, directory):
        raise ModelError(
            f"Model {str(directory)!r} has no int8 variant of these weights with a {conversion_folder.MANIFEST}; make "
            f"one with `python -m inference.optimize --model {directory} --data LABELLED`, or choose another "
            "--precision."
        )
    return conversion_folder.path_of(directory, conversion_folder.int8(manifest))


def int8(manifest: Manifest, directory: str | os.PathLike[str]) -> Checked:
    """Return the checked files of the model's int8 variant.

    Raises:
        ModelError: the model has no int8 variant of its present weights, or it is not as `inference.optimize` made it.
    """
    folder = int8_folder(manifest, directory)
    try:
        return conversion_folder.read(folder, conversion_folder.int8(manifest))
    except ChangedError as error:
        raise ModelError(
            f"{folder}: expected the int8 variant as it was made, found {error}; make it again with `python -m "
            f"inference.optimize --model {directory} --data LABELLED`, or choose another --precision."
        ) from None


@contextlib.contextmanager
def exact(model: TrainedModel, directory: str, package: str) -> Iterator[Checked]:
    """Give the checked files of the conversion by this package; convert the network if there is none as it was made.

    A new conversion is kept beside the model when the body, which has to prove it, ends without an exception.

    Raises:
        ModelError: a link leads from the conversion out of the model's directory.
    """
    expected = conversion_folder.exact(model.manifest, package)
    folder = conversion_folder.path_of(directory, expected)
    found = conversion_folder.identity(folder)
    checked = _unchanged(folder, expected) if found else None
    if checked:
        yield checked
        return
    with _staging(folder.parent) as staging:
        with _quiet():
            _CONVERTERS[package](model, staging)
        yield conversion_folder.seal(staging, expected)
        if staging.parent == folder.parent:
            with contextlib.suppress(OSError):  # another process may have been faster
                conversion_folder.publish(staging, folder, found)


def _unchanged(folder: Path, expected: Conversion) -> Checked | None:
    try:
        return conversion_folder.read(folder, expected)
    except ChangedError as error:
        message = f"{folder}: expected the conversion as it was made, found {error}; converting again."
        print(f"warning: {message}", file=sys.stderr)
        return None


@contextlib.contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """Give an empty folder, in `parent` if that can be written, and delete what is left of it at the end."""
    try:
        parent.mkdir(exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".", dir=parent))
    except OSError:  # the model may lie in a read-only image
        staging = Path(tempfile.mkdtemp(prefix="labelbeam_"))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the converters' warnings, such as those about branches that depend on shapes."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(before)


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask (documents, tokens) for a converter to trace the network with."""
    return torch.full((2, 8), 5), torch.ones(2, 8, dtype=torch.long)


def _to_openvino(model: TrainedModel, folder: Path) -> None:
    ov = import_openvino()
    converted = ov.convert_model(model.network, example_input=example())
    ov.save_model(converted, folder / OPENVINO, compress_to_fp16=False)


def _to_onnx(model: TrainedModel, folder: Path) -> None:
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        model.network,
        example(),
        folder / ONNX,
        input_names=["input_ids", "attention_mask"],
        dynamic_shapes=(sizes, sizes),
        dynamo=True,
        verbose=False,
    )


_CONVERTERS: dict[str, Callable[[TrainedModel, Path], None]] = {"openvino": _to_openvino, "onnx": _to_onnx}
