"""Finds the input files, cuts them into slices, and reads one slice.

A slice is a byte range of one file, or of what a compressed file expands to. A line belongs to the slice in which its
first byte lies, so ranges can be cut blindly and each line is still read exactly once.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import posixpath
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, cast

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from inference.records import MAX_LINE_BYTES, Line
from models.errors import UserError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT_SUFFIXES = (".jsonl", ".json", ".ndjson")
DECOMPRESSORS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": zstd.open}
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError, zstd.ZstdError)
CHUNK_BYTES = 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class InputFile:
    """One file of the corpus. `max_lines` caps how many of its lines the run reads (`--limit`)."""

    path: str
    size: int  # bytes as stored
    max_lines: int | None = None


@dataclass(frozen=True)
class Stretch:
    """A byte range not yet numbered. `end` is None for a compressed file, whose length is known after reading it."""

    file: InputFile
    start: int
    end: int | None
    slice_bytes: int


@dataclass(frozen=True)
class CountedStretch:
    """A byte range, how many whole lines begin in it, and its share of the file's stored bytes."""

    file: InputFile
    start: int
    end: int
    lines: int
    source_bytes: int
    damage: str | None = None


@dataclass(frozen=True)
class Slice:
    """What one worker reads, scores and writes whole or not at all. Offsets count decompressed bytes."""

    file: InputFile
    start: int
    end: int
    first_line: int  # number of the first line that begins in the slice, from 1
    lines: int  # how many begin in it, a damaged file's broken last one not counted
    source_bytes: int  # its share of the file as stored: shares add up to the file's size
    damage: str | None = None  # set on the last readable slice of a truncated or corrupt file

    @property
    def name(self) -> str:
        """Depends on the file's path and the byte range alone, and sorts in input order within a file."""
        digest = hashlib.sha256(self.file.path.encode()).hexdigest()[:8]
        return f"{posixpath.basename(self.file.path)}-{digest}-{self.start:015d}-{self.end:015d}"


class SourceError(Exception):
    """The storage failed while a file was read: worth another try, unlike a damaged file."""


def find_files(patterns: Iterable[str]) -> list[InputFile]:
    """The files that the globs match, in order, each once.

    Raises:
        UserError: a glob matches nothing, or a file whose name no reader knows; all of them in one message.
    """
    files: dict[str, InputFile] = {}
    problems = []
    for pattern in patterns:
        try:
            matched = FileSystems.match([pattern])[0].metadata_list
        except Exception as error:  # each storage raises its own kinds
            problems.append(f"--input {pattern}: cannot be listed: {error}")
            continue
        if not matched:
            problems.append(f"--input {pattern}: expected at least one file, found none; check the path and the glob.")
        for found in matched:
            if _is_readable_name(found.path):
                files.setdefault(found.path, InputFile(found.path, found.size_in_bytes))
            else:
                problems.append(
                    f"--input {pattern}: {found.path} is not one of {', '.join(TEXT_SUFFIXES)} "
                    f"(also with {', '.join(DECOMPRESSORS)}); name the JSON lines files alone."
                )
    if problems:
        raise UserError("\n".join(problems))
    return sorted(files.values(), key=lambda file: file.path)


def _is_readable_name(path: str) -> bool:
    stem = path.removesuffix(compression_of(path) or "")
    return stem.endswith(TEXT_SUFFIXES)


def compression_of(path: str) -> str | None:
    """The suffix that names the compression, or None."""
    return next((suffix for suffix in DECOMPRESSORS if path.endswith(suffix)), None)


def limit_lines(files: Iterable[InputFile], limit: int) -> list[InputFile]:
    """The files that hold the first `limit` lines, the last of them capped."""
    chosen = []
    for file in files:
        if limit == 0:
            break
        present = 0
        try:
            for _ in zip(range(limit), _split(_read(file), 0), strict=False):
                present += 1
        except DAMAGE:
            present += 1  # the line that reports the damage
        chosen.append(InputFile(file.path, file.size, max_lines=present))
        limit -= present
    return chosen


