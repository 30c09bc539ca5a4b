"""Reads Parquet files: the rows of a range, and of each row only the columns that are needed."""

import base64
import datetime
import decimal
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from inference.corpus.records import MAX_LINE_BYTES, Line
from models.errors import UserError

MAGIC = b"PAR1"
TAIL = 8  # bytes at the end of a file: the length of the footer, and the magic number
BATCH_ROWS = 256  # rows that are decoded together, whose texts are in memory
VALUE_ERRORS = (ValueError, OverflowError, TypeError, pa.ArrowException)  # of texts, dates and nested values
DAMAGE = (pa.ArrowException, OSError)  # what a corrupt page raises


class LayoutError(UserError):
    """A file has no readable footer; `found` is the sentence without the file's path."""

    def __init__(self, path: str, found: str) -> None:
        self.found = f"expected a whole Parquet file, found {found}; put it right, or set --input_format."
        super().__init__(f"{path}: {self.found}")


@dataclass(frozen=True)
class Layout:
    """An open file, and what its footer says."""

    path: str
    file: pq.ParquetFile
    rows: int
    text_bytes: int  # bytes of all strings after decompression, about
    checksum: str  # SHA-256 of the footer, which holds sizes, places and statistics of all columns


def layout(stream: BinaryIO, path: str) -> Layout:
    """Open a file and return what its footer says. No row is read.

    Raises:
        LayoutError: the file is cut off, encrypted, damaged, or not Parquet.
    """
    footer = _footer(stream, path)
    file = _open(stream, path)
    metadata = file.metadata
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows:
        raise LayoutError(path, "one whose row groups do not add up")
    size = 0
    for group in range(metadata.num_row_groups):
        parts = metadata.row_group(group)
        chunks = (parts.column(number) for number in range(parts.num_columns))
        size += sum(chunk.total_uncompressed_size for chunk in chunks if chunk.physical_type == "BYTE_ARRAY")
    return Layout(path, file, metadata.num_rows, size, hashlib.sha256(footer).hexdigest())


def _footer(stream: BinaryIO, path: str) -> bytes:
    end = stream.seek(0, 2)
    stream.seek(max(end - TAIL, 0))
    tail = stream.read(TAIL)
    length = int.from_bytes(tail[:4], "little")
    if end < 2 * len(MAGIC) + 4 or not tail.endswith(MAGIC) or length > end - TAIL:
        raise LayoutError(path, "an encrypted one" if tail.endswith(b"PARE") else "one without its end")
    stream.seek(end - TAIL - length)
    return stream.read(length)


def _open(stream: BinaryIO, path: str) -> pq.ParquetFile:
    try:
        stream.seek(0)
        return pq.ParquetFile(stream, page_checksum_verification=True)
    except DAMAGE as error:
        raise LayoutError(path, f"a damaged one: {_short(error)}") from None


def read(layout: Layout, start: int, end: int, fields: Sequence[str] | None) -> Iterator[Line]:
    """Yield a line with its record for each row from `start` to before `end`, from 0. The number of a line is from 1.

    If a page is corrupt, the rows from there to the end of its row group have the problem `damaged_file`. Columns that
    are not in `fields` are not read, unless it is None.
    """
    file = layout.file
    names = [name for name in file.schema_arrow.names if fields is None or name in fields]
    if not names:  # every record is empty, but there are as many as rows
        yield from (Line(number + 1, b"{}", size=0, record={}) for number in range(start, end))
        return
    first = 0
    for group in range(file.metadata.num_row_groups):
        last = first + file.metadata.row_group(group).num_rows
        if first < end and last > start:
            yield from _read_group(file, (group, first), (max(start, first), min(end, last)), names)
        first = last


def _read_group(
    file: pq.ParquetFile, group: tuple[int, int], rows: tuple[int, int], names: Sequence[str]
) -> Iterator[Line]:
    """Yield the lines of some rows of a row group, which is given by its number and its first row."""
    number, position = group
    done, end = rows
    try:
        for batch in file.iter_batches(BATCH_ROWS, [number], columns=names, use_threads=False):
            low, high = max(done - position, 0), min(end - position, batch.num_rows)
            for record in _records(batch.slice(low, high - low)) if low < high else ():
                done += 1
                yield _to_line(done, record, names)
            position += batch.num_rows
        problem = "its row group has fewer rows than the footer says"
    except DAMAGE as error:
        problem = _short(error)
    yield from (Line(row + 1, b"", ("damaged_file", problem)) for row in range(done, end))


def _records(batch: pa.RecordBatch) -> list[dict[str, Any] | Exception]:
    """Return the record of each row, or the error that one of its values raises."""
    try:
        return batch.to_pylist()
    except VALUE_ERRORS as error:
        if batch.num_rows == 1:
            return [error]
        return [record for row in range(batch.num_rows) for record in _records(batch.slice(row, 1))]


def _to_line(number: int, record: dict[str, Any] | Exception, names: Sequence[str]) -> Line:
    """Return a row as a line with its record, or with the reason why a value of it cannot be read."""
    try:
        if isinstance(record, Exception):
            raise record
        portable = {name: _portable(record[name]) for name in names}
        size = len(orjson.dumps(portable))
    except UnicodeDecodeError:
        return Line(number, b"", ("not_utf8", "a string of the row is not UTF-8"))
    except VALUE_ERRORS as error:
        return Line(number, b"", ("not_json", f"a value of the row cannot be written as JSON: {_short(error)}"))
    if size > MAX_LINE_BYTES:
        return Line(number, b"", ("line_too_long", f"{size:,} bytes; at most {MAX_LINE_BYTES:,} are read"), size)
    return Line(number, b"", None, size, portable)


def _portable(value: Any) -> Any:
    """Return a value as JSON can hold it.

    Dates and times become ISO 8601, decimals strings, and bytes text if they are UTF-8 or else Base64.
    """
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, dict):
        return {str(key): _portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    return str(value)  # durations, UUIDs, and what is to come


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")
