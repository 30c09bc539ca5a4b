"""Writes a slice and its receipt, and finds receipts.

The only module that knows the files below predictions/, failures/ and receipts/. A receipt is written last, so a slice
that has one is whole. Every file appears at once under its final name, and a slice that is written again gets the same
bytes: retries and races are harmless.
"""

import contextlib
import hashlib
import io
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from inference import records
from inference.handler import ScoredSlice
from inference.records import Prediction, redacted
from inference.storage import read_file, write_file

PREDICTIONS, FAILURES, RECEIPTS, ATTEMPTS = "predictions", "failures", "receipts", "attempts"

READERS = 32  # threads: receipts in Cloud Storage take longer to come than to read
CHUNK = 8 * READERS
SEAL = b',"seal":"'


@dataclass(frozen=True)
class SinkOptions:
    """Where and how a slice is written."""

    output: str
    file_format: str  # jsonl or parquet
    keep_fields: tuple[str, ...]
    models: tuple[str, ...]  # names, in the order of the columns
    redact_failures: bool = False  # write nothing of the texts


@dataclass(frozen=True)
class Receipt:
    """What is known of a finished slice. `predicted + failed + blank == lines`."""

    slice: str  # its name
    file: str  # the input file
    start: int  # first byte of the slice, in the decompressed file
    end: int  # byte after its last
    first_line: int  # number of its first line, from 1
    checksum: int  # CRC-32 of its bytes
    source_bytes: int  # its share of the file as stored
    lines: int
    predicted: int  # documents
    failed: int  # lines
    blank: int  # lines
    failures: dict[str, int]  # by reason
    tokens: dict[str, int]  # computed, by model
    padded_tokens: dict[str, int]  # the same with padding, by model
    repeated: dict[str, int]  # documents with the text of an earlier one, by model
    truncated: dict[str, int]  # texts longer than the model reads, by model
    labels: dict[str, dict[str, int]]  # documents by model and label
    runtime: str  # what computed, in which number format
    seconds: float  # reading, scoring and writing
    scoring_seconds: float  # scoring alone
    finished: float  # seconds since the epoch
    worker: str  # host and process
    pairs: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)  # two labels together, by model
    scores: dict[str, dict[str, list[int]]] = field(default_factory=dict)  # histograms, by model and label
    lengths: dict[str, list[int]] = field(default_factory=dict)  # histogram of tokens read, by model
    sha256: dict[str, str] = field(default_factory=dict)  # of each file written, by its path below the output folder


def write_slice(scored: ScoredSlice, options: SinkOptions) -> Receipt:
    """Writes predictions, failures where there are any, and last the receipt.

    Raises:
        ArithmeticError: a line of the slice is neither predicted, failed nor blank; nothing is written.
    """
    predicted, failed = len(scored.predictions), len(scored.failures)
    if predicted + failed + scored.blank != scored.lines:
        raise ArithmeticError(
            f"{scored.slice.name}: {scored.lines} lines, but {predicted} predicted + {failed} failed + "
            f"{scored.blank} blank"
        )
    name = scored.slice.name
    contents = {f"{PREDICTIONS}/{name}.{options.file_format}": _predictions_file(scored.predictions, options)}
    if scored.failures:
        failures = map(redacted, scored.failures) if options.redact_failures else scored.failures
        rows = (orjson.dumps(failure.row(scored.slice.file.path)) for failure in failures)
        contents[f"{FAILURES}/{name}.jsonl"] = b"".join(row + b"\n" for row in rows)
    for path, content in contents.items():
        write_file(FileSystems.join(options.output, path), content)
    receipt = _receipt(scored, {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()})
    write_file(FileSystems.join(options.output, RECEIPTS, f"{name}.json"), seal(receipt))
    with contextlib.suppress(Exception):  # it says nothing any more; each storage raises its own kinds
        FileSystems.delete([_attempts_path(options.output, name)])
    return receipt


def begin(output: str, slice_name: str) -> int:
    """Notes that a slice is begun; returns how many attempts at it were begun before and never ended."""
    path = _attempts_path(output, slice_name)
    before = len(read_file(path)) if FileSystems.exists(path) else 0
    write_file(path, b"." * (before + 1))
    return before


def _attempts_path(output: str, slice_name: str) -> str:
    return FileSystems.join(output, ATTEMPTS, slice_name)


def seal(receipt: Receipt) -> bytes:
    """A receipt as it is stored: JSON that ends with the SHA-256 of all that stands before it."""
    content = orjson.dumps(receipt)[:-1]
    return content + SEAL + hashlib.sha256(content).hexdigest().encode() + b'"}'


