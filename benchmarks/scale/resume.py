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
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import environment
from inference.runs.receipts import RECEIPTS
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
    """Resume on an emulator. The upload of the run is not timed."""
    with cloud_storage.running(BUCKET) as cloud:
        os.environ["STORAGE_EMULATOR_HOST"] = cloud.url
        files = [path for path in run.rglob("*") if path.is_file() and path.name not in (SUMMARY, ".lock")]
        last = max(path for path in files if path.parent.name == RECEIPTS)
        bucket = cloud.client.bucket(BUCKET)
        for path in files:
            if path != last:
                bucket.blob(f"run/{path.relative_to(run)}").upload_from_string(path.read_bytes())
        before = len(cloud.requests)
        cloud.fault = lambda *_: WAIT
        there = bucket.blob(f"run/{RECEIPTS}/{last.name}").exists
        row = _timed([*command, "--output", f"gs://{BUCKET}/run", "--no_auth"], there)
        return {"what": "resume on the storage", "requests": len(cloud.requests) - before, **row}


def _timed(command: list[str], is_there: Any) -> dict[str, float]:
    """Return seconds until the receipt is there and until the end of the command, and its peak memory in MiB."""
    began, found = time.monotonic(), threading.Event()
    seconds: list[float] = []

    def watch() -> None:
        while not found.is_set() and not is_there():
            time.sleep(POLL_SECONDS)
        seconds.append(time.monotonic() - began)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        memory = environment.peak_memory(command, stdout=subprocess.DEVNULL)
    finally:
        found.set()
        watcher.join()
    whole = time.monotonic() - began
    return {"first_slice_seconds": round(seconds[0], 1), "seconds": round(whole, 1), "peak_mib": memory}


if __name__ == "__main__":
    main()
