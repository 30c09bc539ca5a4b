"""What else one could label a corpus with, each at its best documented settings. Runs in the rivals' environment.

python -m benchmarks.throughput.rivals NAME WORK     NAME.json and NAME.npy in WORK say what came out

A loop turns texts into probabilities in memory; start-up and a warm-up are not counted. A pipeline goes from the JSON
lines file to written predictions, start-up counted.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MAX_TOKENS = 512
BATCH = 32
Loop = Callable[[Sequence[str]], np.ndarray]
Batch = tuple[np.ndarray, np.ndarray]  # ids and mask (documents, tokens)


def threads() -> int:
    """One for each core that this process may use."""
    return len(os.sched_getaffinity(0))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities (documents, labels) of a multi-label model."""
    return 1 / (1 + np.exp(-logits))


def by_length(texts: Sequence[str], tokenizer: Any, forward: Callable[..., Any], batch: int = BATCH) -> np.ndarray:
    """Tokenises all, sorts by length, scores in batches padded to their longest: what the guides advise."""
    return batched(texts, tokenizer, lambda batches: (forward(*one) for one in batches), batch)


def batched(
    texts: Sequence[str], tokenizer: Any, forward_all: Callable[[Iterator[Batch]], Iterable[Any]], batch: int = BATCH
) -> np.ndarray:
    """The same, where all batches are handed over together; their logits come in order."""
    encoded = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
    parts = [order[start : start + batch] for start in range(0, len(order), batch)]
    padded = (tokenizer.pad({"input_ids": [encoded[i] for i in part]}, return_tensors="np") for part in parts)
    found = np.concatenate(list(forward_all((one["input_ids"], one["attention_mask"]) for one in padded)))
    return sigmoid(found[np.argsort(order)].astype(np.float32))


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

    Set for throughput, with as many requests at once as it says are best. (Its AsyncInferQueue hung at the end once,
    waiting for a callback.)
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

        def forward_all(batches: Iterator[Batch]) -> Iterator[np.ndarray]:
            running: deque[Any] = deque()
            for ids, mask in batches:
                if len(running) < compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"):
                    request = compiled.create_infer_request()
                else:
                    request = running.popleft()
                    yield logits_of(request)
                request.start_async({"input_ids": ids, "attention_mask": mask})
                running.append(request)
            yield from map(logits_of, running)

        def logits_of(request: Any) -> np.ndarray:
            request.wait()
            return request.get_output_tensor(0).data.copy()

        return lambda texts: batched(texts, tokenizer, forward_all)

    return start


def _quantized(model: Any, tokenizer: Any, work: Path) -> Any:
    import nncf

    texts = json.loads((work / "texts.json").read_text())[:300]
    batches = [dict(tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="np")) for text in texts]
    inputs = [{name: batch[name] for name in ("input_ids", "attention_mask")} for batch in batches]
    return nncf.quantize(model, nncf.Dataset(inputs), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(inputs))


class _Scorer:
    """The actor that Ray keeps: a network, and batches sorted by length inside what Ray hands over."""

    def __init__(self, checkpoint: str, cores: int) -> None:
        import torch

        torch.set_num_threads(cores)
        self.tokenizer, network = load(checkpoint)
        self.forward = torch_forward(network)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"id": batch["id"], "scores": by_length(list(batch["text"]), self.tokenizer, self.forward)}


def ray_data(work: Path) -> np.ndarray:
    """Ray Data's map_batches with one actor on all cores, from file to files."""
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    import ray

    ray.init(num_cpus=threads() + 1, include_dashboard=False, log_to_driver=False)
    table = ray.data.read_json(str(work / "corpus.jsonl")).map(
        lambda row: {"id": row["id"], "text": f"{row['title']}\n{row['abstract']}"}
    )
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
    """Beam's RunInference with its PyTorch handler, a document a batch, in fp32."""
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
        text = f"{row['title']}\n{row['abstract']}"
        encoded = tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
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
PIPELINES: dict[str, Callable[[Path], np.ndarray]] = {
    "Beam RunInference, batch 1": beam_batch_1,
    "Ray Data map_batches": ray_data,
}


def time_loop(loop: Loop, texts: Sequence[str]) -> tuple[np.ndarray, dict[str, float]]:
    """Scores and what the loop took, after a warm-up over the lengths that come."""
    loop(texts[:: max(len(texts) // 40, 1)])
    used, began = time.process_time(), time.perf_counter()
    scores = loop(texts)
    return scores, {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - used}


def measure(name: str, work: Path) -> tuple[np.ndarray, dict[str, float]]:
    """Runs one rival on the workload."""
    if name in LOOPS:
        return time_loop(LOOPS[name](str(work / "checkpoint")), json.loads((work / "texts.json").read_text()))
    began = time.perf_counter()
    scores = PIPELINES[name](work)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    used = sum(one.ru_utime + one.ru_stime for one in usage)
    return scores, {"seconds": time.perf_counter() - began, "cpu_seconds": used}


def write(name: str, work: Path, scores: np.ndarray, taken: dict[str, Any]) -> None:
    """What a contestant leaves: its scores in the order of the corpus, and what it took."""
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    np.save(work / f"{name}.npy", scores.astype(np.float32))
    (work / f"{name}.json").write_text(json.dumps(taken | {"peak_memory_mib": round(max(usage) / 1024)}))


if __name__ == "__main__":
    contestant, folder = sys.argv[1], Path(sys.argv[2])
    write(contestant, folder, *measure(contestant, folder))
