"""Counts the lines of the input files and cuts the files into slices.

Line numbers come from these counts. Counting needs no parsing, so it is as fast as reading. It decompresses each
compressed file once, and copies its text in pieces, because most of these files cannot be entered in the middle.
"""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from inference.corpus import csv_rows, parquet_rows, storage
from inference.corpus.csv_rows import Dialect, HeaderError
from inference.corpus.files import CHUNK_BYTES, DAMAGE_ERRORS, InputFile, compression_of, open_file, read_bytes, zstd
from inference.corpus.records import MAX_LINE_BYTES
from inference.corpus.slices import MIN_SLICE_BYTES, Part, Slice, after, csv_dialect, line_bytes, text_bytes

MOST_FILES = 1_000  # files that are counted as one unit, or share a slice
TAIL = 16  # near the end of the corpus, a slice holds at most one part in so many of what is left
SMALLEST = 8  # the slices at the end of the corpus are smaller than the others by this factor at most
COPY_LEVEL = 1  # of zstd: copies are written once and read once
NEWLINE = ord("\n")


@dataclass(frozen=True)
class Unit:
    """What one worker counts at a time: a range of a large file, or some whole files."""

    files: tuple[InputFile, ...]
    start: int = 0
    end: int | None = None  # None for whole files


def units(files: Sequence[InputFile], slice_bytes: int) -> Iterator[Unit]:
    """Divide the files into what is counted at a time. Cut large files, unless they are compressed.

    Slices become smaller towards the end of the corpus, so that no worker is left alone with a whole one.
    """
    left = sum(map(text_bytes, files))
    whole: list[InputFile] = []
    size = 0
    for file in files:
        if file.size > slice_bytes and file.format == "jsonl" and not compression_of(file.path):
            start = 0
            while start < file.size:
                end = min(start + _size(left - start, slice_bytes), file.size)
                yield Unit((file,), start, end)
                start = end
        else:
            whole.append(file)
            size += text_bytes(file)
        left -= text_bytes(file)
        if size >= slice_bytes or len(whole) == MOST_FILES:
            yield Unit(tuple(whole))
            whole, size = [], 0
    if whole:
        yield Unit(tuple(whole))


