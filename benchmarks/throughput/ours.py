"""labelbeam's own loops and pipelines, measured as the rivals are. Runs in the project's environment.

python -m benchmarks.throughput.ours NAME WORK
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.throughput import rival_loops, rivals
from inference.corpus.records import Document
from inference.scoring.options import ScoringOptions
from inference.scoring.scorer import Scorer

LOOPS = {
    "labelbeam, torch": {"runtime": "torch"},
    "labelbeam, compile": {"runtime": "compile"},
    "labelbeam, onnxruntime": {"runtime": "onnxruntime"},
    "labelbeam, openvino": {"runtime": "openvino"},
    "labelbeam, openvino fp32": {"runtime": "openvino", "precision": "fp32"},
    "labelbeam, openvino int8": {"runtime": "openvino", "precision": "int8"},
}
PIPELINES = {f"{name}, file to file": options for name, options in LOOPS.items()}


def loop_of(work: Path, options: dict[str, Any], counts: dict[str, Any]) -> rival_loops.Loop:
    """Return a loop from texts to probabilities, which writes the numbers of tokens into `counts`."""
    scorer = Scorer(ScoringOptions(models=(str(work / "model"),), device="cpu", scores="all", **options))

    def loop(texts: Sequence[str], _batch: int) -> np.ndarray:
        predictions, failures, found = scorer.score([Document(i, "", (text,), {}, b"") for i, text in enumerate(texts)])
        assert not failures
        counts["runtime"] = str(scorer.runtime)
        counts["tokens"], counts["padded_tokens"] = found.tokens["model"], found.padded_tokens["model"]
        decided = predictions.by_model["model"].all_decided()
        return np.concatenate([probs for probs, _ in decided]).astype(np.float32)

    return loop


def pipeline(work: Path, options: dict[str, str]) -> tuple[np.ndarray, dict[str, Any]]:
    """Run the command that a user types. `seconds` counts everything, `steady_seconds` the slices alone."""
    output = Path(tempfile.mkdtemp(dir=work)) / "run"
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "inference.beam_runner", "--model", str(work / "model"), "--scores=all", *flags]
    command += ["--input", str(work / "corpus.jsonl"), "--output", str(output), "--runner=FnApiRunner", "--device=cpu"]
    before, began, wall = _children_cpu(), time.perf_counter(), time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, used = time.perf_counter() - began, _children_cpu() - before
    receipts = [json.loads(path.read_bytes()) for path in (output / "receipts").iterdir()]
    first = min(receipt["finished"] - receipt["seconds"] for receipt in receipts)
    rows = (json.loads(line) for path in (output / "predictions").iterdir() for line in path.open())
    found = {row["id"]: [score["score"] for score in row["model"]["scores"]] for row in rows}
    scores = np.array([found[json.loads(line)["id"]] for line in (work / "corpus.jsonl").open()], np.float32)
    taken = {
        "seconds": seconds,
        "cpu_seconds": used,
        "steady_seconds": max(receipt["finished"] for receipt in receipts) - first,
        "until_first_slice_seconds": min(receipt["finished"] for receipt in receipts) - wall,
        "tokens": sum(receipt["tokens"]["model"] for receipt in receipts),
        "padded_tokens": sum(receipt["padded_tokens"]["model"] for receipt in receipts),
        "runtime": receipts[0]["runtime"],
    }
    return scores, taken


def _children_cpu() -> float:
    """Return the CPU seconds of the processes that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(name: str, work: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Run one contestant of labelbeam on the workload."""
    if name in PIPELINES:
        scores, taken = pipeline(work, PIPELINES[name])
        return scores, taken
    counts: dict[str, Any] = {}
    texts: list[str] = json.loads((work / "texts.json").read_text())
    scores, seconds = rivals.time_loop(loop_of(work, LOOPS[name], counts), texts, (0,))
    return scores, {**seconds, **counts}


ALL = {**LOOPS, **PIPELINES}

if __name__ == "__main__":
    contestant, folder = sys.argv[1], Path(sys.argv[2])
    rivals.write(contestant, folder, *measure(contestant, folder))
