"""Defines rival loops from texts to probabilities in memory, each at its best documented settings."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

BATCHES = (8, 16, 32, 64)  # each loop takes the size that is fastest for it
Loop = Callable[[Sequence[str], int], np.ndarray]  # texts and batch size to probabilities (documents, labels)


def threads() -> int:
    """Return one thread for each core that this process may use."""
    return len(os.sched_getaffinity(0))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities (documents, labels) of a multi-label model."""
    return 1 / (1 + np.exp(-logits))


def by_length(
    texts: Sequence[str],
    batch: int,
    tokenizer: Any,
    forward: Callable[..., Any],
    each: Callable[..., Iterable[Any]] = map,
) -> np.ndarray:
    """Tokenise all texts, sort by length, and score batches padded to their longest text, as guides advise.

    `each` applies `forward` to ids and masks, as map does; a pool's may do so to several batches at once.
    """
    encoded = tokenizer(list(texts), truncation=True)["input_ids"]
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
    parts = [order[start : start + batch] for start in range(0, len(order), batch)]
    padded = [tokenizer.pad({"input_ids": [encoded[i] for i in part]}, return_tensors="np") for part in parts]
    logits = each(forward, *zip(*((one["input_ids"], one["attention_mask"]) for one in padded), strict=True))
    return sigmoid(np.concatenate(list(logits))[np.argsort(order)].astype(np.float32))


def load(checkpoint: str, precision: str = "fp32") -> tuple[Any, Any]:
    """Return tokenizer and network, as transformers loads them."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch_dtype(precision)).eval()
    return AutoTokenizer.from_pretrained(checkpoint), network


def torch_dtype(precision: str) -> Any:
    """Return torch's name of a precision."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def torch_forward(network: Any) -> Callable[..., np.ndarray]:
    """Return a function from ids and mask to logits."""
    import torch

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(ids), torch.from_numpy(mask)).logits.float().numpy()

    return forward


def one_by_one(checkpoint: str) -> Loop:
    """Score one text at a time, as pipelines with batch size 1 do."""
    tokenizer, network = load(checkpoint)
    forward = torch_forward(network)

    def loop(texts: Sequence[str], _batch: int) -> np.ndarray:
        rows = []
        for text in texts:
            encoded = tokenizer(text, truncation=True, return_tensors="np")
            rows.append(forward(encoded["input_ids"], encoded["attention_mask"])[0])
        return sigmoid(np.stack(rows))

    return loop


def _pipeline(precision: str) -> Callable[[str], Loop]:
    """Score with transformers.pipeline."""

    def start(checkpoint: str) -> Loop:
        import transformers

        dtype = torch_dtype(precision)
        classify = transformers.pipeline("text-classification", model=checkpoint, top_k=None, dtype=dtype)

        def loop(texts: Sequence[str], batch: int) -> np.ndarray:
            found = classify(list(texts), batch_size=batch, truncation=True)
            return np.array([scores_in_order(answer, classify.model.config.label2id) for answer in found], np.float32)

        return loop

    return start


def scores_in_order(answer: Sequence[dict[str, Any]], places: dict[str, int]) -> list[float]:
    """Return the scores that transformers.pipeline gives a text, in the order of the model's labels."""
    return [one["score"] for one in sorted(answer, key=lambda one: places[one["label"]])]


def _cross_encoder(precision: str) -> Callable[[str], Loop]:
    """Score with the CrossEncoder of sentence-transformers, which sorts by length itself.

    It reads pairs: here title and abstract, with a separator token between them, so its scores differ a little.
    """

    def start(checkpoint: str) -> Loop:
        import torch
        from sentence_transformers import CrossEncoder

        dtype = torch_dtype(precision)
        model = CrossEncoder(checkpoint, activation_fn=torch.nn.Identity(), model_kwargs={"dtype": dtype})

        def loop(texts: Sequence[str], batch: int) -> np.ndarray:
            pairs = [tuple((text + "\n").split("\n", 1)) for text in texts]
            return sigmoid(model.predict(pairs, batch_size=batch, show_progress_bar=False))

        return loop

    return start


def _torch_sorted(precision: str, *, compiled: bool = False) -> Callable[[str], Loop]:
    """Score sorted texts in a plain torch loop, with or without a network compiled for dynamic shapes."""

    def start(checkpoint: str) -> Loop:
        import torch

        tokenizer, network = load(checkpoint, precision)
        forward = torch_forward(torch.compile(network, dynamic=True) if compiled else network)
        return lambda texts, batch: by_length(texts, batch, tokenizer, forward)

    return start


