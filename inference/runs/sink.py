"""Writes a slice with its receipt last, and reads the rows of a run.

Only this module knows the files in predictions/, failures/, ids/ and attempts/. The name of a file holds the slice, the
run and a hash of the content. Every file appears complete under its name and is never changed, so retries and races are
harmless: two attempts write the same file or different ones, and the receipt names those that count.
"""

import contextlib
import hashlib
import io
import os
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import IO, Any

import orjson
import pyarrow.parquet as pq

from inference.corpus import storage
from inference.corpus.records import redacted
from inference.runs import receipts, rows
from inference.runs.handler import FinishedSlice, ScoredSlice
from inference.runs.options import RunOptions
from inference.runs.receipts import Receipt
from inference.scoring import tally

PREDICTIONS, FAILURES, IDS, ATTEMPTS = "predictions", "failures", "ids", "attempts"
SPOOLED_BYTES = 64 * 1024 * 1024  # a temporary file that is larger lies on disk
ROWS_AT_ONCE = 256  # rows of Parquet that are in memory as Python objects
ID_BYTES = 8  # bytes of the hash of an id
HASH_PART = 16  # hexadecimal digits of a file's SHA-256 in its name


def write_slice(scored: ScoredSlice, options: RunOptions, require_own: Callable[[], None] = lambda: None) -> Receipt:
    """Write the predictions, the failures if there are any, and the receipt last. Return the receipt that counts.

    If another attempt was faster, its receipt counts, and the files of this attempt are deleted. `require_own` is
    called before the first file and before the receipt. It raises an error if the folder belongs to another run.

    Raises:
        ArithmeticError: a line of the slice is neither predicted, failed nor blank. Then nothing is written.
    """
    predicted, failed = len(scored.predictions), len(scored.failures)
    if predicted + failed + scored.blank != scored.lines:
        raise ArithmeticError(
            f"{scored.slice.name}: {scored.lines} lines, but {predicted} predicted + {failed} failed + "
            f"{scored.blank} blank"
        )
    with _new_file() as predictions, _new_file() as failures:
        rows.write(scored.predictions, options, predictions)
        failures.writelines(_failure_rows(scored, redact=options.redact_failures))
        contents = (predictions, failures, id_hashes(scored.predictions.ids))
        sha256 = _publish(contents, scored.slice.name, options, require_own)
    receipt = receipts.write(_receipt(scored, options.run, sha256), options.output)
    _delete_stale(scored, sha256, receipt, options)
    return receipt


def extend_slice(
    scored: ScoredSlice,
    finished: FinishedSlice,
    options: RunOptions,
    require_own: Callable[[], None] = lambda: None,
) -> Receipt:
    """Add the result of a retry to a finished slice, and replace its receipt. Return the one that counts.

    The old files are deleted after the new receipt is written, so a kill in between loses nothing. If another retry was
    faster, its receipt counts, and the files of this one are deleted. `require_own` is as for `write_slice`.

    Raises:
        ArithmeticError: a line that was retried is neither predicted nor failed. Then nothing is written.
        UserError: a file of the slice is gone or has changed.
    """
    old = finished.receipt
    if len(scored.predictions) + len(scored.failures) != scored.lines or len(finished.places) != old.predicted:
        raise ArithmeticError(f"{old.slice}: {scored.lines} lines were retried, but their results do not add up")
    failed = [(place, orjson.dumps(row) + b"\n") for place, row in finished.failures]
    failed += zip(
        [f.place for f in scored.failures], _failure_rows(scored, redact=options.redact_failures), strict=True
    )
    ids = _content(old, IDS, options.output) + id_hashes(scored.predictions.ids)
    with _new_file() as predictions, _new_file() as failures:
        with _new_file() as added:
            rows.write(scored.predictions, options, added)
            added.seek(0)
            parts = [
                (finished.places, _content(old, PREDICTIONS, options.output)),
                (scored.predictions.places, added.read()),
            ]
        if scored.predictions:
            rows.merge(parts, options.file_format, predictions)
        else:
            predictions.write(parts[0][1])
        failures.writelines(row for _, row in sorted(failed))
        sha256 = _publish((predictions, failures, ids), old.slice, options, require_own)
    reasons = Counter([row["reason"] for _, row in finished.failures] + [failed.reason for failed in scored.failures])
    counts = tally.add([{name: getattr(old, name) for name in vars(scored.counts)}, vars(scored.counts)])
    receipt = replace(
        _receipt(scored, options.run, sha256),
        **counts,
        lines=old.lines,
        predicted=old.predicted + len(scored.predictions),
        failed=reasons.total(),
        blank=old.blank,
        failures=dict(sorted(reasons.items())),
        bytes=old.bytes,
        failed_bytes=old.failed_bytes - scored.bytes + scored.failed_bytes,
        seconds=round(old.seconds + time.time() - scored.started, 3),
        scoring_seconds=round(old.scoring_seconds + scored.scoring_seconds, 3),
    )
    current = receipts.replace_old(old, receipt, options.output, require_own)
    _delete_stale(scored, [*old.sha256, *sha256], current, options)
    return current


