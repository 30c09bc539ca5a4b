"""Times a resume of a large run, on disk and on a storage that answers slowly; writes results/resume.json.

    python -m benchmarks.scale.resume

A real run with one document in each slice is finished. Then its last receipt and its summary are deleted, and the same
command is timed until that receipt is there again. The storage is an emulator of Cloud Storage, to which the run is
copied. It waits before every answer.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import environment
from inference.runs.own_files import RUN
from inference.runs.receipts import RECEIPTS
from inference.runs.slice_list import SLICES
from inference.runs.summary import SUMMARY
from tests import cloud_storage
from tests.tiny import WORDS, tiny_model

RESULT = Path(__file__).parent / "results" / "resume.json"
BUCKET = "bucket"
WAIT = 0.02  # seconds before each answer of the storage
POLL_SECONDS = 0.5


def main() -> None:
    """Finish a run of many slices, and time its resume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=50_000, help="slices of the run (default: 50,000)")
    flags = parser.parse_args()
    result: dict[str, Any] = {**environment.describe(), "slices": flags.slices, "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        model, corpus = tiny_model(Path(folder) / "tiny"), Path(folder) / "corpus.jsonl"
        corpus.write_bytes(b"".join(line(number) for number in range(flags.slices)))
        size = len(line(0)) / 2**20
        command = [sys.executable, "-m", "inference.beam_runner", "--quiet", "--model", str(model)]
        command += ["--input", str(corpus), "--slice_mb", repr(size)]
        run = Path(folder) / "run"
        began = time.monotonic()
        subprocess.run([*command, "--output", str(run)], check=True, stdout=subprocess.DEVNULL)
        result["rows"].append({"what": "the whole run on disk", "seconds": round(time.monotonic() - began, 1)})
        for row in (_on_disk(command, run), _on_storage(command, run)):
            result["rows"].append(row)
            print(json.dumps(row), flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def line(number: int) -> bytes:
    """Return a document; all have the same number of bytes."""
    words = " ".join(WORDS[number // 10**place % len(WORDS)].ljust(6, ".") for place in range(6))
    return json.dumps({"id": f"d{number:07d}", "text": words}).encode() + b"\n"


def _on_disk(command: list[str], run: Path) -> dict[str, Any]:
    last = max((run / RECEIPTS).iterdir())
    last.unlink()
    (run / SUMMARY).unlink()
    return {"what": "resume on disk", **_timed([*command, "--output", str(run)], last.exists)}


def _on_storage(command: list[str], run: Path) -> dict[str, Any]:
    """Resume on an emulator, and stop after the first slice. The upload of the receipts is not timed."""
    with cloud_storage.running(BUCKET) as cloud:
        os.environ["STORAGE_EMULATOR_HOST"] = cloud.url
        receipts = sorted((run / RECEIPTS).iterdir())
        bucket = cloud.client.bucket(BUCKET)
        for path in [run / RUN, run / SLICES, *receipts[:-1]]:
            bucket.blob(f"run/{path.relative_to(run)}").upload_from_string(path.read_bytes())
        before = len(cloud.requests)
        cloud.fault = lambda *_: WAIT
        last = bucket.blob(f"run/{RECEIPTS}/{receipts[-1].name}")
        row = _timed([*command, "--output", f"gs://{BUCKET}/run", "--no_auth"], last.exists, stop=True)
        return {"what": "resume on the storage", "requests": len(cloud.requests) - before, **row}


def _timed(command: list[str], is_there: Callable[[], bool], *, stop: bool = False) -> dict[str, float]:
    """Return seconds until the receipt is there and, unless the command is stopped then, until its end."""
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not is_there():
            if process.poll() is not None:
                raise RuntimeError(f"the command ended with {process.returncode} and without the receipt")
            time.sleep(POLL_SECONDS)
        row = {"first_slice_seconds": round(time.monotonic() - began, 1)}
        if stop:
            process.kill()
        elif process.wait():
            raise subprocess.CalledProcessError(process.returncode, command)
        else:
            row["seconds"] = round(time.monotonic() - began, 1)
    return row


if __name__ == "__main__":
    main()
