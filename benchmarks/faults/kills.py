"""Kills runs at random slices until they are done, and compares each with an undisturbed run.

    python -m benchmarks.faults.kills

A kill comes when a random number of slices has been finished since the start of the attempt. Every second one hits a
worker process (direct_running_mode multi_processing), the others the command itself. Writes results/kills.json.
"""

import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.faults import stage
from benchmarks.faults.stage import Stage

DOCUMENTS, SLICE_MB = 14_000, 0.01
MOST_SLICES = 40  # most slices that an attempt finishes before its kill
GRACE = 15  # seconds in which a command may notice that its worker is dead


def main() -> None:
    """Kill as often as asked, over as many runs as that takes."""
    parser = stage.parser(__doc__)
    parser.add_argument("--kills", type=int, default=50)
    flags = parser.parse_args()
    chance, kills = random.Random(flags.seed), 2 if flags.smoke else flags.kills
    attempts: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="kills_") as folder:
        corpus = stage.write_corpus(Path(folder, "corpus.jsonl"), DOCUMENTS)
        own = Stage(Path(folder), str(corpus), SLICE_MB)
        undisturbed = own.finish(f"{folder}/undisturbed")
        while sum(attempt["killed"] for attempt in attempts) < kills:
            output = f"{folder}/run{len(runs)}"
            before = sum(attempt["killed"] for attempt in attempts)
            of_run = [attempt(own, output, chance, before)]
            while of_run[-1]["killed"]:
                of_run.append(attempt(own, output, chance, before + len(of_run)))
            attempts += of_run
            row = stage.compare(output, undisturbed)
            changed = any(one["changed"] for one in of_run) or of_run[-1]["exit"] != 0
            runs.append({**row, "wrong": changed or not stage.is_right(row)})
            print(len(attempts), "attempts:", runs[-1], flush=True)
        slices = stage.finished(undisturbed)
    stage.save("kills", flags, runs, slices=slices, attempts=attempts)


def attempt(own: Stage, output: str, chance: random.Random, number: int) -> dict[str, Any]:
    """Kill one attempt at a random slice, unless it is done by then. An odd number of earlier kills hits a worker."""
    before, worker = receipts(output), number % 2 == 1
    launched = own.start(output, *(stage.WORKERS if worker else ()))
    killed = stage.wait_for(output, len(before) + chance.randint(1, MOST_SLICES), launched)
    exit_code = None
    if killed:
        time.sleep(chance.uniform(0, 0.1))
        exit_code = kill_worker(launched) if worker else None
        launched.kill()
    after = receipts(output)
    return {
        "killed": killed,
        "worker": worker,
        "finished_before": len(before),
        "finished_after": len(after),
        "exit": exit_code if killed else launched.wait(),  # None if it did not end by itself
        "changed": sum(after.get(name) != content for name, content in before.items()),
        "seconds": round(time.monotonic() - launched.began, 1),
    }


def kill_worker(launched: stage.Launched) -> int | None:
    """Kill a worker. Return the exit code of the command if it ends by itself in time."""
    if workers := launched.workers():
        os.kill(workers[0], signal.SIGKILL)
    try:
        return launched.process.wait(GRACE)
    except subprocess.TimeoutExpired:
        return None


def receipts(output: str) -> dict[str, bytes]:
    """Return the bytes of every receipt by name."""
    return {path.name: path.read_bytes() for path in Path(output, "receipts").glob("*.json")}


if __name__ == "__main__":
    main()
