"""Defines slices, and reads the lines of one.

A slice holds one or several parts, each a range of a file. In JSON lines, CSV and TSV, a range is one of decompressed
bytes, and a line belongs to the part that holds its first byte. Files of JSON lines can therefore be cut at any byte,
and each line is still read exactly once. In Parquet, a range is one of rows. A row counts as a line everywhere.
"""

import hashlib
import itertools
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

from inference.corpus import csv_rows, parquet_rows, storage
from inference.corpus.csv_rows import BYTE_ORDER_MARK, Dialect, HeaderError
from inference.corpus.files import (
    CHUNK_BYTES,
    DAMAGE_ERRORS,
    InputFile,
    SourceError,
    compression_of,
    open_file,
    read_beginning,
    read_bytes,
    read_stored,
    split_lines,
)
from inference.corpus.records import MAX_LINE_BYTES, DocumentRecipe, Documents, Line, Reason, read_documents

MIB = 1024 * 1024
MIN_SLICE_BYTES, MAX_SLICE_BYTES = MIB // 4, 32 * MIB
USUAL_SLICE_BYTES = 8 * MIB  # where it is not known how fast a machine labels
SMALLEST_SLICE_BYTES = 16 * 1024  # also where a machine takes minutes for it
BEGINNING = 64 * 1024  # bytes of text that show how long lines are
MIN_SLICES = 64  # a corpus is cut into this many if it is large enough: progress shows, and a kill costs little
MAX_STEM = 80  # bytes of a file's name in a slice's name: file systems allow 255 for a whole name
NAME = r"\d{7,}-[A-Za-z0-9._-]{1,80}"  # pattern of the names of slices
COPY = r"[0-9a-f]{32}-\d{15}\.zst"  # pattern of the names of copies


@dataclass(frozen=True)
class Part:
    """A range of one file whose lines are counted."""

    file: InputFile
    start: int  # first byte, in the decompressed file; first row of Parquet, from 0
    end: int  # byte or row after the last
    first_line: int  # number of the first line that begins in the range, from 1
    lines: int  # number of lines that begin in the range, without the broken last line of a damaged file
    checksum: str  # SHA-256 of the bytes of its lines, which shows whether the input has changed; of Parquet's footer
    source_bytes: int  # share of the file's stored bytes; the shares add up to the file's size
    damage: str | None = None  # description of the damage, on the last readable part of a truncated or corrupt file
    has_copy: bool = False  # whether its text was copied, because the file can only be read from its start
    row_bytes: int = 1  # bytes of text for each unit of `start` and `end`, which is above 1 for rows of Parquet
    columns: tuple[str, ...] = ()  # names of the columns of CSV and TSV, as they were when the lines were counted

    @property
    def text_bytes(self) -> int:
        """Return the number of bytes of its text; about as many, for Parquet."""
        return (self.end - self.start) * self.row_bytes

    @property
    def copy(self) -> str:
        """Return the name of the copy of its text."""
        return f"{hashlib.sha256(self.file.path.encode()).hexdigest()[:32]}-{self.start:015d}.zst"


@dataclass(frozen=True)
class Slice:
    """What one worker reads, scores and writes whole or not at all: parts of the corpus that follow each other."""

    number: int  # place in the corpus, from 0
    parts: tuple[Part, ...]

    @property
    def name(self) -> str:
        """The slice's name, which sorts in the order of the input. It is safe as a part of a file's name."""
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", posixpath.basename(self.parts[0].file.path))[:MAX_STEM]
        return f"{self.number:07d}-{stem}"

    @property
    def lines(self) -> int:
        """Return the number of its lines."""
        return sum(part.lines for part in self.parts)

    @property
    def text_bytes(self) -> int:
        """Return the number of bytes of its text."""
        return sum(part.text_bytes for part in self.parts)

    @property
    def source_bytes(self) -> int:
        """Return its share of the stored bytes of the corpus."""
        return sum(part.source_bytes for part in self.parts)

    @property
    def checksum(self) -> str:
        """Return a SHA-256 that stands for the bytes of its lines."""
        if len(self.parts) == 1:
            return self.parts[0].checksum
        return hashlib.sha256("".join(part.checksum for part in self.parts).encode()).hexdigest()


def limit_lines(files: Iterable[InputFile], limit: int) -> list[InputFile]:
    """Return the files that hold the first `limit` lines, each with the number of its lines to read."""
    chosen = []
    for file in files:
        if limit == 0:
            break
        lines = sum(1 for _ in itertools.islice(all_lines(file, ()), limit))
        chosen.append(replace(file, max_lines=lines))
        limit -= lines
    return chosen


