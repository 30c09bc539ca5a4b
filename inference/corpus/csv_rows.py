"""Reads CSV and TSV: splits decompressed bytes into rows, and turns a row into a line with its record.

A row ends where Python's csv module ends it in a file that is opened with `newline=""`: at the first line break outside
quotes. A line break is a line feed, a carriage return, or both in this order. A quote has a meaning only at the start
of a cell, and two quotes in a quoted cell stand for one.

There is one exception, because a quote that never closes takes the rest of a file. A row of more than MAX_LINE_BYTES
ends at its next line break, quoted or not. So a file loses about that much to such a quote, and is read on after it.
A smaller row that a missing quote joins from several is a row like any other. Most of these have the wrong number of
cells, and at the end of a file their last cell does not close; both are problems of the line.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from inference.corpus.records import MAX_LINE_BYTES, Line, Reason
from models.errors import UserError

SEPARATORS = {"csv": ",", "tsv": "\t"}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
HEADER_BYTES = 1024 * 1024  # the first row may take no more
_SEPARATORS = ",\t;"  # the usual ones
_LINE_BREAK = (b"\n", b"\r")

# The module's own limit of 128 KiB a cell holds for the whole process; a row has a limit of its own here.
csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))


class HeaderError(UserError):
    """The first row of a file holds no usable names of columns; `found` is the sentence without the file's path."""

    def __init__(self, found: str, path: str = "") -> None:
        self.found = found
        super().__init__(f"{path}: {found}" if path else found)


@dataclass(frozen=True)
class Dialect:
    """What the rows of a file have in common."""

    separator: str  # one ASCII character between two cells
    columns: tuple[str, ...]  # names of the columns, in order


def read_header(beginning: bytes, separator: str) -> tuple[Dialect, int]:
    """Return the names of the columns in the first row, and the number of bytes that this row takes.

    Args:
        beginning: The first HEADER_BYTES bytes of the file, or the whole file if it is smaller.
        separator: The character between two cells.

    Raises:
        HeaderError: the first row holds no usable names. The message does not name the file.
    """
    content = beginning.removeprefix(BYTE_ORDER_MARK)
    _, data, size = next(split_rows([content], 0, Dialect(separator, ())), (0, b"", 0))
    if size == len(content) and len(beginning) >= HEADER_BYTES:
        raise _bad_header(f"a row of more than {HEADER_BYTES:,} bytes", "close its quotes, or add a first row")
    try:
        columns, is_closed = _cells(data.decode(), separator)
    except UnicodeDecodeError:
        raise _bad_header("bytes that are not UTF-8", "convert the file to UTF-8") from None
    if b"\x00" in data:
        raise _bad_header("NUL bytes", "convert the file to UTF-8")
    if not is_closed:
        raise _bad_header("a quote that does not close", "close it")
    if not any(columns):
        raise _bad_header("no names", "add a first row with them")
    if "" in columns:
        raise _bad_header(f"no name for column {columns.index('') + 1:,} of {len(columns):,}", "name it")
    if repeated := next((name for name, times in Counter(columns).items() if times > 1), None):
        raise _bad_header(f"the name {_short(repeated)} more than once", "rename one column")
    if len(columns) == 1 and (other := next((sign for sign in _SEPARATORS if sign in columns[0]), None)):
        raise _bad_header(
            f"one column {_short(columns[0])}", f"separate the cells by {separator!r} instead of {other!r}"
        )
    return Dialect(separator, tuple(columns)), len(beginning) - len(content) + size


def _bad_header(found: str, remedy: str) -> HeaderError:
    return HeaderError(f"expected the names of the columns in the first row, found {found}; {remedy}.")


def _short(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:80]}...")


