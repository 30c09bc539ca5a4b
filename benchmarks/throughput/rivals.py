"""Measures one rival. Runs in the rivals' environment.

python -m benchmarks.throughput.rivals NAME WORK     NAME.json and NAME.npy in WORK say what came out

A loop turns texts into probabilities in memory; start-up and a warm-up are not counted. A pipeline goes from the JSON
lines file to written predictions, start-up counted.
"""

import json
import math
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.throughput import rival_loops, rival_pipelines

Taken = dict[str, float]


def time_loop(loop: rival_loops.Loop, texts: Sequence[str], batches: Sequence[int]) -> tuple[np.ndarray, Taken]:
    """Return scores and time of a loop in its fastest batch size, after a warm-up over all lengths."""
    loop(texts[:: max(len(texts) // 40, 1)], batches[0])
    batch = fastest(loop, texts, batches)
    used, began = time.process_time(), time.perf_counter()
    scores = loop(texts, batch)
    taken = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - used}
    return scores, taken | ({"batch": batch} if batch else {})


def fastest(loop: rival_loops.Loop, texts: Sequence[str], batches: Sequence[int]) -> int:
    """Return the batch size that is fastest on texts of the most common length; each is tried twice in turn.

    Where there is no choice, the loop is as warm after it as the others.
    """
    middle = len(texts) // 2
    some = sorted(texts, key=len)[max(middle - 64, 0) : middle + 64]
    tried = list(batches) * (2 * len(rival_loops.BATCHES) // len(batches))
    seconds = dict.fromkeys(batches, math.inf)
    for batch in tried:
        began = time.perf_counter()
        loop(some, batch)
        seconds[batch] = min(seconds[batch], time.perf_counter() - began)
    return min(seconds, key=seconds.__getitem__)


def measure(name: str, work: Path) -> tuple[np.ndarray, Taken]:
    """Run one rival on the workload."""
    if name in rival_loops.LOOPS:
        rival = rival_loops.LOOPS[name]
        texts = json.loads((work / "texts.json").read_text())
        return time_loop(rival.start(str(work / "checkpoint")), texts, rival.batches)
    began = time.perf_counter()
    scores = rival_pipelines.PIPELINES[name](work)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    used = sum(one.ru_utime + one.ru_stime for one in usage)
    return scores, {"seconds": time.perf_counter() - began, "cpu_seconds": used}


def write(name: str, work: Path, scores: np.ndarray, taken: dict[str, Any]) -> None:
    """Write the scores of a contestant, in the order of the corpus, and its time and memory."""
    np.save(work / f"{name}.npy", scores.astype(np.float32))
    (work / f"{name}.json").write_text(json.dumps(taken))


if __name__ == "__main__":
    contestant, folder = sys.argv[1], Path(sys.argv[2])
    write(contestant, folder, *measure(contestant, folder))