def _onnx_file(checkpoint: str, kind: str) -> Path:
    import onnx
    import torch
    from onnxruntime.quantization import quantize_dynamic

    folder = Path(checkpoint).parent / "onnx"
    folder.mkdir(exist_ok=True)
    exact, small = folder / "model.onnx", folder / "int8.onnx"
    if not exact.exists():
        _, network = load(checkpoint)
        sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        ids = torch.full((2, 8), 5)
        torch.onnx.export(
            network,
            (),
            exact,
            kwargs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
            dynamic_shapes={"input_ids": sizes, "attention_mask": sizes},
            dynamo=True,
            external_data=False,
        )
    if kind == "int8" and not small.exists():
        model = onnx.load(exact)
        del model.graph.value_info[:]  # the exporter's shapes contradict those that the quantizer infers
        quantize_dynamic(model, small, op_types_to_quantize=["MatMul", "Gemm"])
    return {"fp32": exact, "int8": small}[kind]


def _onnxruntime(kind: str) -> Callable[[str], Loop]:
    def start(checkpoint: str) -> Loop:
        import onnxruntime as ort
        from transformers import AutoTokenizer

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads()
        session = ort.InferenceSession(_onnx_file(checkpoint, kind), options, providers=["CPUExecutionProvider"])
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)

        def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            return session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

        return lambda texts, batch: by_length(texts, batch, tokenizer, forward)

    return start


def _openvino(kind: str) -> Callable[[str], Loop]:
    """Score with OpenVINO in its own choice of precision (bf16 if the processor has it), or quantized by NNCF.

    Set for throughput, with as many requests at once as it says are best; each in a thread, since its AsyncInferQueue
    hung at the end once, waiting for a callback.
    """

    def start(checkpoint: str) -> Loop:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        import openvino as ov
        import torch
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        file = Path(checkpoint).parent / f"openvino_{kind}" / "model.xml"
        if not file.exists():
            _, network = load(checkpoint)
            ids = torch.full((2, 8), 5)
            model = ov.convert_model(network, example_input={"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            if kind == "int8":
                model = _quantized(model, tokenizer, file.parent.parent)
            ov.save_model(model, file, compress_to_fp16=False)
        model = ov.Core().read_model(file)
        compiled = ov.Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})

        count = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        pool, idle = ThreadPoolExecutor(count), SimpleQueue()  # type: ignore[var-annotated]
        for _ in range(count):
            idle.put(compiled.create_infer_request())

        def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            request = idle.get()
            logits = request.infer({"input_ids": ids, "attention_mask": mask})[0].copy()
            idle.put(request)
            return logits

        return lambda texts, batch: by_length(texts, batch, tokenizer, forward, pool.map)

    return start


def _quantized(model: Any, tokenizer: Any, work: Path) -> Any:
    import nncf

    texts = json.loads((work / "texts.json").read_text())[:300]
    batches = [dict(tokenizer(text, truncation=True, return_tensors="np")) for text in texts]
    inputs = [{name: batch[name] for name in ("input_ids", "attention_mask")} for batch in batches]
    return nncf.quantize(model, nncf.Dataset(inputs), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(inputs))


class Rival(NamedTuple):
    """A function that starts a loop, and the batch sizes to choose from."""

    start: Callable[[str], Loop]
    batches: Sequence[int] = BATCHES


LOOPS = {
    "one by one, torch fp32": Rival(one_by_one, (1,)),
    "transformers.pipeline": Rival(_pipeline("fp32"), (32,)),
    "transformers.pipeline bf16": Rival(_pipeline("bf16"), (32,)),
    "CrossEncoder": Rival(_cross_encoder("fp32")),
    "CrossEncoder bf16": Rival(_cross_encoder("bf16")),
    "torch fp32, sorted": Rival(_torch_sorted("fp32")),
    "torch bf16, sorted": Rival(_torch_sorted("bf16")),
    "torch.compile fp32, sorted": Rival(_torch_sorted("fp32", compiled=True)),
    "torch.compile bf16, sorted": Rival(_torch_sorted("bf16", compiled=True)),
    "ONNX Runtime fp32, sorted": Rival(_onnxruntime("fp32")),
    "ONNX Runtime int8, sorted": Rival(_onnxruntime("int8")),
    "OpenVINO, sorted": Rival(_openvino("default")),
    "OpenVINO int8, sorted": Rival(_openvino("int8")),
}
