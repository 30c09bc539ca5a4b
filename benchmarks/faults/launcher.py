"""Runs `labelbeam run` with faults inside of its process.

    python -m benchmarks.faults.launcher '{"lease_seconds": 3}' --model DIR --input GLOB --output DIR

Faults, all optional:
    lease_seconds   a lease that is not renewed for this long is free
    clock           seconds by which this process's clock is ahead
    batch_seconds   seconds that every batch takes longer
    device          what the network does from one batch on: {"kind": raises, nan or wrong, "first": 7, "last": 9}
"""

import itertools
import json
import sys
import time
from typing import Any

import numpy as np

from inference import beam_runner
from inference.corpus import lease
from inference.scoring import starting
from inference.scoring.logits import Forward, to_numpy
from inference.scoring.starting import Started


def main() -> int:
    """Label a corpus under the faults, and return the exit code."""
    faults = json.loads(sys.argv[1])
    lease.LEASE_SECONDS = faults.get("lease_seconds", lease.LEASE_SECONDS)
    true_time = time.time
    time.time = lambda: true_time() + faults.get("clock", 0)
    start = starting.start

    def start_faulty(*arguments: Any) -> Started:
        started = start(*arguments)
        return started._replace(forward=faulty(started.forward, faults))

    vars(starting)["start"] = start_faulty
    return beam_runner.main(sys.argv[2:])


def faulty(forward: Forward, faults: dict[str, Any]) -> Forward:
    """Return a network that is slow, or fails from one batch on. The probe texts count as batches."""
    batches = itertools.count()
    device = {"kind": "", "first": 0, "last": float("inf")} | faults.get("device", {})

    def compute(ids: Any, mask: Any) -> Any:
        time.sleep(faults.get("batch_seconds", 0))
        logits = to_numpy(forward(ids, mask))
        if not device["kind"] or not device["first"] <= next(batches) <= device["last"]:
            return logits
        if device["kind"] == "raises":
            raise RuntimeError("the benchmark broke this device")
        return np.full_like(logits, np.nan) if device["kind"] == "nan" else -logits

    return compute


if __name__ == "__main__":
    sys.exit(main())
