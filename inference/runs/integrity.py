"""Compares the files of a run with its receipts, and the receipts with its input."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from apache_beam.io.filesystems import FileSystems

from inference.corpus import slices, storage
from inference.corpus.files import SourceError, find_file
from inference.runs import receipts, run_folder, sink, summary
from inference.runs.receipts import Receipt
from inference.scoring import tally

READERS = 16  # threads that read files; each holds one file in memory


def verify(output: str) -> Iterator[str]:
    """Yield a sentence for each problem of a run.

    Raises:
        UserError: the folder holds no run.
    """
    description = run_folder.require(output)
    run = description["run"]
    whole_receipts = []
    for path, receipt in receipts.read_all(output, run):
        if receipt is None:
            yield f"{path}: is damaged or of another version, so its slice counts as unfinished."
        else:
            whole_receipts.append(receipt.without_histograms())
    with ThreadPoolExecutor(READERS) as pool:
        for problems in pool.map(lambda receipt: list(_file_problems(receipt, output)), whole_receipts):
            yield from problems
    yield from _unnamed_files(whole_receipts, output, run)
    yield from _coverage_problems(description, whole_receipts)
    yield from _summary_problems(whole_receipts, output, run)


def verify_input(output: str) -> Iterator[str]:
    """Read the corpus again. Yield a sentence for each file that has grown and for each slice whose bytes differ.

    Raises:
        UserError: the folder holds no run.
        SourceError: storage fails.
    """
    description = run_folder.require(output)
    labelled = {
        (receipt.file, receipt.start): receipt.checksum
        for _, receipt in receipts.read_all(output, description["run"])
        if receipt
    }
    slice_bytes = description["options"]["slice_bytes"]
    with ThreadPoolExecutor(READERS) as pool:
        for file in run_folder.read_files(output):
            try:
                now = find_file(file.path)
                if now and now.size > file.size and file.max_lines is None:
                    yield f"{file.path}: expected {file.size:,} bytes as when the run began, found {now.size:,}."
                counted = [r for ranges in pool.map(slices.count_lines, slices.cut(file, slice_bytes)) for r in ranges]
            except SourceError as error:
                yield str(error)
                continue
            for piece in slices.number(counted):
                checksum = labelled.get((file.path, piece.start))
                if checksum and checksum != piece.checksum:
                    yield (
                        f"{file.path}: the lines from {piece.first_line:,} on have changed since they were labelled; "
                        "put the file back, or label it into another folder."
                    )


def _unnamed_files(all_receipts: Sequence[Receipt], output: str, run: str) -> Iterator[str]:
    """Name the files that belong to no receipt of the run."""
    named = [path for receipt in all_receipts for path in receipt.sha256]
    for path in sink.unnamed_files(output, named):
        yield f"{FileSystems.join(output, path)}: belongs to no receipt of this run; delete it."
    suffix = f".{receipts.run_part(run)}.json"
    folder = FileSystems.join(output, receipts.RECEIPTS)
    for name in sorted(storage.listing(folder)):
        if not name.endswith(suffix):
            yield f"{FileSystems.join(folder, name)}: is no receipt of this run; delete it."


def _file_problems(receipt: Receipt, output: str) -> Iterator[str]:
    """Check that the files of a receipt exist, have its SHA-256 values, and have as many rows as it counts."""
    if receipt.predicted + receipt.failed + receipt.blank != receipt.lines:
        yield f"{receipt.slice}: the counts of its receipt do not add up."
    for name, sha256 in receipt.sha256.items():
        path = FileSystems.join(output, name)
        if not storage.exists(path):
            yield f"{path}: is missing."
            continue
        content = storage.read_file(path)
        if hashlib.sha256(content).hexdigest() != sha256:
            yield f"{path}: has changed since it was written: its receipt has another SHA-256."
            continue
        expected = receipt.predicted if name.startswith(sink.PREDICTIONS) else receipt.failed
        if (rows := sink.count_rows(path, content)) != expected:
            yield f"{path}: expected the {expected:,} rows that its receipt counts, found {rows:,}."


def _coverage_problems(description: dict[str, Any], all_receipts: Sequence[Receipt]) -> Iterator[str]:
    """Check that the slices of each file cover all its bytes and lines without gaps or overlaps."""
    in_order = sorted(all_receipts, key=lambda receipt: (receipt.file, receipt.start))
    by_file = {path: list(group) for path, group in itertools.groupby(in_order, key=lambda receipt: receipt.file)}
    for file in description["files"]:
        of_file = by_file.pop(file["path"], [])
        byte, line = 0, 1
        for receipt in of_file:
            if (receipt.start, receipt.first_line) != (byte, line):
                yield f"{file['path']}: no receipt for the bytes from {byte:,} to {receipt.start:,}."
            byte, line = receipt.end, receipt.first_line + receipt.lines
        limited = file["max_lines"] is not None
        if limited and line - 1 != file["max_lines"]:
            yield f"{file['path']}: expected {file['max_lines']:,} lines, found receipts for {line - 1:,}."
        elif not limited and sum(receipt.source_bytes for receipt in of_file) != file["size"]:
            yield f"{file['path']}: no receipt for the bytes from {byte:,} on; run the same command again."
    for path in by_file:
        yield f"{path}: has receipts, but is not an input of this run."


def _summary_problems(all_receipts: Sequence[Receipt], output: str, run: str) -> Iterator[str]:
    totals = summary.read(output, run)
    if totals is None:
        yield f"{summary.SUMMARY}: is missing or damaged, so the run is unfinished; run the same command again."
        return
    expected = tally.add(map(Receipt.totals, all_receipts))
    for name in ("slices", "lines", "predicted", "failed", "blank", "failures", "labels"):
        if totals.get(name) != expected.get(name):
            yield f"{summary.SUMMARY}: expected {name} {expected.get(name)} by the receipts, found {totals.get(name)}."
