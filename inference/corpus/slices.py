"""Cuts files into slices and reads one slice.

A slice is a byte range of one file, or of what a compressed file expands to. A line belongs to the slice in which its
first byte lies, so ranges can be cut blindly and each line is still read exactly once.
"""

import hashlib
import posixpath
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np

from inference.corpus.files import CHUNK_BYTES, DAMAGE, InputFile, SourceError, compression_of, read_bytes, split_lines
from inference.corpus.records import MAX_LINE_BYTES, Line

MIB = 1024 * 1024
LARGEST_BYTES, SMALLEST_BYTES = 8 * MIB, MIB // 4
FEWEST = 64  # slices of a corpus that is large enough: progress shows, and a kill costs little
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
NEWLINE = ord("\n")


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
    checksum: int  # CRC-32 of the bytes
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
    checksum: int  # CRC-32 of its bytes: whether it is still what it was
    source_bytes: int  # its share of the file as stored: shares add up to the file's size
    damage: str | None = None  # set on the last readable slice of a truncated or corrupt file

    @property
    def name(self) -> str:
        """Depends on the file's path and the byte range alone, and sorts in input order within a file."""
        digest = hashlib.sha256(self.file.path.encode()).hexdigest()[:8]
        return f"{posixpath.basename(self.file.path)}-{digest}-{self.start:015d}-{self.end:015d}"


def limit_lines(files: Iterable[InputFile], limit: int) -> list[InputFile]:
    """The files that hold the first `limit` lines, the last of them capped."""
    chosen = []
    for file in files:
        if limit == 0:
            break
        present = 0
        try:
            for _ in zip(range(limit), split_lines(read_bytes(file), 0), strict=False):
                present += 1
        except DAMAGE:
            present += 1  # the line that reports the damage
        chosen.append(InputFile(file.path, file.size, max_lines=present))
        limit -= present
    return chosen


def slice_bytes(files: Sequence[InputFile], slice_mb: float | None) -> int:
    """Return the size at which files are cut.

    It depends on the input alone, so that the same command cuts the same slices again.
    """
    if slice_mb:
        return max(int(slice_mb * MIB), 1)
    expanded = sum(file.size * (4 if compression_of(file.path) else 1) for file in files)
    return min(max(expanded // FEWEST, SMALLEST_BYTES), LARGEST_BYTES)


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
    lines, last, checksum = int(start == 0 and end > 0), 0, 0
    # A newline just before the range starts a line in it; one on its last byte starts a line in the next.
    for chunk in read_bytes(file, max(start - 1, 0), end):
        lines += chunk.count(b"\n")
        last = chunk[-1]
        checksum = zlib.crc32(chunk, checksum)
    return [CountedStretch(file, start, end, lines - (last == NEWLINE), checksum, source_bytes=end - start)]


def _count_compressed(stretch: Stretch) -> list[CountedStretch]:
    file, size = stretch.file, stretch.slice_bytes
    lines = Counter({0: 1})  # how many lines begin in each range of `size` bytes
    checksums: Counter[int] = Counter()
    length, last_start, damage = 0, 0, None
    try:
        for chunk in read_bytes(file):
            for place, part in _parts(chunk, length, size):
                checksums[place] = zlib.crc32(part, checksums[place])
            starts = np.flatnonzero(np.frombuffer(chunk, np.uint8) == NEWLINE) + (length + 1)
            lines.update((starts // size).tolist())
            last_start = int(starts[-1]) if len(starts) else last_start
            length += len(chunk)
    except DAMAGE as error:
        damage = f"{str(error).rstrip('.') or type(error).__name__}, at byte {length:,} of the decompressed data"
    if last_start == length or damage:
        lines[last_start // size] -= 1  # nothing begins at the end, or a broken line does
    # A damaged file's last slice is the one in which its broken line begins, and runs to the last readable byte.
    last_byte = max(length - 1, 0)
    count = (min(last_start, last_byte) if damage else last_byte) // size + 1
    bounds = [file.size * min(k * size, length) // max(length, 1) for k in range(count)] + [file.size]
    return [
        CountedStretch(
            file,
            start=k * size,
            end=(k + 1) * size if k < count - 1 else length,
            lines=lines[k],
            checksum=checksums[k],
            source_bytes=bounds[k + 1] - bounds[k],
            damage=damage if k == count - 1 else None,
        )
        for k in range(count)
    ]


def _parts(chunk: bytes, offset: int, size: int) -> Iterator[tuple[int, bytes]]:
    """The chunk's part of each range of `size` bytes, and which range that is."""
    for place in range(offset // size, (offset + len(chunk) - 1) // size + 1):
        yield place, chunk[max(place * size - offset, 0) : (place + 1) * size - offset]


def number(stretches: Iterable[CountedStretch]) -> list[Slice]:
    """All stretches of one file, in any order, to slices with line numbers; those past `max_lines` are left out."""
    slices = []
    first_line = 1
    for s in sorted(stretches, key=lambda stretch: stretch.start):
        allowed = max(s.file.max_lines - first_line + 1, 0) if s.file.max_lines is not None else s.lines + 1
        if allowed or s.start == 0:
            damage = s.damage if allowed > s.lines else None
            lines = min(s.lines, allowed)
            slices.append(Slice(s.file, s.start, s.end, first_line, lines, s.checksum, s.source_bytes, damage))
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
    chunks = read_bytes(piece.file, position, piece.end if piece.damage else None)
    found = (line for line in split_lines(chunks, position) if line[0] >= piece.start)
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


def lines_in(content: bytes) -> Iterator[Line]:
    """All lines of bytes in memory."""
    return _numbered([content])


def all_lines(file: InputFile) -> Iterator[Line]:
    """All lines of a file; a damaged one's last Line says so."""
    last = 0
    try:
        for line in _numbered(read_bytes(file)):
            yield line
            last = line.number
    except DAMAGE as error:
        yield Line(last + 1, b"", ("damaged_file", f"{file.path}: {error}"))


def _numbered(chunks: Iterable[bytes]) -> Iterator[Line]:
    for number, (start, data, size) in enumerate(split_lines(chunks, 0), 1):
        yield _line(number, data.removeprefix(BYTE_ORDER_MARK) if start == 0 else data, size)
