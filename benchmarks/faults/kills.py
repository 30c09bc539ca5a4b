"""Kills a run at random moments until it is done, again and again, and compares the result with an undisturbed run.

    python -m benchmarks.faults.kills --model models/trained/demo --input data/demo/corpus.jsonl --kills 50

Every second kill hits a worker process (direct_running_mode multi_processing), the others the command itself.
Writes results/kills.json; exits 1 at the first difference.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import environment

RESULTS = Path(__file__).parent / "results"
WORKERS = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


def main() -> None:
    """Kill as often as asked, over as many runs as that takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    chance = random.Random(flags.seed)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="kills_") as folder:
        work = Path(folder)
        began = time.monotonic()
        assert run(flags, work / "whole") == 0
        seconds = time.monotonic() - began
        whole, number = contents(work / "whole"), 0
        while sum(attempt["killed"] for attempt in found) < flags.kills:
            output = work / f"run{number}"
            number += 1
            while attempt(flags, output, chance, seconds, found):
                pass
            if found[-1]["finished_before"] == 0:  # it was not killed at all: the machine is faster than it was
                seconds = min(seconds, found[-1]["seconds"])
            if contents(output) != whole:
                sys.exit(f"run {number} differs from the undisturbed one")
            print(f"run {number}: {len(found)} attempts so far, bytes as undisturbed", flush=True)
    RESULTS.mkdir(exist_ok=True)
    result = {**environment.describe(), "runs": number, "undisturbed_seconds": round(seconds, 1), "attempts": found}
    (RESULTS / "kills.json").write_text(json.dumps(result, indent=1) + "\n")


def command(flags: argparse.Namespace, output: Path, *more: str) -> list[str]:
    """Return a command that labels in small slices, so that many are in progress."""
    given = ["--model", flags.model, "--input", flags.input, "--output", str(output), "--scores", "all"]
    return [sys.executable, "-m", "inference.beam_runner", *given, "--slice_mb", "0.1", *more]


def run(flags: argparse.Namespace, output: Path) -> int:
    """Run without a kill."""
    return subprocess.run(
        command(flags, output), cwd=environment.ROOT, stdout=subprocess.DEVNULL, check=False
    ).returncode


def attempt(
    flags: argparse.Namespace, output: Path, chance: random.Random, seconds: float, found: list[dict[str, Any]]
) -> bool:
    """Kill one attempt at a random moment. Return False if it was done by then."""
    before = receipts(output)
    kills = sum(attempt["killed"] for attempt in found)
    worker = kills % 2 == 1
    process = subprocess.Popen(
        command(flags, output, *(WORKERS if worker else ())),
        cwd=environment.ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    began, killed = time.monotonic(), True
    try:
        process.wait(chance.uniform(0.2, 1.0) * seconds)
        killed = False
    except subprocess.TimeoutExpired:
        kill(process.pid, worker)
        process.wait()
        kill_group(process.pid)  # what a dead launcher left behind
    after = receipts(output)
    changed = [name for name, content in before.items() if after.get(name) != content]
    if changed:
        sys.exit(f"{changed[0]} was finished and has changed")
    row = {"killed": killed, "worker": worker, "finished_before": len(before), "finished_after": len(after)}
    found.append({**row, "seconds": round(time.monotonic() - began, 1)})
    if not killed and process.returncode:
        sys.exit(f"the run failed by itself with {process.returncode}")
    return killed


def kill(pid: int, worker: bool) -> None:
    """Kill the process. With `worker`, kill a child first, and give the parent two seconds to notice."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    if worker and children:
        os.kill(int(children[0]), signal.SIGKILL)
        time.sleep(2)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kill_group(pid: int) -> None:
    """Kill every process of the session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def receipts(output: Path) -> dict[str, bytes]:
    """Return the bytes of every receipt by name."""
    return {path.name: path.read_bytes() for path in (output / "receipts").glob("*.json")}


def contents(output: Path) -> dict[str, bytes]:
    """Return every file with predictions or failures, by its path."""
    files = [*output.glob("predictions/*"), *output.glob("failures/*")]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


if __name__ == "__main__":
    main()
