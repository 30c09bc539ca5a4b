"""Measures one contestant on a GPU, from texts to probabilities in memory; start and warm-up are not counted.

python benchmarks/throughput/gpu_contestants.py NAME WORK     WORK/NAME/ says what came out
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

SLICES = 8  # slices that the texts are cut into, two of which are in work at a time, as in a run
PASSES = 2
Loop = Callable[[Sequence[str]], np.ndarray]  # texts to probabilities (texts, labels)
Starter = Callable[[Path, int], list[tuple[str, Loop]]]  # folder of a model and most tokens to loops with settings


def labelbeam(runtime: str) -> Starter:
    """Score as a run does."""

    def start(model: Path, max_tokens: int) -> list[tuple[str, Loop]]:
        from inference.corpus.records import Document
        from inference.scoring.options import ScoringOptions
        from inference.scoring.scorer import Scorer

        scorer = Scorer(ScoringOptions((str(model / "model"),), runtime, "bf16", "cuda", max_tokens))  # type: ignore[arg-type]

        def loop(texts: Sequence[str]) -> np.ndarray:
            documents = [Document(i, "", (text,), {}, b"") for i, text in enumerate(texts)]
            parts = [documents[i * len(texts) // SLICES : (i + 1) * len(texts) // SLICES] for i in range(SLICES)]
            with ThreadPoolExecutor(2) as pool:
                scored = [predictions.by_model["model"] for predictions, _, _ in pool.map(scorer.score, parts)]
            return np.concatenate([of_slice.probs[of_slice.rows] for of_slice in scored])

        return [("", loop)]

    return start


def sorted_loop(precision: str) -> Starter:
    """Tokenise all texts, sort them by length, and compute batches that are padded to their longest text."""

    def start(model: Path, max_tokens: int) -> list[tuple[str, Loop]]:
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model / "checkpoint")
        dtype = getattr(torch, precision)
        network = AutoModelForSequenceClassification.from_pretrained(model / "checkpoint", dtype=dtype).eval().cuda()

        def loop(texts: Sequence[str], batch: int) -> np.ndarray:
            only_ids = {"return_attention_mask": False, "return_token_type_ids": False}
            encoded = tokenizer(list(texts), truncation=True, max_length=max_tokens, **only_ids)["input_ids"]
            order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i]))
            parts = [order[start : start + batch] for start in range(0, len(order), batch)]
            logits = []
            with torch.inference_mode():
                for part in parts:
                    padded = tokenizer.pad({"input_ids": [encoded[i] for i in part]}, return_tensors="pt")
                    logits.append(network(**padded.to("cuda")).logits)
            return probabilities(torch.cat(logits).float().cpu().numpy()[np.argsort(order)])

        return in_batches(loop, (256, 1024))

    return start


def pipeline(model: Path, max_tokens: int) -> list[tuple[str, Loop]]:
    """Score with transformers.pipeline in bf16."""
    import torch
    import transformers

    classify = transformers.pipeline(
        "text-classification", str(model / "checkpoint"), top_k=None, dtype=torch.bfloat16, device="cuda"
    )
    places = classify.model.config.label2id

    def loop(texts: Sequence[str], batch: int) -> np.ndarray:
        answers = classify(list(texts), batch_size=batch, truncation=True, max_length=max_tokens)
        return np.array([[a["score"] for a in sorted(answer, key=lambda a: places[a["label"]])] for answer in answers])

    return in_batches(loop, (64, 256))


def encode(model: Path, max_tokens: int) -> list[tuple[str, Loop]]:
    """Encode with sentence-transformers in bf16, which gives mean-pooled states and no classifier's scores."""
    import torch
    from sentence_transformers import SentenceTransformer

    checkpoint = str(model / "checkpoint")
    network = SentenceTransformer(checkpoint, device="cuda", model_kwargs={"dtype": torch.bfloat16})
    network.max_seq_length = max_tokens

    def loop(texts: Sequence[str], batch: int) -> np.ndarray:
        return network.encode(list(texts), batch_size=batch, convert_to_tensor=True).float().cpu().numpy()

    return in_batches(loop, (256, 1024))


def in_batches(loop: Callable[..., np.ndarray], sizes: Sequence[int]) -> list[tuple[str, Loop]]:
    """Return a loop for each number of texts in a batch."""
    return [(f"batches of {batch}", partial(loop, batch=batch)) for batch in sizes]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of each row."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


CONTESTANTS: dict[str, Starter] = {
    "labelbeam": labelbeam("torch"),
    "labelbeam before": labelbeam("torch"),
    "torch bf16, sorted": sorted_loop("bfloat16"),
    "sentence-transformers encode": encode,
    "transformers.pipeline": pipeline,
    "torch fp32, sorted": sorted_loop("float32"),
    "labelbeam, compile": labelbeam("compile"),
}
# These get one text in so many, in one pass.
SLOW = {"torch fp32, sorted": 4, "sentence-transformers encode": 2, "transformers.pipeline": 8}


def measure(name: str, work: Path) -> None:
    """Run one contestant on all workloads."""
    (work / name).mkdir(exist_ok=True)
    loops: dict[tuple[str, int], list[tuple[str, Loop]]] = {}
    for workload in json.loads((work / "workloads.json").read_text()):
        key = workload["model"], workload["max_tokens"]
        if key not in loops:
            loops.clear()  # makes place on the GPU
            loops[key] = CONTESTANTS[name](work / key[0], key[1])
        texts = json.loads((work / f"{workload['corpus']}.json").read_text())
        found, scores = timed(loops[key], texts[:: SLOW.get(name, 1)], 1 if name in SLOW else PASSES)
        np.save(work / name / f"{workload['name']}.npy", scores.astype(np.float32))
        (work / name / f"{workload['name']}.json").write_text(json.dumps(found))


def timed(loops: Sequence[tuple[str, Loop]], texts: Sequence[str], passes: int) -> tuple[dict[str, Any], np.ndarray]:
    """Return documents a second of each pass in the fastest setting, and the scores."""
    some = texts[: len(texts) // 4]
    seconds = []
    for _, loop in loops:
        loop(some)  # compiles and allocates
        seconds.append(once(loop, some)[0])
    setting, loop = loops[int(np.argmin(seconds))]
    speeds = []
    for _ in range(passes):
        taken, scores = once(loop, texts)
        speeds.append(len(texts) / taken)
    return {"docs_per_second": speeds, "setting": setting, "documents": len(texts)}, scores


def once(loop: Loop, texts: Sequence[str]) -> tuple[float, np.ndarray]:
    """Return the seconds and the result of one pass."""
    began = time.perf_counter()
    scores = loop(texts)
    return time.perf_counter() - began, scores


if __name__ == "__main__":
    measure(sys.argv[1], Path(sys.argv[2]))