def _new_file() -> IO[bytes]:
    """Return a temporary file, which is on disk only if it is large."""
    return tempfile.SpooledTemporaryFile(max_size=SPOOLED_BYTES)


def id_hashes(ids: Iterable[str]) -> bytes:
    """Return a hash of 64 bits for each id, end to end, by which documents with the same id are counted."""
    return b"".join(hashlib.blake2b(identifier.encode(), digest_size=ID_BYTES).digest() for identifier in ids)


def _publish(
    contents: tuple[IO[bytes], IO[bytes], bytes], slice_name: str, options: RunOptions, require_own: Callable[[], None]
) -> dict[str, str]:
    """Give the files of a slice their names; an empty file of failures gets none. Return their SHA-256, by path.

    `contents` holds the predictions, the failures, and the hashes of the ids.
    """
    predictions, failures, ids = contents
    files, sha256 = {}, {}
    for folder, suffix, file in (
        (PREDICTIONS, options.file_format, predictions),
        (FAILURES, "jsonl", failures),
        (IDS, "bin", io.BytesIO(ids)),
    ):
        if folder == FAILURES and not file.tell():
            continue
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # it is a buffered file
        path = f"{folder}/{_prefix(slice_name, options.run)}-{digest[:HASH_PART]}.{suffix}"
        files[path], sha256[path] = file, digest
    require_own()
    for path, file in files.items():
        file.seek(0)
        storage.write_file(storage.join(options.output, path), file)
    require_own()  # an upload may have taken longer than a lease
    return sha256


def _delete_stale(scored: ScoredSlice, written: Iterable[str], receipt: Receipt, options: RunOptions) -> None:
    """Delete the files of a slice that its receipt does not name. What stays is named by `verify`."""
    earlier = _files_of(receipt.slice, options) if scored.attempts else ()
    stale = {*written, *earlier} - set(receipt.sha256)
    for path in (*stale, _attempts_path(receipt.slice, options.run)):
        folder, _, file = path.rpartition("/")
        with contextlib.suppress(Exception):  # each storage raises its own errors
            storage.delete(storage.join(options.output, folder), [file])


def _files_of(slice_name: str, options: RunOptions) -> Iterator[str]:
    """Yield the paths in the run of all files that attempts of this run have written for a slice."""
    prefix = _prefix(slice_name, options.run) + "-"
    for folder in (PREDICTIONS, FAILURES, IDS):
        yield from (f"{folder}/{name}" for name in storage.listing(storage.join(options.output, folder), prefix))


def _prefix(slice_name: str, run: str) -> str:
    return f"{slice_name}.{receipts.run_part(run)}"


