"""Measures speed and memory by text length, tiles, corpus size, number of workers and number of models.

python -m benchmarks.throughput.scaling lengths --model models/trained/subjects --rivals_python build/rivals/bin/python
python -m benchmarks.throughput.scaling size workers cores models --model models/trained/subjects

Texts are random words of one token each, all different.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig

from benchmarks import environment
from benchmarks.throughput import run, workloads
from inference.corpus.records import Document
from inference.scoring import compiled, converters, reference, runtimes, starting
from inference.scoring.options import ScoringOptions
from inference.scoring.scorer import CPU_TOKEN_BUDGET, Scorer
from inference.scoring.verified_model import VerifiedModel
from models import network as networks
from models import weights
from models.labels import LabelSchema, Task

LENGTHS = (16, 32, 64, 128, 256, 512)
SHORT = (16, 32, 64, 128)  # lengths on which sizes of batches are compared
BUDGETS = (256, 512, 1024, 2048)  # sizes of batches in tokens
TOKENS = 60_000  # tokens for each length
SIZES = (10_000, 1_000_000)
RIVAL = "OpenVINO, sorted"
TILES = (16, 32, 64, 112, 160, 240, 352, 448)  # lengths that fill whole tiles,
BEYOND = (0, 1, 4, 8, 12, 15, 16)  # and how far texts reach beyond them
BATCH = (7, 288)  # texts and tokens of the batch whose kernels are timed
REPEATED = ("lengths", "batches", "tiles", "workers", "cores")  # the others take minutes each


def main() -> None:
    """Run the named measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=MEASUREMENTS)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS, help="tokens of a text in `lengths`")
    parser.add_argument("--rivals_python", default=sys.executable)
    flags = parser.parse_args()
    for name in flags.names:
        with tempfile.TemporaryDirectory(prefix="scaling_") as work:
            found = MEASUREMENTS[name](Path(work), flags)
        rounds = flags.rounds if name in REPEATED else 1
        result = {"name": name, **environment.describe(), "rounds": rounds, "found": found}
        suffix = "" if run.BF16 else "_without_bf16"
        (run.RESULTS / f"scaling_{name}{suffix}.json").write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(found, indent=1))


def texts(words: list[str], length: int, seed: int) -> Iterator[str]:
    """Yield different texts of `length` tokens, special tokens included, without end."""
    chance = random.Random(f"{seed} {length}")
    while True:
        yield " ".join(chance.choices(words, k=length - 2))


def single_words(tokenizer: Any) -> list[str]:
    """Return lower-case words that are one token each."""
    return sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and len(word) > 3)


def write_corpus(path: Path, words: list[str], lengths: list[int]) -> None:
    """Write a document for each length."""
    streams = {length: texts(words, length, 0) for length in set(lengths)}
    with path.open("w") as file:
        for number, length in enumerate(lengths):
            row = {"id": f"d{number}", "title": "", "text": next(streams[length])}
            file.write(json.dumps(row) + "\n")


def label(
    models: list[Path], corpus: Path, output: Path, *flags: str, module: str = "inference.beam_runner"
) -> dict[str, Any]:
    """Run the pipeline in its own process. Return seconds, steady seconds, peak memory and the speed of each tenth."""
    command = [sys.executable, "-m", module, "--input", str(corpus), "--output", str(output)]
    command += ["--runner=FnApiRunner", "--device=cpu", *flags]
    command += [part for model in models for part in ("--model", str(model))]
    began = time.perf_counter()
    peak = environment.peak_memory(command, stdout=subprocess.DEVNULL, cwd=environment.ROOT)
    seconds = time.perf_counter() - began
    receipts = sorted(
        (json.loads(p.read_bytes()) for p in (output / "receipts").iterdir()), key=lambda r: r["finished"]
    )
    steady = receipts[-1]["finished"] - min(r["finished"] - r["seconds"] for r in receipts)
    tenth = len(receipts) // 10
    return {
        "documents": sum(r["predicted"] for r in receipts),
        "seconds": round(seconds, 1),
        "steady_docs_per_second": round(sum(r["predicted"] for r in receipts) / steady, 1),
        "peak_memory_mib": peak,
        "first_tenth": _speed(receipts[1 : tenth + 1]) if tenth > 1 else None,
        "last_tenth": _speed(receipts[-tenth:]) if tenth > 1 else None,
    }


def _speed(receipts: list[dict[str, Any]]) -> float:
    return round(sum(r["predicted"] for r in receipts) / sum(r["seconds"] for r in receipts), 1)


