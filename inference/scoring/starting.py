"""Starts a model in a runtime, and compares its scores with those of torch in fp32.

The state dict is the only source of weights; inference.scoring.conversions keeps what it is converted to.
"""

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inference.scoring import compiled, conversions
from inference.scoring.conversion_folder import Checked
from inference.scoring.logits import Forward, Logits, to_numpy
from inference.scoring.options import RuntimeName
from inference.scoring.reference import Reference
from inference.scoring.runtimes import Runtime
from inference.scoring.verified_model import VerifiedModel, architecture
from models import trained_model
from models.decision import probabilities
from models.errors import ModelError, UserError
from models.hardware import has_bf16

# On the probe texts, a probability may differ from torch's in fp32 by at most this much. A runtime with a larger
# difference is broken, not merely less exact. int8 has its own proof on labelled data (inference.optimize).
TOLERANCES = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.02, "int8": 0.3}

Files = Mapping[str, bytes]  # the checked files of a conversion, by name
CONVERTERS: dict[RuntimeName, str] = {"openvino": "openvino", "onnxruntime": "onnx"}  # package that converts for it


class Started(NamedTuple):
    """A model in a runtime."""

    forward: Forward
    sha256: str  # SHA-256 of the manifest of the weights that compute: of conversion.json, or else of model.json
    padding: bool = True  # whether it computes the padding too


# Architectures whose network takes other paths for other texts. A conversion would keep the path of its example, and
# OpenVINO was seen to end the process on one.
BRANCHING = {"longformer", "led", "big_bird", "bigbird_pegasus", "reformer"}


def start(runtime: Runtime, model: VerifiedModel, reference: Reference) -> Started:
    """Load the model's network into a runtime, and compare it with torch in fp32.

    A conversion is kept only after this comparison.

    Raises:
        ModelError: the runtime cannot compute the model, an int8 variant is missing or changed, or the scores are not
            finite or differ from those of torch in fp32.
    """

    def compared(forward: Forward) -> Forward:
        _compare(runtime, model, to_numpy(forward(reference.ids, reference.mask)), reference.logits)
        return forward

    try:
        if runtime.name in CONVERTERS:
            if (kind := architecture(model.directory)) in BRANCHING:
                raise ModelError(
                    f"Model {model.directory!r}: {runtime.name} cannot compute a {kind} network; use --runtime torch."
                )
            with _weights(runtime, model) as weights:
                return Started(compared(_STARTERS[runtime.name](runtime, weights.files)), weights.sha256)
        return _start_torch(runtime, model, compared)
    except UserError:
        raise
    except Exception as error:  # each converter and each runtime raises its own exceptions
        raise ModelError(
            f"Model {model.directory!r}: {runtime} cannot compute it ({' '.join(str(error).split())[:200]}); use "
            "--runtime torch."
        ) from error


def _weights(runtime: Runtime, model: VerifiedModel) -> contextlib.AbstractContextManager[Checked]:
    """Return a context with the checked files of a conversion."""
    if runtime.precision == "int8":
        return contextlib.nullcontext(conversions.int8(model.manifest, model.directory))
    return conversions.exact(model, CONVERTERS[runtime.name])


def _start_torch(runtime: Runtime, model: VerifiedModel, compared: Callable[[Forward], Forward]) -> Started:
    from inference.scoring import packed, torch_runtime

    sha256, network = trained_model.fingerprint(model.directory), model.trained.network
    if runtime.device in packed.DEVICES and (
        forward := torch_runtime.start_packed(runtime, model.name, network, compared)
    ):
        return Started(forward, sha256, padding=False)
    return Started(compared(torch_runtime.start(runtime, network)), sha256)


def _compare(
    runtime: Runtime,
    model: VerifiedModel,
    actual: NDArray[np.float32],
    expected: NDArray[np.float32],
) -> None:
    """Compare a runtime's logits for the probe texts with torch's in fp32, both (documents, labels).

    Raises:
        ModelError: a probability differs by more than the precision's tolerance.
    """
    task, decision = model.manifest.labels.task, model.manifest.decision
    scores = [probabilities(logits, task, decision) for logits in (actual, expected)]
    difference = float(np.abs(scores[0] - scores[1]).max())
    if not difference <= TOLERANCES[runtime.precision]:
        raise ModelError(
            f"Model {model.directory!r}: expected scores within {TOLERANCES[runtime.precision]} of torch's in fp32, "
            f"found that those of {runtime} differ by {difference:.3g}; use --runtime torch --precision fp32."
        )


def _start_openvino(runtime: Runtime, files: Files) -> Forward:
    bf16 = runtime.precision == "bf16" or (runtime.precision == "int8" and has_bf16(runtime.device))
    network = compiled.openvino(files, runtime.threads, bf16=bf16)
    of_thread = threading.local()

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        if not hasattr(of_thread, "request"):  # a request computes one batch at a time, so each thread needs its own
            of_thread.request = network.create_infer_request()
        return of_thread.request.infer([ids, np.ones_like(ids) if mask is None else mask])[0].astype(np.float32)

    return forward


def _start_onnxruntime(runtime: Runtime, files: Files) -> Forward:  # noqa: ARG001
    session = compiled.onnxruntime(files)
    names = [node.name for node in session.get_inputs()]

    def forward(ids: NDArray[np.int64], mask: NDArray[np.int64] | None) -> Logits:
        feed = dict(zip(names, (ids, np.ones_like(ids) if mask is None else mask), strict=True))
        return session.run(None, feed)[0]

    return forward


_STARTERS: dict[RuntimeName, Callable[[Runtime, Files], Forward]] = {
    "openvino": _start_openvino,
    "onnxruntime": _start_onnxruntime,
}
