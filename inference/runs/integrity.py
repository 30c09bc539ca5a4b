"""Holds the files of a run against its receipts, and the receipts against its input."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from apache_beam.io.filesystems import FileSystems

from inference.corpus import storage
from inference.runs import receipts, run_folder, sink, summary
from inference.runs.receipts import Receipt
from inference.scoring import tally

READERS = 16  # threads: each holds a file


def verify(output: str) -> Iterator[str]:
    """A sentence for each thing that is not as it should be.

    Raises:
        UserError: the folder holds no run.
    """
    run = run_folder.require(output)
    read = []
    for path, receipt in receipts.read_all(output):
        if receipt is None:
            yield f"{path}: is not what was written; its slice counts as not done."
        else:
            read.append(receipt.without_histograms())
    with ThreadPoolExecutor(READERS) as pool:
        for problems in pool.map(lambda receipt: list(_file_problems(receipt, output)), read):
            yield from problems
    yield from _unaccounted(run, read)
    yield from _summary_problems(read, output)


def _file_problems(receipt: Receipt, output: str) -> Iterator[str]:
    """Whether the files that a receipt names are there, unchanged, with as many rows as it says."""
    if receipt.predicted + receipt.failed + receipt.blank != receipt.lines:
        yield f"{receipt.slice}: its receipt does not add up."
    for name, sha256 in receipt.sha256.items():
        path = FileSystems.join(output, name)
        if not FileSystems.exists(path):
            yield f"{path}: is missing."
            continue
        content = storage.read_file(path)
        if hashlib.sha256(content).hexdigest() != sha256:
            yield f"{path}: is not what was written; its receipt has another SHA-256."
            continue
        expected = receipt.predicted if name.startswith(sink.PREDICTIONS) else receipt.failed
        if (rows := sink.count_rows(path, content)) != expected:
            yield f"{path}: expected {expected:,} rows as its receipt says, found {rows:,}."


def _unaccounted(run: dict[str, Any], read: Sequence[Receipt]) -> Iterator[str]:
    """Whether the slices of each file follow each other, byte by byte and line by line, from beginning to end."""
    by_file = {
        file: list(found)
        for file, found in itertools.groupby(sorted(read, key=lambda r: (r.file, r.start)), key=lambda r: r.file)
    }
    for file in run["files"]:
        found = by_file.pop(file["path"], [])
        byte, line = 0, 1
        for receipt in found:
            if (receipt.start, receipt.first_line) != (byte, line):
                yield f"{file['path']}: no receipt for the bytes from {byte:,} to {receipt.start:,}."
            byte, line = receipt.end, receipt.first_line + receipt.lines
        limited = file["max_lines"] is not None
        if limited and line - 1 != file["max_lines"]:
            yield f"{file['path']}: expected {file['max_lines']:,} lines, found receipts for {line - 1:,}."
        elif not limited and sum(receipt.source_bytes for receipt in found) != file["size"]:
            yield f"{file['path']}: no receipt for what follows byte {byte:,}; run the same command again."
    for path in by_file:
        yield f"{path}: has receipts, but is no input of this run."


def _summary_problems(read: Sequence[Receipt], output: str) -> Iterator[str]:
    totals = summary.read(output)
    if totals is None:
        yield f"there is no {summary.SUMMARY}: the run has not ended; run the same command again."
        return
    added = tally.add(map(Receipt.totals, read))
    for name in ("slices", "lines", "predicted", "failed", "blank", "failures", "labels"):
        if totals.get(name) != added.get(name):
            yield f"{summary.SUMMARY} says {name} {totals.get(name)}, the receipts {added.get(name)}."