def cut(file: InputFile, slice_bytes: int) -> list[Stretch]:
    """Byte ranges of about `slice_bytes`; a compressed file is one stretch until it has been read once."""
    if compression_of(file.path) and file.size:
        return [Stretch(file, 0, None, slice_bytes)]
    starts = range(0, max(file.size, 1), slice_bytes)
    return [Stretch(file, start, min(start + slice_bytes, file.size), slice_bytes) for start in starts]


def count_lines(stretch: Stretch) -> list[CountedStretch]:
    """Counts the lines that begin in a stretch: what gives every line its number, at reading speed."""
    if stretch.end is None:
        return _count_compressed(stretch)
    file, start, end = stretch.file, stretch.start, stretch.end
    lines = int(start == 0 and end > 0)
    # A newline just before the range starts a line in it; one on its last byte starts a line in the next.
    lines += sum(chunk.count(b"\n") for chunk in _read(file, max(start - 1, 0), end - 1))
    return [CountedStretch(file, start, end, lines, source_bytes=end - start)]


def _count_compressed(stretch: Stretch) -> list[CountedStretch]:
    file, size = stretch.file, stretch.slice_bytes
    newlines = [0]  # newlines[k]: those that start a line in range k, that is at offsets k*size-1 .. (k+1)*size-2
    length, line_start, damage = 0, 0, None
    try:
        for chunk in _read(file):
            position = 0
            while position < len(chunk):
                room = len(newlines) * size - 1 - length
                if room <= 0:
                    newlines.append(0)
                    continue
                newlines[-1] += chunk.count(b"\n", position, position + room)
                taken = min(room, len(chunk) - position)
                position += taken
                length += taken
            if b"\n" in chunk:
                line_start = length - len(chunk) + chunk.rindex(b"\n") + 1
    except DAMAGE as error:
        damage = f"{str(error).rstrip('.') or type(error).__name__}, at byte {length:,} of the decompressed data"
    newlines[0] += int(length > 0)
    if length and (line_start == length or damage):
        newlines[-1 if line_start == length else line_start // size] -= 1  # nothing, or a broken line, begins there
    # A damaged file's last slice is the one in which its broken line begins, and runs to the last readable byte.
    count = max(1, -(-length // size)) if damage is None else min(line_start, max(length - 1, 0)) // size + 1
    bounds = [file.size * min(k * size, length) // max(length, 1) for k in range(count)] + [file.size]
    return [
        CountedStretch(
            file,
            start=k * size,
            end=min((k + 1) * size, length) if k < count - 1 else length,
            lines=newlines[k],
            source_bytes=bounds[k + 1] - bounds[k],
            damage=damage if k == count - 1 else None,
        )
        for k in range(count)
    ]


def number(stretches: Iterable[CountedStretch]) -> list[Slice]:
    """All stretches of one file, in any order, to slices with line numbers; those past `max_lines` are left out."""
    slices = []
    first_line = 1
    for s in sorted(stretches, key=lambda stretch: stretch.start):
        allowed = max(s.file.max_lines - first_line + 1, 0) if s.file.max_lines is not None else s.lines + 1
        if allowed or s.start == 0:
            damage = s.damage if allowed > s.lines else None
            lines = min(s.lines, allowed)
            slices.append(Slice(s.file, s.start, s.end, first_line, lines, s.source_bytes, damage))
        first_line += s.lines
    return slices


def read_lines(piece: Slice) -> Iterator[Line]:
    """The lines that begin in the slice, in order; a damaged file's last slice ends with a Line that says so.

    Raises:
        SourceError: the file holds fewer lines than were counted: it changed during the run.
    """
    if not piece.lines and not piece.damage:
        return
    last_line = piece.first_line + piece.lines - 1
    position = max(piece.start - 1, 0)
    chunks = _read(piece.file, position, piece.end if piece.damage else None)
    found = (line for line in _split(chunks, position) if line[0] >= piece.start)
    missing = piece.lines
    for number, (start, data, size) in zip(range(piece.first_line, last_line + 1), found, strict=False):
        yield _line(number, data.removeprefix(BYTE_ORDER_MARK) if start == 0 else data, size)
        missing = last_line - number
    if missing:
        raise SourceError(f"{piece.file.path} has {missing} lines fewer than when the run began: was it replaced?")
    if piece.damage:
        broken = next(found, (0, b"", 0))[1]
        yield Line(last_line + 1, broken, ("damaged_file", f"{piece.file.path}: {piece.damage}"))


def _line(number: int, data: bytes, size: int) -> Line:
    if size > MAX_LINE_BYTES:
        return Line(number, data, ("line_too_long", f"{size:,} bytes; at most {MAX_LINE_BYTES:,} are read"))
    return Line(number, data)


def lines_of(stream: IO[bytes]) -> Iterator[Line]:
    """All lines of an open stream, such as standard input."""
    return _numbered(iter(lambda: stream.read(CHUNK_BYTES), b""))


def all_lines(file: InputFile) -> Iterator[Line]:
    """All lines of a file; a damaged one's last Line says so."""
    last = 0
    try:
        for line in _numbered(_read(file)):
            yield line
            last = line.number
    except DAMAGE as error:
        yield Line(last + 1, b"", ("damaged_file", f"{file.path}: {error}"))


def _numbered(chunks: Iterable[bytes]) -> Iterator[Line]:
    for number, (start, data, size) in enumerate(_split(chunks, 0), 1):
        yield _line(number, data.removeprefix(BYTE_ORDER_MARK) if start == 0 else data, size)


def _split(chunks: Iterable[bytes], offset: int) -> Iterator[tuple[int, bytes, int]]:
    """Lines as (offset, bytes without the newline, length).

    Of a line longer than MAX_LINE_BYTES only the beginning is kept, so that memory stays bounded.
    """
    pending, dropped = b"", 0
    for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for part in whole:
            data = pending + part if not dropped else pending
            size = len(pending) + len(part) + dropped
            yield offset, data, size
            offset += size + 1
            pending, dropped = b"", 0
        if dropped or len(pending) + len(rest) > MAX_LINE_BYTES:
            dropped += len(rest)
        else:
            pending += rest
    if pending or dropped:
        yield offset, pending, len(pending) + dropped


def _read(file: InputFile, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The decompressed bytes from `start` to `end`, or to the end of the file.

    A compressed file is always read from its beginning by the same steps: what a truncated one still gives before it
    raises depends on them, and every pass must see the same bytes. read1 hands those over instead of losing them.
    """
    compressed = compression_of(file.path) is not None
    with open_file(file) as stream:
        position = 0 if compressed else stream.seek(start)
        while end is None or position < end:
            chunk = stream.read1(CHUNK_BYTES if compressed or end is None else min(CHUNK_BYTES, end - position))
            if not chunk:
                return
            if position + len(chunk) > start:
                yield chunk[max(start - position, 0) : None if end is None else end - position]
            position += len(chunk)


@contextmanager
def open_file(file: InputFile) -> Iterator[io.BufferedReader]:
    """Opens a file for reading decompressed bytes, from local disk or gs://."""
    suffix = compression_of(file.path)
    with FileSystems.open(file.path, compression_type=CompressionTypes.UNCOMPRESSED) as raw:
        if suffix is None or file.size == 0:
            yield cast(io.BufferedReader, raw)
        else:
            with DECOMPRESSORS[suffix](_Source(raw)) as expanded:
                yield cast(io.BufferedReader, expanded)


class _Source(io.RawIOBase):
    """Passes reads on; an error of the storage comes out as SourceError, apart from a decompressor's own."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._raw.read(len(buffer))
        except Exception as error:
            raise SourceError(str(error)) from error
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        return int(self._raw.tell())
