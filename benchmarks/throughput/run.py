"""Runs labelbeam and its rivals on the same documents, in turn, and writes results/NAME.json.

python -m benchmarks.throughput.run --input 'corpus/*.jsonl.gz' --model models/trained/my_labels
python -m benchmarks.throughput.run --name papers --input data/arxiv/recent.jsonl.xz --max_tokens 512 \
    --model models/trained/subjects

Any model will do. Labels are compared only for a multi-label model with the architecture's own head (model.pooling =
"stock"). For another head, the rivals compute one of their own on the same encoder, which takes as long.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import environment
from benchmarks.throughput import ours, rival_loops, rival_pipelines, workloads
from models import trained_model
from models.decision import decide
from models.hardware import has_bf16

RESULTS = Path(__file__).parent / "results"
RIVALS_HOW = "make it as benchmarks/throughput/requirements.txt says."
REFERENCE = "torch fp32, sorted"  # whose scores the others are compared with
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}
BF16 = has_bf16("cpu")
# What matrix products are taken as the machine's limit in: the fastest format that keeps a model's labels.
LIMIT = torch.bfloat16 if BF16 else torch.float32


def main() -> None:
    """Prepare the workload, run every contestant in every round, and write the medians after each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="own", help="of the result file (own)")
    parser.add_argument("--input", required=True, help="files that labelbeam reads, or GoEmotions' .tsv")
    parser.add_argument("--fields", nargs="+", help="of the text (the model's)")
    parser.add_argument("--max_tokens", type=int, help="tokens of a text that are read (the model's)")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="contestants; all of them if not given")
    parser.add_argument("--rivals_python", default="build/rivals/bin/python", help="of requirements.txt beside this")
    parser.add_argument("--results", type=Path, default=RESULTS)
    flags = parser.parse_args()
    if not Path(flags.rivals_python).exists():
        parser.error(f"--rivals_python {flags.rivals_python}: expected an interpreter; {RIVALS_HOW}")
    contestants = flags.only or [
        name for name in (*rival_loops.LOOPS, *rival_pipelines.PIPELINES, *ours.ALL) if BF16 or "bf16" not in name
    ]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in contestants}
    described = {"name": flags.name, **environment.describe()}
    with tempfile.TemporaryDirectory(prefix="throughput_") as folder:
        work = Path(folder)
        rows = itertools.islice(workloads.read(flags.input), flags.documents)
        workload = workloads.prepare(work, rows, flags.model, flags.fields, flags.max_tokens)
        for number in range(1, flags.rounds + 1):
            for name in contestants:
                found[name].append(run(name, work, flags.rivals_python) | {"matrix_gflops": matrix_rate(LIMIT)})
                print(
                    f"round {number}: {name}: {workload['documents'] / found[name][-1]['seconds']:.1f} docs/s",
                    flush=True,
                )
            agreement = compare(work, contestants) if workload["labels_compared"] else {}
            measured = so_far(found, workload, agreement)
            result = {**described, "rounds": number, "workload": workload, **measured}
            flags.results.mkdir(exist_ok=True)
            (flags.results / f"{flags.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {flags.results / flags.name}.json")


def so_far(
    found: dict[str, list[dict[str, Any]]], workload: dict[str, Any], agreement: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """Return the machine's matrix rate and each contestant's row, over the rounds so far."""
    rate = statistics.median(r["matrix_gflops"] for rounds in found.values() for r in rounds)
    rows = {name: row(rounds, workload, agreement.get(name, {})) for name, rounds in found.items()}
    return {"matrix_gflops": {NAMES[LIMIT]: round(rate, 1)}, "contestants": rows}


def matrix_rate(kind: torch.dtype) -> float:
    """Return the GFLOP/s of torch's matrix product in the model's largest shape, over half a second."""
    left, right = torch.randn(2048, 384).to(kind), torch.randn(384, 1536).to(kind)
    for _ in range(3):
        left @ right
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < 0.5:
        left @ right
        count += 1
    return 2 * 2048 * 384 * 1536 * count / (time.perf_counter() - began) / 1e9


def run(name: str, work: Path, rivals_python: str) -> dict[str, Any]:
    """Run one contestant in a process of its own."""
    ours_or_rivals = (sys.executable, "ours") if name in ours.ALL else (rivals_python, "rivals")
    command = [ours_or_rivals[0], "-m", f"benchmarks.throughput.{ours_or_rivals[1]}", name, str(work)]
    with (work / "said.txt").open("w+") as said:
        try:
            peak = environment.peak_memory(command, cwd=environment.ROOT, env=offline(), stdout=said, stderr=said)
        except subprocess.CalledProcessError:
            said.seek(0)
            sys.exit(f"{name} failed:\n{said.read()[-3000:]}")
    taken: dict[str, Any] = json.loads((work / f"{name}.json").read_bytes())
    return taken | {"peak_memory_mib": peak}


def offline() -> dict[str, str]:
    """Return a contestant's environment variables: nothing is fetched, and tokenizers may use all cores."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}


def compare(work: Path, contestants: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the share of documents with the same labels as in fp32, and the largest difference of a probability."""
    if REFERENCE not in contestants:
        return {}
    manifest = trained_model.read_manifest(work / "model")
    exact = np.load(work / f"{REFERENCE}.npy")
    wanted = decide(exact, manifest.labels, manifest.decision)
    found = {}
    for name in contestants:
        scores = np.load(work / f"{name}.npy")
        chosen = decide(scores, manifest.labels, manifest.decision)
        found[name] = {
            "same_labels": float((chosen == wanted).all(axis=1).mean()),
            "largest_difference": float(np.abs(scores - exact).max()),
        }
    return found


def row(rounds: Sequence[dict[str, Any]], workload: dict[str, Any], agreement: dict[str, float]) -> dict[str, Any]:
    """Return the medians and ranges of one contestant."""
    speeds = sorted(workload["documents"] / one["seconds"] for one in rounds)
    shares = [workload["gflop"] / one["seconds"] / one["matrix_gflops"] for one in rounds]
    medians = {
        key: round(statistics.median(one[key] for one in rounds), 2)
        for key, value in rounds[0].items()
        if isinstance(value, int | float)
    }
    return {
        "docs_per_second": round(statistics.median(speeds), 2),
        "range": [round(speeds[0], 2), round(speeds[-1], 2)],
        "useful_tokens_per_second": round(statistics.median(speeds) * workload["mean_tokens"]),
        "share_of_matrix_rate": round(statistics.median(shares), 3),
        **medians,
        **({"runtime": rounds[0]["runtime"]} if "runtime" in rounds[0] else {}),
        **{key: round(value, 5) for key, value in agreement.items()},
    }


if __name__ == "__main__":
    main()
