"""Measures one rival. Runs in the rivals' environment.

python -m benchmarks.throughput.rivals NAME WORK     NAME.json and NAME.npy in WORK say what came out

A loop turns texts into probabilities in memory; start-up and a warm-up are not counted. A pipeline goes from the JSON
lines file to written predictions, start-up counted.
"""

import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.throughput import rival_loops, rival_pipelines


def time_loop(loop: rival_loops.Loop, texts: Sequence[str]) -> tuple[np.ndarray, dict[str, float]]:
    """Scores and what the loop took, after a warm-up over the lengths that come."""
    loop(texts[:: max(len(texts) // 40, 1)])
    used, began = time.process_time(), time.perf_counter()
    scores = loop(texts)
    return scores, {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - used}


def measure(name: str, work: Path) -> tuple[np.ndarray, dict[str, float]]:
    """Runs one rival on the workload."""
    if name in rival_loops.LOOPS:
        return time_loop(
            rival_loops.LOOPS[name](str(work / "checkpoint")), json.loads((work / "texts.json").read_text())
        )
    began = time.perf_counter()
    scores = rival_pipelines.PIPELINES[name](work)
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
