"""Measures memory and time of an update with and without gradient checkpointing; writes results/checkpointing.json.

python -m benchmarks.training.checkpointing
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import environment
from benchmarks.training.step import BASE, BATCH, Updates
from models import hardware

RESULT = Path(__file__).parent / "results" / "checkpointing.json"
UPDATES = 3


def main() -> None:
    """Measure each length and way in a process of its own, because a peak of memory is one of a process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.measure:
        print(json.dumps(_measured(**flags.measure)))
        return
    result: dict[str, Any] = {**environment.describe(), "base": BASE, "batch": BATCH, "updates": UPDATES, "rows": []}
    for tokens in (128, 256, 512):
        for checkpointing in (False, True):
            way = {"tokens": tokens, "checkpointing": checkpointing}
            command = [sys.executable, "-m", "benchmarks.training.checkpointing", "--measure", json.dumps(way)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            result["rows"].append(way | json.loads(output.splitlines()[-1]))
            print(json.dumps(result["rows"][-1]), flush=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _measured(tokens: int, checkpointing: bool) -> dict[str, Any]:
    before = hardware.peak_memory()
    updates = Updates(0.0, tokens, checkpointing=checkpointing)
    seconds = [updates.time_one() for _ in range(UPDATES)]
    return {
        "seconds": round(statistics.median(seconds), 2),
        "start_memory_mib": before >> 20,
        "peak_memory_mib": hardware.peak_memory() >> 20,
    }


if __name__ == "__main__":
    main()
