"""Times how soon documents are labelled, and the memory that it takes; writes results/first.json.

    python -m benchmarks.startup.first --model MODEL --before COMMIT

The model must have been started before, as every model but a new one has. The commands of an earlier commit run beside
the present ones, in turns. `ready` is a process that loads what a worker of Beam's loads before its first slice.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import environment
from benchmarks.commits import FROM_CLONE, PROGRAM, clone_of
from labelbeam import MARK
from models import trained_model

RESULT = Path(__file__).parent / "results" / "first.json"
DOCUMENTS = 10
TEXT = "Return the indices of the maximum values along an axis. In case of a tie, the first is returned."
READY = """
import apache_beam.runners.worker.sdk_worker_main
from inference.runs.handler import SliceHandler
from inference.scoring.options import ScoringOptions
SliceHandler(ScoringOptions((sys.argv[1],), device="cpu")).load_model()
"""
COMMANDS = {
    "inference.run": "labelbeam run",
    "inference.beam_runner": "labelbeam label",
    "inference.worker": "labelbeam worker",
}


def main() -> None:
    """Take turns between commits and cases, and write medians and ranges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--before", metavar="COMMIT", help="an earlier commit to time beside this one")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each case (default: 5)")
    flags = parser.parse_args()
    result: dict[str, Any] = {**environment.describe(), "documents": DOCUMENTS, "before": flags.before}
    with tempfile.TemporaryDirectory() as folder, clone_of(flags.before) as before:
        clones = {"now": environment.ROOT} | ({"before": before} if before else {})
        found = measure(Path(folder), flags.model, clones, flags.rounds)
    result |= {"rounds": flags.rounds, "rows": [summary(*one) for one in found.items()]}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measure(
    work: Path, model: Path, clones: dict[str, Path], rounds: int
) -> dict[tuple[str, str], list[dict[str, float]]]:
    """Return seconds and peak memory of each round, by case and clone. A first round, not counted, fills the caches."""
    text = dict.fromkeys(trained_model.read_manifest(model).text.fields, TEXT)
    (work / "ten.jsonl").write_text("".join(json.dumps({"id": n, **text}) + "\n" for n in range(DOCUMENTS)))
    own = Path(shutil.copytree(model, work / "model"))
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(rounds + 1):
        for case in (*COMMANDS, "ready"):
            for name, clone in clones.items():
                one = _run(_command(case, clone, own, work), work)
                print(case, name, one, flush=True)
                if number:
                    found.setdefault((case, name), []).append(one)
    return found


def _command(case: str, clone: Path, model: Path, work: Path) -> list[str]:
    if case == "ready":
        return [sys.executable, "-c", FROM_CLONE + READY, str(clone), str(model)]
    flags = ["--model", str(model), "--input", str(work / "ten.jsonl"), "--output", str(work / "out"), "--device=cpu"]
    return [sys.executable, "-c", PROGRAM, str(clone), case, *flags]


def _run(command: Sequence[str], work: Path) -> dict[str, float]:
    """Return the seconds until the end, those until the first receipt if there is one, and the peak memory in MiB."""
    output = work / "out"
    shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)
    settings = {name: value for name, value in os.environ.items() if name != MARK}
    began, wall = time.perf_counter(), time.time()
    with (work / "said.txt").open("w") as said:
        peak = environment.peak_memory(command, every=0.02, env=settings, stdout=said, stderr=subprocess.STDOUT)
    taken = {"seconds": time.perf_counter() - began, "peak_mib": float(peak)}
    if receipts := list(output.glob("receipts/*.json")):
        taken["first_slice"] = min(path.stat().st_mtime for path in receipts) - wall
    return taken


def summary(case_and_clone: tuple[str, str], rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Return median and range of each figure of a case."""
    case, clone = case_and_clone
    row: dict[str, Any] = {"case": COMMANDS.get(case, case), "clone": clone}
    for key in rounds[0]:
        values = sorted(one[key] for one in rounds)
        row[key] = round(statistics.median(values), 2)
        row[f"{key}_range"] = [round(values[0], 2), round(values[-1], 2)]
    return row


if __name__ == "__main__":
    main()
