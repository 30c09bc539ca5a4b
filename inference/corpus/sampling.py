"""Reads pieces of a corpus that are spread over all of it, in a time that does not grow with the corpus."""

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inference.corpus import counting, parquet_rows, slices
from inference.corpus.counting import Unit
from inference.corpus.csv_rows import HeaderError
from inference.corpus.files import InputFile, compression_of, open_file, read_beginning
from inference.corpus.parquet_rows import LayoutError
from inference.corpus.records import Document, DocumentRecipe, Line, read_documents
from inference.corpus.slices import Part

PIECES = 32  # number of pieces in a sample
FIRST_LOOK = 64 << 10  # bytes of text by which the size of a piece is chosen
LARGEST_PIECE = 4 << 20  # largest size of a piece, in bytes of text
HEAD = 64 << 20  # bytes of text at the start of a compressed file that pieces are taken from


@dataclass(frozen=True)
class Piece:
    """A part of a file that was read."""

    file: str  # path of the file
    text_bytes: int  # size in bytes of text
    lines: list[Line]

    def documents(self, recipe: DocumentRecipe) -> list[Document]:
        """Return the documents in it that can be read."""
        return read_documents(self.lines, self.file, recipe).documents


@dataclass(frozen=True)
class Pieces:
    """Pieces of a corpus, and how much text its compressed files hold."""

    pieces: list[Piece]
    heads: list[tuple[int, int]]  # bytes of text, and the stored bytes that hold them, of files that were expanded
    expand_seconds: float  # time to decompress these files


