"""Writes a slice with its receipt last, and reads the rows of a run.

Only this module knows the files in predictions/, failures/ and attempts/. The name of a file holds the slice, the run
and a hash of the content. Every file appears complete under its name and is never changed, so retries and races are
harmless: two attempts write the same file or different ones, and the receipt names those that count.
"""

import contextlib
import hashlib
import io
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from inference.corpus import storage
from inference.corpus.records import redacted
from inference.runs import receipts, rows
from inference.runs.handler import ScoredSlice
from inference.runs.options import RunOptions
from inference.runs.receipts import Receipt
from inference.scoring.predictions import Predictions

PREDICTIONS, FAILURES, ATTEMPTS = "predictions", "failures", "attempts"
HASH_PART = 16  # hexadecimal digits of a file's SHA-256 in its name


def write_slice(scored: ScoredSlice, options: RunOptions) -> Receipt:
    """Write the predictions, the failures if there are any, and the receipt last. Return the receipt that counts.

    If another attempt was faster, its receipt counts, and the files of this attempt are deleted.

    Raises:
        ArithmeticError: a line of the slice is neither predicted, failed nor blank. Then nothing is written.
    """
    predicted, failed = len(scored.predictions), len(scored.failures)
    if predicted + failed + scored.blank != scored.lines:
        raise ArithmeticError(
            f"{scored.slice.name}: {scored.lines} lines, but {predicted} predicted + {failed} failed + "
            f"{scored.blank} blank"
        )
    name = scored.slice.name
    contents = {(PREDICTIONS, options.file_format): _predictions_file(scored.predictions, options)}
    if scored.failures:
        contents[FAILURES, "jsonl"] = _failures_file(scored, redact=options.redact_failures)
    sha256 = {}
    for (folder, suffix), content in contents.items():
        digest = hashlib.sha256(content).hexdigest()
        path = f"{folder}/{_prefix(name, options.run)}-{digest[:HASH_PART]}.{suffix}"
        storage.write_file(FileSystems.join(options.output, path), content)
        sha256[path] = digest
    receipt = receipts.write(_receipt(scored, options.run, sha256), options.output)
    stale = {*sha256, *(_files_of(name, options) if scored.attempts else ())} - set(receipt.sha256)
    with contextlib.suppress(Exception):  # what stays is named by `verify`, and each storage raises its own errors
        for path in (*stale, _attempts_path(name, options.run)):
            folder, _, file = path.rpartition("/")
            storage.delete(FileSystems.join(options.output, folder), [file])
    return receipt


def _files_of(slice_name: str, options: RunOptions) -> Iterator[str]:
    """Yield the paths in the run of all files that attempts of this run have written for a slice."""
    prefix = _prefix(slice_name, options.run) + "-"
    for folder in (PREDICTIONS, FAILURES):
        names = storage.listing(FileSystems.join(options.output, folder))
        yield from (f"{folder}/{name}" for name in names if name.startswith(prefix))


def _prefix(slice_name: str, run: str) -> str:
    return f"{slice_name}.{receipts.run_part(run)}"


def begin_attempt(options: RunOptions, slice_name: str) -> int:
    """Record that an attempt at a slice begins. Return the number of earlier attempts that did not finish."""
    path = FileSystems.join(options.output, _attempts_path(slice_name, options.run))
    earlier = len(storage.read_file(path)) if FileSystems.exists(path) else 0
    storage.write_file(path, b"." * (earlier + 1))
    return earlier


def _attempts_path(slice_name: str, run: str) -> str:
    return f"{ATTEMPTS}/{_prefix(slice_name, run)}"


def _receipt(scored: ScoredSlice, run: str, sha256: dict[str, str]) -> Receipt:
    piece, now = scored.slice, time.time()
    return Receipt(
        **vars(scored.counts),
        run=run,
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
        failures=dict(sorted(Counter(failure.reason for failure in scored.failures).items())),
        runtime=scored.runtime,
        seconds=round(now - scored.started, 3),
        scoring_seconds=round(scored.scoring_seconds, 3),
        finished=now,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        sha256=sha256,
    )


def _predictions_file(predictions: Predictions, options: RunOptions) -> bytes:
    buffer = io.BytesIO()
    rows.write(predictions, options, buffer)
    return buffer.getvalue()


def _failures_file(scored: ScoredSlice, *, redact: bool) -> bytes:
    failures = map(redacted, scored.failures) if redact else scored.failures
    return b"".join(orjson.dumps(failure.row(scored.slice.file.path)) + b"\n" for failure in failures)


def read_slice(receipt: Receipt, output: str) -> list[dict[str, Any]]:
    """Return the rows of a slice's predictions, read back from its file."""
    return read_rows(_predictions_path(receipt, output))


def _predictions_path(receipt: Receipt, output: str) -> str:
    return FileSystems.join(output, next(path for path in receipt.sha256 if path.startswith(PREDICTIONS)))


def read_ids(receipt: Receipt, output: str) -> list[str]:
    """Return the ids in the predictions file of a slice."""
    path = _predictions_path(receipt, output)
    content = storage.read_file(path)
    if path.endswith(".parquet"):
        ids: list[str] = pq.read_table(io.BytesIO(content), columns=["id"])["id"].to_pylist()
        return ids
    return [orjson.loads(line)["id"] for line in content.splitlines()]


def read_rows(path: str) -> list[dict[str, Any]]:
    """Return the rows of a predictions file in either format."""
    content = storage.read_file(path)
    if path.endswith(".parquet"):
        table_rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(content)).to_pylist()
        return table_rows
    return [orjson.loads(line) for line in content.splitlines()]


def rows_by_id(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the id and the row, for each row of a predictions file."""
    for row in read_rows(path):
        yield row["id"], row


def read_failures(receipt: Receipt, output: str) -> list[dict[str, Any]]:
    """Return the rows of a slice's failures file. Its receipt has to count at least one failure."""
    path = next(path for path in receipt.sha256 if path.startswith(FAILURES))
    return [orjson.loads(line) for line in storage.read_file(FileSystems.join(output, path)).splitlines()]


def count_rows(path: str, content: bytes) -> int:
    """Return the number of rows in the content of a predictions or failures file."""
    if path.endswith(".parquet"):
        return int(pq.read_metadata(io.BytesIO(content)).num_rows)
    return content.count(b"\n")


def prediction_paths(output: str, run: str) -> Iterator[str]:
    """Yield the paths of the predictions files that receipts name."""
    for _, receipt in receipts.read_all(output, run):
        if receipt:
            yield _predictions_path(receipt, output)


def unnamed_files(output: str, named: Iterable[str]) -> Iterator[str]:
    """Yield the paths in the run of predictions and failures files that are not among the named ones."""
    known = set(named)
    for folder in (PREDICTIONS, FAILURES):
        for name in sorted(storage.listing(FileSystems.join(output, folder))):
            if f"{folder}/{name}" not in known:
                yield f"{folder}/{name}"
