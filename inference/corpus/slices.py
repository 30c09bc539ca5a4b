"""Cuts files into slices and reads one slice.

A slice is a byte range of one file; offsets count decompressed bytes. A line belongs to the slice that holds its first
byte. Files can therefore be cut at any byte, and each line is still read exactly once.
"""

import hashlib
import itertools
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from inference.corpus.files import (
    CHUNK_BYTES,
    DAMAGE_ERRORS,
    InputFile,
    SourceError,
    compression_of,
    read_bytes,
    split_lines,
)
from inference.corpus.records import MAX_LINE_BYTES, Line, Reason

MIB = 1024 * 1024
MIN_SLICE_BYTES, MAX_SLICE_BYTES = MIB // 4, 8 * MIB
MIN_SLICES = 64  # a corpus is cut into this many if it is large enough: progress shows, and a kill costs little
NAME = r"[A-Za-z0-9._-]+-[0-9a-f]{32}-\d{15}-\d{15}"  # pattern of the names of slices
MAX_STEM = 80  # bytes of the file's name in a slice's name: file systems allow 255 for a whole name
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
NEWLINE = ord("\n")


@dataclass(frozen=True)
class ByteRange:
    """A byte range of a file whose lines are not counted yet."""

    file: InputFile
    start: int
    end: int | None  # None for a compressed file, whose length is known only after reading it
    slice_bytes: int  # size at which a compressed file is cut


@dataclass(frozen=True)
class CountedRange:
    """A byte range whose lines are counted; the fields have the same meaning as in Slice."""

    file: InputFile
    start: int
    end: int
    lines: int
    checksum: str
    source_bytes: int
    damage: str | None = None


@dataclass(frozen=True)
class Slice:
    """A byte range that one worker reads, scores and writes whole or not at all."""

    file: InputFile
    start: int  # first byte, in the decompressed file
    end: int  # byte after the last
    first_line: int  # number of the first line that begins in the slice, from 1
    lines: int  # number of lines that begin in the slice, without the broken last line of a damaged file
    checksum: str  # SHA-256 of the bytes of its lines, which shows whether the input has changed
    source_bytes: int  # share of the file's stored bytes; the shares add up to the file's size
    damage: str | None = None  # description of the damage, on the last readable slice of a truncated or corrupt file

    @property
    def name(self) -> str:
        """The slice's name: depends on path and byte range alone, and sorts in input order within a file.

        It holds 128 bits of a hash of the path, so no two paths share a name. It is safe as a part of a file's name.
        """
        digest = hashlib.sha256(self.file.path.encode()).hexdigest()[:32]
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", posixpath.basename(self.file.path))[:MAX_STEM]
        return f"{stem}-{digest}-{self.start:015d}-{self.end:015d}"


def limit_lines(files: Iterable[InputFile], limit: int) -> list[InputFile]:
    """Return the files that hold the first `limit` lines, each with the number of its lines to read."""
    chosen = []
    for file in files:
        if limit == 0:
            break
        lines = 0
        try:
            for _ in zip(range(limit), split_lines(read_bytes(file), 0), strict=False):
                lines += 1
        except DAMAGE_ERRORS:
            lines += 1  # the line that reports the damage
        chosen.append(InputFile(file.path, file.size, max_lines=lines))
        limit -= lines
    return chosen


