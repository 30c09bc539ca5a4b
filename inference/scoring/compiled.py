"""Loads the checked files of a conversion into OpenVINO or ONNX Runtime."""

import functools
import os
import sys
from collections.abc import Mapping
from typing import Any

from inference.scoring.conversion_folder import ONNX, ONNX_WEIGHTS, OPENVINO, OPENVINO_WEIGHTS

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
