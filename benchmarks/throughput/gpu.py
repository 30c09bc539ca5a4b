"""Runs labelbeam and its rivals on a GPU and writes results/gpu.json.

python -m benchmarks.throughput.gpu --papers recent.jsonl.xz --comments train.tsv --encoder MINILM --before CLONE

MINILM is a folder with a pretrained MiniLM-L6, whose tokenizer a BERT-base with random weights uses too. CLONE holds
an earlier commit of this repository.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import environment
from benchmarks.throughput import gpu_contestants
from benchmarks.throughput.run import RESULTS
from benchmarks.throughput.workloads import flop, read

LABELS = 12
WORKLOADS = [
    {"name": f"{model}, {corpus}{f' of {tokens} tokens' * (tokens < 512)}", "model": model, "corpus": corpus}
    | {"max_tokens": tokens}
    for model, corpus, tokens in (
        ("MiniLM-L6", "papers", 512),
        ("MiniLM-L6", "comments", 512),
        ("BERT-base", "papers", 512),
        ("BERT-base", "comments", 512),
        ("BERT-base", "papers", 128),
    )
]
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
COPIES = {"papers": 6, "comments": 5}  # copies of the corpus in the files that are labelled; each text is different
SLICE_MB = {"papers": "4", "comments": "1"}
BEFORE, EXACT = "labelbeam before", "torch fp32, sorted"
WAYS = {"labelbeam": 2, "labelbeam, three slices at once": 3, BEFORE: 2}  # slices at once, from file to file


def main() -> None:
    """Prepare the workloads, run every contestant, and write the result file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--papers", required=True, help="JSON lines with title and abstract")
    parser.add_argument("--comments", required=True, help="GoEmotions' .tsv")
    parser.add_argument("--encoder", type=Path, required=True, help="folder of a MiniLM-L6")
    parser.add_argument("--before", type=Path, help="clone of an earlier commit (default: none)")
    parser.add_argument("--before_commit", help="the commit that it holds")
    parser.add_argument("--commit", help="commit of this copy, if it is no clone")
    parser.add_argument("--documents", type=int, default=5_000, help="papers; comments are four times as many (5000)")
    parser.add_argument("--only", nargs="*", default=list(gpu_contestants.CONTESTANTS), help="contestants (all)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    flags = parser.parse_args()
    contestants = [name for name in flags.only if name != BEFORE or flags.before]
    with tempfile.TemporaryDirectory(prefix="gpu_") as folder:
        work = Path(folder)
        workloads = prepare(work, flags)
        result: dict[str, Any] = {"name": "gpu", **environment.describe(flags.commit), "before": flags.before_commit}
        result |= {"workloads": workloads, "matrix_tflops": [matrix_rate()]}
        for number, name in enumerate(contestants, 1):
            run(name, work, flags.before)
            print(f"{name}: {[round(s) for s in speeds(work, name).values()]} docs/s", flush=True)
            result["loops"] = {w["name"]: rows(work, w, contestants[:number]) for w in workloads}
            write(result, flags.results)
        result["matrix_tflops"].append(matrix_rate())
        result["file_to_file"] = {}
        for workload, (name, slices) in itertools.product(workloads[2::-1], WAYS.items()):
            if name in contestants or workload is workloads[2] and slices == 3:
                found = file_to_file(work, workload, flags.before if name == BEFORE else None, slices)
                result["file_to_file"].setdefault(workload["name"], {})[name] = found
                print(f"{name}, {workload['name']}, file to file: {found}", flush=True)
                write(result, flags.results)


def write(result: dict[str, Any], folder: Path) -> None:
    """Write the result file."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "gpu.json").write_text(json.dumps(result, indent=1) + "\n")


def prepare(work: Path, flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Write texts, corpora and models. Return the workloads with their sizes."""
    papers = [f"{row['title']}\n{row['abstract']}" for row in itertools.islice(read(flags.papers), flags.documents)]
    comments = [row["text"] for row in itertools.islice(read(flags.comments), 4 * flags.documents)]
    for name, texts in (("papers", papers), ("comments", comments)):
        (work / f"{name}.json").write_text(json.dumps(texts))
        with (work / f"{name}.jsonl").open("w") as file:
            for copy, (number, text) in itertools.product(range(COPIES[name]), enumerate(texts)):
                file.write(json.dumps({"id": f"{copy}-{number}", "text": f"{copy}. {text}"}) + "\n")
    for name, changes in (("MiniLM-L6", {}), ("BERT-base", BASE)):
        make_model(work / name, flags.encoder, changes)
    described = [workload | size(work, workload) for workload in WORKLOADS]
    (work / "workloads.json").write_text(json.dumps(described))
    return described


def make_model(folder: Path, encoder: Path, changes: dict[str, int]) -> None:
    """Write a classifier as labelbeam and as transformers read it; with `changes`, all its weights are random."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from models import weights
    from models.decision import Decision
    from models.labels import LabelSchema, Task
    from models.network import StockClassifier
    from models.text import TextRecipe
    from models.trained_model import Manifest

    torch.manual_seed(0)
    config = BertConfig.from_pretrained(encoder, num_labels=LABELS, **changes)
    if changes:
        network = BertForSequenceClassification(config)
    else:
        network = BertForSequenceClassification.from_pretrained(encoder, config=config, dtype=torch.float32)
    torch.nn.init.normal_(network.classifier.weight, std=0.5)  # so that labels differ from text to text
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    network.save_pretrained(folder / "checkpoint")
    tokenizer.save_pretrained(folder / "checkpoint")
    manifest = Manifest(
        labels=LabelSchema(task=Task("multi_class"), names=tuple(f"label {number}" for number in range(LABELS))),
        text=TextRecipe(max_tokens=512, cleaning=()),
        decision=Decision(temperature=1.0, thresholds=()),
        pooling="stock",
        base_model="benchmark",
    )
    weights.save(folder / "model", StockClassifier(network), config, tokenizer, manifest)


def size(work: Path, workload: dict[str, Any]) -> dict[str, Any]:
    """Return documents, tokens and floating-point operations of a workload."""
    from transformers import AutoConfig, AutoTokenizer

    checkpoint = work / workload["model"] / "checkpoint"
    texts = json.loads((work / f"{workload['corpus']}.json").read_text())
    ids = AutoTokenizer.from_pretrained(checkpoint)(texts, truncation=True, max_length=workload["max_tokens"])
    lengths = np.array([len(row) for row in ids["input_ids"]])
    operations = flop(AutoConfig.from_pretrained(checkpoint), lengths)
    return {
        "documents": len(texts),
        "mean_tokens": round(float(lengths.mean()), 1),
        "tflop": round(operations / 1e12, 3),
    }


def matrix_rate() -> float:
    """Return the TFLOP/s of a large product in bf16, the median of twenty."""
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(23):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        torch.mm(left, right)
        end.record()
        end.synchronize()
        seconds.append(begin.elapsed_time(end) / 1e3)
    return round(2 * 8192**3 / statistics.median(seconds[3:]) / 1e12, 1)


def run(name: str, work: Path, before: Path | None) -> None:
    """Run one contestant in a process of its own."""
    script = Path(gpu_contestants.__file__)
    subprocess.run([sys.executable, script, name, work], check=True, env=variables(before if name == BEFORE else None))


def variables(before: Path | None) -> dict[str, str]:
    """Return a contestant's environment: an earlier clone or this one, and tokenizers that use all cores."""
    parts = [str(before or environment.ROOT), os.environ.get("PYTHONPATH", "")]
    kept = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, parts))}
    return {**os.environ, **kept, "TOKENIZERS_PARALLELISM": "true"}