def split_rows(chunks: Iterable[bytes], offset: int, dialect: Dialect) -> Iterator[tuple[int, bytes, int]]:
    """Yield each row as its offset, its bytes without the final line break, and its size in bytes with it.

    The next row begins at the sum of offset and size. The first chunk begins with a row, at `offset` of the file. A row
    of more than MAX_LINE_BYTES yields only its beginning, which bounds memory to about twice that much and a chunk.
    """
    outside, inside = _patterns(dialect.separator)
    row = bytearray()  # lines that have been read of the row
    size, quoted = 0, False
    for line, length in _lines(chunks):
        if b'"' in line:
            quoted = not (inside if quoted else outside).fullmatch(line)
        size += length
        if not quoted or size > MAX_LINE_BYTES:
            yield offset, _without_break(row + line if row else line)[:MAX_LINE_BYTES], size
            offset += size
            row, size, quoted = bytearray(), 0, False
        else:
            row += line
    if row:
        yield offset, bytes(row), size


@lru_cache
def _patterns(separator: str) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return the patterns of a line after which no quote is open: one that begins outside quotes, and one inside.

    The quantifiers are possessive, so that a match takes linear time and no memory.
    """
    sign = re.escape(separator.encode())
    closing = rb'[^"]*+(?:""[^"]*+)*+"'
    rest = rb"[^%b]*+(?:%b(?:\"%b|(?!\"))[^%b]*+)*+" % (sign, sign, closing, sign)
    return re.compile(rb"(?:\"%b|(?!\"))%b" % (closing, rest)), re.compile(closing + rest)


def _lines(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield each line with its line break, and its size in bytes.

    A line of more than MAX_LINE_BYTES yields a little more than that of its beginning, and its whole size.
    """
    pending = bytearray()  # the beginning of a line
    size = 0  # bytes of it, also of those that are not kept
    carriage = b""  # a carriage return at the end of a chunk, which a line feed may follow
    for chunk in chunks:
        text = carriage + chunk
        carriage = b"\r" if text.endswith(b"\r") else b""
        for line in text.removesuffix(b"\r").splitlines(keepends=True):
            ends = line.endswith(_LINE_BREAK)
            if ends and not size:
                yield line, len(line)
                continue
            if size <= MAX_LINE_BYTES:
                pending += line
            size += len(line)
            if ends:
                yield bytes(pending), size
                pending, size = bytearray(), 0
    if size or carriage:
        yield bytes(pending + carriage), size + len(carriage)


def _without_break(row: bytes | bytearray) -> bytes:
    return bytes(row.removesuffix(b"\n").removesuffix(b"\r"))


def to_line(number: int, data: bytes, size: int, dialect: Dialect) -> Line:
    """Return a row of `split_rows` as a line whose record has a string for every column.

    A row without bytes is a blank line. A row that cannot be used is a line with a problem: `line_too_long`,
    `not_utf8`, `not_csv` or `wrong_cells`.
    """
    if not data and size <= MAX_LINE_BYTES:
        return Line(number, data, size=size)
    problem, cells = _parse(data, size, dialect)
    record = dict(zip(dialect.columns, cells, strict=True)) if problem is None else None
    return Line(number, data, problem, size, record)


def _parse(data: bytes, size: int, dialect: Dialect) -> tuple[tuple[Reason, str] | None, list[str]]:
    """Return what is wrong with a row, and its cells if nothing is."""
    if size > MAX_LINE_BYTES:
        return ("line_too_long", f"{size:,} bytes; at most {MAX_LINE_BYTES:,} are read; a quote may be missing"), []
    try:
        cells, is_closed = _cells(data.decode(), dialect.separator)
    except UnicodeDecodeError as error:
        return ("not_utf8", f"byte {error.start} of the row is not UTF-8"), []
    except csv.Error as error:
        return ("not_csv", str(error)), []
    if b"\x00" in data:
        return ("not_csv", "the row holds NUL bytes; if the file is UTF-16 or UTF-32, convert it to UTF-8"), []
    if not is_closed:
        return ("not_csv", f"the quote that opens cell {len(cells):,} does not close before the file ends"), []
    if len(cells) != len(dialect.columns):
        return ("wrong_cells", f"expected {len(dialect.columns):,} cells, found {len(cells):,}"), []
    return None, cells


def _cells(text: str, separator: str) -> tuple[list[str], bool]:
    """Return the cells of one row, and whether the quotes of the last one close."""
    if '"' not in text:
        return text.split(separator), True
    reader = csv.reader((text, ""), delimiter=separator)
    cells = next(reader, [])
    return cells, reader.line_num == 1  # an open quote makes the reader ask for another line