def _size(left: int, slice_bytes: int) -> int:
    """Return the size of a slice from the bytes that are left of the corpus."""
    smallest = min(slice_bytes, max(slice_bytes // SMALLEST, MIN_SLICE_BYTES))
    return min(max(left // TAIL, smallest), slice_bytes)


def count(unit: Unit, slice_bytes: int, copies: str = "") -> Iterator[Part]:
    """Count the lines of each part of a unit. The lines of every file are numbered from 1 on until `join` corrects it.

    Args:
        unit: A range of a file, or some files.
        slice_bytes: The size at which a compressed file is cut.
        copies: The folder for copies of the text of large compressed files; none are made if it is empty.

    Raises:
        SourceError: a file cannot be opened, or storage fails below a decompressor.
    """
    for file in unit.files:
        if unit.end is not None:
            yield _count_range(file, unit.start, unit.end)
        elif file.format == "parquet":
            yield from _count_parquet(file, slice_bytes)
        elif file.size and (compression_of(file.path) or file.format != "jsonl"):
            yield from _count_in_one_pass(file, slice_bytes, copies if compression_of(file.path) else "")
        else:
            yield _count_range(file, 0, file.size)


def _count_range(file: InputFile, start: int, end: int) -> Part:
    part = Part(file, start, end, 1, 0, "", source_bytes=end - start)
    lines, last_byte, digest = 0, NEWLINE, hashlib.sha256()
    for chunk in line_bytes(part):
        lines += chunk.count(b"\n")
        last_byte = chunk[-1] if chunk else last_byte
        digest.update(chunk)
    return replace(part, lines=lines + (last_byte != NEWLINE), checksum=digest.hexdigest())


class _OpenPart:
    """A part of a file that is being read from its start."""

    def __init__(self, start: int, most_bytes: int) -> None:
        self.start = start
        self.size = self.lines = 0
        self._digest = hashlib.sha256()
        self._chunks: list[bytes] | None = [] if most_bytes else None
        self._most_bytes = most_bytes  # a part with a longer line is not copied

    def add(self, chunk: bytes, lines: int) -> None:
        self.size += len(chunk)
        self.lines += lines
        self._digest.update(chunk)
        if self._chunks is not None:
            self._chunks.append(chunk)
            if self.size > self._most_bytes:
                self._chunks = None

    def close(self, file: InputFile, copies: str, damage: str | None = None) -> Part:
        """Return the part, after its text is copied if a folder is given."""
        end = self.start + self.size
        part = Part(file, self.start, end, 1, self.lines, self._digest.hexdigest(), source_bytes=0, damage=damage)
        if not copies or self._chunks is None:
            return part
        content = zstd.compress(b"".join(self._chunks), COPY_LEVEL)
        storage.write_file(storage.join(copies, part.copy), content)
        return replace(part, has_copy=True)


def _count_in_one_pass(file: InputFile, slice_bytes: int, copies: str) -> list[Part]:
    """Read a file once, cut it at line ends, and copy the text of its parts if it is compressed and has several."""
    most_bytes = slice_bytes + MAX_LINE_BYTES + CHUNK_BYTES if copies else 0
    parts: list[Part] = []
    part, damage = _OpenPart(0, most_bytes), None
    chunks = read_bytes(file)
    columns: tuple[str, ...] = ()
    try:
        if file.format == "jsonl":
            pieces = _json_pieces(chunks, slice_bytes)
        else:
            dialect, header, chunks = csv_dialect(file, chunks)
            columns, pieces = dialect.columns, _csv_pieces(chunks, dialect, header, slice_bytes)
        for piece, lines, ends in pieces:
            part.add(piece, lines)
            if ends:
                parts.append(part.close(file, copies))
                part = _OpenPart(parts[-1].end, most_bytes)
    except DAMAGE_ERRORS as error:
        reached = part.start + part.size
        damage = f"{str(error).rstrip('.') or type(error).__name__}, at byte {reached:,} of the decompressed data"
    except HeaderError as error:  # the file counts as damaged, so that others are labelled
        damage = error.found
    if part.size or damage or not parts:
        parts.append(part.close(file, copies if parts else "", damage))
    length = max(parts[-1].end, 1)
    bounds = [file.size * part.start // length for part in parts] + [file.size]
    shares = [end - begin for begin, end in itertools.pairwise(bounds)]
    return [replace(each, source_bytes=share, columns=columns) for each, share in zip(parts, shares, strict=True)]


# A piece of a file, the number of lines that end in it, and whether a part ends with it.
_Piece = tuple[bytes, int, bool]


def _json_pieces(chunks: Iterable[bytes], slice_bytes: int) -> Iterator[_Piece]:
    """Cut chunks at the first line end after every `slice_bytes` bytes. A last line without its end counts too."""
    size, last = 0, b"\n"
    for whole in chunks:
        chunk = whole
        while size + len(chunk) > slice_bytes and (end := chunk.find(b"\n", max(slice_bytes - size - 1, 0)) + 1):
            yield chunk[:end], chunk.count(b"\n", 0, end), True
            size, chunk = 0, chunk[end:]
        yield chunk, chunk.count(b"\n"), False
        size += len(chunk)
        last = whole[-1:] or last
    if last != b"\n":
        yield b"", 1, False


def _csv_pieces(chunks: Iterable[bytes], dialect: Dialect, header: int, slice_bytes: int) -> Iterator[_Piece]:
    """Cut chunks at the first end of a row after every `slice_bytes` bytes. The `header` bytes of names are no row."""
    kept = _Kept(chunks)
    lines, begun = 0, 0
    try:
        for start, _, size in csv_rows.split_rows(after(header, kept), header, dialect):
            lines, end = lines + 1, start + size
            if end - begun >= slice_bytes:
                yield kept.take(end - begun), lines, True
                lines, begun = 0, end
    except DAMAGE_ERRORS:
        yield kept.take(None), lines, False
        raise
    yield kept.take(None), lines, False


class _Kept:
    """Chunks that are handed on and kept until they are taken."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._kept = bytearray()

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._kept += chunk
            yield chunk

    def take(self, size: int | None) -> bytes:
        """Return the first bytes that were kept, or all of them, and forget them."""
        taken = bytes(self._kept[:size])
        del self._kept[:size]
        return taken


def _count_parquet(file: InputFile, slice_bytes: int) -> Iterator[Part]:
    """Cut a Parquet file by what its footer says."""
    try:
        with open_file(file) as stream:
            found = parquet_rows.layout(stream, file.path)
    except parquet_rows.LayoutError as error:  # the file counts as damaged, so that others are labelled
        yield Part(file, 0, 0, 1, 0, "", source_bytes=file.size, damage=error.found)
        return
    row_bytes = max(found.text_bytes // max(found.rows, 1), 1)
    step = max(slice_bytes // row_bytes, 1)
    for start in range(0, max(found.rows, 1), step):
        end = min(start + step, found.rows)
        shares = [file.size * row // max(found.rows, 1) for row in (start, end)]
        yield Part(
            file,
            start,
            end,
            start + 1,
            end - start,
            found.checksum,
            source_bytes=shares[1] - shares[0] if found.rows else file.size,
            row_bytes=row_bytes,
        )


def join(parts: Iterable[Part], files: Sequence[InputFile], slice_bytes: int) -> list[Slice]:
    """Return the slices of the corpus, from the parts of all files in any order.

    Number the lines, leave out what is past `max_lines`, and let small parts that follow each other share a slice.
    """
    by_file: defaultdict[str, list[Part]] = defaultdict(list)
    for part in parts:
        by_file[part.file.path].append(part)
    slices: list[Slice] = []
    together: list[Part] = []
    size = 0
    for part in (part for file in files for part in _numbered(by_file[file.path])):
        length = part.text_bytes
        if together and (size + length > slice_bytes or len(together) == MOST_FILES):
            slices.append(Slice(len(slices), tuple(together)))
            together, size = [], 0
        together.append(part)
        size += length
    return [*slices, Slice(len(slices), tuple(together))] if together else slices


def _numbered(parts: list[Part]) -> Iterator[Part]:
    """Yield the parts of one file with the numbers of their lines; leave out those past `max_lines`."""
    first_line = 1
    for part in sorted(parts, key=lambda part: part.start):
        most = part.file.max_lines
        allowed = part.lines + 1 if most is None else max(most - first_line + 1, 0)
        if allowed or part.start == 0:
            yield replace(part, first_line=first_line, lines=min(part.lines, allowed))
        first_line += part.lines


def count_all(files: Sequence[InputFile], slice_bytes: int, copies: str = "") -> list[Slice]:
    """Return the slices of a corpus, counted on this machine. Hashes are made side by side.

    Raises:
        SourceError: a file cannot be opened, or storage fails below a decompressor.
    """
    with ThreadPoolExecutor() as pool:
        counted = pool.map(lambda unit: list(count(unit, slice_bytes, copies)), units(files, slice_bytes))
        return join((part for parts in counted for part in parts), files, slice_bytes)
