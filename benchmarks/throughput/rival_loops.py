"""Loops that one could label a corpus with, each at its best documented settings: texts to probabilities in memory."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

MAX_TOKENS = 512
BATCH = 32
Loop = Callable[[Sequence[str]], np.ndarray]


def threads() -> int:
    """One for each core that this process may use."""
    return len(os.sched_getaffinity(0))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities (documents, labels) of a multi-label model."""
    return 1 / (1 + np.exp(-logits))


def by_length(
    texts: Sequence[str], tokenizer: Any, forward: Callable[..., Any], each: Callable[..., Iterable[Any]] = map
) -> np.ndarray:
    """Tokenises all, sorts by length, scores in batches padded to their longest: what the guides advise.

    `each` applies `forward` to ids and masks, as map does; a pool's may do so to several batches at once.
    """
    encoded = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
    parts = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    padded = [tokenizer.pad({"input_ids": [encoded[i] for i in part]}, return_tensors="np") for part in parts]
    logits = each(forward, *zip(*((batch["input_ids"], batch["attention_mask"]) for batch in padded), strict=True))
    return sigmoid(np.concatenate(list(logits))[np.argsort(order)].astype(np.float32))


def load(checkpoint: str, **options: Any) -> tuple[Any, Any]:
    """Tokenizer and network, as transformers gives them."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = AutoModelForSequenceClassification.from_pretrained(checkpoint, **options).eval()
    return AutoTokenizer.from_pretrained(checkpoint), network


def torch_forward(network: Any) -> Callable[..., np.ndarray]:
    """Ids and mask to logits."""
    import torch

    def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(ids), torch.from_numpy(mask)).logits.float().numpy()

    return forward


def one_by_one(checkpoint: str) -> Loop:
    """A text at a time, as pipelines with batch size 1 do."""
    tokenizer, network = load(checkpoint)
    forward = torch_forward(network)

    def loop(texts: Sequence[str]) -> np.ndarray:
        rows = []
        for text in texts:
            encoded = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="np")
            rows.append(forward(encoded["input_ids"], encoded["attention_mask"])[0])
        return sigmoid(np.stack(rows))

    return loop


def pipeline(checkpoint: str) -> Loop:
    """transformers.pipeline with batches of 32."""
    import transformers

    classify = transformers.pipeline("text-classification", model=checkpoint, batch_size=BATCH, top_k=None)

    def loop(texts: Sequence[str]) -> np.ndarray:
        found = classify(list(texts), truncation=True, max_length=MAX_TOKENS)
        places = classify.model.config.label2id
        scores = np.zeros((len(texts), len(places)), np.float32)
        for row, answer in zip(scores, found, strict=True):
            for one in answer:
                row[places[one["label"]]] = one["score"]
        return scores

    return loop


def cross_encoder(checkpoint: str) -> Loop:
    """sentence-transformers' CrossEncoder, which sorts by length itself.

    It reads pairs: here title and abstract, with a separator token between them, so its scores differ a little.
    """
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(checkpoint, max_length=MAX_TOKENS, activation_fn=torch.nn.Identity())

    def loop(texts: Sequence[str]) -> np.ndarray:
        pairs = [tuple(text.split("\n", 1)) for text in texts]
        return sigmoid(model.predict(pairs, batch_size=BATCH, show_progress_bar=False))

    return loop


def torch_sorted(checkpoint: str) -> Loop:
    """A plain torch loop over texts sorted by length."""
    tokenizer, network = load(checkpoint)
    forward = torch_forward(network)
    return lambda texts: by_length(texts, tokenizer, forward)


def torch_compile(checkpoint: str) -> Loop:
    """The same, compiled with dynamic shapes."""
    import torch

    tokenizer, network = load(checkpoint)
    forward = torch_forward(torch.compile(network, dynamic=True))
    return lambda texts: by_length(texts, tokenizer, forward)


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

        return lambda texts: by_length(texts, tokenizer, forward)

    return start


def _openvino(kind: str) -> Callable[[str], Loop]:
    """OpenVINO in its own choice of precision (bf16 where the processor has it), or quantized by NNCF.

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

        return lambda texts: by_length(texts, tokenizer, forward, pool.map)

    return start


def _quantized(model: Any, tokenizer: Any, work: Path) -> Any:
    import nncf

    texts = json.loads((work / "texts.json").read_text())[:300]
    batches = [dict(tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="np")) for text in texts]
    inputs = [{name: batch[name] for name in ("input_ids", "attention_mask")} for batch in batches]
    return nncf.quantize(model, nncf.Dataset(inputs), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(inputs))


LOOPS: dict[str, Callable[[str], Loop]] = {
    "one by one, torch fp32": one_by_one,
    "transformers.pipeline": pipeline,
    "CrossEncoder": cross_encoder,
    "torch fp32, sorted": torch_sorted,
    "torch.compile fp32, sorted": torch_compile,
    "ONNX Runtime fp32, sorted": _onnxruntime("fp32"),
    "ONNX Runtime int8, sorted": _onnxruntime("int8"),
    "OpenVINO, sorted": _openvino("default"),
    "OpenVINO int8, sorted": _openvino("int8"),
}
