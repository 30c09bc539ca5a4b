"""Converts the network of a trained model for other runtimes, which takes torch."""

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from inference.scoring import conversion_folder
from inference.scoring.compiled import import_openvino
from inference.scoring.conversion_folder import ONNX, OPENVINO
from models.weights import TrainedModel


def convert(model: TrainedModel, package: str, folder: Path) -> None:
    """Write the files of the conversion by this package to an empty folder."""
    with _quiet():
        _CONVERTERS[package](model, folder)


def quantize(model: TrainedModel, batches: Sequence[tuple[Any, Any]], folder: Path) -> None:
    """Write the int8 variant of a model to `folder`, which must not exist.

    Calibrate the ranges of activations on `batches`, pairs of ids and mask, both int64 (documents, tokens).
    """
    ov = import_openvino()
    nncf = _import_nncf()
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


def _import_nncf() -> Any:
    """Import NNCF without its messages, and leave the logs of everything else as they are.

    Its import changes the class of all loggers that follow, and its own way to set a level changes handlers that
    others may use.
    """
    kind = logging.getLoggerClass()
    try:
        nncf = importlib.import_module("nncf")
    finally:
        logging.setLoggerClass(kind)
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


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
