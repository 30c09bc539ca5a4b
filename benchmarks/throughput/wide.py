"""Measures what one core and one process can do, and extrapolates to machines with more cores.

python -m benchmarks.throughput.wide --model models/trained/subjects

Whole runs are timed on one core and on two, with the network and without it. What a second core does not shorten
without a network is the part that one process does in Python on one core at a time. It limits the process, however many
cores there are. Texts are random words of one token each, all different.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import environment
from benchmarks.throughput import run, scaling
from models import weights

WORKLOADS = {"comments": (20, 20_000, 2_000), "papers": (280, 4_000, 200)}  # tokens; documents without, with network
CORES = (1, 2)
WIDE = (4, 16, 64)


def main() -> None:
    """Time all runs in turns, and write the medians and what follows from them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    words = scaling.single_words(weights.load(flags.model).tokenizer)
    found = []
    with tempfile.TemporaryDirectory(prefix="wide_") as folder:
        for name, (tokens, *documents) in WORKLOADS.items():
            seconds: dict[tuple[bool, int], list[float]] = {}
            for turn in range(flags.rounds):
                for network, count in zip((False, True), documents, strict=True):
                    corpus = Path(folder, f"{name}{count}.jsonl")
                    scaling.write_corpus(corpus, words, [tokens] * count)
                    for cores in CORES:
                        output = Path(folder, f"{name}{network}{cores}_{turn}")
                        speed = labelled(flags.model, corpus, output, cores, network=network)
                        seconds.setdefault((network, cores), []).append(1 / speed)
            found.append({"texts": name, "tokens": tokens, **extrapolate(seconds)})
            print(json.dumps(found[-1], indent=1), flush=True)
    suffix = "" if run.BF16 else "_without_bf16"
    result = {"name": "wide", **environment.describe(), "rounds": flags.rounds, "found": found}
    (run.RESULTS / f"wide{suffix}.json").write_text(json.dumps(result, indent=1) + "\n")


def labelled(model: Path, corpus: Path, output: Path, cores: int, *, network: bool) -> float:
    """Label a corpus on some of the cores. Return documents per second without the start."""
    cut = f"--slice_mb={corpus.stat().st_size / 2**20 / 16:.4f}"
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:cores])
    try:
        module = "inference.beam_runner" if network else "benchmarks.throughput.without_network"
        found = scaling.label([model], corpus, output, "--text_fields=text", "--max_tokens=512", cut, module=module)
    finally:
        os.sched_setaffinity(0, allowed)
    speed: float = found["steady_docs_per_second"]
    return speed


def extrapolate(seconds: dict[tuple[bool, int], list[float]]) -> dict[str, Any]:
    """Return documents per second as measured, and for more cores.

    A core computes as much beside others as alone, which holds only where the memory's bandwidth suffices. A process
    does at most 1 / (2 t2 - t1) documents per second, if one takes t1 seconds on one core without a network and t2 on
    two.
    """
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    python = 2 * medians[False, 2] - medians[False, 1]
    limit = 1 / python if python > 0 else math.inf
    each = 1 / medians[True, 2] / 2
    return {
        "measured": {f"{cores} cores": round(1 / medians[True, cores], 1) for cores in CORES},
        "without_network": {f"{cores} cores": round(1 / medians[False, cores]) for cores in CORES},
        "one_process_at_most": round(limit),
        "extrapolated": {f"{cores} cores": round(min(each * cores, limit)) for cores in WIDE},
        "processes": {f"{cores} cores": math.ceil(each * cores / limit) for cores in WIDE},
    }


if __name__ == "__main__":
    main()