def speeds(work: Path, name: str) -> dict[str, float]:
    """Return a contestant's documents a second by workload."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted((work / name).glob("*.json"))}
    return {workload: statistics.median(row["docs_per_second"]) for workload, row in found.items()}


def rows(work: Path, workload: dict[str, Any], contestants: list[str]) -> dict[str, Any]:
    """Return what each contestant reached on a workload."""
    found = {}
    for name in contestants:
        row = json.loads((work / name / f"{workload['name']}.json").read_text())
        ordered = sorted(row["docs_per_second"])
        speed = statistics.median(ordered)
        found[name] = {
            "docs_per_second": round(speed, 1),
            "range": [round(ordered[0], 1), round(ordered[-1], 1)],
            "tokens_per_second": round(speed * workload["mean_tokens"]),
            "tflops": round(speed * workload["tflop"] / workload["documents"], 1),
            "setting": row["setting"],
            "documents": row["documents"],
            **agreement(work, workload["name"], name, contestants),
        }
    return found


def agreement(work: Path, workload: str, name: str, contestants: list[str]) -> dict[str, float]:
    """Return the share of texts with the label of fp32, and the largest difference of a probability."""
    scores = np.load(work / name / f"{workload}.npy")
    if EXACT not in contestants or scores.shape[1] != LABELS:
        return {}
    exact = np.load(work / EXACT / f"{workload}.npy")
    steps = gpu_contestants.SLOW[EXACT], gpu_contestants.SLOW.get(name, 1)
    common = max(steps)
    exact, scores = exact[:: common // steps[0]], scores[:: common // steps[1]]
    return {
        "same_labels": round(float((exact.argmax(axis=1) == scores.argmax(axis=1)).mean()), 5),
        "largest_difference": round(float(np.abs(exact - scores).max()), 5),
    }


def file_to_file(work: Path, workload: dict[str, Any], before: Path | None, slices: int) -> dict[str, Any]:
    """Run the command that a user types. The first slice's start and the last slice's end bound the steady time."""
    output = Path(tempfile.mkdtemp(dir=work)) / "run"
    corpus = work / f"{workload['corpus']}.jsonl"
    command = [sys.executable, "-m", "inference.beam_runner", "--model", str(work / workload["model"] / "model")]
    command += ["--input", str(corpus), "--output", str(output), "--device", "cuda", "--runtime", "torch"]
    command += ["--runner", "DirectRunner", "--slice_mb", SLICE_MB[workload["corpus"]]]
    command += ["--direct_num_workers", str(slices)]
    environ = {key: value for key, value in variables(before).items() if key != "TOKENIZERS_PARALLELISM"}
    began, busy = time.perf_counter(), Busy()
    with busy:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environ, cwd=before or environment.ROOT)
    seconds = time.perf_counter() - began
    receipts = [json.loads(path.read_bytes()) for path in (output / "receipts").iterdir()]
    first = min(receipt["finished"] - receipt["seconds"] for receipt in receipts)
    last = max(receipt["finished"] for receipt in receipts)
    documents = sum(receipt["predicted"] for receipt in receipts)
    return {
        "documents": documents,
        "seconds": round(seconds, 1),
        "steady_seconds": round(last - first, 1),
        "steady_docs_per_second": round(documents / (last - first), 1),
        "gpu_busy": busy.share(first, last),
    }


class Busy(threading.Thread):
    """Asks the driver ten times a second which share of the time the GPU computes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._samples: list[tuple[float, float]] = []
        self._ended = threading.Event()

    def run(self) -> None:
        """Ask until the end."""
        while not self._ended.wait(0.1):
            self._samples.append((time.time(), torch.cuda.utilization() / 100))

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def share(self, first: float, last: float) -> float | None:
        """Return the mean share between two times; None if there is no sample."""
        shares = [share for moment, share in self._samples if first <= moment <= last]
        return round(statistics.mean(shares), 3) if shares else None


if __name__ == "__main__":
    main()
