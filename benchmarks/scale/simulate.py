"""Simulates the files of a very large run, and measures what its launcher does with them; writes results/simulate.json.

    python -m benchmarks.scale.simulate

The slices, their list, the receipts, the hashes of the ids, the summary and the report are real, and scoring is not:
every receipt says what a slice of 8,333 documents would. Rows are not written, because nothing here reads them.
"""

import argparse
import hashlib
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import environment
from inference.corpus.files import InputFile
from inference.corpus.slices import Part, Slice
from inference.runs import receipts, sink, slice_list, summary
from inference.runs.options import RunOptions
from inference.runs.receipts import RECEIPTS, Receipt
from inference.scoring.options import ScoringOptions
from inference.scoring.tally import BINS, MAX_LABELS_IN_DETAIL
from models import seals

RESULT = Path(__file__).parent / "results" / "simulate.json"
DOCUMENTS = 8_333  # in a slice, so that 60,000 slices are 500 million documents
SLICE_BYTES = 8 * 1024 * 1024
# Slices and labels of each run: two sizes show the growth, and the last has labels by the thousand.
CASES = ((6_000, 28), (60_000, 28), (50_000, 1_000))
RUN = "0" * 32


def main() -> None:
    """Measure each step of a launcher, each case in a process of its own, whose peak memory is its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    result: dict[str, Any] = {**environment.describe(), "documents_in_a_slice": DOCUMENTS, "rows": []}
    for count, labels in CASES:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            found = pool.submit(_measure, count, labels).result()
        row = {"slices": count, "labels": labels, "documents": count * DOCUMENTS, **found}
        result["rows"].append(row)
        print(json.dumps(row), flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _measure(count: int, labels: int) -> dict[str, Any]:
    folder = tempfile.mkdtemp()
    options = RunOptions(folder, SLICE_BYTES, ScoringOptions(("m",)), run=RUN)
    try:
        slices = _slices(count)
        row = {"list_write_seconds": _seconds(lambda: slice_list.write(slices, folder, RUN, lambda: None))}
        row["list_mib"] = Path(folder, slice_list.SLICES).stat().st_size >> 20
        row["list_read_seconds"] = _seconds(lambda: slice_list.read(folder, RUN))
        _write_receipts(slices, folder, labels)
        row["listing_seconds"] = _seconds(lambda: receipts.names(folder, RUN))
        row["summary_seconds"] = _seconds(
            lambda: summary.write(summary.account(slices, options), options, lambda: None)
        )
        row["summary_kib"] = Path(folder, summary.SUMMARY).stat().st_size >> 10
        row["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        return row
    finally:
        shutil.rmtree(folder)


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return round(time.monotonic() - began, 1)


def _slices(count: int) -> list[Slice]:
    file = InputFile("gs://bucket/corpus/part-00000.jsonl", count * SLICE_BYTES)
    return [
        Slice(
            number,
            (
                Part(
                    file,
                    number * SLICE_BYTES,
                    (number + 1) * SLICE_BYTES,
                    number * DOCUMENTS + 1,
                    DOCUMENTS,
                    "0" * 64,
                    1,
                ),
            ),
        )
        for number in range(count)
    ]


def _write_receipts(slices: list[Slice], folder: str, count: int) -> None:
    """Write receipts and hashes of ids, without waiting for the disk as a run does."""
    for name in (RECEIPTS, sink.IDS):
        Path(folder, name).mkdir()
    labels = {f"label {number}": 300 for number in range(count)}
    chance = np.random.default_rng(0)
    for piece in slices:
        ids = chance.bytes(DOCUMENTS * sink.ID_BYTES)
        path = f"{sink.IDS}/{piece.name}.bin"
        Path(folder, path).write_bytes(ids)
        receipt = _receipt(piece, labels, {path: hashlib.sha256(ids).hexdigest()})
        Path(receipts.path_of(folder, RUN, piece.name)).write_bytes(seals.seal(vars(receipt)))


def _receipt(piece: Slice, labels: dict[str, int], sha256: dict[str, str]) -> Receipt:
    detailed = len(labels) <= MAX_LABELS_IN_DETAIL
    return Receipt(
        tokens={"m": DOCUMENTS * 200},
        padded_tokens={"m": DOCUMENTS * 205},
        repeated={"m": 3},
        truncated={"m": 40},
        labels={"m": labels},
        pairs={"m": dict.fromkeys(labels, labels)} if detailed else {},
        scores={"m": {name: [1] * BINS for name in labels}} if detailed else {},
        lengths={"m": [1] * BINS},
        lines=DOCUMENTS,
        predicted=DOCUMENTS,
        failed=0,
        blank=0,
        failures={},
        bytes=SLICE_BYTES,
        failed_bytes=0,
        source_bytes=piece.source_bytes,
        seconds=60.0,
        scoring_seconds=59.0,
        run=RUN,
        slice=piece.name,
        number=piece.number,
        checksum=piece.checksum,
        runtime="torch in fp32 on 4 threads",
        weights={"m": "0" * 64},
        finished=1e9,
        worker="host:1",
        sha256=sha256,
    )


if __name__ == "__main__":
    main()
