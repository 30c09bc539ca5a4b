"""Defines rival pipelines from file to files, each at its best documented settings."""

import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.throughput.rival_loops import (
    by_length,
    load,
    scores_in_order,
    sigmoid,
    threads,
    torch_forward,
)


class _Scorer:
    """The actor that Ray keeps. It sorts what Ray hands over by length and scores it in batches."""

    def __init__(self, checkpoint: str, cores: int) -> None:
        import torch

        torch.set_num_threads(cores)
        self.tokenizer, network = load(checkpoint)
        self.forward = torch_forward(network)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"id": batch["id"], "scores": by_length(list(batch["text"]), 32, self.tokenizer, self.forward)}


def ray_data(work: Path) -> np.ndarray:
    """Label with Ray Data's map_batches and one actor on all cores, from file to files."""
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    import ray

    ray.init(num_cpus=threads() + 1, include_dashboard=False, log_to_driver=False)
    table = ray.data.read_json(str(work / "corpus.jsonl")).map(lambda row: {"id": row["id"], "text": text_of(row)})
    scored = table.map_batches(
        _Scorer,
        fn_constructor_args=(str(work / "checkpoint"), threads()),
        batch_size=512,
        num_cpus=threads(),
        compute=ray.data.ActorPoolStrategy(size=1),
    )
    output = tempfile.mkdtemp(dir=work)
    scored.write_json(output)
    return _by_id(work, (json.loads(line) for file in Path(output).rglob("*.json") for line in file.open()))


def text_of(row: dict[str, Any]) -> str:
    """Return the fields of a document except its id, one a line."""
    return "\n".join(value for key, value in row.items() if key != "id")


def _by_id(work: Path, rows: Any) -> np.ndarray:
    found = {row["id"]: row["scores"] for row in rows}
    return np.array([found[json.loads(line)["id"]] for line in (work / "corpus.jsonl").open()], np.float32)


def _beam(work: Path, transform: Callable[[Any], Any]) -> np.ndarray:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    output = Path(tempfile.mkdtemp(dir=work))
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as p:
        rows = p | beam.io.ReadFromText(str(work / "corpus.jsonl")) | beam.Map(json.loads)
        transform(rows) | beam.Map(json.dumps) | beam.io.WriteToText(str(output / "rows"))
    return _by_id(work, (json.loads(line) for file in output.iterdir() for line in file.open()))


def beam_batch_1(work: Path) -> np.ndarray:
    """Label with Beam's RunInference and its PyTorch handler, one document a batch, in fp32."""
    import apache_beam as beam
    import torch
    from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
    from apache_beam.ml.inference.pytorch_inference import PytorchModelHandlerKeyedTensor
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    checkpoint = str(work / "checkpoint")
    _, network = load(checkpoint)
    torch.save(network.state_dict(), work / "rival.pth")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)

    def encode(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        encoded = tokenizer(text_of(row), truncation=True, return_tensors="pt")
        return row["id"], {name: encoded[name][0] for name in ("input_ids", "attention_mask")}

    def decode(pair: tuple[str, Any]) -> dict[str, Any]:
        return {"id": pair[0], "scores": sigmoid(pair[1].inference["logits"].numpy()).tolist()}

    handler = PytorchModelHandlerKeyedTensor(
        state_dict_path=str(work / "rival.pth"),
        model_class=AutoModelForSequenceClassification.from_config,
        model_params={"config": AutoConfig.from_pretrained(checkpoint)},
        device="CPU",
        max_batch_size=1,
    )
    return _beam(
        work, lambda rows: rows | beam.Map(encode) | RunInference(KeyedModelHandler(handler)) | beam.Map(decode)
    )


def beam_hugging_face(work: Path) -> np.ndarray:
    """Label with Beam's RunInference and its handler for transformers.pipeline, in batches of 32, in fp32."""
    import apache_beam as beam
    import torch
    from apache_beam.ml.inference.base import KeyedModelHandler, RunInference

    module = _import_huggingface_inference()
    handler = module.HuggingFacePipelineModelHandler(
        "text-classification",
        str(work / "checkpoint"),
        load_pipeline_args={"top_k": None, "dtype": torch.float32},
        inference_fn=lambda batch, *rest: module._default_pipeline_inference_fn(list(batch), *rest),  # it gets a tuple
        inference_args={"truncation": True, "batch_size": 32},
        device="CPU",
        min_batch_size=32,
        max_batch_size=32,
    )
    places = json.loads((work / "checkpoint" / "config.json").read_bytes())["label2id"]

    def decode(pair: tuple[str, Any]) -> dict[str, Any]:
        return {"id": pair[0], "scores": scores_in_order(pair[1].inference, places)}

    return _beam(
        work,
        lambda rows: (
            rows
            | beam.Map(lambda row: (row["id"], text_of(row)))
            | RunInference(KeyedModelHandler(handler))
            | beam.Map(decode)
        ),
    )


def _import_huggingface_inference() -> Any:
    """Import Beam's module. It needs TensorFlow and a class that transformers 5 lacks, both unused here."""
    from transformers import pipeline  # noqa: F401  # all of torch, before TensorFlow seems to be there

    transformers: Any = sys.modules["transformers"]  # that import replaces the module
    tensorflow: Any = ModuleType("tensorflow")
    tensorflow.Tensor = tensorflow.Module = transformers.TFAutoModel = object
    sys.modules["tensorflow"] = tensorflow
    return importlib.import_module("apache_beam.ml.inference.huggingface_inference")


PIPELINES: dict[str, Callable[[Path], np.ndarray]] = {
    "Beam RunInference, batch 1": beam_batch_1,
    "Beam HuggingFacePipelineModelHandler": beam_hugging_face,
    "Ray Data map_batches": ray_data,
}
