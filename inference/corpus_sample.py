"""A sample of a corpus: what the whole will hold, with an interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student

from inference import slices
from inference.files import InputFile, compression_of, read_beginning
from inference.records import Document, ReadOptions, read_documents
from inference.slices import Slice, Stretch

PIECES = 32
FIRST_LOOK, LARGEST_PIECE = 64 << 10, 4 << 20  # bytes of text


@dataclass(frozen=True)
class Piece:
    """A stretch of the corpus that was read."""

    stored_bytes: float  # of the file, compressed or not
    lines: int
    documents: list[Document]


@dataclass(frozen=True)
class Estimate:
    """A number for the whole corpus and its 95 % interval."""

    value: float
    low: float
    high: float


def read(files: Sequence[InputFile], options: ReadOptions, documents: int) -> list[Piece]:
    """Pieces at even distances over all stored bytes, with about so many documents together.

    Of a compressed file, which can only be read from its start, a piece is its beginning.
    """
    total = sum(file.size for file in files)
    look = _piece(_place(files, total // 2)[0], 0, FIRST_LOOK, options)
    size = int(FIRST_LOOK * documents / max(look.lines, 1) / PIECES)
    size = min(max(size, 1024), LARGEST_PIECE)
    chosen: dict[tuple[str, int], InputFile] = {}
    for number in range(PIECES):
        file, offset = _place(files, int(total * (number + 0.5) / PIECES))
        chosen[file.path, 0 if compression_of(file.path) else min(offset, max(file.size - size, 0))] = file
    size = min(size * PIECES // len(chosen), LARGEST_PIECE)
    return [_piece(file, start, size, options) for (_, start), file in chosen.items()]


def _place(files: Sequence[InputFile], position: int) -> tuple[InputFile, int]:
    """The file and the offset in it where this byte of all stored bytes lies."""
    for file in files:
        if position < file.size:
            return file, position
        position -= file.size
    return files[-1], 0


def _piece(file: InputFile, start: int, size: int, options: ReadOptions) -> Piece:
    if compression_of(file.path):
        content, stored = read_beginning(file, size)
        body = content[: content.rfind(b"\n") + 1] or content
        read = read_documents(slices.lines_in(body), file.path, options)
        return Piece(stored * len(body) / max(len(content), 1), read.lines, read.documents)
    end = min(start + size, file.size)
    lines = slices.count_lines(Stretch(file, start, end, size))[0].lines
    read = read_documents(slices.read_lines(Slice(file, start, end, 1, lines, end - start)), file.path, options)
    return Piece(end - start, read.lines, read.documents)


def whole(pieces: Sequence[Piece], amounts: Sequence[float], stored_bytes: int) -> Estimate:
    """The amount in the whole corpus from the amount in each piece, in proportion to stored bytes.

    The interval is the ratio estimator's, with Student's t (Cochran, Sampling Techniques, 3rd edition, chapter 6).
    """
    seen = sum(piece.stored_bytes for piece in pieces)
    ratio = sum(amounts) / seen
    value, count = ratio * stored_bytes, len(pieces)
    if seen >= stored_bytes:
        return Estimate(value, value, value)
    if count == 1:
        return Estimate(value, sum(amounts), math.inf)
    variance = sum((a - ratio * p.stored_bytes) ** 2 for a, p in zip(amounts, pieces, strict=True)) / (count - 1)
    spread = float(student.ppf(0.975, count - 1)) * math.sqrt(variance / count) / (seen / count) * stored_bytes
    return Estimate(value, max(value - spread, sum(amounts)), value + spread)