def slice_bytes(files: Sequence[InputFile], slice_mb: float | None) -> int:
    """Return the slice size in bytes: that of `slice_mb` (MiB), or one that suits the total size of the files.

    The size depends on the input alone, so the same command cuts the same slices again.
    """
    if slice_mb:
        return max(int(slice_mb * MIB), 1)
    expanded = sum(map(_expanded, files))
    return min(max(expanded // MIN_SLICES, MIN_SLICE_BYTES), MAX_SLICE_BYTES)


def expected(files: Sequence[InputFile], slice_bytes: int) -> int:
    """Return about how many slices the files will have, by their sizes alone."""
    return sum(-(-_expanded(file) // slice_bytes) for file in files)


def _expanded(file: InputFile) -> int:
    return file.size * (4 if compression_of(file.path) else 1)  # text in JSON is often compressed to a fourth


def cut(file: InputFile, slice_bytes: int) -> list[ByteRange]:
    """Cut a file into ranges of `slice_bytes` bytes; a compressed file stays one range until its lines are counted."""
    if compression_of(file.path) and file.size:
        return [ByteRange(file, 0, None, slice_bytes)]
    starts = range(0, max(file.size, 1), slice_bytes)
    return [ByteRange(file, start, min(start + slice_bytes, file.size), slice_bytes) for start in starts]


def line_bytes(file: InputFile, start: int, end: int, *, damaged: bool = False) -> Iterator[bytes]:
    """Yield the bytes of the lines that begin from `start` to `end`, in chunks. The last line may end after `end`.

    Args:
        file: The file, compressed or not.
        start: The first byte of the range, in the decompressed file.
        end: The byte after the range.
        damaged: Whether the file cannot be read beyond `end`.

    Raises:
        SourceError: the file cannot be opened, or storage fails below a decompressor.
    """
    position = max(start - 1, 0)  # a newline just before the range starts a line in it
    begun = start == 0
    for chunk in read_bytes(file, position, end if damaged else None):
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


def count_lines(byte_range: ByteRange) -> list[CountedRange]:
    """Count the lines that begin in a range, and cut a compressed file.

    Line numbers come from these counts. Counting needs no parsing, so it is as fast as reading.

    Raises:
        SourceError: the file cannot be opened, or storage fails below a decompressor.
    """
    if byte_range.end is None:
        return _count_compressed(byte_range)
    file, start, end = byte_range.file, byte_range.start, byte_range.end
    lines, last_byte, digest = 0, NEWLINE, hashlib.sha256()
    for chunk in line_bytes(file, start, end):
        lines += chunk.count(b"\n")
        last_byte = chunk[-1] if chunk else last_byte
        digest.update(chunk)
    return [
        CountedRange(file, start, end, lines + (last_byte != NEWLINE), digest.hexdigest(), source_bytes=end - start)
    ]


def _count_compressed(byte_range: ByteRange) -> list[CountedRange]:
    """Read a compressed file once, and count the lines that begin in each range of `slice_bytes` bytes."""
    file, size = byte_range.file, byte_range.slice_bytes
    lines = Counter({0: 1})  # number of lines that begin in each range, by the range's index
    digests: defaultdict[int, Any] = defaultdict(hashlib.sha256)  # of the bytes of these lines
    length, last_start, damage = 0, 0, None
    try:
        for chunk in read_bytes(file):
            starts = np.flatnonzero(np.frombuffer(chunk, np.uint8) == NEWLINE) + (length + 1)
            for index, part in _parts(chunk, length, starts, last_start, size):
                digests[index].update(part)
            lines.update((starts // size).tolist())
            last_start = int(starts[-1]) if len(starts) else last_start
            length += len(chunk)
    except DAMAGE_ERRORS as error:
        damage = f"{str(error).rstrip('.') or type(error).__name__}, at byte {length:,} of the decompressed data"
    if last_start == length or damage:
        lines[last_start // size] -= 1  # no line begins at the end of the file, and a broken line is not counted
    # The last slice of a damaged file holds the start of the broken line, and ends at the last readable byte.
    last_byte = max(length - 1, 0)
    count = (min(last_start, last_byte) if damage else last_byte) // size + 1
    bounds = [file.size * min(k * size, length) // max(length, 1) for k in range(count)] + [file.size]
    return [
        CountedRange(
            file,
            start=k * size,
            end=(k + 1) * size if k < count - 1 else length,
            lines=lines[k],
            checksum=digests[k].hexdigest(),
            source_bytes=bounds[k + 1] - bounds[k],
            damage=damage if k == count - 1 else None,
        )
        for k in range(count)
    ]


def _parts(
    chunk: bytes, offset: int, starts: NDArray[np.int64], last_start: int, size: int
) -> Iterator[tuple[int, bytes]]:
    """Split a chunk at the lines that are the first of a range; yield each range's index with its part.

    The chunk begins at `offset`, in a line that begins at `last_start`. Lines begin in it at `starts`.
    """
    indices, first = np.unique(starts // size, return_index=True)
    bounds = [(last_start // size, 0)]
    bounds += [
        (int(index), int(starts[i]) - offset)
        for index, i in zip(indices, first, strict=True)
        if index > last_start // size
    ]
    for (index, begin), (_, end) in itertools.pairwise([*bounds, (0, len(chunk))]):
        yield index, chunk[begin:end]


def number(ranges: Iterable[CountedRange]) -> list[Slice]:
    """Turn all ranges of one file, in any order, into slices with line numbers; drop those past `max_lines`."""
    slices = []
    first_line = 1
    for r in sorted(ranges, key=lambda counted: counted.start):
        allowed = max(r.file.max_lines - first_line + 1, 0) if r.file.max_lines is not None else r.lines + 1
        if allowed or r.start == 0:
            lines = min(r.lines, allowed)
            slices.append(Slice(r.file, r.start, r.end, first_line, lines, r.checksum, r.source_bytes, r.damage))
        first_line += r.lines
    return slices


def read_lines(piece: Slice) -> Iterator[Line]:
    """Yield the lines that begin in the slice, in order; the last Line of a damaged file reports the damage.

    Raises:
        SourceError: the bytes are not those that were counted. It is raised after the last line.
    """
    last_line = piece.first_line + piece.lines - 1
    digest = hashlib.sha256()

    def chunks() -> Iterator[bytes]:
        for chunk in line_bytes(piece.file, piece.start, piece.end, damaged=piece.damage is not None):
            digest.update(chunk)
            yield chunk

    lines = split_lines(chunks(), piece.start)
    for number, (start, data, size) in zip(range(piece.first_line, last_line + 1), lines, strict=False):
        yield _line(number, data.removeprefix(BYTE_ORDER_MARK) if start == 0 else data, size)
    broken = next(lines, (0, b"", 0))[1]
    for _ in lines:  # all bytes are read, also after --limit, because they all count in the checksum
        pass
    if digest.hexdigest() != piece.checksum:
        raise SourceError(
            f"{piece.file.path}: expected the bytes that were counted when the run began, found others in the lines "
            f"from {piece.first_line:,} on; put the original file back."
        )
    if piece.damage and (piece.file.max_lines is None or last_line < piece.file.max_lines):
        yield Line(last_line + 1, broken, ("damaged_file", f"{piece.file.path}: {piece.damage}"), len(broken))


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


def all_lines(file: InputFile) -> Iterator[Line]:
    """Yield all lines of a file; the last Line of a damaged file reports the damage."""
    last_number = 0
    try:
        for line in _numbered(read_bytes(file)):
            yield line
            last_number = line.number
    except DAMAGE_ERRORS as error:
        yield Line(last_number + 1, b"", ("damaged_file", f"{file.path}: {error}"))


def _numbered(chunks: Iterable[bytes]) -> Iterator[Line]:
    for number, (start, data, size) in enumerate(split_lines(chunks, 0), 1):
        yield _line(number, data.removeprefix(BYTE_ORDER_MARK) if start == 0 else data, size)