def read(
    files: Sequence[InputFile], documents: int, fields: Sequence[str] | None = None, head_bytes: int = HEAD
) -> Pieces:
    """Read pieces from the whole corpus that hold about this many lines. They are the same in every call.

    A compressed file can only be read from its start, so its pieces are taken from its first `head_bytes` bytes of
    text. `fields` are those that are needed of Parquet; None for all.

    Raises:
        SourceError: a file cannot be read.
    """
    total = sum(file.size for file in files)
    length = _piece_bytes(_locate(files, total // 2)[0], documents)
    if PIECES * length >= sum(map(slices.text_bytes, files)):
        return _all(files)
    offsets_by_file: dict[InputFile, list[int]] = {}
    chance = random.Random(0)
    for number in range(PIECES):
        file, offset = _locate(files, int(total * (number + chance.random()) / PIECES))
        offsets_by_file.setdefault(file, []).append(offset)
    pieces: list[Piece] = []
    heads: list[tuple[int, int]] = []
    seconds = 0.0
    for file, offsets in offsets_by_file.items():
        if file.format == "parquet":
            found, text_bytes = _pieces_of_rows(file, len(offsets), length, fields)
            pieces += found
            heads.append((text_bytes, file.size))
        elif file.format != "jsonl":
            table, text_bytes = _piece_of_table(file, documents * len(offsets) // PIECES + 1, head_bytes)
            pieces.append(table)
            heads += [(text_bytes, file.size)] if slices.is_packed(file) else []
        elif compression_of(file.path):
            began = time.perf_counter()
            head, stored = read_beginning(file, head_bytes)
            seconds += time.perf_counter() - began
            heads.append((len(head), stored))
            pieces += _pieces_of_head(head, len(offsets), length, file.path, cut=stored < file.size)
        else:
            pieces += _pieces(file, offsets, length)
    return Pieces(pieces, heads, seconds)


def _all(files: Sequence[InputFile]) -> Pieces:
    """Read a whole corpus that is not larger than a sample."""
    began = time.perf_counter()
    pieces, heads = [], []
    for file in files:
        parts = counting.count(Unit((file,)), PIECES * LARGEST_PIECE)
        lines = [line for part in parts for line in slices.read_lines(part)]
        size = sum(line.size + 1 for line in lines) if slices.is_packed(file) else file.size
        pieces.append(Piece(file.path, max(size, 1), lines))
        heads += [(size, file.size)] if slices.is_packed(file) else []
    return Pieces(pieces, heads, time.perf_counter() - began if heads else 0.0)


def _pieces_of_rows(file: InputFile, count: int, length: int, fields: Sequence[str] | None) -> tuple[list[Piece], int]:
    """Read rows of a Parquet file in pieces that are spread over it. Return the bytes of text of the whole file too."""
    try:
        with open_file(file) as stream:
            layout = parquet_rows.layout(stream, file.path)
            row_bytes = max(layout.text_bytes / max(layout.rows, 1), 1)
            step = max(int(length / row_bytes), 1)
            chance, pieces, end = random.Random(0), [], 0
            for number in range(count):
                start = max(int(layout.rows * (number + chance.random()) / count), end)
                end = min(start + step, layout.rows)
                if end > start:
                    lines = list(parquet_rows.read(layout, start, end, fields))
                    pieces.append(Piece(file.path, max(int((end - start) * row_bytes), 1), lines))
            return pieces, layout.text_bytes
    except LayoutError as error:
        return [_unreadable(file, error)], 0


def _unreadable(file: InputFile, error: LayoutError | HeaderError) -> Piece:
    return Piece(file.path, 1, [Line(1, b"", ("damaged_file", error.found))])


def _piece_of_table(file: InputFile, documents: int, head_bytes: int) -> tuple[Piece, int]:
    """Read the first rows of CSV or TSV. Return them, and about how many bytes of text the whole file has."""
    try:
        lines = list(itertools.islice(slices.all_lines(file), documents))
    except HeaderError as error:
        return _unreadable(file, error), file.size
    size = sum(line.size for line in lines)
    if len(lines) < documents:  # this is all of it
        size = size if slices.is_packed(file) else file.size
        return Piece(file.path, max(size, 1), lines), size
    if not slices.is_packed(file):
        return Piece(file.path, max(size, 1), lines), file.size
    head, stored = read_beginning(file, head_bytes)
    return Piece(file.path, max(size, 1), lines), len(head) * file.size // max(stored, 1)


def _piece_bytes(file: InputFile, documents: int) -> int:
    """Return the size of a piece, so that PIECES pieces hold this many lines. The start of one file decides."""
    if file.format != "jsonl":
        return min(max(int(slices.line_length([file]) * documents / PIECES), 1024), LARGEST_PIECE)
    if compression_of(file.path):
        lines = list(slices.lines_in(read_beginning(file, FIRST_LOOK)[0]))
    else:
        lines = list(slices.read_lines(_part(file, 0, min(FIRST_LOOK, file.size))))
    count, size = sum(not line.is_blank for line in lines), sum(line.size + 1 for line in lines)
    return min(max(int(size * documents / max(count, 1) / PIECES), 1024), LARGEST_PIECE)


def _locate(files: Sequence[InputFile], position: int) -> tuple[InputFile, int]:
    """Return the file that holds a position in all stored bytes, and the offset in that file."""
    for file in files:
        if position < file.size:
            return file, position
        position -= file.size
    return files[-1], 0


def _part(file: InputFile, start: int, end: int) -> Part:
    return next(counting.count(Unit((file,), start, end), end - start))


def _pieces(file: InputFile, offsets: Sequence[int], length: int) -> Iterator[Piece]:
    """Read pieces of a plain file, or one piece of the whole file if it is too small for them."""
    starts = [min(offset, file.size - length) for offset in offsets]
    if len(offsets) * length >= file.size or min(starts) < 0:
        starts, length = [0], file.size
    end = 0
    for wished in sorted(starts):
        start = max(wished, end)
        end = min(start + length, file.size)
        if end > start:
            yield Piece(file.path, end - start, list(slices.read_lines(_part(file, start, end))))


def _pieces_of_head(head: bytes, count: int, length: int, path: str, *, cut: bool) -> Iterator[Piece]:
    """Read pieces of the head of a compressed file, or one piece of the whole head if it is too small for them.

    `cut` says that the file goes on after the head, so the last line of the head may be incomplete.
    """
    if cut:
        head = head[: head.rfind(b"\n") + 1]
    if count * length >= len(head):
        yield Piece(path, len(head), list(slices.lines_in(head)))
        return
    end, chance = 0, random.Random(0)
    for number in range(count):
        start = max(_line_start(head, int(len(head) * (number + chance.random()) / count)), end)
        end = max(_line_start(head, min(start + length, len(head))), start)
        if end > start:
            yield Piece(path, end - start, list(slices.lines_in(head[start:end])))


def _line_start(content: bytes, offset: int) -> int:
    """Return the position of the first line that begins at this offset or after it."""
    if offset == 0:
        return 0
    newline = content.find(b"\n", offset - 1)
    return len(content) if newline < 0 else newline + 1
