"""Splits CSV and TSV into rows. A row may hold line breaks in quotes, so a file is read from its start.

Python's csv module decides where rows and cells end. It sees every byte as one character (Latin-1), so that positions
stay those of bytes, whatever the encoding is. Cells are decoded as UTF-8 afterwards.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from inference.corpus.records import MAX_LINE_BYTES, Line, Reason
from models.errors import UserError

SEPARATORS = {"csv": ",", "tsv": "\t"}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class NamesError(UserError):
    """The first row of a file holds no usable names of columns; `found` says what it holds."""

    def __init__(self, path: str, separator: str, found: str) -> None:
        self.found = f"expected distinct names of columns in the first row, separated by {separator!r}, found {found}"
        super().__init__(f"{path}: {self.found}; put the file right, or set --input_format.")


csv.field_size_limit(MAX_LINE_BYTES)  # a quote that never ends takes so much text, and is one failure


@dataclass(frozen=True)
class Row:
    """A row as it lies in the file."""

    start: int  # first byte
    data: bytes  # the row without its line break, or the beginning of a row that is too long
    size: int  # bytes with the line break
    cells: list[str] = field(default_factory=list)  # every byte as one character; none in a blank row
    error: str = ""  # what the csv module says of a faulty row


def split_rows(chunks: Iterable[bytes], start: int, separator: str) -> Iterator[Row]:
    """Yield each row of some bytes that begin with a row, at the position `start` of the file.

    After a fault, such as a quote that never ends, the next row begins at the next line.
    """
    taken: list[bytes] = []

    def lines() -> Iterator[str]:
        for line in _lines(chunks):
            taken.append(line[:MAX_LINE_BYTES])
            sizes.append(len(line))
            yield line.decode("latin-1")

    sizes: list[int] = []
    reader = csv.reader(lines(), delimiter=separator)
    while True:
        error, cells = "", []
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as fault:
            error = str(fault)
        data, size = b"".join(taken), sum(sizes)
        taken.clear()
        sizes.clear()
        yield Row(start, data[:MAX_LINE_BYTES].rstrip(b"\r\n"), size, cells, error)
        start += size


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield each line with its end, as Python reads a text file: a line feed, a carriage return, or both.

    A line that is far too long comes in pieces, so that memory is bounded.
    """
    pending = b""
    for chunk in chunks:
        lines = (pending + chunk).splitlines(keepends=True)
        # A carriage return may be the first half of an end.
        pending = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        yield from lines
        if len(pending) > MAX_LINE_BYTES:
            yield pending
            pending = b""
    if pending:
        yield pending


def columns(rows: Iterator[Row], path: str, separator: str) -> tuple[str, ...]:
    """Take the first row, and return the names of the columns.

    Raises:
        NamesError: there is no first row, or it holds no usable names.
    """
    header = next(rows, None)
    if header is None or header.error or not header.cells:
        raise NamesError(path, separator, (header and header.error) or "none")
    names = _names(header)
    if names is None:
        raise NamesError(path, separator, "bytes that are not UTF-8")
    if "" in names or len(set(names)) < len(names):
        raise NamesError(path, separator, ", ".join(map(repr, names))[:200])
    if len(names) == 1 and any(other in names[0] for other in {*SEPARATORS.values(), ";"} - {separator}):
        raise NamesError(path, separator, f"one column {names[0][:80]!r}, as with another separator")
    return names


def _names(header: Row) -> tuple[str, ...] | None:
    try:
        return tuple(cell.encode("latin-1").removeprefix(BYTE_ORDER_MARK).decode() for cell in header.cells)
    except UnicodeDecodeError:
        return None


def to_line(row: Row, number: int, names: tuple[str, ...]) -> Line:
    """Return a row as a line with its record, or with the reason why it has none."""
    if not row.error and not row.cells:
        return Line(number, b"", size=row.size)
    problem: tuple[Reason, str] | None = None
    record: dict[str, str] = {}
    if row.error or row.size > MAX_LINE_BYTES:  # the module has no other error when it is not strict
        problem = "line_too_long", f"{row.size:,} bytes; at most {MAX_LINE_BYTES:,} are read; a quote may be missing"
    elif len(row.cells) != len(names):
        problem = "wrong_cells", f"expected {len(names):,} cells, found {len(row.cells):,}"
    else:
        try:
            record = {name: cell.encode("latin-1").decode() for name, cell in zip(names, row.cells, strict=True)}
        except UnicodeDecodeError as error:
            problem = "not_utf8", f"byte {error.start} of a cell is not UTF-8"
    return Line(number, row.data, problem, row.size, None if problem else record)
