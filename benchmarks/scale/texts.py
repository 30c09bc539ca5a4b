"""Measures what long texts, long integers and many labels cost; writes results/texts.json.

    python -m benchmarks.scale.texts --data DATA --model models/trained/demo --before COMMIT

With --before, an earlier commit is measured beside the present one, in turns.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import environment
from benchmarks.commits import clone_of

CASES = Path(__file__).with_name("cases.py")
RESULT = Path(__file__).parent / "results" / "texts.json"
# Runs the cases of this clone on the code of the clone that is named first.
PROGRAM = (
    "import runpy, sys; clone, cases, *sys.argv[1:] = sys.argv[1:]; sys.path.insert(0, clone); "
    "runpy.run_path(cases, run_name='__main__')"
)


def main() -> None:
    """Take turns between the commits, so that a machine whose speed drifts favours neither."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with arxiv/recent.jsonl.xz")
    parser.add_argument("--model", type=Path, required=True, help="directory of a trained model")
    parser.add_argument("--before", metavar="COMMIT", help="an earlier commit to measure beside this one")
    flags = parser.parse_args()
    model, data = str(flags.model.resolve()), str(flags.data.resolve())
    cases = [
        *(["lengths", model, data, max_tokens] for max_tokens in ("256", "512")),
        ["integers"],
        *(["labels", file_format, "all"] for file_format in ("jsonl", "parquet")),
        ["labels", "jsonl", "top:5"],
        ["metrics"],
    ]
    result: dict[str, Any] = {**environment.describe(), "before": flags.before, "rows": []}
    with clone_of(flags.before) as before:
        clones = {"now": environment.ROOT} | ({"before": before} if before else {})
        for case in cases:
            row = {"case": case[0]} | {name: _measure(folder, case) for name, folder in clones.items()}
            result["rows"].append(row)
            print(json.dumps(row), flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _measure(folder: Path, case: list[str]) -> dict[str, Any]:
    """Return what a case prints in a process of its own, and the peak memory of the process."""
    command = [sys.executable, "-c", PROGRAM, str(folder), str(CASES), *case]
    with tempfile.TemporaryFile() as output:
        peak = environment.peak_memory(command, cwd=folder, stdout=output, stderr=subprocess.DEVNULL)
        output.seek(0)
        found: dict[str, Any] = json.loads(output.read())
    return found | {"peak_mib": peak}


if __name__ == "__main__":
    main()