def _receipt(scored: ScoredSlice, sha256: dict[str, str]) -> Receipt:
    piece, counts, now = scored.slice, scored.counts, time.time()
    reasons: dict[str, int] = {}
    for failure in scored.failures:
        reasons[failure.reason] = reasons.get(failure.reason, 0) + 1
    return Receipt(
        slice=piece.name,
        file=piece.file.path,
        start=piece.start,
        end=piece.end,
        first_line=piece.first_line,
        checksum=piece.checksum,
        source_bytes=piece.source_bytes,
        lines=scored.lines,
        predicted=len(scored.predictions),
        failed=len(scored.failures),
        blank=scored.blank,
        failures=dict(sorted(reasons.items())),
        tokens=counts.tokens,
        padded_tokens=counts.padded_tokens,
        repeated=counts.repeated,
        truncated=counts.truncated,
        labels=counts.labels,
        pairs=counts.pairs,
        scores=counts.scores,
        lengths=counts.lengths,
        runtime=scored.runtime,
        seconds=round(now - scored.started, 3),
        scoring_seconds=round(scored.scoring_seconds, 3),
        finished=now,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        sha256=sha256,
    )


def _predictions_file(predictions: list[Prediction], options: SinkOptions) -> bytes:
    rows = [prediction.row() for prediction in predictions]
    if options.file_format == "jsonl":
        return b"".join(orjson.dumps(row) + b"\n" for row in rows)
    schema = records.predictions_schema(options.keep_fields, options.models)
    table = pa.Table.from_pylist([records.arrow_row(row, options.keep_fields) for row in rows], schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def read_ids(receipt: Receipt, output: str) -> list[str]:
    """The ids of a slice's predictions, read back from its file."""
    path = next(path for path in receipt.sha256 if path.startswith(PREDICTIONS))
    content = read_file(FileSystems.join(output, path))
    if path.endswith(".parquet"):
        ids: list[str] = pq.read_table(io.BytesIO(content), columns=["id"])["id"].to_pylist()
        return ids
    return [orjson.loads(line)["id"] for line in content.splitlines()]


def read_rows(path: str) -> list[dict[str, Any]]:
    """The rows of a predictions file, of either format."""
    content = read_file(path)
    if path.endswith(".parquet"):
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
        return rows
    return [orjson.loads(line) for line in content.splitlines()]


def rows_by_id(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id, row) of each row of a predictions file."""
    for row in read_rows(path):
        yield row["id"], row


def count_rows(path: str, content: bytes) -> int:
    """How many rows a predictions or failures file has."""
    if path.endswith(".parquet"):
        return int(pq.read_metadata(io.BytesIO(content)).num_rows)
    return content.count(b"\n")


def prediction_paths(output: str) -> Iterator[str]:
    """The paths of all predictions files, of finished slices and others."""
    return _paths(FileSystems.join(output, PREDICTIONS, "*"))


def find_receipt(output: str, slice_name: str) -> Receipt | None:
    """The receipt of a slice, or None where the slice is still to be done."""
    path = FileSystems.join(output, RECEIPTS, f"{slice_name}.json")
    return read_receipt(path) if FileSystems.exists(path) else None


def read_receipt(path: str) -> Receipt | None:
    """A receipt by its path; None where it is not as it was written, so that its slice is done again."""
    content, _, seal = read_file(path).rpartition(SEAL)
    if seal != hashlib.sha256(content).hexdigest().encode() + b'"}':
        return None
    try:
        return Receipt(**orjson.loads(content + b"}"))
    except TypeError:  # another version's
        return None


def without_histograms(receipt: Receipt) -> Receipt:
    """A receipt small enough to hold all of a large run's in memory."""
    return replace(receipt, pairs={}, scores={}, lengths={})


def read_receipts(output: str) -> Iterator[tuple[str, Receipt | None]]:
    """The path of each receipt that is there now, in order, and what it says; many are read at once."""
    paths = sorted(receipt_paths(output))
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(paths), CHUNK):  # so that no more are in memory
            some = paths[start : start + CHUNK]
            yield from zip(some, pool.map(read_receipt, some), strict=True)


def receipt_paths(output: str) -> Iterator[str]:
    """The paths of all receipts that are there now."""
    return _paths(FileSystems.join(output, RECEIPTS, "*.json"))


def _paths(pattern: str) -> Iterator[str]:
    for match in FileSystems.match([pattern]):
        yield from (metadata.path for metadata in match.metadata_list)
