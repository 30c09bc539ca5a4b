"""Times how long every command takes to print its help and to refuse a mistake; writes results/startup.json.

    python -m benchmarks.startup.run --before COMMIT

With --before, the commands of an earlier commit run beside the present ones, in turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import environment
from benchmarks.commits import PROGRAM, clone_of
from labelbeam import COMMANDS, MARK

RESULT = Path(__file__).parent / "results" / "startup.json"
ROUNDS = 5
WRONG_KEY = (
    '[data]\ntrain = "a.jsonl"\n[labels]\ntask = "binary"\nnames = ["no", "yes"]\n[model]\nbase = "b"\n[trainin]\n'
)


def main() -> None:
    """Take turns between the commits, so that a machine whose speed drifts favours neither."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="COMMIT", help="an earlier commit to time beside this one")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"runs of each command (default: {ROUNDS})")
    flags = parser.parse_args()
    result: dict[str, Any] = {**environment.describe(), "rounds": flags.rounds, "before": flags.before, "rows": []}
    with tempfile.TemporaryDirectory() as folder, clone_of(flags.before) as before:
        config = Path(folder) / "wrong.toml"
        config.write_text(WRONG_KEY, encoding="utf-8")
        clones = {"now": environment.ROOT} | ({"before": before} if before else {})
        for case, module, arguments in cases(config):
            seconds: dict[str, list[float]] = {name: [] for name in clones}
            for _ in range(flags.rounds):
                for name, clone in clones.items():
                    seconds[name].append(_time(clone, module, arguments))
            row = {"case": case, "module": module} | {name: _spread(times) for name, times in seconds.items()}
            result["rows"].append(row)
            print(json.dumps(row), flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def cases(config: Path) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Yield what is typed: a name of the case, the command's module, and its flags."""
    for module, _ in COMMANDS.values():
        yield "help", module, ["--help"]
    yield "wrong flag", "inference.beam_runner", ["--modle", "m", "--input", "i", "--output", "o"]
    yield "wrong flag", "training.train", [str(config), "--ouptut", "o"]
    yield "wrong key", "training.train", [str(config), "--output", "o"]


def _time(clone: Path, module: str, arguments: Sequence[str]) -> float:
    settings = {name: value for name, value in os.environ.items() if name != MARK}
    command = [sys.executable, "-c", PROGRAM, str(clone), module, *arguments]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, cwd=clone, env=settings, check=False)
    seconds = time.perf_counter() - began
    if done.returncode != (0 if "--help" in arguments else 2):
        raise RuntimeError(f"{module} {arguments}: exit code {done.returncode}\n{done.stderr.decode()}")
    return seconds


def _spread(seconds: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(seconds), 3), "highest": round(max(seconds), 3)}


if __name__ == "__main__":
    main()