def lengths(work: Path, flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure labelbeam's loop and the best rival's on texts of one length each, with useful GFLOP/s."""
    loaded = weights.load(flags.model)
    words = single_words(loaded.tokenizer)
    rows = []
    for length in flags.lengths:
        corpus = work / f"{length}.jsonl"
        count = TOKENS // length
        write_corpus(corpus, words, [length] * count)
        folder = work / str(length)
        folder.mkdir()
        workload = workloads.prepare(folder, workloads.read(str(corpus)), flags.model, ["text"], 512)
        row: dict[str, Any] = {"tokens": length, "documents": count, "gflop": workload["gflop"]}
        for name in ("labelbeam, openvino", RIVAL):
            seconds = sorted(run.run(name, folder, flags.rivals_python)["seconds"] for _ in range(flags.rounds))
            row[name] = round(count / seconds[len(seconds) // 2], 1)
        row["matrix_gflops"] = round(run.matrix_rate(run.LIMIT))
        rows.append(row)
        print(row, flush=True)
    return rows


def tiles(_work: Path, flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure milliseconds a text on one core, the least of all turns, by the tokens beyond whole tiles."""
    model = VerifiedModel(flags.model)
    runtime = runtimes.choose("auto", "auto", "cpu", threads=1)
    forward = starting.start(runtime, model, reference.of(model)).forward
    chance = np.random.default_rng(0)
    least: dict[tuple[int, int], float] = {}
    for _, whole, beyond in itertools.product(range(flags.rounds), TILES, BEYOND):
        count = max(CPU_TOKEN_BUDGET // (whole + beyond), 1)
        ids = chance.integers(1_000, 20_000, (count, whole + beyond))
        mask = np.ones_like(ids)
        mask[-1, -1] = 0  # so that there is one, as in most batches
        for _ in range(4):
            began = time.perf_counter()
            forward(ids, mask)
            taken = (time.perf_counter() - began) / count * 1_000
            least[whole, beyond] = min(taken, least.get((whole, beyond), taken))
    return [{"tokens": whole, **{f"+{beyond}": round(least[whole, beyond], 3) for beyond in BEYOND}} for whole in TILES]


def batches(_work: Path, flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the loop's documents a second by the tokens of a batch, the most of all turns, on texts of one length."""
    options = ScoringOptions((str(flags.model),), runtime="openvino", device="cpu")
    scorer = Scorer(options)
    (model,) = scorer._models
    chosen, words = model._token_budget, single_words(weights.load(flags.model).tokenizer)
    rows = []
    for length in SHORT:
        chosen_texts = itertools.islice(texts(words, length, 0), TOKENS // 2 // length)
        documents = [Document(i, str(i), (text,), {}, b"") for i, text in enumerate(chosen_texts)]
        most: dict[int, float] = {}
        for _, budget in itertools.product(range(flags.rounds), BUDGETS):
            model._token_budget = budget
            began = time.perf_counter()
            scorer.score(documents)
            most[budget] = max(most.get(budget, 0), len(documents) / (time.perf_counter() - began))
        speeds = {str(budget): round(speed, 1) for budget, speed in most.items()}
        rows.append({"tokens": length, "chosen": chosen, "runtime": str(scorer.runtime), **speeds})
        print(rows[-1], flush=True)
    return rows


def kernels(_work: Path, flags: argparse.Namespace) -> dict[str, Any]:
    """Measure milliseconds of one core in each kind of kernel, by OpenVINO's counters, the least of all turns."""
    ov = compiled.import_openvino()
    model = ov.convert_model(weights.load(flags.model).network, example_input=converters.example())
    settings = {"INFERENCE_PRECISION_HINT": "bf16" if run.BF16 else "f32", "NUM_STREAMS": 1, "PERF_COUNT": True}
    network = ov.Core().compile_model(model, "CPU", settings | {"INFERENCE_NUM_THREADS": 1})
    request = network.create_infer_request()
    ids = np.random.default_rng(0).integers(1_000, 20_000, BATCH)
    mask = np.ones_like(ids)
    mask[-1, -1] = 0
    least: Counter[str] = Counter()
    for _ in range(20):
        request.infer([ids, mask])
        spent: Counter[str] = Counter()  # milliseconds
        for one in request.get_profiling_info():
            spent[one.node_type] += one.real_time.total_seconds() * 1_000
        least = min(least or spent, spent, key=lambda turn: sum(turn.values()))
    kinds = {kind: round(spent, 2) for kind, spent in least.most_common() if spent > 0.1}
    return {"batch": BATCH, "milliseconds": kinds, "all": round(sum(least.values()), 1)}


def size(work: Path, flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure memory and speed on small and large corpora of 8 to 64 tokens, with a small random model."""
    loaded = weights.load(flags.model)
    small = _random(work / "small", loaded, layers=1, hidden=64)
    label([small], _corpus(work, flags.model, 20), work / "warm", *_reading())  # converts
    rows = []
    for count in SIZES:
        chance = random.Random(count)
        corpus = work / f"{count}.jsonl"
        write_corpus(corpus, single_words(loaded.tokenizer), [chance.randint(8, 64) for _ in range(count)])
        rows.append(label([small], corpus, work / f"run{count}", "--slice_mb=2"))
        print(rows[-1], flush=True)
    return rows


def workers(work: Path, flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one and two worker processes of one thread each, and one process with all cores."""
    corpus = _corpus(work, flags.model, 1_000)
    # 64 slices, as a corpus of 16 MiB or more has. The runner gives each worker half of the slices at the start. With
    # few slices, one half takes longer than the other.
    cut = [f"--slice_mb={corpus.stat().st_size / 2**20 / 64:.4f}"]
    rows = []
    for number in range(flags.rounds):
        for count in (1, 2):
            mode = [f"--direct_num_workers={count}", "--direct_running_mode=multi_processing", "--threads=1"]
            found = label([flags.model], corpus, work / f"run{number}{count}", *_reading(), *mode, *cut)
            rows.append({"processes": count, "threads": 1, **found})
        found = label([flags.model], corpus, work / f"run{number}", *_reading(), *cut)
        rows.append({"processes": 1, "threads": len(os.sched_getaffinity(0)), **found})
        print(rows[-3:], flush=True)
    return rows


def cores(_work: Path, flags: argparse.Namespace) -> list[dict[str, float]]:
    """Measure GFLOP/s of matrix products in one thread and in two at once, the limit for a second worker."""
    rows = []
    with multiprocessing.get_context("spawn").Pool(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pool.map(run.matrix_rate, [run.LIMIT] * 2, chunksize=1)  # a warm-up
        for _ in range(flags.rounds):
            alone = pool.apply(run.matrix_rate, [run.LIMIT])
            both = sum(pool.map(run.matrix_rate, [run.LIMIT] * 2, chunksize=1))
            rows.append({"one": round(alone, 1), "two_at_once": round(both, 1), "ratio": round(both / alone, 2)})
    return rows


def models(work: Path, flags: argparse.Namespace) -> dict[str, Any]:
    """Measure five binary models in one run, in five runs, and five labels in one model."""
    loaded = weights.load(flags.model)
    corpus = _corpus(work, flags.model, 1_000)
    five = [_random(work / f"model{number}", loaded, names=("no", "yes")) for number in range(5)]
    one = _random(work / "together", loaded, names=("a", "b", "c", "d", "e"))
    for model in (*five, one):  # converts
        label([model], _corpus(work, flags.model, 20), work / f"warm_{model.name}", *_reading())
    together = label(five, corpus, work / "five_at_once", *_reading())
    apart = [label([model], corpus, work / f"run_{model.name}", *_reading()) for model in five]
    multi_label = label([one], corpus, work / "multi_label", *_reading())
    seconds = {"five_at_once": together["seconds"], "five_runs": sum(run["seconds"] for run in apart)}
    seconds |= {"five_labels_in_one_model": multi_label["seconds"]}
    ratios = {f"{name} / five_runs": round(value / seconds["five_runs"], 3) for name, value in seconds.items()}
    return {"documents": together["documents"], "seconds": seconds, "ratios": ratios}


def _reading() -> list[str]:
    return ["--text_fields=text", "--max_tokens=512"]


def _corpus(work: Path, model: Path, count: int) -> Path:
    chance = random.Random(count)
    path = work / f"corpus{count}.jsonl"
    tokenizer = weights.load(model).tokenizer
    write_corpus(path, single_words(tokenizer), [min(int(chance.lognormvariate(5.6, 0.4)), 512) for _ in range(count)])
    return path


def _random(directory: Path, like: Any, names: tuple[str, ...] = ("no", "yes"), **shape: int) -> Path:
    """Save a model with random weights, of the same architecture or a smaller one."""
    config: Any = like.network.config if hasattr(like.network, "config") else like.network.model.config
    config = BertConfig(**{**config.to_dict(), "num_labels": len(names), "id2label": dict(enumerate(names))})
    if shape:
        config.num_hidden_layers, config.hidden_size = shape["layers"], shape["hidden"]
        config.intermediate_size, config.num_attention_heads = 4 * shape["hidden"], 2
    labels = LabelSchema(task=Task.BINARY if len(names) == 2 else Task.MULTI_LABEL, names=names)
    recipe = like.manifest.text.model_copy(update={"fields": ("text",), "max_tokens": 512})
    decision = like.manifest.decision.model_copy(update={"thresholds": (0.5,) * labels.thresholds_needed})
    manifest = like.manifest.model_copy(update={"labels": labels, "decision": decision, "text": recipe})
    shutil.rmtree(directory, ignore_errors=True)
    network = networks.from_config(config, "stock")
    stock = manifest.model_copy(update={"pooling": "stock"})
    weights.save(directory, network, config, like.tokenizer, stock)
    return directory


MEASUREMENTS: dict[str, Callable[[Path, argparse.Namespace], Any]] = {
    "lengths": lengths,
    "batches": batches,
    "tiles": tiles,
    "kernels": kernels,
    "size": size,
    "workers": workers,
    "cores": cores,
    "models": models,
}

if __name__ == "__main__":
    main()