def slice_bytes(files: Sequence[InputFile], most_bytes: int = USUAL_SLICE_BYTES) -> int:
    """Return the size of a slice in bytes: at most `most_bytes`, and less if that makes few slices."""
    few = max(sum(map(text_bytes, files)) // MIN_SLICES, MIN_SLICE_BYTES)
    return max(min(few, most_bytes), SMALLEST_SLICE_BYTES)


def line_length(files: Sequence[InputFile]) -> float:
    """Return the mean number of bytes of the first lines of a file in the middle of the corpus; 0 if it is empty.

    Raises:
        SourceError: the file cannot be read.
    """
    file = files[len(files) // 2]
    if file.format == "parquet":
        return _row_length(file)
    content = read_beginning(file, BEGINNING)[0] if compression_of(file.path) else read_stored(file, BEGINNING)
    return len(content) / max(content.count(b"\n"), 1)


def _row_length(file: InputFile) -> float:
    try:
        with open_file(file) as stream:
            found = parquet_rows.layout(stream, file.path)
    except parquet_rows.LayoutError:
        return 0.0
    return found.text_bytes / max(found.rows, 1)


def expected(files: Sequence[InputFile], slice_bytes: int) -> int:
    """Return about how many slices the files will have, by their sizes alone."""
    return max(-(-sum(map(text_bytes, files)) // slice_bytes), 1) if files else 0


def text_bytes(file: InputFile) -> int:
    """Return about how many bytes of text a file holds, by its size alone."""
    return file.size * (4 if is_packed(file) else 1)  # text in JSON is often compressed to a fourth


def is_packed(file: InputFile) -> bool:
    """Return whether a file stores its text in fewer bytes than the text has."""
    return file.format == "parquet" or compression_of(file.path) is not None


def line_bytes(part: Part) -> Iterator[bytes]:
    """Yield the bytes of the lines that begin in a part, in chunks. The last line may end after the part.

    Raises:
        SourceError: the file cannot be opened, or storage fails below a decompressor.
    """
    file, start, end = part.file, part.start, part.end
    position = max(start - 1, 0)  # a newline just before the range starts a line in it
    begun = start == 0
    for chunk in read_bytes(file, position, end if part.damage is not None else None):
        chunk_end = position + len(chunk)
        own = 0
        if not begun:
            newline = chunk.find(b"\n", 0, max(end - 1 - position, 0))
            begun, own = newline >= 0, newline + 1
        if begun:
            last = chunk.find(b"\n", max(end - 1 - position, own)) if chunk_end >= end else -1
            yield chunk[own : last + 1 or None]
            if last >= 0:
                return
        elif chunk_end >= end - 1:
            return
        position = chunk_end


def read_slice(piece: Slice, recipe: DocumentRecipe, copies: str = "") -> Documents:
    """Return the documents and failures of a slice.

    Args:
        piece: The slice.
        recipe: How a record becomes a document.
        copies: The folder with copies of the text of compressed files; they are only read faster than the files.

    Raises:
        SourceError: the bytes are not those that were counted.
    """
    content = Documents()
    for part in piece.parts:
        read_documents(read_lines(part, copies, recipe.fields), part.file.path, recipe, content)
    return content


def read_lines(part: Part, copies: str = "", fields: Sequence[str] | None = None) -> Iterator[Line]:
    """Yield the lines that begin in a part, in order; the last Line of a damaged file reports the damage.

    Args:
        part: The part.
        copies: The folder with copies of the text of compressed files.
        fields: Fields that are needed, which only Parquet heeds; None for all.

    Raises:
        SourceError: the bytes are not those that were counted. For text, it is raised after the last line.
    """
    if part.file.format == "parquet":
        yield from _rows_of_parquet(part, fields)
    elif part.file.format == "jsonl":
        yield from _lines_of_json(part, copies)
    else:
        yield from _rows_of_csv(part, copies)


def _rows_of_parquet(part: Part, fields: Sequence[str] | None) -> Iterator[Line]:
    if part.damage:
        yield from _damaged(part)
        return
    with open_file(part.file) as stream:
        layout = parquet_rows.layout(stream, part.file.path)
        if layout.checksum != part.checksum:
            raise changed(part)
        yield from parquet_rows.read(layout, part.start, part.start + part.lines, fields)


def _rows_of_csv(part: Part, copies: str) -> Iterator[Line]:
    if not part.columns:  # an empty file, or one without names of columns
        yield from _damaged(part)
        return
    digest, copied = hashlib.sha256(), _copied(part, copies)
    chunks = _digested(read_bytes(part.file, part.start, part.end) if copied is None else [copied], digest)
    dialect, header = Dialect(csv_rows.SEPARATORS[part.file.format], part.columns), 0
    if part.start == 0:
        try:
            _, header, chunks = csv_dialect(part.file, chunks)
        except HeaderError:
            raise changed(part) from None
    rows = csv_rows.split_rows(after(header, chunks), part.start + header, dialect)
    for number, (_, data, size) in zip(range(part.first_line, part.first_line + part.lines), rows, strict=False):
        yield csv_rows.to_line(number, data, size, dialect)
    broken = next(rows, (0, b"", 0))[1]
    for _ in rows:  # all bytes are read, also after --limit, because they all count in the checksum
        pass
    if digest.hexdigest() != part.checksum:
        raise changed(part)
    yield from _damaged(part, broken)


def _digested(chunks: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def after(count: int, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield chunks without the first bytes."""
    for chunk in chunks:
        yield chunk[count:]
        count = max(count - len(chunk), 0)


def csv_dialect(file: InputFile, chunks: Iterator[bytes]) -> tuple[Dialect, int, Iterator[bytes]]:
    """Return what the first row of a CSV or TSV file says, how many bytes it takes, and all chunks of the file.

    Raises:
        HeaderError: it holds no usable names of columns.
    """
    beginning = next(chunks, b"")
    try:
        return *csv_rows.read_header(beginning, csv_rows.SEPARATORS[file.format]), itertools.chain([beginning], chunks)
    except HeaderError as error:
        raise HeaderError(error.found, file.path) from None


def changed(part: Part) -> SourceError:
    """Return the error of a part whose bytes are not those that were counted."""
    return SourceError(
        f"{part.file.path}: expected the bytes that were counted when the run began, found others in the lines "
        f"from {part.first_line:,} on; put the original file back."
    )


def _lines_of_json(part: Part, copies: str) -> Iterator[Line]:
    last_line = part.first_line + part.lines - 1
    digest = hashlib.sha256()

    copied = _copied(part, copies)
    lines = split_lines(_digested(line_bytes(part) if copied is None else [copied], digest), part.start)
    for number, (start, data, size) in zip(range(part.first_line, last_line + 1), lines, strict=False):
        yield _line(number, data.removeprefix(BYTE_ORDER_MARK) if start == 0 else data, size)
    broken = next(lines, (0, b"", 0))[1]
    for _ in lines:  # all bytes are read, also after --limit, because they all count in the checksum
        pass
    if digest.hexdigest() != part.checksum:
        raise changed(part)
    yield from _damaged(part, broken)


def _damaged(part: Part, broken: bytes = b"") -> Iterator[Line]:
    """Yield the line that stands for what is lost of a damaged file, unless it is beyond `--limit`."""
    number, most = part.first_line + part.lines, part.file.max_lines
    if part.damage and (most is None or number <= most):
        yield Line(number, broken, ("damaged_file", f"{part.file.path}: {part.damage}"), len(broken))


def _copied(part: Part, copies: str) -> bytes | None:
    """Return the text of a part from its copy, or None if the copy is gone or is not what was counted."""
    if not part.has_copy or not copies:
        return None
    try:
        content = b"".join(read_bytes(InputFile(storage.join(copies, part.copy), 1)))
    except (SourceError, *DAMAGE_ERRORS):
        return None
    return content if hashlib.sha256(content).hexdigest() == part.checksum else None


def _line(number: int, data: bytes, size: int) -> Line:
    if size > MAX_LINE_BYTES:
        reason: Reason = "json_array" if re.match(rb"\s*\[\s*\{", data) else "line_too_long"
        return Line(number, data, (reason, f"{size:,} bytes; at most {MAX_LINE_BYTES:,} are read"), size)
    return Line(number, data, size=size)


def lines_of(stream: IO[bytes]) -> Iterator[Line]:
    """Yield all lines of an open stream, such as standard input."""
    return _numbered(iter(lambda: stream.read(CHUNK_BYTES), b""))


def lines_in(content: bytes) -> Iterator[Line]:
    """Yield all lines of bytes in memory."""
    return _numbered([content])


def all_lines(file: InputFile, fields: Sequence[str] | None = None) -> Iterator[Line]:
    """Yield all lines of a file; the last Line of a damaged file reports the damage. `fields` are as in `read_lines`.

    Raises:
        UserError: the file is no Parquet file, or a CSV file without names of columns.
    """
    last_number = 0
    try:
        for line in _all_lines(file, fields):
            yield line
            last_number = line.number
    except DAMAGE_ERRORS as error:
        yield Line(last_number + 1, b"", ("damaged_file", f"{file.path}: {error}"))


def _all_lines(file: InputFile, fields: Sequence[str] | None) -> Iterator[Line]:
    if file.format == "jsonl" or not file.size:
        yield from _numbered(read_bytes(file))
    elif file.format == "parquet":
        with open_file(file) as stream:
            layout = parquet_rows.layout(stream, file.path)
            yield from parquet_rows.read(layout, 0, layout.rows, fields)
    else:
        dialect, header, chunks = csv_dialect(file, read_bytes(file))
        found = csv_rows.split_rows(after(header, chunks), header, dialect)
        yield from (csv_rows.to_line(number, data, size, dialect) for number, (_, data, size) in enumerate(found, 1))


def _numbered(chunks: Iterable[bytes]) -> Iterator[Line]:
    for number, (start, data, size) in enumerate(split_lines(chunks, 0), 1):
        yield _line(number, data.removeprefix(BYTE_ORDER_MARK) if start == 0 else data, size)