def begin_attempt(options: RunOptions, slice_name: str) -> int:
    """Record that an attempt at a slice begins. Return the number of earlier attempts that did not finish."""
    path = storage.join(options.output, _attempts_path(slice_name, options.run))
    earlier = len(storage.read_if_there(path) or b"")
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
        number=piece.number,
        checksum=piece.checksum,
        source_bytes=piece.source_bytes,
        bytes=scored.bytes,
        failed_bytes=scored.failed_bytes,
        lines=scored.lines,
        predicted=len(scored.predictions),
        failed=len(scored.failures),
        blank=scored.blank,
        failures=dict(sorted(Counter(failure.reason for failure in scored.failures).items())),
        runtime=scored.runtime,
        weights=scored.weights,
        seconds=round(now - scored.started, 3),
        scoring_seconds=round(scored.scoring_seconds, 3),
        finished=now,
        worker=f"{socket.gethostname()}:{os.getpid()}",
        sha256=sha256,
    )


def _failure_rows(scored: ScoredSlice, *, redact: bool) -> Iterator[bytes]:
    failures = map(redacted, scored.failures) if redact else scored.failures
    return (orjson.dumps(failure.row()) + b"\n" for failure in failures)


def read_slice(receipt: Receipt, output: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a slice's predictions, read back from its file.

    Raises:
        UserError: the file is gone or has changed.
    """
    yield from rows_of(_path(receipt, PREDICTIONS), _content(receipt, PREDICTIONS, output))


def rows_of(path: str, content: bytes) -> Iterator[dict[str, Any]]:
    """Yield the rows in the content of a file of predictions."""
    if path.endswith(".parquet"):
        for batch in pq.ParquetFile(io.BytesIO(content)).iter_batches(ROWS_AT_ONCE):
            yield from batch.to_pylist()
        return
    for line in io.BytesIO(content):
        yield orjson.loads(line)


def recorded_predictions(receipt: Receipt, output: str) -> tuple[str, str]:
    """Return the path of a slice's predictions, and the SHA-256 that its receipt recorded."""
    return _recorded(receipt, PREDICTIONS, output)[:2]


def read_id_hashes(receipt: Receipt, output: str) -> bytes:
    """Return the hashes of the ids of a slice's predictions, ID_BYTES each.

    Raises:
        UserError: the file is gone or has changed.
    """
    return _content(receipt, IDS, output)


def read_failures(receipt: Receipt, output: str) -> list[dict[str, Any]]:
    """Return the rows of a slice's failures file. Its receipt has to count at least one failure.

    Raises:
        UserError: the file is gone or has changed.
    """
    return [orjson.loads(line) for line in _content(receipt, FAILURES, output).splitlines()]


def _content(receipt: Receipt, folder: str, output: str) -> bytes:
    return storage.read_checked(*_recorded(receipt, folder, output))


def _recorded(receipt: Receipt, folder: str, output: str) -> tuple[str, str, str]:
    """Return the path of a slice's file, its SHA-256, and what to do if the file is not as it was."""
    path = _path(receipt, folder)
    own = receipts.path_of(output, receipt.run, receipt.slice)
    remedy = f"put it back, or delete {own} and repeat the command of the run"
    return storage.join(output, path), receipt.sha256[path], remedy


def _path(receipt: Receipt, folder: str) -> str:
    """Return the path in the run of a slice's file of predictions, failures or ids."""
    return next(path for path in receipt.sha256 if path.startswith(folder))


def count_rows(path: str, content: bytes) -> int:
    """Return the number of rows in the content of a file of predictions, failures or ids."""
    if path.endswith(".bin"):
        return len(content) // ID_BYTES
    if path.endswith(".parquet"):
        return int(pq.read_metadata(io.BytesIO(content)).num_rows)
    return content.count(b"\n")


def unnamed_files(output: str, named: Iterable[str]) -> Iterator[str]:
    """Yield the paths in the run of files of slices that are not among the named ones."""
    known = set(named)
    for folder in (PREDICTIONS, FAILURES, IDS):
        for name in sorted(storage.listing(storage.join(output, folder))):
            if f"{folder}/{name}" not in known:
                yield f"{folder}/{name}"
